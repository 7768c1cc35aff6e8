"""What the scripts share on the command line: their own types of option, and how they end on bad input."""

import argparse
import sys
from collections.abc import Callable

from utils.errors import UserError


def positive_integer(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    return _integer_from(text, 1)


def non_negative_integer(text: str) -> int:
    """An argparse type: an integer of at least 0."""
    return _integer_from(text, 0)


def _integer_from(text: str, lowest: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or value < lowest:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {lowest}, not {text!r}")
    return value


def true_or_false(text: str) -> bool:
    """An argparse type: the words true and false, as the flags of the original release take them."""
    values = {"true": True, "false": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"must be true or false, not {text!r}")
    return values[text.lower()]


def run(command: Callable[[], int | None]) -> int:
    """Run a script, for `sys.exit`.

    Args:
        command: The script; it may return an exit status.

    Returns:
        Exit status: that of the script, 0 where it names none, or 2 after one line on stderr for what the user can mend
        (`UserError`, OSError); under torchrun one line from all processes. Any other exception is a bug and goes on.
    """
    try:
        return command() or 0
    except (UserError, OSError) as error:
        # Loaded here, since torch is slow to load and `--help` does without it.
        from utils.processes import is_first_report

        if is_first_report():
            print(f"error: {error_text(error)}", file=sys.stderr)
        return 2
    finally:
        if "torch" in sys.modules:
            from utils.processes import leave

            leave()


def error_text(error: Exception) -> str:
    """The message of an error in one line, freed from the traceback that a worker of a DataLoader wraps it in."""
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
