"""What is kept of a network's output: landmarks in the crop, then in pixels of the frame, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.config import LDEQConfig
from models.ldeq import LDEQOutput
from solvers import Status
from utils.geometry import landmark_box, transform_points


@dataclass(frozen=True, eq=False)
class FrameResults:
    """What the network said about n crops.

    Attributes:
        keypoints: (n, K, 2) float64 x, y in [0, 1] of the crop; NaN where the solve failed.
        uncertainty: (n, K) float64 standard deviation of the heatmaps, in the unit of the keypoints; infinite where the
            solve failed.
        evaluations: (n,) int64 evaluations of the cell, the final one included.
        residual: (n,) float32 residual of the solver; NaN without a solver.
    """

    keypoints: np.ndarray
    uncertainty: np.ndarray
    evaluations: np.ndarray
    residual: np.ndarray

    @property
    def failed(self) -> np.ndarray:
        """(n,) whether the solve of a crop was not finite."""
        return np.isinf(self.uncertainty).any(axis=1)

    def rows(self, rows: Sequence[int]) -> "FrameResults":
        """Some of the crops, in this order."""
        return FrameResults(*(values[list(rows)] for values in self._fields()))

    @classmethod
    def concatenate(cls, parts: Sequence["FrameResults"]) -> "FrameResults":
        """One after another; at least one."""
        return cls(*map(np.concatenate, zip(*(part._fields() for part in parts), strict=True)))

    def _fields(self) -> tuple[np.ndarray, ...]:
        return self.keypoints, self.uncertainty, self.evaluations, self.residual


@dataclass(frozen=True, eq=False)
class FaceLandmarks:
    """The landmarks of one face in a frame.

    Attributes:
        landmarks: (K, 2) float64 x, y in pixels of the frame; NaN where the solve failed.
        uncertainty: (K,) float64 standard deviation of the heatmaps, sqrt((var x + var y) / 2), in pixels of the frame;
            infinite where the solve failed.
        box: (4,) float64 x1, y1, x2, y2 that the face was cropped by.
        evaluations: of the cell, the final one included.
        residual: relative residual of the solver's last evaluation; NaN for an explicit network.
    """

    landmarks: np.ndarray
    uncertainty: np.ndarray
    box: np.ndarray
    evaluations: int
    residual: float

    @property
    def failed(self) -> bool:
        """Whether the solve was not finite, so that there are no landmarks."""
        return not bool(np.isfinite(self.uncertainty).all())

    @property
    def relative_uncertainty(self) -> float:
        """Mean uncertainty over the longer side of the tight box of the landmarks; infinite where the solve failed."""
        if self.failed:
            return float("inf")
        box = landmark_box(self.landmarks)
        return float(self.uncertainty.mean() / max(np.max(box[2:] - box[:2]), np.finfo(float).tiny))


def to_results(output: LDEQOutput, config: LDEQConfig) -> FrameResults:
    """Bring the output of a network to the host, without heatmaps and states.

    Args:
        output: of n crops.
        config: of the network that computed it.
    """
    keypoints = output.keypoints.cpu().double().numpy()
    uncertainty = output.uncertainty.cpu().double().numpy()
    failed = ~(np.isfinite(keypoints).all(axis=(1, 2)) & np.isfinite(uncertainty).all(axis=1))
    if output.solution is None:
        residual = np.full(len(keypoints), np.nan, np.float32)
    else:
        residual = output.solution.residual.cpu().float().numpy()
        # The solver then returns where it started or what it last had, which are values, but no landmarks.
        failed |= output.solution.status.cpu().numpy() == Status.NON_FINITE
    keypoints[failed], uncertainty[failed] = np.nan, np.inf
    return FrameResults(keypoints, uncertainty, count_evaluations(output, config), residual)


def count_evaluations(output: LDEQOutput, config: LDEQConfig) -> np.ndarray:
    """How often the cell was evaluated for every sample, (n,) int64.

    The final evaluation counts where it was computed; Anderson and Broyden have its value from their own.

    Args:
        output: of n samples, not of a training step.
        config: of the network that computed it.
    """
    solution = output.solution
    if solution is None:
        return np.full(len(output.keypoints), config.explicit_depth, np.int64)
    return solution.evals.cpu().numpy() + int(config.final_evaluation and solution.f_z is None)


def to_frame(results: FrameResults, boxes: np.ndarray, matrices: np.ndarray) -> list[FaceLandmarks]:
    """The landmarks of n crops in pixels of their frames.

    Args:
        results: of the n crops.
        boxes: (n, 4) that they were cut out by.
        matrices: (n, 2, 3) from pixels of the frame to the unit of the crop.
    """
    return [
        FaceLandmarks(
            landmarks=transform_points(results.keypoints[face], matrices[face], inverse=True),
            uncertainty=results.uncertainty[face] / matrices[face, 0, 0],
            box=boxes[face],
            evaluations=int(results.evaluations[face]),
            residual=float(results.residual[face]),
        )
        for face in range(len(boxes))
    ]
