"""Figures of a video evaluation: overlays on the frames, curves over time, convergence, the comparison."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from evaluation.comparison import MethodScore
from utils.drawing import draw_face, draw_rings, draw_text
from utils.geometry import box_overlap
from utils.metrics import frame_jitter, nme

COLOURS = (*matplotlib.color_sequences["Dark2"], *matplotlib.color_sequences["Set1"])

COINCIDE = 0.01
"""Curves that differ by at most this share of the highest value look like one, and are drawn as one."""

LEAST_NME_SPAN, LEAST_NMJ_SPAN = 0.2, 20
"""Smallest range of the axes of the comparison: percent, and 1/100 pixel of a face of 256 x 256 pixels."""

SHORT_NAMES = {"no RwR, ": "", "exponential moving average": "EMA", "Savitzky-Golay": "SG"}
"""Abbreviations in labels."""

LABEL_HEIGHT, LETTER_WIDTH = 0.045, 0.016
"""Size of a line of text in a label, as shares of the axes."""

CLEAR_STEPS = 5
"""How many lines of text a label may be away from its point in order to be clear of the curves."""

TEXT_SHARE = 0.035
"""Height of a line of text, as a share of the frame's height."""


def draw_overlay(
    frame: np.ndarray, predicted: np.ndarray, true: np.ndarray, box: np.ndarray, error: float, jitter: float | None
) -> np.ndarray:
    """Draw landmarks, box and measures on a frame.

    Args:
        frame: (H, W, 3) uint8 BGR; is not changed.
        predicted: (98, 2) x, y in pixels; drawn as the contours of the face.
        true: (98, 2) x, y in pixels; drawn as rings.
        box: (4,) x1, y1, x2, y2 in pixels.
        error: NME of the frame as a fraction.
        jitter: Jitter of the frame, see `utils.metrics.frame_jitter`; None for the first frame.

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
    """NME and jitter of a clip over time. Methods whose curves look alike share a curve, and its name has all of them.

    Args:
        title: Title of the figure.
        predicted: (T, K, 2) landmarks in frame pixels by the name of the method; T at least 2.
        true: (T, K, 2) true landmarks in frame pixels.
    """
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    figure.suptitle(title)
    above, below = figure.subplots(2, 1, sharex=True)
    curves = {
        name: (100 * nme(landmarks, true), frame_jitter(landmarks, true)) for name, landmarks in predicted.items()
    }
    for index, names in enumerate(alike(curves)):
        name, colour = " \u2248 ".join(names), COLOURS[index % len(COLOURS)]
        errors, jitter = curves[names[0]]
        above.plot(errors, color=colour, linewidth=1.4, label=f"{name}: mean {errors.mean():.2f} %")
        label = f"{name}: root mean square {np.sqrt(np.mean(jitter**2)):.0f}"
        below.plot(np.arange(1, len(true)), jitter, color=colour, linewidth=1.4, label=label)
    above.set(ylabel="NME %", ylim=(0, None))
    below.set(ylabel="jitter, 1/100 pixel of\na face of 256 x 256 pixels", xlabel="frame", ylim=(0, None))
    for axes in (above, below):
        _tidy(axes)
        # The legend is above the axes, so that it hides no curve.
        axes.legend(
            frameon=False, fontsize="small", ncols=3, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2
        )
    return figure


def alike(curves: Mapping[str, Sequence[np.ndarray]]) -> list[list[str]]:
    """Group names whose curves differ nowhere by more than `COINCIDE` of the highest value.

    Args:
        curves: For every name the same kinds of curve, each (T,).
    """
    highest = [max(np.abs(curve).max() for curve in of_kind) for of_kind in zip(*curves.values(), strict=True)]
    groups: list[list[str]] = []
    for name, own in curves.items():
        for group in groups:
            others = curves[group[0]]
            pairs = zip(own, others, highest, strict=True)
            # The absolute term is for curves that are zero but for rounding.
            if all(np.allclose(one, other, rtol=0, atol=COINCIDE * most + 1e-6) for one, other, most in pairs):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def convergence_figure(
    residuals: Mapping[str, np.ndarray], criterion: str, title: str, tolerance: float, rwr_evaluations: int
) -> Figure:
    """Residual against evaluations: the median over frames, and the band of their middle half.

    Args:
        residuals: (evaluations, frames) by the name of solver and start, for example "Anderson, cold start".
        criterion: "relative" or "absolute", for the label of the axis.
        title: Title of the figure: weights and data.
        tolerance: Tolerance of the network's own solver, drawn as a line; 0 for none.
        rwr_evaluations: Number of evaluations under RwR, drawn as a line.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for index, (name, traces) in enumerate(residuals.items()):
        # The colour shows the solver, the line style the start.
        colour, line = COLOURS[index // 2 % len(COLOURS)], ("--", "-")[index % 2]
        evaluations = np.arange(1, len(traces) + 1)
        low, middle, high = np.quantile(traces, (0.25, 0.5, 0.75), axis=1)
        axes.plot(evaluations, middle, line, color=colour, marker="o", markersize=3, label=name)
        axes.fill_between(evaluations, low, high, color=colour, alpha=0.12, linewidth=0)
    style: dict[str, Any] = {"color": "0.4", "linewidth": 1, "zorder": 1}
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
    """NME against NMJ, in one plot for every crop: a point for every method, and the curve of every filter.

    A small dot is a setting of a filter. The curve joins the settings that no other setting beats in both numbers.

    Args:
        scores: The methods.
        curves: By crop and name of a filter the (settings, 2) NME in percent and NMJ of its settings.
        title: Title of the figure: weights and data.
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
                style = {"color": _colour_of(short_name(name), names), "alpha": 0.6, "zorder": 1}
                axes.plot(*unbeaten(curve).T, linewidth=1, **style)
                axes.plot(*curve.T, linestyle="none", marker=".", markersize=4, **style)
        for score in (score for score in scores if score.crop == crop):
            name = short_name(score.method)
            place = (score.nme_percent, score.nmj)
            axes.scatter(*place, s=45, color=_colour_of(name, names), edgecolors="black", linewidths=0.5, zorder=3)
        axes.set_xlabel("NME %, lower is better")
        _tidy(axes)
    every[0].set_ylabel("NMJ, 1/100 pixel of a face of 256 x 256 pixels, lower is better")
    points = np.array([(score.nme_percent, score.nmj) for score in scores])
    points = np.concatenate([points, *(unbeaten(curve) for curve in curves.values())])
    every[0].set(xlim=_limits(points[:, 0], LEAST_NME_SPAN), ylim=_limits(points[:, 1], LEAST_NMJ_SPAN))
    for axes, crop in zip(every, crops, strict=True):
        shown = [score for score in scores if score.crop == crop]
        label_points(axes, {short_name(s.method): (s.nme_percent, s.nmj) for s in shown}, names)
    return figure


def short_name(method: str) -> str:
    """The name of a method for a label: a filter without its setting."""
    for long, short in SHORT_NAMES.items():
        method = method.replace(long, short)
    return method.split(" (")[0]


def unbeaten(curve: np.ndarray) -> np.ndarray:
    """Those of the points (N, 2) that no other point beats in both numbers, from the lowest first number on."""
    ordered = curve[np.lexsort(curve.T[::-1])]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(ordered[:, 1])[:-1]])
    return ordered[ordered[:, 1] < best_before]


def label_points(axes: Axes, points: Mapping[str, tuple[float, float]], names: Sequence[str]) -> None:
    """Write the names of points next to them, clear of each other, of the points, and of the curves if possible.

    Args:
        axes: With their final limits.
        points: Places in data coordinates by name.
        names: All names, for the colours.
    """
    to_axes = axes.transData + axes.transAxes.inverted()
    places = {name: to_axes.transform(at) for name, at in points.items()}
    inked = np.concatenate([np.empty((0, 2)), *(to_axes.transform(_along(line.get_xydata())) for line in axes.lines)])
    taken = [np.array([x - 0.015, y - 0.02, x + 0.015, y + 0.02]) for x, y in places.values()]
    labels: list[np.ndarray] = []
    # From top to bottom, so that the lines to labels do not cross.
    for name, (x, y) in sorted(places.items(), key=lambda item: -item[1][1]):
        width = LETTER_WIDTH * len(name)
        spots = [
            (side, x + 0.025 * side, y + down)
            for reach in range(12)
            for down in (reach * LABEL_HEIGHT, -reach * LABEL_HEIGHT)
            for side in (1, -1)
        ]
        boxes = [_label_box(spot, width) for spot in spots]
        within = [index for index, box in enumerate(boxes) if (box[:2] >= 0).all() and (box[2:] <= 1).all()]
        free = [index for index in within if all(box_overlap(boxes[index], one) == 0 for one in taken + labels)]
        leaders = {index: _along(np.array([(x, y), (boxes[index][:2] + boxes[index][2:]) / 2])) for index in free}
        free = [index for index in free if not any(_holds(label, leaders[index]) for label in labels)] or free
        clear = [index for index in free if index < 4 * CLEAR_STEPS and not _holds(boxes[index], inked)]
        chosen = (clear or free or within or [0])[0]
        labels.append(boxes[chosen])
        side, across, middle = spots[chosen]
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            name,
            (x, y),
            (across, middle),
            xycoords="axes fraction",
            textcoords="axes fraction",
            fontsize="small",
            horizontalalignment="left" if side > 0 else "right",
            verticalalignment="center",
            color=_colour_of(name, names),
            arrowprops=line if abs(middle - y) > LABEL_HEIGHT / 2 else None,
        )


def _label_box(spot: tuple[int, float, float], width: float) -> np.ndarray:
    side, across, middle = spot
    left = across if side > 0 else across - width
    return np.array([left, middle - LABEL_HEIGHT / 2, left + width, middle + LABEL_HEIGHT / 2])


def _along(line: ArrayLike) -> np.ndarray:
    """Points along a line (P, 2), close enough that a label between two of them would touch one."""
    ends, shares = np.asarray(line), np.linspace(0, 1, 50)[:, None, None]
    return (ends[:-1] + shares * (ends[1:] - ends[:-1])).reshape(-1, 2)


def _holds(box: np.ndarray, points: np.ndarray) -> bool:
    return bool(((points >= box[:2]) & (points <= box[2:])).all(axis=1).any())


def _colour_of(name: str, names: Sequence[str]) -> Any:
    return COLOURS[names.index(name) % len(COLOURS)]


def _limits(values: np.ndarray, least: float) -> tuple[float, float]:
    """Limits of an axis: a margin around the values, and a range of at least `least`, so that rounding is not seen."""
    span = max(1.4 * (values.max() - values.min()), least)
    middle = (values.max() + values.min()) / 2
    return middle - span / 2, middle + span / 2


def _tidy(axes: Axes) -> None:
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
