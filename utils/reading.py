"""Reading what users give: text, tables and arrays. Whatever is wrong with a file is one error that names it."""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from utils.errors import InputError


def check_file(path: Path, advice: str = "check the path") -> None:
    """Make sure that a path is a file: neither missing nor a folder nor a pipe, which would be waited for.

    Args:
        path: The path.
        advice: What to do about it, for the message.

    Raises:
        InputError: If it is none, or may not be looked at.
    """
    try:
        there, is_file = path.exists(), path.is_file()
    except (OSError, ValueError) as error:
        raise cannot_read(path, error) from error
    if not is_file:
        raise InputError(f"{path}: {'is not a file' if there else 'no such file'}; {advice}")


def cannot_read(path: Path, error: Exception) -> InputError:
    """The error to raise when a file cannot be read."""
    return InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); check the file")


def read_bytes(path: Path, advice: str = "check the path") -> bytes:
    """Read a whole file.

    Raises:
        InputError: If it cannot be read.
    """
    check_file(path, advice)
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error


def read_text(path: Path, advice: str = "check the path") -> str:
    """Read a text file, UTF-8 with a byte order mark or without.

    Args:
        path: The file.
        advice: What to do where it is missing, for the message.

    Raises:
        InputError: If it cannot be read or is not text.
    """
    content = read_bytes(path, advice)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not text in UTF-8 (byte {error.start}); get the file again") from error
    if "\0" in text:
        raise InputError(f"{path}: is not text but binary data; get the file again")
    return text


def read_lines(path: Path, advice: str = "check the path") -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank: where each stands, for messages, and its text without blanks around.

    Raises:
        InputError: As `read_text`.
    """
    for number, line in enumerate(read_text(path, advice).split("\n"), start=1):
        if stripped := line.strip():
            yield f"{path}, line {number}", stripped


def read_table(path: Path, columns: Collection[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table whose first line names its columns: where each stands, for messages, and its values.

    Args:
        path: The file.
        columns: Columns that must be there.
        delimiter: Between the values of a row.

    Raises:
        InputError: As `read_text`, or if a column is missing, or a row has another number of values.
    """
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    try:
        if missing := [name for name in columns if name not in (rows.fieldnames or ())]:
            raise InputError(
                f"{path}, line 1: no column {', '.join(missing)}; name the columns in the first line, or get the file "
                "again"
            )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: has not a value for every column; correct the line")
            yield where, row
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num + 1}: {error}; get the file again") from error


def open_array(path: Path) -> np.ndarray:
    """An array of numbers from an .npy file, as a memory map: nothing is allocated that the file does not hold.

    Raises:
        InputError: If the file cannot be read, or is not such an array.
    """
    check_file(path, "get it again")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except PermissionError as error:
        raise cannot_read(path, error) from error
    except Exception as error:  # on a damaged header NumPy raises nearly anything
        problem = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: is not an array of numbers that can be read ({problem}); get it again, it is damaged"
        ) from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds {array.dtype}, expected numbers; get it again")
    return array
