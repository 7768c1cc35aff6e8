"""Numbers from a caller as arrays."""

import numpy as np
from numpy.typing import ArrayLike

from utils.errors import OptionError


def to_numbers(name: str, values: ArrayLike, shape: tuple[int | None, ...] | None = None) -> np.ndarray:
    """The values as float64: no truth values, complex numbers, dates, text, objects or masked values.

    Args:
        name: Of the argument, for the message.
        values: An array, a tensor on the CPU, or nested lists.
        shape: The shape that it must have, with None for any length; None for any shape.

    Raises:
        OptionError: If they are something else or have another shape; the message names the argument.
    """
    if isinstance(values, bytes | bytearray):
        raise OptionError(f"{name} must be numbers, not {type(values).__name__}")
    if isinstance(values, list | tuple) and any(map(np.ma.is_masked, values)):
        raise OptionError(f"{name} must be real numbers, got masked values from {type(values).__name__}")
    try:
        array = np.asanyarray(values)
    except Exception as error:  # tensors and objects raise many kinds of error, ragged lists a ValueError
        reason = " ".join(str(error).split())[:200]
        raise OptionError(f"{name} cannot be converted to an array of numbers ({reason})") from error
    if array.dtype.kind not in "iuf" or np.ma.is_masked(array):
        kind = "masked values" if np.ma.is_masked(array) else array.dtype
        raise OptionError(f"{name} must be real numbers, got {kind} from {type(values).__name__}")
    if shape is not None and (
        array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True))
    ):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise OptionError(f"{name} must have shape ({wanted}), got {array.shape}")
    return np.asarray(array, dtype=np.float64)
