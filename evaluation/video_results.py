"""The folder of a video evaluation, written so that a run that was killed can go on.

    settings.json               what the numbers depend on
    predictions/<mode>/<id>.npz     of every clip that is done
    per_video.csv               a row a clip, appended when its predictions are on disk
    results.json                averages, once all clips are done

A file is written aside and renamed. A row counts only if it is whole and the predictions are there.
"""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from utils.errors import OutputError
from utils.files import cannot_write, csv_line, prepare_output_folder, write_json


@dataclass(frozen=True, eq=False)
class ClipPredictions:
    """What a network said about the T frames of a clip.

    Attributes:
        landmarks: (T, K, 2) float32 x, y in frame pixels.
        evaluations: (T,) int64 evaluations of the cell.
        residual: (T,) float32 residual of the last evaluation that measured one; NaN without a solver.
    """

    landmarks: np.ndarray
    evaluations: np.ndarray
    residual: np.ndarray

    @classmethod
    def empty(cls, frames: int, points: int) -> "ClipPredictions":
        """Room for the predictions of a clip of `frames` frames with `points` landmarks each."""
        return cls(
            np.full((frames, points, 2), np.nan, np.float32),
            np.zeros(frames, np.int64),
            np.full(frames, np.nan, np.float32),
        )


@dataclass(frozen=True)
class ClipRow:
    """A row of per_video.csv.

    Attributes:
        video_id: The clip.
        nme: In percent.
        nmj: In hundredths of a pixel of a face of 256 x 256 pixels.
        frames: Length of the clip.
        split: "easy" or "hard".
        use: "evaluated", or "tuning" where filters are tuned on it and it counts for nothing else.
        evaluations: Of the cell, mean over the frames.
        residual: Median over the frames.
        reference_nme: Published NME of this clip; NaN, as the next three, where there is none.
        reference_nmj: Published NMJ of this clip.
        nme_difference: Ours minus the published one.
        nmj_difference: Likewise.
    """

    video_id: str
    nme: float
    nmj: float
    frames: int
    split: str
    use: str
    evaluations: float
    residual: float
    reference_nme: float = np.nan
    reference_nmj: float = np.nan
    nme_difference: float = np.nan
    nmj_difference: float = np.nan

    @classmethod
    def parse(cls, values: Mapping[str, str | None]) -> "ClipRow | None":
        """Read a row as `csv.DictReader` gives it; None if it is not whole."""
        try:
            return cls(**{item.name: _parse(values[item.name], item.type) for item in fields(cls)})
        except (KeyError, TypeError, ValueError):
            return None


def _parse(text: str, kind: type) -> Any:
    return np.nan if kind is float and text == "" else kind(text)


COLUMNS = tuple(item.name for item in fields(ClipRow))


class VideoResults:
    """The results of one evaluation on disk.

    Args:
        folder: Where they are.
        modes: Names of the ways in which every clip is inferred.
        settings: What the numbers depend on, as plain values.
        resume: Whether to keep what an earlier run with the same settings has finished; else it is replaced.

    Raises:
        OutputError: If the folder cannot be written to, or an earlier run that is to be resumed had other settings.
    """

    def __init__(self, folder: Path, modes: Sequence[str], settings: Mapping[str, Any], resume: bool):
        self.folder = folder
        self.modes = tuple(modes)
        for mode in modes:
            prepare_output_folder(folder / "predictions" / mode)
        if resume and (folder / "settings.json").exists():
            self._check_settings(settings)
            kept = [row for row in self._read_rows() if self._has_predictions(row.video_id)]
        else:
            (folder / "settings.json").unlink(missing_ok=True)
            kept = []
        (folder / "results.json").unlink(missing_ok=True)
        self.rows = {row.video_id: row for row in kept}
        aside = folder / "per_video.csv.part"
        lines = [csv_line(COLUMNS), *map(_line, self.rows.values())]
        _replace(aside, folder / "per_video.csv", "".join(lines).encode())
        write_json(folder / "settings.json", settings)

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        path = self.folder / "settings.json"
        try:
            earlier = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OutputError(f"{path}: cannot be read ({error}); leave out --resume to start anew") from error
        # Through JSON, which has no tuples.
        for name, value in json.loads(json.dumps(settings)).items():
            if earlier.get(name) != value:
                raise OutputError(
                    f"{path}: the run to resume has {name} = {earlier.get(name)!r}, not {value!r}; repeat its options, "
                    "or leave out --resume to start anew"
                )

    def _read_rows(self) -> list[ClipRow]:
        path = self.folder / "per_video.csv"
        if not path.exists():
            return []
        try:
            # A line without its end was being written when the run was killed.
            lines = [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line[-1] == "\n"]
        except (OSError, UnicodeDecodeError) as error:
            raise OutputError(f"{path}: cannot be read ({error}); leave out --resume to start anew") from error
        rows = map(ClipRow.parse, csv.DictReader(lines))
        return [row for row in rows if row is not None]

    def _has_predictions(self, video_id: str) -> bool:
        return all(self._predictions_path(video_id, mode).exists() for mode in self.modes)

    def _predictions_path(self, video_id: str, mode: str) -> Path:
        return self.folder / "predictions" / mode / f"{video_id}.npz"

    def save_predictions(self, video_id: str, mode: str, predictions: ClipPredictions) -> None:
        """Write the predictions for a clip.

        Raises:
            OutputError: If they cannot be written.
        """
        path = self._predictions_path(video_id, mode)
        aside = path.with_name(path.name + ".part")
        try:
            with aside.open("wb") as file:
                np.savez_compressed(
                    file, **{item.name: getattr(predictions, item.name) for item in fields(predictions)}
                )
            aside.replace(path)
        except OSError as error:
            raise cannot_write(path, error) from error

    def load_predictions(self, video_id: str, mode: str) -> ClipPredictions:
        """Read what `save_predictions` wrote.

        Raises:
            OutputError: If the file is gone or damaged.
        """
        path = self._predictions_path(video_id, mode)
        try:
            with np.load(path, allow_pickle=False) as saved:
                return ClipPredictions(**{item.name: saved[item.name] for item in fields(ClipPredictions)})
        except Exception as error:  # of a damaged archive NumPy and zipfile raise nearly anything
            raise OutputError(f"{path}: cannot be read ({error}); remove it and run again with --resume") from error

    def add(self, row: ClipRow) -> ClipRow:
        """Append the row of a clip whose predictions are saved.

        Returns:
            The row with the digits that are on disk, so that a resumed run has the same numbers as one that was not.

        Raises:
            OutputError: If the row cannot be written.
        """
        line = _line(row)
        path = self.folder / "per_video.csv"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(path, error) from error
        (values,) = csv.reader([line])
        self.rows[row.video_id] = ClipRow.parse(dict(zip(COLUMNS, values, strict=True)))
        return self.rows[row.video_id]


def _line(row: ClipRow) -> str:
    return csv_line(getattr(row, name) for name in COLUMNS)


def _replace(aside: Path, path: Path, content: bytes) -> None:
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error


def average(rows: Sequence[ClipRow]) -> dict[str, float | int | None]:
    """Plain means over clips, in an order that does not depend on when they ended.

    Args:
        rows: The clips.

    Returns:
        "nme", "nmj", "median_nmj", "evaluations" (None without a clip) and "count".
    """
    rows = sorted(rows, key=lambda row: row.video_id)
    if not rows:
        return {"nme": None, "nmj": None, "median_nmj": None, "evaluations": None, "count": 0}
    nmjs = [row.nmj for row in rows]
    return {
        "nme": float(np.mean([row.nme for row in rows])),
        "nmj": float(np.mean(nmjs)),
        "median_nmj": float(np.median(nmjs)),
        # Over frames, not clips: what a run costs.
        "evaluations": float(np.average([row.evaluations for row in rows], weights=[row.frames for row in rows])),
        "count": len(rows),
    }
