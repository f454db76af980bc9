"""Augmentation: `host` changes one PIL image at a time, `device` a batch under jit."""
