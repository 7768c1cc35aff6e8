"""What an evaluation leaves behind: predictions, scores, tables."""

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics import area_under_curve, failure_rate, nme


class ReportError(ValueError):
    """A result that cannot be written or scored; the message names the file and says what to do."""


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
            ReportError: If the prediction for a face is not finite.
        """
        finite = np.isfinite(self.keypoints).all(axis=(1, 2))
        if not finite.all():
            raise ReportError(
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


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds as the original release prints them, for example 1h06m28s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{seconds:02}s"


def prepare_output_folder(folder: Path) -> None:
    """Make a folder for results, and make sure before a long run that it can be written to.

    Raises:
        ReportError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def write_predictions(path: Path, predictions: Predictions, **indices: np.ndarray) -> None:
    """Write predictions as .npz, one array per field.

    Args:
        path: File to write.
        predictions: The predictions.
        **indices: Further arrays, for example the names of the images.

    Raises:
        ReportError: If the file cannot be written.
    """
    arrays = {item.name: getattr(predictions, item.name) for item in fields(predictions)}
    try:
        np.savez_compressed(path, **arrays, **indices)
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON.

    Raises:
        ReportError: If the file cannot be written.
    """
    _write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a table. Floats get nine significant digits; NaN is an empty cell.

    Args:
        path: File to write.
        columns: The columns by name, all of one length.

    Raises:
        ReportError: If the file cannot be written.
    """
    lines = [csv_line(columns), *(csv_line(row) for row in zip(*columns.values(), strict=True))]
    _write_text(path, "".join(lines))


def csv_line(values: Iterable[Any]) -> str:
    """A line of a table with its end, as `write_csv` writes it."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: Any) -> str:
    if not isinstance(value, float | np.floating):
        return str(value)
    return "" if np.isnan(value) else f"{value:.9g}"


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> ReportError:
    """The error to raise when a result cannot be written."""
    return ReportError(f"{path}: cannot be written ({error.strerror}); choose another output folder")
