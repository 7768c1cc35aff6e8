"""The map f for a solver: on flattened samples, with checks of its contract."""

from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.compaction import Departure
from solvers.contract import Map

STATE_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class StateLayout:
    """Flattens a state (n, ...) to (n, N) and back; contiguous and channels-last states are not copied."""

    def __init__(self, z0: Tensor):
        self.shape = z0.shape[1:]
        self.channels_last = (
            z0.dim() == 4 and not z0.is_contiguous() and z0.is_contiguous(memory_format=torch.channels_last)
        )

    def flatten(self, state: Tensor) -> Tensor:
        """(n, ...) -> (n, N)."""
        if self.channels_last:
            state = state.permute(0, 2, 3, 1)
        return state.reshape(state.shape[0], -1)

    def restore(self, flat: Tensor) -> Tensor:
        """(..., n, N) -> (..., n, ...), the inverse of `flatten`."""
        if not self.channels_last:
            return flat.reshape(*flat.shape[:-1], *self.shape)
        channels, height, width = self.shape
        return flat.reshape(*flat.shape[:-1], height, width, channels).movedim(-1, -3)


class CheckedMap:
    """f on flattened samples, (n, N) -> (n, N), in the precision of the solver.

    Args:
        f: see `solvers.solve`.
        z0: (B, ...) start of the solve.
        args: tensors (B, ...), further arguments of f.

    Raises:
        ValueError: If f, z0 or args do not fulfil the conditions of `solvers.solve`.
    """

    def __init__(self, f: Map, z0: Tensor, args: Sequence[Tensor]):
        if not isinstance(z0, Tensor):
            raise ValueError(f"z0 must be a tensor (B, ...), not {type(z0).__name__}")
        if z0.is_nested or z0.layout != torch.strided or z0.device.type == "meta":
            raise ValueError(f"z0 must be a dense tensor with values, not {z0.layout} on {z0.device}")
        if z0.dtype not in STATE_TYPES or z0.dim() < 1 or z0.numel() == 0:
            raise ValueError(f"z0 must be a non-empty floating-point batch, not {z0.dtype} of shape {tuple(z0.shape)}")
        if not callable(f):
            raise ValueError(f"f must be a function from tensors to a tensor, not {type(f).__name__}")
        if not isinstance(args, list | tuple):
            raise ValueError(f"args must be a list or tuple of tensors, not {type(args).__name__}")
        for index, arg in enumerate(args):
            if not isinstance(arg, Tensor) or arg.shape[:1] != z0.shape[:1]:
                found = f"shape {tuple(arg.shape)}" if isinstance(arg, Tensor) else type(arg).__name__
                raise ValueError(f"args[{index}] must be a tensor of {z0.shape[0]} samples like z0, not {found}")
        self.f = f
        self.layout = StateLayout(z0)
        self.dtype = torch.promote_types(z0.dtype, torch.float32)
        self.start = self.layout.flatten(z0).to(self.dtype)
        self.args = [with_version(arg) for arg in args]

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate f.

        Raises:
            ValueError: If f changed an argument in place, or did not return a state.
        """
        inputs = [with_version(self.layout.restore(z)), *self.args]
        versions = [tensor._version for tensor in inputs]
        image = self.f(*inputs)
        for index, (tensor, version) in enumerate(zip(inputs, versions, strict=True)):
            if tensor._version != version:
                name = "z" if index == 0 else f"args[{index - 1}]"
                raise ValueError(f"f changed its argument {name} in place; it must return a new tensor instead")
        self._check(image, inputs[0])
        return self.layout.flatten(image).to(self.dtype)

    def drop(self, departure: Departure) -> None:
        """Keep the arguments of the samples that stay."""
        self.args = [with_version(departure.select(arg)) for arg in self.args]

    def _check(self, image: Tensor, z: Tensor) -> None:
        if not isinstance(image, Tensor):
            raise ValueError(f"f must return a tensor of shape {tuple(z.shape)}, not {type(image).__name__}")
        if image.is_nested or image.layout != torch.strided:
            raise ValueError(f"f must return a dense tensor, not {image.layout}")
        if image.shape != z.shape:
            raise ValueError(
                f"f must keep the shape {tuple(z.shape)}, but returned {tuple(image.shape)}; samples leave the batch, "
                "so tensors with a row per sample must be passed in args"
            )
        fits = image.dtype == self.dtype or (
            image.is_floating_point() and torch.promote_types(image.dtype, self.dtype) == self.dtype
        )
        if not fits or image.device != z.device:
            raise ValueError(
                f"f must keep {self.dtype} (or return half precision) on {z.device} for the shape {tuple(z.shape)}, "
                f"but returned {image.dtype} on {image.device}"
            )


def with_version(tensor: Tensor) -> Tensor:
    """The tensor itself, or for an inference-mode tensor the same memory with a counter of in-place changes."""
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.new_empty(0).set_(tensor)  # type: ignore[call-overload]  # the stub lacks a tensor as source
