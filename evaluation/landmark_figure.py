"""The 98 landmarks and their numbers, on a face of the sample.

python -m evaluation.landmark_figure docs/landmarks.png
"""

import sys

import numpy as np
from matplotlib.figure import Figure

from evaluation.settings import SAMPLE
from utils.command_line import given_path, run, script_parser
from utils.files import save_figure
from utils.landmark_groups import LANDMARK_GROUPS
from utils.reading import read_text

COLOURS = {"face": "#0077b6", "brows": "#b07d00", "eyes": "#1a8a2c", "nose": "#7a4fd0", "lips": "#c2185b"}
"""Colours by part, dark enough for white paper."""


FACE = "collins.jpg"


def main() -> None:
    """Write the figure."""
    parser = script_parser(__doc__)
    parser.add_argument("file", type=given_path, help="PNG to write")
    file = parser.parse_args().file
    lines = read_text(SAMPLE / "test.txt").splitlines()
    numbers = next(line for line in lines if line.startswith(f"{FACE} ")).split()[1:]
    save_figure(landmark_figure(np.array(numbers, dtype=float).reshape(-1, 2)), file)


def landmark_figure(points: np.ndarray) -> Figure:
    """The landmarks of a face with their numbers, in colours by part; the legend has the names of the groups.

    Args:
        points: (98, 2) x, y.
    """
    figure = Figure(figsize=(8, 8.6), layout="constrained")
    axes = figure.add_subplot()
    for name, group in LANDMARK_GROUPS.items():
        colour, members = COLOURS[group.part], list(group.points)
        for line in group.lines:
            axes.plot(*points[list(line)].T, color=colour, linewidth=1, alpha=0.5)
        first, last = members[0], members[-1]
        label = f'"{name}" {first}' if first == last else f'"{name}" {first}-{last}'
        axes.plot(*points[members].T, ".", color=colour, markersize=5, label=label)
        for number, away in zip(members, label_directions(name, points), strict=True):
            axes.annotate(
                str(number),
                points[number],
                xytext=8 * away,
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=6.5,
                color=colour,
            )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    figure.suptitle("The 98 landmarks of WFLW. Left and right are the person's.", fontsize="medium")
    axes.set(aspect="equal")
    axes.invert_yaxis()
    axes.set_axis_off()
    return figure


def label_directions(name: str, points: np.ndarray) -> np.ndarray:
    """The unit vectors (P, 2), upwards positive, from the landmarks of a group to their numbers."""
    group = LANDMARK_GROUPS[name]
    members = points[list(group.points)]
    fixed = {"nose_bridge": (1.0, 0.0), "nose_base": (0.0, -1.0), "left_pupil": (1.0, 0.0), "right_pupil": (1.0, 0.0)}
    if name in fixed:
        return np.tile(fixed[name], (len(members), 1))
    # Outwards from the middle of the group; the numbers of the inner lips are inside.
    away = members - (points if group.part == "face" else members).mean(axis=0)
    away = away / np.linalg.norm(away, axis=1, keepdims=True)
    return away * ((-1, 1) if name == "inner_lips" else (1, -1))


if __name__ == "__main__":
    sys.exit(run(main))
