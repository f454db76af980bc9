"""How matplotlib's figures become files."""

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from train.reporting import records


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG file, at once or not at all. Letters that the font lacks become boxes, without a word on stderr."""
    with warnings.catch_warnings(), records.replacing(path) as partial:
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(partial, dpi=120, format="png")
