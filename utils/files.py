"""What an evaluation leaves behind: predictions, scores, tables."""

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from utils.errors import OutputError

DOTS_PER_INCH = 150


def prepare_output_folder(folder: Path) -> None:
    """Make a folder for results, and make sure before a long run that it can be written to.

    Raises:
        OutputError: If it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON.

    Raises:
        OutputError: If the file cannot be written.
    """
    _write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a table. Floats get nine significant digits; NaN is an empty cell.

    Args:
        path: File to write.
        columns: The columns by name, all of one length.

    Raises:
        OutputError: If the file cannot be written.
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


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error to raise when a result cannot be written."""
    return OutputError(f"{path}: cannot be written ({error.strerror}); choose another output folder")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG.

    Raises:
        OutputError: If the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=DOTS_PER_INCH)
    except OSError as error:
        raise cannot_write(path, error) from error
