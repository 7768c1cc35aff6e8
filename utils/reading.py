"""Reading the user's files: text, tables and arrays. Every fault of a file is one error that names the file."""

import csv
import io
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.values import check_instance

LARGEST_FILE = 2_000_000_000
"""Bytes of the largest file that is read whole; more would take more memory than many machines have."""


def check_file(path: Path, advice: str = "check the path") -> None:
    """Check that a path is a regular file: not missing, not a folder, not a pipe (reading would wait for ever).

    Args:
        path: The path.
        advice: What the user can do, for the message.

    Raises:
        InputError: If it is not a file, or may not be read.
        OptionError: If it is no path.
    """
    check_instance("path", path, Path)
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
        InputError: If it cannot be read, or is larger than `LARGEST_FILE`.
    """
    check_file(path, advice)
    try:
        if (size := path.stat().st_size) > LARGEST_FILE:
            raise InputError(f"{path}: {size:,} bytes are more than {LARGEST_FILE:,}; give the right file")
        return path.read_bytes()
    except OSError as error:
        raise cannot_read(path, error) from error


def check_archive(path: Path) -> None:
    """Check the checksums of a ZIP archive, as `torch.save` writes them; PyTorch itself reads changed bytes silently.

    Raises:
        InputError: If a member is damaged. A file of another kind passes.
    """
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises many kinds of error on a damaged archive
        raise InputError(f"{path}: damaged ({error}); copy it again") from error
    if damaged is not None:
        raise InputError(f"{path}: damaged, its member {damaged} does not match its checksum; copy it again")


def read_text(path: Path, advice: str = "check the path") -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Args:
        path: The file.
        advice: What the user can do if the file is missing, for the message.

    Raises:
        InputError: If it cannot be read or is not text.
    """
    content = read_bytes(path, advice)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text (byte {error.start}); get the file again") from error
    if "\0" in text:
        raise InputError(f"{path}: is binary data, not text; get the file again")
    return text


def read_lines(path: Path, advice: str = "check the path") -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not blank: the place of each, for messages, and its stripped text.

    Raises:
        InputError: As `read_text`.
    """
    for number, line in enumerate(read_text(path, advice).split("\n"), start=1):
        if stripped := line.strip():
            yield f"{path}, line {number}", stripped


def read_table(path: Path, columns: Collection[str], delimiter: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a table whose first line names its columns: the place of each row, for messages, and its values.

    Args:
        path: The file.
        columns: Required columns.
        delimiter: The character between the values of a row.

    Raises:
        InputError: As `read_text`, or if a column is missing, or a row has too few or too many values.
    """
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    try:
        if missing := [name for name in columns if name not in (rows.fieldnames or ())]:
            raise InputError(
                f"{path}, line 1: no column {', '.join(missing)}; name the columns in the first line, or get the file "
                "again"
            )
        names = rows.fieldnames or ()
        if len(set(names)) < len(names):
            twice = next(name for name in names if list(names).count(name) > 1)
            raise InputError(f"{path}, line 1: column {twice} is there twice; remove one")
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if None in row or None in row.values():
                raise InputError(f"{where}: has too few or too many values; correct the line")
            yield where, row
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.line_num + 1}: {error}; get the file again") from error


def open_array(path: Path) -> np.ndarray:
    """An array of numbers from an .npy file, as a memory map: a wrong header cannot allocate memory.

    Raises:
        InputError: If the file cannot be read, or is not an array of numbers.
    """
    check_file(path, "get it again")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except PermissionError as error:
        raise cannot_read(path, error) from error
    except Exception as error:  # NumPy raises many kinds of error on a damaged header
        problem = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: cannot be read as an array of numbers ({problem}); it is damaged, get it again"
        ) from error
    if array.offset + array.nbytes != path.stat().st_size:
        raise InputError(f"{path}: is longer than its header says; it is damaged, get it again")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path}: holds {array.dtype}, expected numbers; get it again")
    return array


def plain_number(text: str) -> str:
    """The text of a number in a file, if it has no signs that Python alone reads: underscores, digits of other scripts.

    Raises:
        ValueError: If it has.
    """
    if "_" in text or not text.isascii():
        raise ValueError(f"{text!r} is not a number")
    return text
