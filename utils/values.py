"""Checks of the types and ranges of options, which come from a file or a call of the library.

Without them Python would accept "false" as true, True as 1, and NaN as a number within its limits.
"""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import fields
from numbers import Number
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from utils.errors import OptionError

LARGEST_INTEGER = 1_000_000_000
LARGEST_NUMBER = 1e30


def plain(value: Any) -> Any:
    """A scalar of NumPy as a number of Python; anything else as it is."""
    return value.item() if isinstance(value, Number) and hasattr(value, "item") else value


def check_integer(name: str, value: Any, lowest: int, highest: int = LARGEST_INTEGER) -> None:
    """Check that an option is an integer from `lowest` to `highest`, both included.

    Raises:
        OptionError: If it is not; the message names the option.
    """
    if not isinstance(value, int) or isinstance(value, bool):
        raise OptionError(f"{name} must be an integer, not {_show(value)}")
    if value < lowest:
        raise OptionError(f"{name} must be at least {lowest}, not {_show(value)}")
    if value > highest:
        raise OptionError(f"{name} must be at most {highest}, not {_show(value)}")


def check_number(
    name: str,
    value: Any,
    lowest: float,
    highest: float = LARGEST_NUMBER,
    open_below: bool = False,
    open_above: bool = False,
    infinite: bool = False,
) -> None:
    """Check that an option is a finite number from `lowest` to `highest`.

    With `open_below` it must exceed `lowest`, with `open_above` it must be below `highest`, with `infinite` it may also
    be infinity.

    Raises:
        OptionError: If it is not; the message names the option.
    """
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        if infinite and isinstance(value, float) and value == math.inf:
            return
        raise OptionError(f"{name} must be a finite number, not {_show(value)}")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise OptionError(f"{name} must be an integer of 64 bits or a floating-point number, not {_show(value)}")
    if value < lowest or (open_below and value == lowest):
        least = f"above {lowest:g}" if open_below else f"at least {lowest:g}"
        raise OptionError(f"{name} must be {least}, not {_show(value)}")
    if value > highest or (open_above and value == highest):
        most = f"below {highest:g}" if open_above else f"at most {highest:g}"
        raise OptionError(f"{name} must be {most}, not {_show(value)}")


def check_flag(name: str, value: Any) -> None:
    """Check that an option is true or false.

    Raises:
        OptionError: If it is not; the message names the option.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be true or false, not {_show(value)}")


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    """Check that an option is one of several words.

    Raises:
        OptionError: If it is not; the message names the option.
    """
    if not isinstance(value, str) or value not in choices:
        raise OptionError(f"{name} must be one of {', '.join(choices)}, not {_show(value)}")


def check_instance(name: str, value: Any, kind: type | UnionType, optional: bool = False) -> None:
    """Check that an argument is an object of a class, or with `optional` None.

    Raises:
        OptionError: If it is not; the message names the argument and the class.
    """
    if not (isinstance(value, kind) or (optional and value is None)):
        allowed = [part.__name__ for part in (get_args(kind) or (kind,))] + (["None"] if optional else [])
        raise OptionError(f"{name} must be a {' or '.join(allowed)}, not {_show(value)}")


def to_path(name: str, value: Any) -> Path:
    """A path that a caller gives as text or as an object of a path.

    Raises:
        OptionError: If it is something else; the message names the argument.
    """
    check_instance(name, value, str | os.PathLike)
    try:
        return Path(value)
    except Exception as error:  # an object whose __fspath__ fails, or gives no text
        raise OptionError(f"{name} must be a path, but {_show(value)} gives none ({error})") from error


def check_types(kind: type, options: Mapping[str, Any], owner: str) -> None:
    """Check that the options of a dataclass, for example from a file, have the types of its fields.

    Only plain types are checked: int, float, bool, str, `Literal`, and each of them with None.

    Args:
        kind: The dataclass.
        options: Some of its options by name.
        owner: What they configure, for the message.

    Raises:
        OptionError: If an option is unknown or has another type; the message names the option.
    """
    hints = get_type_hints(kind)
    known = [item.name for item in fields(kind)]
    for name, value in options.items():
        if name not in known:
            raise OptionError(f"unknown option {name!r} of {owner}; remove it")
        alternatives = get_args(hints[name]) if get_origin(hints[name]) is UnionType else (hints[name],)
        if value is None and NoneType in alternatives:
            continue
        check_value(name, value, alternatives[0])


def check_value(name: str, value: Any, wanted: Any) -> None:
    """Check that an option has a plain type: int, float, bool, str or a `Literal`.

    Raises:
        OptionError: If it has not; the message names the option.
    """
    if get_origin(wanted) is Literal:
        check_choice(name, value, get_args(wanted))
    elif wanted is bool:
        check_flag(name, value)
    elif wanted is int:
        check_integer(name, value, -LARGEST_INTEGER)
    elif wanted is float:
        check_number(name, value, -LARGEST_NUMBER)
    elif wanted is str and not isinstance(value, str):
        raise OptionError(f"{name} must be text, not {_show(value)}")


def shown_name(name: str) -> str:
    """A name from a file for a message of one line: as it is, or quoted if it has characters that do not print."""
    return name if name.isprintable() else repr(name)


def _show(value: Any) -> str:
    try:
        # One line: arrays, tensors and networks are shown in several.
        text = " ".join(repr(value).split())
    except Exception:  # an integer of thousands of digits, or an object that cannot be shown
        return f"this {type(value).__name__}"
    return text if len(text) <= 60 else text[:60] + "..."
