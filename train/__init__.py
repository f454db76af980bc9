"""Training: `python -m train --model swin_t`. See docs/training.md."""
