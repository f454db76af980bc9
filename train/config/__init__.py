"""The options of a run: what they are, how people give them, and what they are when nobody does."""

from train.config.options import Config

__all__ = ["Config"]
