"""Export of a network to ONNX: the backbone, which runs once a frame, and one evaluation of the cell."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from inference.engines import Engine, OnnxEngine, TorchEngine
from inference.exports import CHECKSUM_KEY, DIGEST_KEY, Export, file_checksum
from inference.streams import Streams
from models.checkpoints import weights_digest
from models.ldeq import LDEQ
from models.rwr import VARIANTS
from utils.errors import OptionError
from utils.files import write_bytes

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGES = ("onnx", "onnxscript", "onnxruntime")

FRAMES = 4

NO_CHECKSUM = "0" * 64


class Backbone(nn.Module):
    """The injection, computed once per image."""

    def __init__(self, model: LDEQ):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, S/4, S/4), see `LDEQ.embed`."""
        return self.model.embed(images)


class Cell(nn.Module):
    """One evaluation of the cell, and the landmarks of its value."""

    def __init__(self, model: LDEQ):
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f(z), keypoints and uncertainty, see `LDEQOutput`."""
        image = self.model.cell(z, embedded)
        keypoints, uncertainty, _ = self.model.read_out(image)
        return image, keypoints, uncertainty


@dataclass(frozen=True)
class _Graph:
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    path: Path


def require_packages() -> None:
    """Check that the packages of the export are installed.

    Raises:
        OptionError: If a package is missing.
    """
    for name in PACKAGES:
        try:
            __import__(name)
        except ImportError as error:
            raise OptionError(f"{name} is missing; pip install {' '.join(PACKAGES)}") from error


def export_network(model: LDEQ, export: Export) -> None:
    """Write the two files, for any B.

    Weights that are exact in half precision, such as those of a checkpoint saved in half precision, are stored in half
    precision and converted to single precision on loading. So the files compute exactly the network.

    Args:
        model: in evaluation mode, on the CPU.
        export: the paths.

    Raises:
        OptionError: If a package is missing.
        OutputError: If a file cannot be written.
    """
    require_packages()
    # A batch of two, because the exporter would make a batch of one a constant.
    images = torch.zeros(2, 3, model.config.image_size, model.config.image_size)
    with torch.no_grad():
        embedded = model.embed(images)
        z = model.initial_state(embedded)
    outputs = ("f_z", "keypoints", "uncertainty")
    graphs = (
        _Graph(Backbone(model), {"images": images}, ("embedded",), export.backbone),
        _Graph(Cell(model), {"z": z, "embedded": embedded}, outputs, export.cell),
    )
    for graph in graphs:
        write_bytes(graph.path, to_onnx(graph.module, graph.inputs, graph.outputs, weights_digest(model)))


def to_onnx(module: nn.Module, inputs: dict[str, Tensor], outputs: tuple[str, ...], digest: str) -> bytes:
    """The bytes of an ONNX file.

    Args:
        module: in evaluation mode.
        inputs: example inputs by name, all with the batch first.
        outputs: names of the outputs.
        digest: see `DIGEST_KEY`.
    """
    from onnx import helper
    from onnxscript import optimizer

    # Not optimised by the exporter, which would fold batch norms into weights that half precision no longer holds;
    # onnxruntime does it when it loads the file.
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=tuple(inputs),
        output_names=outputs,
        dynamic_shapes=tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    assert program is not None, "the exporter with dynamo returns a program"
    optimizer.inline(program.model)
    optimizer.fold_constants(program.model, onnx_shape_inference=True)
    optimizer.remove_unused_nodes(program.model)
    content = program.model_proto
    strip(content)
    store_in_half_precision(content)
    helper.set_model_props(content, {DIGEST_KEY: digest, CHECKSUM_KEY: NO_CHECKSUM})
    unsigned = content.SerializeToString()
    return unsigned.replace(NO_CHECKSUM.encode(), file_checksum(unsigned, NO_CHECKSUM).encode())


def strip(content: "ModelProto") -> None:
    """Remove the source location of every node and all shapes, in place: half of a small file."""
    graph = content.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]


def store_in_half_precision(content: "ModelProto") -> None:
    """Store the weights of an ONNX model that are exact in half precision in half precision, in place."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in content.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(weight)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.size < 8 or not np.array_equal(half.astype(np.float32), values):
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *content.graph.node]
    del content.graph.node[:]
    content.graph.node.extend(nodes)


def largest_difference(model: LDEQ, export: Export) -> float:
    """The largest difference between the export's and PyTorch's keypoints on a few frames of noise, in crop sides."""
    size = model.config.image_size
    crops = torch.randn(FRAMES, 3, size, size, generator=torch.Generator().manual_seed(0))
    engines: list[Engine] = [TorchEngine(model), OnnxEngine(export, size)]
    expected, found = (list(_landmarks(model, engine, crops)) for engine in engines)
    return float(np.abs(np.stack(found) - np.stack(expected)).max())


def _landmarks(model: LDEQ, engine: Engine, crops: Iterable[Tensor]) -> Iterator[np.ndarray]:
    rwr = None if model.config.mode == "explicit" else VARIANTS["faithful"]
    streams = Streams(model, rwr, engine=engine)
    for crop in crops:
        yield streams.step(crop[None], np.eye(2, 3)[None], [0]).keypoints[0]
