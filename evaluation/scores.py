"""The predictions of the WFLW benchmark and its three numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from utils.errors import OutputError
from utils.files import cannot_write
from utils.metrics import area_under_curve, failure_rate, nme


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network said about N faces, and the truth in the same frame.

    Attributes:
        keypoints: (N, K, 2) float64 predicted x, y in [0, 1] of the crop.
        landmarks: (N, K, 2) float64 true x, y in the same unit.
        uncertainty: (N, K) standard deviation of the heatmaps in the same unit.
        evaluations: (N,) evaluations of the cell that the solver spent.
        residual: (N,) residual of the solver; NaN without a solver.
        status: (N,) how the solve ended, in words.
    """

    keypoints: np.ndarray
    landmarks: np.ndarray
    uncertainty: np.ndarray
    evaluations: np.ndarray
    residual: np.ndarray
    status: np.ndarray

    @classmethod
    def concatenate(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """All the faces of several predictions, in their order."""
        return cls(**{item.name: np.concatenate([getattr(part, item.name) for part in parts]) for item in fields(cls)})

    def nmes(self, names: Sequence[str]) -> np.ndarray:
        """Normalised mean error of every face: (N,) fractions.

        Args:
            names: N names of the faces, for the message.

        Raises:
            OutputError: If the prediction for a face is not finite.
        """
        finite = np.isfinite(self.keypoints).all(axis=(1, 2))
        if not finite.all():
            raise OutputError(
                f"{np.count_nonzero(~finite)} predictions are not finite, the first for "
                f"{names[np.flatnonzero(~finite)[0]]}; try --precision fp32, else the weights are unfit"
            )
        return nme(self.keypoints, self.landmarks)


@dataclass(frozen=True)
class Score:
    """The three numbers of the WFLW benchmark for one list of faces.

    Attributes:
        nme: Mean normalised mean error in percent; None, as the other two, for an empty list.
        fr: Share in percent of the faces with an error above 0.1.
        auc: Area under the cumulative error curve up to 0.1, in [0, 1].
        count: Number of faces.
    """

    nme: float | None
    fr: float | None
    auc: float | None
    count: int

    @classmethod
    def of(cls, nmes: np.ndarray) -> "Score":
        """Score the errors (N,), fractions."""
        if nmes.size == 0:
            return cls(None, None, None, 0)
        return cls(float(100 * nmes.mean()), 100 * failure_rate(nmes), area_under_curve(nmes), nmes.size)

    def lines(self, split: str) -> str:
        """The lines that the original release prints for a split."""
        head = f"------------ {split} ------------"
        if self.count == 0:
            return f"{head}\nno faces in this subset"
        return f"{head}\nNME %: {self.nme:.6f}\nFR_0.1% : {self.fr:.6f}\nAUC_0.1: {self.auc:.6f}"


def write_predictions(path: Path, predictions: Predictions, **indices: np.ndarray) -> None:
    """Write predictions as .npz, one array per field.

    Args:
        path: File to write.
        predictions: The predictions.
        **indices: Further arrays, for example the names of the images.

    Raises:
        OutputError: If the file cannot be written.
    """
    arrays = {item.name: getattr(predictions, item.name) for item in fields(predictions)}
    try:
        np.savez_compressed(path, **arrays, **indices)
    except OSError as error:
        raise cannot_write(path, error) from error
