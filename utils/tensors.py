"""Tensors from a caller."""

import torch
from torch import Tensor

from utils.errors import OptionError
from utils.values import check_instance


def check_dense(name: str, values: Tensor, dimensions: int | None = None) -> None:
    """Check that an argument is a tensor of floating-point numbers with values, neither sparse nor nested.

    Args:
        name: Of the argument, for the message.
        values: The argument.
        dimensions: Their number; None for any.

    Raises:
        OptionError: If it is anything else; the message names the argument.
    """
    check_instance(name, values, Tensor)
    if values.layout != torch.strided or not values.is_floating_point():
        raise OptionError(
            f"{name} must be a dense tensor of floating-point numbers, not {values.layout} {values.dtype}"
        )
    if values.is_meta:
        raise OptionError(f"{name} must hold values, but it is on device meta")
    if values.is_nested:
        raise OptionError(f"{name} must be a dense tensor of floating-point numbers, not a nested one")
    if dimensions is not None and values.dim() != dimensions:
        raise OptionError(f"{name} must have {dimensions} dimensions, not the shape {tuple(values.shape)}")
