"""What the scripts share on the command line: types of option, and how a script ends on bad input.

Free of torch and NumPy, so that `--help` and a wrong option answer at once.
"""

import argparse
import atexit
import contextlib
import math
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO, cast

from utils.errors import OptionError, UserError

INTERRUPTED = 130
"""Exit status after Ctrl-C, the same as in a shell."""


def script_parser(description: str | None, prog: str | None = None) -> argparse.ArgumentParser:
    """A parser for the options of a script.

    Args:
        description: The docstring of the script, shown as it is.
        prog: The command in the usage line; None for the script's file name.
    """
    # An abbreviation that is clear today may mean another option tomorrow.
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def integer_in(lowest: int, highest: int) -> Callable[[str], int]:
    """An argparse type: an integer from `lowest` to `highest`, both included."""

    def parse(text: str) -> int:
        try:
            # int() also accepts 1_000, and raises its own error on thousands of digits.
            value = int(text) if len(text) <= 20 and "_" not in text else None
        except ValueError:
            value = None
        if value is None or not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"must be an integer from {lowest} to {highest}, not {_shorten(text)!r}")
        return value

    return parse


def number_in(lowest: float, highest: float, above: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number from `lowest` to `highest`; with `above` greater than `lowest`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # Written so that NaN is refused too.
        if not ((lowest < value if above else lowest <= value) and value <= highest):
            least = f"above {lowest:g} and" if above else f"from {lowest:g} and"
            raise argparse.ArgumentTypeError(f"must be a number {least} at most {highest:g}, not {_shorten(text)!r}")
        return value

    return parse


# Upper bounds far above any sensible use: larger values would hang or run out of memory.

positive_integer = integer_in(1, 1_000_000)

non_negative_integer = integer_in(0, 1_000_000)

worker_count = integer_in(0, 512)

evaluation_budget = integer_in(1, 100_000)

seed = integer_in(0, 2**63 - 1)
"""The largest seed that torch and NumPy both accept."""

non_negative_number = number_in(0, 1e9)

share = number_in(0, 1)


def given_text(text: str) -> str:
    """An argparse type: any text but the empty one, which as a path would be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("must be a path, not empty")
    return text


def given_path(text: str) -> Path:
    """An argparse type: a path; the empty text, which would be the working folder, is refused."""
    return Path(given_text(text))


def true_or_false(text: str) -> bool:
    """An argparse type: the words true and false, as in the flags of the original release."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"must be true or false, not {_shorten(text)!r}")
    return values[text.lower()]


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:60] + "..."


def refuse_empty_values(words: list[str]) -> None:
    """Refuse `--option=--`: argparse (Python 3.11) takes the value for its own mark and gives the script an empty list.

    Raises:
        OptionError: If a word is of this kind.
    """
    for word in words:
        if word.startswith("--") and word.endswith("=--"):
            raise OptionError(f"{word}: -- is not a value; give another or leave the option out")


def run(command: Callable[[], int | None]) -> int:
    """Run a script, for `sys.exit`.

    The script goes on when its output cannot be printed (a closed pipe, a full disk): its files matter more.

    Args:
        command: The script; it may return an exit status.

    Returns:
        Exit status: that of the script, or 0 if it returns none. 2 if the user can mend the cause (`UserError`,
        OSError, a package that is missing), after one line on stderr (under torchrun one line for all processes), and
        if stdout could not be written. 130 after Ctrl-C. Any other exception is a bug and is raised.
    """
    output, messages = _Output(sys.stdout, 1), _Output(sys.stderr, 2)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, messages)
    status = 0
    # Read when torch is loaded. Threads of OpenMP that wait by spinning keep a busy core from the thread they wait for;
    # with one of two cores busy, a frame of the demo took 15 to 150 ms instead of 12.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A warning of a library is a line like any other, without the place in the source.
    shown_before, warnings.showwarning = warnings.showwarning, _print_warning
    # Figures are only written to files, and matplotlib does not load with a backend that it does not know.
    os.environ["MPLBACKEND"] = "agg"
    try:
        refuse_empty_values(sys.argv[1:])
        status = command() or 0
    except SystemExit as end:  # argparse, after --help or a wrong option
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except (UserError, OSError) as error:
        if _is_first_report():
            print(f"error: {error_text(error)}", file=sys.stderr)
        status = 2
    except ModuleNotFoundError as error:
        if error.name is None or (Path(__file__).parents[1] / error.name.partition(".")[0]).exists():
            raise
        print(f"error: the package {error.name} is missing; pip install -r requirements.txt", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        status = INTERRUPTED
    finally:
        output.flush()
        if output.failure is not None and not isinstance(output.failure, BrokenPipeError):
            print(f"error: stdout: cannot be written ({output.failure.strerror}); free some space", file=sys.stderr)
            status = status or 2
        messages.flush()
        sys.stdout, sys.stderr = output.stream, messages.stream
        warnings.showwarning = shown_before
        # Results and status are final; without this, Ctrl-C while the libraries close would replace the status.
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
        if "torch" in sys.modules:
            from utils.processes import leave

            leave()
    return status


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


class _Output:
    """A standard stream that ignores further output once it cannot be written.

    Attributes:
        stream: The stream behind it; None if it was closed from the start.
        failure: Why it cannot be written.
    """

    def __init__(self, stream: TextIO | None, descriptor: int):
        self.stream = stream
        self.failure: OSError | None = None
        self._descriptor = descriptor
        if stream is None:
            # Otherwise the next file opened would receive what libraries print.
            self._leave_to_nobody()

    def write(self, text: str) -> int:
        # File names may hold characters that the terminal's encoding, or any encoding, lacks.
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        printable = text.encode(encoding, "backslashreplace").decode(encoding)
        self._attempt(lambda stream: stream.write(printable))
        return len(text)

    def flush(self) -> None:
        self._attempt(lambda stream: stream.flush())

    def _attempt(self, use: Callable[[TextIO], Any]) -> None:
        if self.stream is None or self.failure is not None:
            return
        try:
            use(self.stream)
        except OSError as error:
            self.failure = error
            # The rest of the buffer is discarded when Python ends.
            with contextlib.suppress(OSError, ValueError):
                if self.stream.fileno() == self._descriptor:
                    self._leave_to_nobody()

    def _leave_to_nobody(self) -> None:
        with contextlib.suppress(OSError):
            nobody = os.open(os.devnull, os.O_RDWR)
            if nobody != self._descriptor:
                os.dup2(nobody, self._descriptor)
                os.close(nobody)

    def isatty(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _is_first_report() -> bool:
    # Without torchrun there is no other process, and torch, which is slow to load, may not be needed.
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return True
    from utils.processes import is_first_report

    return is_first_report()


def error_text(error: Exception) -> str:
    """The message of an error in one line, without the traceback that a DataLoader's worker adds."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}; check the file or folder"
    lines = str(error).splitlines()
    name = type(error).__name__
    if len(lines) > 1 and lines[0].startswith(f"Caught {name} in "):
        return lines[-1].partition(f"{name}: ")[2]
    return " ".join(lines)


def format_duration(seconds: float) -> str:
    """Hours, minutes and seconds as the original release prints them, for example 1h06m28s."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{seconds:02}s"
