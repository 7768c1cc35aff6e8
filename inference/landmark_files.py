"""Files of faces: landmarks are written as JSON Lines or CSV, boxes are read."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from inference.results import Face
from utils.errors import InputError, OutputError
from utils.files import Aside, csv_line, written
from utils.reading import open_array, plain_number, read_table
from utils.values import LARGEST_INTEGER, check_instance, check_integer, to_path

LANDMARK_SUFFIXES = (".jsonl", ".csv")

BOX_COLUMNS = ("x1", "y1", "x2", "y2")


class LandmarkWriter:
    """Writes a line for every face of every frame at once; a context manager.

    The file gets its name at the end. If the run fails or is killed, the lines so far stay in its temporary file (see
    `utils.files.aside_of`), and an older file is not changed.

    A line of JSON has the keys frame, face, box [x1, y1, x2, y2], score (null if the box was given), landmarks
    [[x, y, uncertainty], ...], evaluations and residual (null for an explicit network), and those of `extra`. A line of
    CSV has the columns frame, face, x1, y1, x2, y2, score, evaluations, residual, those of `extra`, and x, y and
    uncertainty of every landmark, x_0, y_0, uncertainty_0, x_1 and so on. Coordinates and uncertainties are in pixels
    of the frame.

    Args:
        path: The file, .jsonl or .csv.
        landmarks: K, number of landmarks of a face.
        extra: Names of further columns.

    Raises:
        OutputError: If it has another suffix or cannot be written.
        OptionError: If an argument is of another kind.
    """

    def __init__(self, path: str | os.PathLike[str], landmarks: int, extra: Sequence[str] = ()):
        path = to_path("path", path)
        check_integer("landmarks", landmarks, 1)
        if path.suffix.lower() not in LANDMARK_SUFFIXES:
            raise OutputError(f"{path}: landmarks are written as {' or '.join(LANDMARK_SUFFIXES)}; choose one of these")
        self.aside = Aside(path)
        self.as_csv = path.suffix.lower() == ".csv"
        self.extra = tuple(extra)
        self.rows = 0
        with written(path):
            self.file = self.aside.part.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        if self.as_csv:
            points = [f"{name}_{index}" for index in range(landmarks) for name in ("x", "y", "uncertainty")]
            self._append(
                csv_line(["frame", "face", *BOX_COLUMNS, "score", "evaluations", "residual", *self.extra, *points])
            )

    def write(self, frame: int, face: Face, **extra: Any) -> None:
        """Append a face.

        Args:
            frame: Number of the frame, from 0.
            face: See `Face.to_dict`.
            **extra: Values of the further columns, by their names.

        Raises:
            OutputError: If the file cannot be written.
        """
        check_integer("frame", frame, 0)
        check_instance("face", face, Face)
        self.rows += 1
        row = {"frame": frame, **face.to_dict(), **{name: extra[name] for name in self.extra}}
        if not self.as_csv:
            self._append(json.dumps(row, allow_nan=False) + "\n")
            return
        points = row.pop("landmarks")
        cells = [value for column in row.values() for value in (column if isinstance(column, list) else [column])]
        cells += [value for point in points for value in point]
        self._append(csv_line("" if value is None else value for value in cells))

    def _append(self, text: str) -> None:
        with written(self.aside.path):
            self.file.write(text)
            self.file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):  # all lines are flushed, but after a full disk closing fails again
            self.file.close()
        if error is None:
            self.aside.commit()
        elif self.rows == 0:
            self.aside.discard()


def read_boxes(path: Path) -> dict[int, dict[int, np.ndarray]]:
    """Read the user's boxes.

    Args:
        path: .npy, (frames, 4 or more), x1 y1 x2 y2 of one face in every frame, as in WFLW-V; or .csv with at least the
            columns frame, face, x1, y1, x2, y2, as `LandmarkWriter` writes them.

    Returns:
        For every frame with a box, the boxes (4,) float64 of its faces by their number.

    Raises:
        InputError: If it has another format, a number is missing or not finite, or a box has no area.
    """
    check_instance("path", path, Path)
    if path.suffix.lower() == ".npy":
        boxes = _read_array(path)
    elif path.suffix.lower() == ".csv":
        boxes = _read_table(path)
    else:
        raise InputError(f"{path}: boxes are read from .npy or .csv; convert it")
    for frame, of_frame in boxes.items():
        for face, box in of_frame.items():
            if not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
                raise InputError(
                    f"{path}: the box of frame {frame}, face {face}, {box.tolist()}, has no area; it is x1 y1 x2 y2"
                )
    return boxes


def _read_array(path: Path) -> dict[int, dict[int, np.ndarray]]:
    array = open_array(path)
    if array.ndim != 2 or array.shape[1] < 4:
        raise InputError(f"{path}: has shape {array.shape}, expected (frames, 4): x1 y1 x2 y2; correct the file")
    return {frame: {0: box} for frame, box in enumerate(array[:, :4].astype(np.float64))}


def _read_table(path: Path) -> dict[int, dict[int, np.ndarray]]:
    boxes: dict[int, dict[int, np.ndarray]] = {}
    for where, row in read_table(path, ("frame", "face", *BOX_COLUMNS)):
        try:
            frame, face = (int(plain_number(row[name])) for name in ("frame", "face"))
            box = np.array([float(plain_number(row[name])) for name in BOX_COLUMNS])
        except ValueError as error:
            raise InputError(f"{where}: {error}; correct it") from error
        of_frame = boxes.setdefault(frame, {})
        if max(frame, face) > LARGEST_INTEGER:
            raise InputError(f"{where}: a number above {LARGEST_INTEGER:,}; correct it")
        if frame < 0 or face < 0 or face in of_frame:
            problem = "is in the file twice" if face in of_frame else "has a negative number"
            raise InputError(f"{where}: face {face} of frame {frame} {problem}; correct it")
        of_frame[face] = box
    return boxes
