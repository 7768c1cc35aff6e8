"""Engines compute a network. Solver, RwR and read-out are the same for every engine.

An engine computes two things: the injection, once per image (backbone and the part of the cell that sees only the
image), and one evaluation of the cell.

    torch         any device, any precision
    onnxruntime   on a CPU, 1.4 to 2.2 times as fast with one face; needs the network's export (export.py)
"""

import copy
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from inference.exports import CHECKSUM_KEY, DIGEST_KEY, Export, export_of, file_checksum
from models.checkpoints import weights_digest
from models.ldeq import LDEQ
from utils.errors import CheckpointError, OptionError
from utils.values import check_choice

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FACES_AT_ONCE = 8
"""Most faces in one run of onnxruntime; more leave the processor's cache, which is slower and takes more memory."""

SMALL_IMAGE = 128
"""Side of the input up to which a network is small: the threads of one operation would wait for each other for longer
than they work."""

Precision = Literal["fp32", "bf16"]

EngineName = Literal["auto", "torch", "onnxruntime"]


class Engine(Protocol):
    """Computes a network, (B, ...) for any B.

    Attributes:
        name: its name for `open_engine`.
    """

    name: str

    def embed(self, images: Tensor) -> Tensor:
        """The injection, computed once per image: (B, 3, S, S) -> (B, C, S/4, S/4), see `LDEQ.embed`."""
        ...

    def cell(self, z: Tensor, embedded: Tensor) -> Tensor:
        """One evaluation f(z), (B, Z, S/4, S/4) float32, see `Cell.forward`; z is not changed."""
        ...


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Mixed precision for `precision` "bf16"; no change for "fp32"."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


class TorchEngine:
    """PyTorch, with the batch norms of the backbone folded into its convolutions, channels-last.

    Args:
        model: in evaluation mode; the engine shares the weights of its cell.
        precision: see `autocast`.
    """

    name = "torch"

    def __init__(self, model: LDEQ, precision: Precision = "fp32"):
        self.model = copy.copy(model)
        self.model._modules = dict(model._modules)
        self.model.backbone = fold_batch_norm(copy.deepcopy(model.backbone)).to(memory_format=torch.channels_last)
        self.precision = precision
        self.device = next(model.parameters()).device

    def embed(self, images: Tensor) -> Tensor:
        """See `Engine`; the images may be on any device."""
        images = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        with autocast(self.device, self.precision):
            return self.model.embed(images)

    def cell(self, z: Tensor, embedded: Tensor) -> Tensor:
        """See `Engine`."""
        with autocast(self.device, self.precision):
            return self.model.cell(z, embedded)


def fold_batch_norm(module: nn.Module) -> nn.Module:
    """Fold batch norms into the convolutions before them, in place.

    Args:
        module: in evaluation mode. A batch norm that is registered right after a convolution must also be applied right
            after it, as in HRNet. The batch norms of the stem follow an activation and are kept.

    Returns:
        The module.
    """
    for parent in list(module.modules()):
        children = list(parent.named_children())
        for (name, convolution), (norm_name, norm) in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(convolution, norm))
                setattr(parent, norm_name, nn.Identity())
    return module


class OnnxEngine:
    """onnxruntime on the CPU, with as many threads as torch has.

    It reads and writes the memory of torch's tensors without copies.

    Args:
        export: the files.
        image_size: side of the network's input. Up to `SMALL_IMAGE` the threads divide the faces of a batch among them,
            so that one thread computes a face. Otherwise they divide every operation.

    Raises:
        OptionError: If onnxruntime is missing.
        CheckpointError: If the files cannot be used.
    """

    name = "onnxruntime"

    def __init__(self, export: Export, image_size: int = SMALL_IMAGE):
        threads = torch.get_num_threads()
        within, self.shares = (1, threads) if image_size <= SMALL_IMAGE else (threads, 1)
        self.workers = ThreadPoolExecutor(self.shares)
        self.backbone = open_part(export.backbone, ("images",), "embedded", within)
        self.session = open_part(export.cell, ("z", "embedded"), "f_z", within)
        self.embedded_shape = tuple(self.backbone.get_outputs()[0].shape[1:])

    @property
    def digest(self) -> str:
        """`weights_digest` of the exported network; empty if the files have none or differ."""
        first, second = (
            session.get_modelmeta().custom_metadata_map.get(DIGEST_KEY, "") for session in (self.backbone, self.session)
        )
        return first if first == second else ""

    def embed(self, images: Tensor) -> Tensor:
        """See `Engine`."""
        shape = (len(images), *self.embedded_shape)
        return self._run(self.backbone, {"images": images}, "embedded", shape)

    def cell(self, z: Tensor, embedded: Tensor) -> Tensor:
        """See `Engine`."""
        return self._run(self.session, {"z": z, "embedded": embedded}, "f_z", tuple(z.shape))

    def _run(
        self, session: "InferenceSession", inputs: dict[str, Tensor], output: str, shape: tuple[int, ...]
    ) -> Tensor:
        """One output of a session, float32 on the CPU, in new memory of torch."""
        inputs = {name: tensor.to(dtype=torch.float32).contiguous() for name, tensor in inputs.items()}
        result = torch.empty(shape, dtype=torch.float32)
        parts = batch_parts(len(result), self.shares)
        run = partial(run_part, session, inputs, {output: result})
        # A thread of its own for a single part would cost a switch and gain nothing.
        list(map(run, parts) if len(parts) == 1 else self.workers.map(run, parts))
        return result


def batch_parts(count: int, shares: int) -> list[slice]:
    """Divide a batch of `count` faces evenly into at least `shares` parts of at most `FACES_AT_ONCE` faces."""
    parts = max(min(count, shares), -(-count // FACES_AT_ONCE))
    return [slice(part * count // parts, (part + 1) * count // parts) for part in range(parts)]


def run_part(session: "InferenceSession", inputs: dict[str, Tensor], outputs: dict[str, Tensor], part: slice) -> None:
    """Run a session on a part of a batch; all tensors are contiguous float32 on the CPU, by name."""
    binding = session.io_binding()
    for bind, tensors in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
        for name, tensor in tensors.items():
            rows = tensor[part]
            bind(name, "cpu", 0, "float32", tuple(rows.shape), rows.data_ptr())
    session.run_with_iobinding(binding)


def open_part(path: Path, inputs: tuple[str, ...], output: str, threads: int) -> "InferenceSession":
    """A session of one file of an export.

    Args:
        path: the file.
        inputs: names of its inputs.
        output: an output that it must have.
        threads: threads of one operation.

    Raises:
        OptionError: If onnxruntime is missing.
        CheckpointError: If the file cannot be read, is damaged, or is another one.
    """
    session = open_session(path, threads)
    # Files of earlier versions have no checksum.
    stored = session.get_modelmeta().custom_metadata_map.get(CHECKSUM_KEY, "")
    if stored and file_checksum(path.read_bytes(), stored) != stored:
        raise CheckpointError(f"{path}: damaged, its content does not match its checksum; run export.py again")
    names = tuple(part.name for part in session.get_inputs())
    if names != inputs or output not in [part.name for part in session.get_outputs()]:
        raise CheckpointError(
            f"{path}: its inputs are {', '.join(names)}, not {', '.join(inputs)}; run export.py again"
        )
    return session


def open_session(path: Path, threads: int) -> "InferenceSession":
    """A session of onnxruntime on the CPU, with so many threads for one operation.

    Raises:
        OptionError: If onnxruntime is missing.
        CheckpointError: If the file cannot be read.
    """
    try:
        import onnxruntime
    except Exception as error:  # a damaged installation may raise anything
        raise OptionError(f"the engine onnxruntime does not load ({error}); pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait for work by spinning take the cores from the solver, the decoder and the other sessions.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own, one class for every reason
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: not a network that onnxruntime reads ({reason}); run export.py again"
        ) from error


def open_engine(model: LDEQ, name: EngineName = "auto", precision: Precision = "fp32") -> Engine:
    """The engine of a network.

    Args:
        model: the network, in evaluation mode.
        name: "auto" chooses onnxruntime for a network on the CPU in "fp32" if an export of exactly these weights lies
            next to its checkpoint, otherwise torch.
        precision: precision of torch; onnxruntime supports "fp32" only.

    Raises:
        OptionError: If a name is unknown, or if onnxruntime is named but missing, or does not support the device or
            precision.
        CheckpointError: If onnxruntime is named and there is no export of these weights.
    """
    check_choice("engine", name, get_args(EngineName))
    check_choice("precision", precision, get_args(Precision))
    make_torch = partial(TorchEngine, model, precision)
    if name == "torch":
        return make_torch()
    device = next(model.parameters()).device
    if device.type != "cpu" or precision != "fp32":
        if name == "auto":
            return make_torch()
        raise OptionError(f"the engine onnxruntime needs the CPU and fp32, not {device.type} and {precision}")
    export = export_of(model.source) if model.source else None
    try:
        if export is None:
            raise CheckpointError(
                f"{model.source or 'the network'}: no export beside it; run export.py or use --engine torch"
            )
        engine = OnnxEngine(export, model.config.image_size)
        if engine.digest != weights_digest(model):
            raise CheckpointError(f"{export.backbone}: exported from other weights than these; run export.py again")
        return engine
    except (OptionError, CheckpointError) as error:
        if name == "onnxruntime":
            raise
        if export is not None:
            warnings.warn(f"{error}; torch is used instead, which is slower", stacklevel=2)
        return make_torch()
