"""Writing files: under a temporary name in the same folder, then renamed. A file is complete or absent.

A full disk, a missing permission or a folder of the same name raises an `OutputError` that names the file; an existing
file stays intact. `locked_folder` keeps a second run out of a folder, `protect_inputs` keeps results from replacing
inputs.
"""

import csv
import errno
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from utils.errors import OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# NumPy and matplotlib are imported where they are used: the scripts parse their arguments without them.

DOTS_PER_INCH, FEWEST_DOTS_PER_INCH = 150, 40

MOST_BYTES_OF_A_FIGURE = 300_000

LOCK_FILE = ".run.lock"


def aside_of(path: Path, number: int = 0) -> Path:
    """A temporary name for writing a file; the first free one of `<name>.part`, `<name>.part1`, ... is used."""
    return path.with_name(f"{path.name}.part{number or ''}")


def _create_aside(path: Path) -> Path:
    """Make an empty temporary file for a file; what is there already, also a link, is somebody's and stays."""
    number = 0
    while True:
        part = aside_of(path, number)
        try:
            part.open("xb").close()
            return part
        except FileExistsError:
            number += 1


class Aside:
    """A file that is written bit by bit under a temporary name; `write_aside` writes a file in one go.

    The constructor makes the folders and an empty temporary file, so that a path that cannot be written is found before
    the work begins.

    Args:
        path: The file.

    Attributes:
        path: The file.
        part: The temporary file to write to.

    Raises:
        OutputError: If the file cannot be written.
    """

    def __init__(self, path: Path):
        self.path = path
        _check_name(path)
        with written(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if path.exists() and not path.is_file():
                raise OutputError(f"{path}: not a regular file; give another path")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.part = _create_aside(path)

    def commit(self, durable: bool = False) -> None:
        """Give the file its name.

        Args:
            durable: Wait until the content is on the disk, so that it survives a power cut.

        Raises:
            OutputError: If this fails; the temporary file is removed.
        """
        try:
            with written(self.path):
                if durable:
                    with self.part.open("rb+") as file:
                        os.fsync(file.fileno())
                self.part.replace(self.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove the temporary file."""
        with suppress(OSError):
            self.part.unlink(missing_ok=True)


def _check_name(path: Path) -> None:
    """Check that a file of this name can exist at all, else OutputError."""
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError as error:
        raise OutputError(f"{str(path)!r}: a path with a lone surrogate cannot be written; rename it") from error
    if b"\0" in name:
        raise OutputError(f"{str(path)!r}: a path with a null character cannot be written; rename it")


@contextmanager
def write_aside(path: Path, durable: bool = False) -> Iterator[Path]:
    """Write a file in one go: under a temporary name in the `with` block, renamed at its end, removed after an error.

    Args:
        path: The file.
        durable: See `Aside.commit`.

    Yields:
        The path to write to.

    Raises:
        OutputError: If the file cannot be written, or on any OSError inside the block.
    """
    aside = Aside(path)
    try:
        with written(path):
            yield aside.part
    except BaseException:
        aside.discard()
        raise
    aside.commit(durable)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn an OSError inside the `with` block into an `OutputError` that names the file."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error to raise when a file cannot be written."""
    advice = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "choose another place"
    return OutputError(f"{path}: cannot be written ({error.strerror or error}); {advice}")


def write_bytes(path: Path, content: bytes | memoryview, durable: bool = False) -> None:
    """Write bytes. Libraries save into memory first and then through here: on a full disk many raise their own errors.

    Raises:
        OutputError: If the file cannot be written.
    """
    with write_aside(path, durable) as part:
        part.write_bytes(content)


def write_text(path: Path, text: str, durable: bool = False) -> None:
    """Write text as UTF-8.

    Raises:
        OutputError: If the file cannot be written.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"), durable)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain values as JSON.

    Raises:
        OutputError: If the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write a table. Floats get nine significant digits; NaN is an empty cell.

    Args:
        path: File to write.
        columns: The columns by name, all of one length.

    Raises:
        OutputError: If the file cannot be written.
    """
    # Loaded here, since pandas is slow to load and most scripts write no table.
    import pandas as pd

    write_text(path, pd.DataFrame(columns).to_csv(index=False, float_format="%.9g", lineterminator="\n"))


def csv_line(values: Iterable[Any]) -> str:
    """One line of a CSV table, with its line end, for tables that grow."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: Any) -> str:
    # NumPy's float64 is a Python float; its float32 is not, so its type name is checked.
    if not isinstance(value, float) and not type(value).__name__.startswith("float"):
        return str(value)
    return "" if value != value else f"{value:.9g}"


def write_arrays(path: Path, arrays: Mapping[str, Any], durable: bool = False) -> None:
    """Write NumPy arrays by their names as a compressed .npz.

    Args:
        path: File to write.
        arrays: The arrays by name.
        durable: See `Aside.commit`.

    Raises:
        OutputError: If the file cannot be written.
    """
    import numpy as np

    # An open file: NumPy would add a suffix to a file name.
    with write_aside(path, durable) as part, part.open("wb") as file:
        np.savez_compressed(file, **arrays)


def save_figure(figure: "Figure", path: Path, most_bytes: int = MOST_BYTES_OF_A_FIGURE) -> None:
    """Write a figure as PNG; if the file would be too large, with 256 colours or fewer pixels.

    Args:
        figure: The figure. Characters of its texts that UTF-8 lacks, as a path may hold them, are replaced by escapes.
        path: The file.
        most_bytes: Largest size of the file; a figure of very many pictures may exceed it.

    Raises:
        OutputError: If the file cannot be written.
    """
    from matplotlib.text import Text
    from PIL import Image

    for part in figure.findobj():
        if isinstance(part, Text):
            part.set_text(part.get_text().encode("utf-8", "backslashreplace").decode())
    dots = DOTS_PER_INCH
    while True:
        content = io.BytesIO()
        figure.savefig(content, dpi=dots, format="png")
        if content.tell() > most_bytes:
            with Image.open(content) as image:
                coloured = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            content = io.BytesIO()
            coloured.save(content, "PNG", optimize=True)
        if content.tell() <= most_bytes or dots <= FEWEST_DOTS_PER_INCH:
            break
        dots = max(FEWEST_DOTS_PER_INCH, int(0.8 * dots))
    write_bytes(path, content.getvalue())


def prepare_output_folder(folder: Path) -> None:
    """Make a folder for results, and check before a long run that it can be written to.

    Raises:
        OutputError: If it cannot be made or written to.
    """
    with written(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Make a folder for results and keep other runs out of it until this one ends, even by a crash.

    Raises:
        OutputError: If another run uses it, or it cannot be written to.
    """
    prepare_output_folder(folder)
    path = folder / LOCK_FILE
    with written(path):
        file = _lock(folder, path)
    try:
        yield
    finally:
        # Removed before the lock ends, so that this cannot remove another run's file.
        with suppress(OSError):
            path.unlink()
        file.close()


def _lock(folder: Path, path: Path) -> IO[bytes]:
    while True:
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: is not an ordinary file; remove it, or choose another folder")
        file = path.open("ab")
        try:
            # A lock of this process: its children do not hold it, such as workers that outlive it for a moment.
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            return file  # an operating system without such locks
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                file.close()
                raise OutputError(
                    f"{folder}: another run is writing into this folder; wait for it, or choose another"
                ) from None
            return file  # a network file system without locks
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        # The previous run removed the file between the two steps.
        file.close()


def check_places(outputs: Iterable[Path]) -> None:
    """Check, before any work, that files can have their names: no folder has it, and no file is in a folder's place.

    Raises:
        OutputError: If one cannot.
    """
    outputs = list(outputs)
    folders = {parent: output for output in outputs for parent in output.parents}
    for output in outputs:
        if output in folders:
            raise OutputError(f"{output}: is also the folder of {folders[output]}; choose another place for one")
        if output.is_dir():
            raise OutputError(f"{output}: is a folder; give a file")
        nearest = next((parent for parent in output.parents if parent.exists()), None)
        if nearest is not None and not nearest.is_dir():
            raise OutputError(f"{output}: {nearest} is not a folder; choose another place")


def protect_inputs(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Check, before anything is opened for writing, that no output replaces an input or another output.

    Existing files and folders are compared by device and inode, so that symbolic and hard links are recognised; outputs
    that do not exist yet are compared by their resolved paths.

    Args:
        outputs: Files and folders that will be written; their `.part` files are included.
        inputs: Files and folders that must not change; missing ones are ignored.

    Raises:
        OutputError: If an output would replace one; the message names both.
    """
    kept = {identity: path for path in inputs if (identity := _identity(path)) is not None}
    targets: dict[Path, Path] = {}
    for output in outputs:
        for path in (output, aside_of(output)) if output.name else (output,):
            if (identity := _identity(path)) in kept:
                raise OutputError(f"{output}: would replace the input {kept[identity]}; choose another place")
        target = Path(os.path.realpath(output))
        if target in targets:
            raise OutputError(f"{output}: would be written twice, also as {targets[target]}; choose another name")
        targets[target] = output


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
