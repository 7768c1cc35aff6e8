"""Figures of an evaluation: cumulative error curves, and contact sheets of faces with their landmarks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from utils.metrics import area_under_curve, error_curve

PREDICTED_COLOUR = "#ff2d78"

TRUE_COLOUR = "#2ee6ff"

COLUMNS = 5

PANEL_INCHES = 2.6

LONGEST_LINE = 32
"""Characters of a panel's title that fit above it."""

FEWEST_FACES = 20
"""Fewest faces of a subset with a curve: with fewer, one face is a step of more than 5 %."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One face of a contact sheet.

    Attributes:
        title: Text above it.
        image: (S, S, 3) uint8 RGB crop.
        predicted: (K, 2) x, y in units of the crop's side.
        true: (K, 2) x, y in units of the crop's side.
    """

    title: str
    image: np.ndarray
    predicted: np.ndarray
    true: np.ndarray


def error_curves(nmes: Mapping[str, np.ndarray], title: str, threshold: float = 0.10) -> Figure:
    """Cumulative error curves, one for each list of faces, with their areas in the legend.

    Args:
        nmes: Errors (N,) as fractions by the name of the list, NaN for a face without landmarks. The first list always
            has a curve; the others are its subsets, and have one from `FEWEST_FACES` faces on.
        title: Title of the figure: weights and data.
        threshold: End of the curves.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    colours = matplotlib.color_sequences["Dark2"]
    left_out = []
    for index, (name, of_list) in enumerate(nmes.items()):
        if of_list.size == 0 or (index > 0 and of_list.size < FEWEST_FACES):
            left_out.append(f"{name} ({of_list.size})")
            continue
        # A face without landmarks has an infinite error.
        errors = np.where(np.isnan(of_list), np.inf, of_list)
        # The whole list is the reference for its subsets, so it is drawn black and thick.
        style = {"color": "black", "linewidth": 2.4} if index == 0 else {"color": colours[(index - 1) % len(colours)]}
        label = f"{name}: AUC {area_under_curve(errors, threshold):.3f}, {errors.size} faces"
        x, shares = error_curve(errors, threshold)
        axes.plot(100 * x, 100 * shares, label=label, zorder=3 if index == 0 else 2, **style)
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel="NME %", ylabel="faces with at most this error, %", xlim=(0, 100 * threshold), ylim=(0, 100))
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    # The legend is next to the axes, so that it hides no curve.
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    if left_out:
        text = f"No curve for subsets of fewer than {FEWEST_FACES} faces: {', '.join(left_out)}"
        figure.supxlabel(text, fontsize="x-small", wrap=True)
    return figure


def contact_sheet(groups: Mapping[str, Sequence[Panel]]) -> Figure:
    """Faces with their predicted and true landmarks.

    Args:
        groups: Panels by heading; at least one.
    """
    longest = max(len(panels) for panels in groups.values())
    columns = min(longest, max(COLUMNS, math.isqrt(longest)))
    rows = [-(-len(panels) // columns) for panels in groups.values()]
    heading, legend = 0.35, 0.35
    heights = [PANEL_INCHES * count + heading for count in rows]
    figure = Figure(figsize=(PANEL_INCHES * columns, sum(heights) + legend), layout="constrained")
    parts = figure.subfigures(len(groups) + 1, 1, squeeze=False, height_ratios=[legend, *heights]).ravel()
    _draw_legend(parts[0])
    for part, count, (title, panels) in zip(parts[1:], rows, groups.items(), strict=True):
        part.suptitle(title, fontweight="bold")
        grid = part.subplots(count, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, panel in zip(grid, panels, strict=False):
            draw_panel(axes, panel)
    return figure


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw a face, its true and predicted landmarks, and a line between the two of each."""
    side = panel.image.shape[0]
    predicted, true = side * panel.predicted, side * panel.true
    # A landmark (0, 0) lies in the middle of the first pixel, as `imshow` draws it.
    axes.imshow(panel.image, interpolation="bilinear")
    pairs = np.stack([true, predicted], axis=1)
    axes.add_collection(LineCollection(list(pairs), colors="white", linewidths=0.5, alpha=0.7))
    for points, colour in ((true, TRUE_COLOUR), (predicted, PREDICTED_COLOUR)):
        axes.scatter(points[:, 0], points[:, 1], s=9, color=colour, edgecolors="black", linewidths=0.3)
    axes.set(xlim=(-0.5, side - 0.5), ylim=(side - 0.5, -0.5))
    # The end of a file's name tells more than its beginning.
    lines = [line if len(line) <= LONGEST_LINE else f"…{line[1 - LONGEST_LINE :]}" for line in panel.title.splitlines()]
    axes.set_title("\n".join(lines), fontsize="small", pad=3)


def _draw_legend(part: SubFigure) -> None:
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            color=colour,
            markeredgecolor="black",
            markeredgewidth=0.3,
            label=label,
        )
        for colour, label in ((PREDICTED_COLOUR, "predicted"), (TRUE_COLOUR, "true"))
    ]
    part.legend(handles=handles, ncols=2, loc="center", frameon=False)
