"""Pictures of a video evaluation: overlays on the frames, curves over time, convergence, the comparison."""

from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from evaluation.comparison import MethodScore
from utils.drawing import draw_face, draw_rings, draw_text
from utils.metrics import frame_jitter, nme

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
    """NME and jitter of a clip over time.

    Args:
        title: What stands above it.
        predicted: (T, K, 2) landmarks in frame pixels by the name of the method; T at least 2.
        true: (T, K, 2) true landmarks in frame pixels.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    figure.suptitle(title)
    above, below = figure.subplots(2, 1, sharex=True)
    colours = matplotlib.colormaps["Dark2"].colors
    for index, (name, landmarks) in enumerate(predicted.items()):
        # Thinner from line to line, so that those below show where they are the same.
        style = {"color": colours[index % len(colours)], "linewidth": 2.4 / (1 + index)}
        errors, jitter = 100 * nme(landmarks, true), frame_jitter(landmarks, true)
        above.plot(errors, label=f"{name} (mean {errors.mean():.2f})", **style)
        root_mean_square = np.sqrt(np.mean(jitter**2))
        label = f"{name} (root mean square {root_mean_square:.1f})"
        below.plot(np.arange(1, len(true)), jitter, label=label, **style)
    above.set(ylabel="NME %", ylim=(0, None))
    below.set(ylabel="jitter", xlabel="frame", ylim=(0, None))
    for axes in (above, below):
        axes.grid(color="0.9")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small", ncols=len(predicted), loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def convergence_figure(residuals: Mapping[str, np.ndarray], criterion: str) -> Figure:
    """Residual against evaluations: the median over frames, and the band of their middle half.

    Args:
        residuals: (evaluations, frames) by the name of solver and start.
        criterion: "relative" or "absolute", for the axis.
    """
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["Dark2"].colors
    for index, (name, traces) in enumerate(residuals.items()):
        colour, line = colours[index % len(colours)], ("-", "--")[index % 2]
        evaluations = np.arange(1, len(traces) + 1)
        low, middle, high = np.quantile(traces, (0.25, 0.5, 0.75), axis=1)
        label = f"{name} ({traces.shape[1]} frames)"
        axes.plot(evaluations, middle, line, color=colour, marker="o", markersize=3, label=label)
        axes.fill_between(evaluations, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel="evaluations of the cell", ylabel=f"{criterion} residual", yscale="log")
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def comparison_figure(
    scores: Sequence[MethodScore], curves: Mapping[tuple[str, str], np.ndarray], caption: str
) -> Figure:
    """NME against NMJ, a point a method.

    Args:
        scores: The methods.
        curves: By crop and name of a filter the (settings, 2) NME in percent and NMJ of its settings.
        caption: What stands below.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["Dark2"].colors
    for index, score in enumerate(scores):
        # Smaller from point to point, so that those below show where they are the same.
        size, colour = 30 * (len(scores) - index), colours[index % len(colours)]
        axes.scatter(
            score.nme_percent, score.nmj, s=size, color=colour, edgecolors="black", linewidths=0.5, label=score.method
        )
    axes.set(xlabel="NME %", ylabel="NMJ")
    axes.margins(0.15)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.supxlabel(caption, fontsize="x-small", wrap=True)
    return figure
