"""Curves of metrics.csv and steps.jsonl: a row of them as curves.png, each alone as SVG for report.html."""

import io
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from jaxzoo.images import as_text
from train.reporting.figure import save

BLUE, GRAY, ORANGE = "#2563eb", "#6b7280", "#d97706"
TITLES = {
    **{"lr": "learning rate", "top5": "top 5", "images_per_second": "images/s", "waiting": "time waiting for data"},
    **{"map": "mAP", "map_50": "mAP at IoU 0.5", "segm_map": "mAP of masks", "keypoints_map": "mAP of keypoints"},
    **{
        "nll": "negative log-likelihood, nats",
        "nll_iw": "importance-weighted bound, nats",
        "kl": "KL from the prior, nats",
    },
    **{"error": "squared error of a pixel", "probe_accuracy": "accuracy of a linear probe"},
    **{"denoised_error": "error of denoised images", "noisy_error": "error of noisy images"},
}
FROM_0 = ("lr", "images_per_second", "waiting", "gradient_norm")
# Values so many times as far from the least as nearly all others are cut off: a spike does not flatten a curve.
FAR = 3
# How much a loss may fall before its axis becomes logarithmic, so that late epochs are not a flat line.
STEEP = 20
# In an SVG these stand for what the page decides: matplotlib's colour of text and lines, and of the background.
PAGE = {"#010203": "currentColor", BLUE: "var(--blue)", GRAY: "var(--gray)", ORANGE: "var(--orange)"}


def draw_curves(
    rows: Sequence[Mapping[str, float]], title: str, path: Path, headline: Collection[str] | None = None
) -> None:
    """Each metric of metrics.csv over the epochs, training beside held out (and its averaged weights), and the rate;
    of the metrics those of the headline, all unless given."""
    charts = charts_of(rows, headline)
    across = min(len(charts), 4)
    down = math.ceil(len(charts) / across)
    figure = Figure(figsize=(4.2 * across, 0.3 + 3.1 * down), layout="constrained")
    figure.suptitle(as_text(title), parse_math=False)
    places = figure.subplots(down, across, squeeze=False).ravel()
    for axes, chart in zip(places, charts, strict=False):
        _draw(axes, rows, "epoch", *chart)
    for axes in places[len(charts) :]:
        axes.remove()
    save(figure, path)


def charts_of(
    rows: Sequence[Mapping[str, float]], headline: Collection[str] | None = None
) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """What there is to draw: (title, [(column, colour, label)]) for each held-out metric of the headline, and the
    learning rate."""
    columns = list(rows[0])
    sides = (("train_", GRAY, "training"), ("val_", BLUE, "held out"), ("ema_", ORANGE, "held out, average"))
    charts = []
    metrics = [name.removeprefix("val_") for name in columns if name.startswith("val_")]
    for metric in [name for name in metrics if headline is None or name in headline]:
        lines = [(side + metric, color, label) for side, color, label in sides if side + metric in columns]
        charts.append((TITLES.get(metric, metric), lines))
    return charts + [(TITLES["lr"], [("lr", GRAY, "")])] * ("lr" in columns)


def curves_as_svg(rows: Sequence[Mapping[str, float]], headline: Collection[str] | None = None) -> list[str]:
    """The charts of curves.png, one `<svg>` each, in the colours of the page around them (`PAGE`)."""
    return [_svg(rows, "epoch", *chart) for chart in charts_of(rows, headline)]


def steps_as_svg(lines: Sequence[Mapping[str, Any]], most: int = 400) -> list[str]:
    """Every number of steps.jsonl over the steps, one `<svg>` each; of long runs `most` means of neighbouring lines."""
    names = dict.fromkeys(name for row in lines for name in row if name not in ("step", "epoch"))
    width = math.ceil(len(lines) / most) or 1
    charts = []
    for name in names:
        known = [(row["step"], row[name]) for row in lines if isinstance(row.get(name), int | float)]
        parts = [known[i : i + width] for i in range(0, len(known), width)]
        points = [{"step": part[-1][0], name: sum(value for _, value in part) / len(part)} for part in parts]
        if len(points) > 1:
            title = TITLES.get(name, name.replace("_", " "))
            charts.append(_svg(points, "step", title, [(name, GRAY if name in FROM_0 else BLUE, "")]))
    return charts


def _svg(rows: Sequence[Mapping[str, float]], over: str, title: str, lines: list[tuple[str, str, str]]) -> str:
    ink = next(iter(PAGE))
    settings = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
        "svg.fonttype": "none",  # text stays text
        "svg.hashsalt": title,  # the same names every time, and others for every chart
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.2, 2.9))
        _draw(figure.add_axes((0.13, 0.15, 0.81, 0.74)), rows, over, title, lines, background="none")
        figure.patch.set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for color, ours in PAGE.items():
        svg = svg.replace(color, ours)
    return svg


def _draw(
    axes: Axes,
    rows: Sequence[Mapping[str, float]],
    over: str,
    title: str,
    lines: list[tuple[str, str, str]],
    background: str = "white",
) -> None:
    for column, color, label in lines:
        marker = "." if len(rows) < 40 else None
        axes.plot(
            [row[over] for row in rows],
            [row[column] for row in rows],
            color=color,
            label=label,
            marker=marker,
            linewidth=1.5 if len(rows) < 100 else 1,
        )
    axes.set_title(title, fontsize=11, parse_math=False)
    axes.set_xlabel(over)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(alpha=0.3, color=GRAY, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_facecolor(background)
    values = [row[column] for row in rows for column, _, _ in lines if math.isfinite(row[column])]
    if "loss" in title and values and 0 < STEEP * min(values) < max(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        axes.ticklabel_format(axis="y", scilimits=(-2, 5))  # a learning rate's zeros would not fit
        if lines[0][0] in FROM_0:
            axes.set_ylim(bottom=0)
        usual = np.quantile(values, 0.98) - min(values) if len(values) >= 20 else 0
        if 0 < FAR * usual < max(values) - min(values):
            axes.set_ylim(top=min(values) + 1.2 * usual)
    if len(lines) > 1:
        axes.legend(frameon=False, fontsize=9)
