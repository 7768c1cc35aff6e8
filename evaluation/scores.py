"""The predictions of the WFLW benchmark and its three numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from utils.files import write_arrays
from utils.metrics import area_under_curve, failure_rate, nme

UNITS = {
    "nme": "percent of the distance of the outer eye corners",
    "median_nme": "percent of the distance of the outer eye corners",
    "fr": "percent of the faces, NME above 10 %",
    "auc": "area under the cumulative error curve up to an NME of 10 %, in [0, 1]",
    "count": "faces",
    "evaluations": "evaluations of the cell",
    "residual": "|f(z) - z| / |f(z)| of the solver; without the division if its criterion is absolute",
    "uncertainty_percent_of_crop": "standard deviation of the heatmaps, mean over landmarks",
    "failed": "faces whose solve was not finite; they count as failures in fr and auc and are left out of nme",
}
"""Units of the numbers in results.json and per_face.csv."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a network for N faces, and the ground truth in the same frame.

    Attributes:
        keypoints: (N, K, 2) float64 predicted x, y in [0, 1] of the crop; NaN if the solve failed.
        landmarks: (N, K, 2) float64 true x, y in the same unit.
        uncertainty: (N, K) standard deviation of the heatmaps in the same unit; infinite if the solve failed.
        evaluations: (N,) evaluations of the cell.
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

    @property
    def failed(self) -> np.ndarray:
        """(N,) True if the solve of a face gave no landmarks."""
        return ~np.isfinite(self.keypoints).all(axis=(1, 2))

    def nmes(self) -> np.ndarray:
        """Normalised mean error of every face: (N,) fractions, NaN if the solve failed."""
        errors = np.full(len(self.keypoints), np.nan)
        solved = ~self.failed
        errors[solved] = nme(self.keypoints[solved], self.landmarks[solved])
        return errors


@dataclass(frozen=True)
class Score:
    """The three numbers of the WFLW benchmark for one list of faces.

    Attributes:
        nme: Mean normalised mean error in percent; None if no face has one.
        fr: Share in percent of the faces with an error above 0.1; None for an empty list.
        auc: Area under the cumulative error curve up to 0.1, in [0, 1]; None for an empty list.
        count: Number of faces.
        median_nme: Median of the errors in percent; None if no face has one.
        failed: Number of faces whose solve gave no landmarks. They are failures in `fr` and `auc`.
    """

    nme: float | None
    fr: float | None
    auc: float | None
    count: int
    median_nme: float | None
    failed: int

    @classmethod
    def of(cls, nmes: np.ndarray) -> "Score":
        """Score the errors (N,), fractions; NaN for a face without landmarks."""
        if nmes.size == 0:
            return cls(None, None, None, 0, None, 0)
        failed = np.isnan(nmes)
        solved, all_faces = nmes[~failed], np.where(failed, np.inf, nmes)
        return cls(
            nme=float(100 * solved.mean()) if solved.size else None,
            fr=100 * failure_rate(all_faces),
            auc=area_under_curve(all_faces),
            count=nmes.size,
            median_nme=float(100 * np.median(solved)) if solved.size else None,
            failed=int(failed.sum()),
        )

    def lines(self, split: str) -> str:
        """The lines that the original release prints for a split."""
        head = f"------------ {split} ------------"
        if self.count == 0:
            return f"{head}\nno faces in this subset"
        error = "nan" if self.nme is None else f"{self.nme:.6f}"
        return f"{head}\nNME %: {error}\nFR_0.1% : {self.fr:.6f}\nAUC_0.1: {self.auc:.6f}"


def format_scores(scores: Mapping[str, Score]) -> str:
    """The scores of the splits as a table."""
    table = pd.DataFrame(
        {
            "faces": [score.count for score in scores.values()],
            "NME %": [score.nme for score in scores.values()],
            "median NME %": [score.median_nme for score in scores.values()],
            "FR@10 % %": [score.fr for score in scores.values()],
            "AUC@10 %": [score.auc for score in scores.values()],
        },
        index=list(scores),
    )
    digits = {"NME %": 2, "median NME %": 2, "FR@10 % %": 2, "AUC@10 %": 3}
    formats = {name: f"{{:.{count}f}}".format for name, count in digits.items()}
    return table.astype(dict.fromkeys(digits, float)).to_string(formatters=formats, na_rep="-")


def write_predictions(path: Path, predictions: Predictions, **indices: np.ndarray) -> None:
    """Write predictions as .npz, one array per field.

    Args:
        path: File to write.
        predictions: The predictions.
        **indices: Further arrays, for example the names of the images.

    Raises:
        OutputError: If the file cannot be written.
    """
    write_arrays(path, {**vars(predictions), **indices})
