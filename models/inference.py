"""Running a network over batches: device, precision, memory format."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Literal

import torch
from torch import Tensor

from models.ldeq import LDEQ, LDEQOutput

Precision = Literal["fp32", "bf16"]
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("fp32", "bf16")


def resolve_device(name: str) -> torch.device:
    """The device of a command line's `--device`.

    Args:
        name: "cpu", "cuda", "mps", or "auto" for the best that is there.

    Raises:
        ValueError: the device is not there.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available.get(name, False):
        raise ValueError(f"device {name!r} is not available here; use --device auto or --device cpu")
    return torch.device(name)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Mixed precision for `precision` "bf16"; no change for "fp32"."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


@torch.inference_mode()
def predict(model: LDEQ, batches: Iterable[Tensor], precision: Precision = "fp32") -> Iterator[LDEQOutput]:
    """Landmarks of a stream of image batches.

    Args:
        model: in evaluation mode.
        batches: of (B, 3, S, S) ImageNet-normalised RGB images, on any device.
        precision: see `autocast`.

    Yields:
        The output of each batch, on the model's device.
    """
    device = next(model.parameters()).device
    for images in batches:
        images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
        with autocast(device, precision):
            yield model(images)
