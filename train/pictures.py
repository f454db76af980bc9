"""Place names for `train.report`'s drawings, until nothing asks for them here."""

from train.report.confusion import draw_confusion
from train.report.curves import draw_curves

__all__ = ["draw_confusion", "draw_curves"]
