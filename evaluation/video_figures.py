"""Pictures of a video evaluation: overlays on the frames, curves over time, convergence, the comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.comparison import MethodScore
from utils.drawing import draw_face, draw_rings, draw_text
from utils.geometry import box_overlap
from utils.metrics import frame_jitter, nme

COLOURS = (*matplotlib.color_sequences["Dark2"], *matplotlib.color_sequences["Set1"])

COINCIDE = 1e-3
"""Pixels below which landmarks are the same."""

LEAST_NME_SPAN, LEAST_NMJ_SPAN = 0.2, 20
"""Of the axes of the comparison: percent, and 1/100 pixel of a face of 256 x 256 pixels."""

SHORT_NAMES = {"no RwR, ": "", "exponential moving average": "EMA", "Savitzky-Golay": "SG"}
"""In labels, for the names of methods and filters."""

TEXT_SHARE = 0.035
"""Height of a line of text over that of the frame."""


def draw_overlay(
    frame: np.ndarray, predicted: np.ndarray, true: np.ndarray, box: np.ndarray, error: float, jitter: float | None
) -> np.ndarray:
    """Draw landmarks, box and measures on a frame.

    Args:
        frame: (H, W, 3) uint8 BGR; left as it is.
        predicted: (98, 2) x, y in pixels; drawn as the contours of the face.
        true: (98, 2) likewise; drawn as rings.
        box: (4,) x1, y1, x2, y2 in pixels.
        error: NME of the frame as a fraction.
        jitter: Of the frame, see `utils.metrics.frame_jitter`; None for the first.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    picture = frame.copy()
    corners = np.round(box).astype(int).tolist()
    cv2.rectangle(picture, corners[:2], corners[2:], (255, 255, 255))
    draw_rings(picture, true)
    draw_face(picture, predicted)
    lines = (
        f"NME {100 * error:.2f} %  jitter {'-' if jitter is None else format(jitter, '.0f')}",
        "lines: predicted",
        "rings: true",
    )
    height = max(14, round(TEXT_SHARE * frame.shape[0]))
    for number, text in enumerate(lines, start=1):
        draw_text(picture, text, (height // 2, round(1.3 * number * height)), height)
    return picture


def clip_figure(title: str, predicted: Mapping[str, np.ndarray], true: np.ndarray) -> Figure:
    """NME and jitter of a clip over time; methods with the same landmarks share a line, and its name says so.

    Args:
        title: What stands above it.
        predicted: (T, K, 2) landmarks in frame pixels by the name of the method; T at least 2.
        true: (T, K, 2) true landmarks in frame pixels.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    figure.suptitle(title)
    above, below = figure.subplots(2, 1, sharex=True)
    for index, (names, landmarks) in enumerate(without_doubles(predicted)):
        name, colour = " = ".join(names), COLOURS[index % len(COLOURS)]
        errors, jitter = 100 * nme(landmarks, true), frame_jitter(landmarks, true)
        above.plot(errors, color=colour, linewidth=1.4, label=f"{name}: mean {errors.mean():.2f} %")
        label = f"{name}: root mean square {np.sqrt(np.mean(jitter**2)):.0f}"
        below.plot(np.arange(1, len(true)), jitter, color=colour, linewidth=1.4, label=label)
    above.set(ylabel="NME %", ylim=(0, None))
    below.set(ylabel="jitter, 1/100 pixel of\na face of 256 x 256 pixels", xlabel="frame", ylim=(0, None))
    for axes in (above, below):
        _tidy(axes)
        # Above the axes, where no curve goes.
        axes.legend(
            frameon=False, fontsize="small", ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2
        )
    return figure


def without_doubles(predicted: Mapping[str, np.ndarray]) -> list[tuple[list[str], np.ndarray]]:
    """Landmarks that nowhere differ by `COINCIDE` of a pixel, once, under all their names."""
    groups: list[tuple[list[str], np.ndarray]] = []
    for name, landmarks in predicted.items():
        same = next((names for names, other in groups if np.abs(landmarks - other).max() < COINCIDE), None)
        if same is None:
            groups.append(([name], landmarks))
        else:
            same.append(name)
    return groups


def convergence_figure(
    residuals: Mapping[str, np.ndarray], criterion: str, title: str, tolerance: float, rwr_evaluations: int
) -> Figure:
    """Residual against evaluations: the median over frames, and the band of their middle half.

    Args:
        residuals: (evaluations, frames) by the name of solver and start, for example "Anderson, cold start".
        criterion: "relative" or "absolute", for the axis.
        title: What stands above: weights and data.
        tolerance: Of the network's own solver, drawn as a line; 0 for none.
        rwr_evaluations: After so many RwR ends, drawn as a line.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, traces) in enumerate(residuals.items()):
        # A solver has a colour, a start a line.
        colour, line = COLOURS[index // 2 % len(COLOURS)], ("--", "-")[index % 2]
        evaluations = np.arange(1, len(traces) + 1)
        low, middle, high = np.quantile(traces, (0.25, 0.5, 0.75), axis=1)
        axes.plot(evaluations, middle, line, color=colour, marker="o", markersize=3, label=name)
        axes.fill_between(evaluations, low, high, color=colour, alpha=0.12, linewidth=0)
    style = {"color": "0.4", "linewidth": 1, "zorder": 1}
    axes.axvline(rwr_evaluations, linestyle=":", label=f"RwR ends: {rwr_evaluations} evaluations", **style)
    if tolerance > 0:
        axes.axhline(tolerance, linestyle="-.", label=f"tolerance of a full solve: {tolerance:g}", **style)
    axes.set_title(title, fontsize="medium")
    axes.set(xlabel="evaluations of the cell", ylabel=f"{criterion} residual, median and middle half", yscale="log")
    _tidy(axes)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def comparison_figure(
    scores: Sequence[MethodScore], curves: Mapping[tuple[str, str], np.ndarray], title: str
) -> Figure:
    """NME against NMJ, a point a method, and the curve of each filter over its settings; a picture a crop.

    Args:
        scores: The methods.
        curves: By crop and name of a filter the (settings, 2) NME in percent and NMJ of its settings.
        title: What stands above: weights and data.
    """
    crops = list(dict.fromkeys(score.crop for score in scores))
    figure = Figure(figsize=(6.2 * len(crops), 5.2), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    every = figure.subplots(1, len(crops), sharex=True, sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(short_name(score.method) for score in scores))
    for axes, crop in zip(every, crops, strict=True):
        axes.set_title(f"{crop} crops", fontsize="medium")
        for (of_crop, name), curve in curves.items():
            if of_crop == crop:
                axes.plot(*curve.T, color=_colour_of(short_name(name), names), linewidth=1, alpha=0.6, zorder=1)
        for score in (score for score in scores if score.crop == crop):
            name = short_name(score.method)
            place = (score.nme_percent, score.nmj)
            axes.scatter(*place, s=45, color=_colour_of(name, names), edgecolors="black", linewidths=0.5, zorder=3)
        axes.set_xlabel("NME %")
        _tidy(axes)
    every[0].set_ylabel("NMJ, 1/100 pixel of a face of 256 x 256 pixels")
    points = np.array([(score.nme_percent, score.nmj) for score in scores])
    every[0].set(xlim=_limits(points[:, 0], LEAST_NME_SPAN), ylim=_limits(points[:, 1], LEAST_NMJ_SPAN))
    for axes, crop in zip(every, crops, strict=True):
        shown = [score for score in scores if score.crop == crop]
        label_points(axes, {short_name(s.method): (s.nme_percent, s.nmj) for s in shown}, names)
        axes.annotate(
            "better",
            (0.02, 0.02),
            (0.13, 0.13),
            xycoords="axes fraction",
            textcoords="axes fraction",
            color="0.4",
            arrowprops={"arrowstyle": "->", "color": "0.4"},
        )
    return figure


def short_name(method: str) -> str:
    """The name of a method for a label: a filter without its setting."""
    for long, short in SHORT_NAMES.items():
        method = method.replace(long, short)
    return method.split(" (")[0]


def label_points(axes: Axes, points: Mapping[str, tuple[float, float]], names: Sequence[str]) -> None:
    """Write the names of points beside them, where they hide neither each other nor a point.

    Args:
        axes: With their final limits.
        points: Places in data by name.
        names: All names, for the colours.
    """
    places = {name: axes.transAxes.inverted().transform(axes.transData.transform(at)) for name, at in points.items()}
    # In shares of the axes: a line of text, and a letter.
    height, letter = 0.045, 0.016
    taken = [np.array([x - 0.015, y - 0.02, x + 0.015, y + 0.02]) for x, y in places.values()]
    # From top to bottom, so that the lines to labels do not cross.
    for name, (x, y) in sorted(places.items(), key=lambda item: -item[1][1]):
        width = letter * len(name)
        spots = [
            (x + across + (0 if side > 0 else -width), y + down)
            for reach in range(12)
            for down in (reach * height, -reach * height)
            for side, across in ((1, 0.025), (-1, -0.025))
        ]
        boxes = [np.array([left, middle - height / 2, left + width, middle + height / 2]) for left, middle in spots]
        within = [box for box in boxes if (box[:2] >= 0).all() and (box[2:] <= 1).all()]
        free = [box for box in within if all(box_overlap(box, other) == 0 for other in taken)]
        box = (free or within or boxes)[0]
        taken.append(box)
        text = (box[0], (box[1] + box[3]) / 2)
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkB": 3}
        axes.annotate(
            name,
            (x, y),
            text,
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize="small",
            verticalalignment="center",
            color=_colour_of(name, names),
            arrowprops=line if abs(text[1] - y) > height / 2 else None,
        )


def _colour_of(name: str, names: Sequence[str]) -> Any:
    return COLOURS[names.index(name) % len(COLOURS)]


def _limits(values: np.ndarray, least: float) -> tuple[float, float]:
    """Limits of an axis: a margin around the values, and never so near that rounding looks like a difference."""
    span = max(1.4 * (values.max() - values.min()), least)
    middle = (values.max() + values.min()) / 2
    return middle - span / 2, middle + span / 2


def _tidy(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
