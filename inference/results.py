"""The kept results of a network: landmarks in the crop, then in pixels of the frame, and their cost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from models.config import LDEQConfig
from models.ldeq import LDEQOutput
from solvers import Status
from utils.arrays import to_numbers
from utils.drawing import draw_face
from utils.geometry import landmark_box, transform_points
from utils.images import ColourOrder, to_rgb
from utils.landmark_groups import landmark_group
from utils.pictures import Picture, to_bgr
from utils.values import check_value, plain

DECIMALS = 3
"""Decimals of pixel coordinates in files."""

UNSURE = 0.04
"""Relative uncertainty above which landmarks are too uncertain to be those of a face; measured in `FollowingRules`."""


@dataclass(frozen=True, eq=False)
class FrameResults:
    """The network's results for n crops.

    Attributes:
        keypoints: (n, K, 2) float64 x, y in [0, 1] of the crop; NaN if the solve failed.
        uncertainty: (n, K) float64 standard deviation of the heatmaps, in the unit of the keypoints; infinite if the
            solve failed.
        evaluations: (n,) int64 evaluations of the cell, including the final one.
        residual: (n,) float32 residual of the solver; NaN without a solver.
        start_residual: (n,) float32 residual at the start of the solve, under RwR at the warm start; NaN without a
            solver.
        answer_residual: (n,) float32 residual of the iterate z whose f(z) is the answer; NaN if it was not measured:
            without a solver, or if a final evaluation followed those of the solver.
    """

    keypoints: np.ndarray
    uncertainty: np.ndarray
    evaluations: np.ndarray
    residual: np.ndarray
    start_residual: np.ndarray
    answer_residual: np.ndarray

    @property
    def failed(self) -> np.ndarray:
        """(n,) True if the solve of a crop was not finite."""
        return np.isinf(self.uncertainty).any(axis=1)

    def rows(self, rows: Sequence[int] | np.ndarray) -> "FrameResults":
        """Some of the crops, in this order."""
        return FrameResults(*(values[list(rows)] for values in self._fields()))

    @classmethod
    def concatenate(cls, parts: Sequence["FrameResults"]) -> "FrameResults":
        """The parts one after another; at least one part."""
        return cls(*map(np.concatenate, zip(*(part._fields() for part in parts), strict=True)))

    def _fields(self) -> tuple[np.ndarray, ...]:
        residuals = self.residual, self.start_residual, self.answer_residual
        return self.keypoints, self.uncertainty, self.evaluations, *residuals


@dataclass(frozen=True, eq=False, repr=False)
class Face:
    """A face in a picture or in a frame of a video.

    `face["left_eye"]` gives the landmarks (P, 2) of a group, in ascending order of their numbers.
    `utils.landmark_groups` has the names.

    Attributes:
        landmarks: (K, 2) float64 x, y in pixels of the frame; NaN if the solve failed.
        uncertainty: (K,) float64 standard deviation of the heatmaps, sqrt((var x + var y) / 2), in pixels of the frame;
            infinite if the solve failed.
        box: (4,) float64 x1, y1, x2, y2, the box of the crop.
        evaluations: evaluations of the cell, including the final one.
        residual: the solver's, by its criterion (relative by default); NaN for an explicit network.
        number: in a picture the index of its box; in a video from 0 in the order of appearance. A face that comes back
            gets a new number.
        score: score of its last detection, in (0, 1); NaN if the box was given.

    Raises:
        OptionError: If a field has another kind or shape; the message names it.
    """

    landmarks: np.ndarray
    uncertainty: np.ndarray
    box: np.ndarray
    evaluations: int
    residual: float
    number: int = 0
    score: float = float("nan")

    def __post_init__(self) -> None:
        # The class is frozen, so its fields are set like this.
        landmarks = to_numbers("landmarks of a face", self.landmarks, (None, 2))
        # Copies: the caller may change the arrays of a face, and a tracker goes on with its own.
        object.__setattr__(self, "landmarks", landmarks.copy())
        for name, shape in (("uncertainty", (len(landmarks),)), ("box", (4,))):
            object.__setattr__(self, name, to_numbers(f"{name} of a face", getattr(self, name), shape).copy())
        for name in ("evaluations", "number"):
            value = plain(getattr(self, name))
            check_value(f"{name} of a face", value, int)
            object.__setattr__(self, name, value)
        for name in ("residual", "score"):
            object.__setattr__(self, name, float(to_numbers(f"{name} of a face", getattr(self, name), ())))

    @property
    def failed(self) -> bool:
        """True if the solve was not finite, so that there are no landmarks."""
        return not bool(np.isfinite(self.uncertainty).all())

    @property
    def relative_uncertainty(self) -> float:
        """Mean uncertainty, divided by the longer side of the landmarks' tight box; infinite if the solve failed."""
        if self.failed:
            return float("inf")
        box = landmark_box(self.landmarks)
        return float(self.uncertainty.mean() / max(np.max(box[2:] - box[:2]), np.finfo(float).tiny))

    def __getitem__(self, group: str) -> np.ndarray:
        """The landmarks (P, 2) of a group.

        Raises:
            KeyError: If there is no group of this name; the message lists the names.
        """
        return self.landmarks[list(landmark_group(group).points)]

    def plot(self, image: Picture, *, colour: ColourOrder = "bgr") -> Image.Image:
        """Draw the contours of the face on a copy of the picture, dashed if its landmarks are unsure.

        Another face can draw on the result.

        Args:
            image: the picture of the face, see `utils.pictures.to_bgr`.
            colour: order of the channels of an array.

        Raises:
            InputError: If it is not a picture.
        """
        picture = to_bgr(image, colour).copy()
        draw_face(picture, self.landmarks, dashed=self.relative_uncertainty > UNSURE)
        return Image.fromarray(to_rgb(picture, "bgr"))

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON, as `LandmarkWriter` writes them: numbers are rounded, those that are not finite are None."""
        points = np.column_stack([self.landmarks, self.uncertainty])
        return {
            "face": self.number,
            "box": _to_json(self.box),
            "score": _to_json(np.array([self.score]))[0],
            "landmarks": _to_json(points),
            "evaluations": self.evaluations,
            "residual": self.residual if math.isfinite(self.residual) else None,
        }

    def __repr__(self) -> str:
        box = ", ".join(f"{value:.0f}" for value in self.box)
        score = f", score={self.score:.2f}" if math.isfinite(self.score) else ""
        return f"Face(number={self.number}, box=[{box}]{score}, uncertainty={self.uncertainty.mean():.1f} px)"


def _to_json(values: np.ndarray) -> list[Any]:
    """Nested lists of rounded numbers, None for those that are not finite."""
    rounded, finite = values.round(DECIMALS), np.isfinite(values)
    if not finite.all():
        rounded = rounded.astype(object)
        rounded[~finite] = None
    return rounded.tolist()


def to_results(output: LDEQOutput, config: LDEQConfig) -> FrameResults:
    """Copy the output of a network to the host, without heatmaps and states.

    Args:
        output: the output for n crops.
        config: the configuration of the network.
    """
    keypoints = output.keypoints.cpu().double().numpy()
    uncertainty = output.uncertainty.cpu().double().numpy()
    failed = ~(np.isfinite(keypoints).all(axis=(1, 2)) & np.isfinite(uncertainty).all(axis=1))
    unknown = np.full(len(keypoints), np.nan, np.float32)
    residual = start = answer = unknown
    if output.solution is not None:
        residual = output.solution.residual.cpu().float().numpy()
        start = output.solution.trace[0].cpu().float().numpy()
        answer = unknown if _has_final_evaluation(output, config) else residual
        # After a failure the solver returns its start or its last iterate; these are numbers, but not landmarks.
        failed |= output.solution.status.cpu().numpy() == Status.NON_FINITE
    keypoints[failed], uncertainty[failed] = np.nan, np.inf
    return FrameResults(keypoints, uncertainty, count_evaluations(output, config), residual, start, answer)


def _has_final_evaluation(output: LDEQOutput, config: LDEQConfig) -> bool:
    """Whether the cell was evaluated once more after the solver ended."""
    return config.final_evaluation and output.solution is not None and output.solution.f_z is None


def count_evaluations(output: LDEQOutput, config: LDEQConfig) -> np.ndarray:
    """The number of evaluations of the cell for every sample, (n,) int64.

    The final evaluation counts if it was computed; Anderson and Broyden already have its value.

    Args:
        output: the output for n samples, not of a training step.
        config: the configuration of the network.
    """
    if output.solution is None:
        return np.full(len(output.keypoints), config.explicit_depth, np.int64)
    return output.solution.evals.cpu().numpy() + int(_has_final_evaluation(output, config))


def to_frame(results: FrameResults, boxes: np.ndarray, matrices: np.ndarray, numbers: Sequence[int]) -> list[Face]:
    """The faces of n crops, in pixels of their frames.

    Args:
        results: of the n crops.
        boxes: (n, 4) boxes of the crops.
        matrices: (n, 2, 3) from pixels of the frame to the unit of the crop.
        numbers: numbers of the faces.
    """
    return [
        Face(
            landmarks=transform_points(results.keypoints[face], matrices[face], inverse=True),
            uncertainty=results.uncertainty[face] / matrices[face, 0, 0],
            box=boxes[face],
            evaluations=int(results.evaluations[face]),
            residual=float(results.residual[face]),
            number=number,
        )
        for face, number in enumerate(numbers)
    ]
