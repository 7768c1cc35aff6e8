"""Export a network to ONNX, and check it against PyTorch with onnxruntime.

python export.py                                                # the shipped weights
python export.py --landmark_model_weights W --output_folder onnx

needs: pip install "onnx>=1.17" "onnxscript>=0.3" "onnxruntime>=1.20". The output folder gets

    backbone.onnx  images (B, 3, S, S) -> embedded (B, C, S/4, S/4), once a frame
    cell.onnx      z (B, Z, S/4, S/4), embedded -> f(z), keypoints (B, K, 2) and uncertainty (B, K) of f(z)

B is free. `rwr_landmarks` below is all that faithful RwR needs outside PyTorch: NumPy and onnxruntime.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from inference.options import add_weights_option
from inference.streams import Streams
from models import LDEQ, load_checkpoint
from models.rwr import VARIANTS
from utils.command_line import run
from utils.errors import OptionError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
FRAMES = 4
TOLERANCE = 1e-4


class Backbone(nn.Module):
    """What is computed once per image."""

    def __init__(self, model: LDEQ):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, S/4, S/4), see `LDEQ.embed`."""
        return self.model.embed(images)


class Cell(nn.Module):
    """One evaluation, and the landmarks of its value."""

    def __init__(self, model: LDEQ):
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, embedded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """f(z), keypoints and uncertainty, see `LDEQOutput`."""
        image = self.model.cell(z, embedded)
        keypoints, uncertainty, _ = self.model.read_out(image)
        return image, keypoints, uncertainty


def main() -> None:
    """Export, check, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_weights_option(parser)
    parser.add_argument("--output_folder", type=Path, default=Path("results/onnx"))
    args = parser.parse_args()
    require_packages()
    model = load_checkpoint(args.landmark_model_weights).eval()
    if model.config.mode == "explicit":
        raise OptionError(f"{args.landmark_model_weights}: an explicit network has no fixed point to iterate to")
    args.output_folder.mkdir(parents=True, exist_ok=True)
    backbone, cell = export(model, args.output_folder)
    difference = largest_difference(model, backbone, cell)
    print(f"{backbone} and {cell}: keypoints differ from PyTorch's by at most {difference:.1e} of the crop")
    if not difference < TOLERANCE:
        raise OptionError(f"{args.output_folder}: the export differs by more than {TOLERANCE}; do not use it")


def require_packages() -> None:
    """Check for what is only needed here.

    Raises:
        OptionError: A package is missing.
    """
    for name in PACKAGES:
        try:
            __import__(name)
        except ImportError as error:
            raise OptionError(f"{name} is missing; pip install {' '.join(PACKAGES)}") from error


def export(model: LDEQ, folder: Path) -> tuple[Path, Path]:
    """Write backbone.onnx and cell.onnx.

    Args:
        model: in evaluation mode, on the CPU.
        folder: where to.

    Returns:
        The two paths.
    """
    size = model.config.image_size
    # Two, because a batch of one would be taken for a constant.
    images = torch.zeros(2, 3, size, size)
    with torch.inference_mode():
        embedded = model.embed(images)
        z = model.initial_state(embedded)
    batch = torch.export.Dim("batch", min=1)
    backbone, cell = folder / "backbone.onnx", folder / "cell.onnx"
    for module, inputs, names, outputs, path in (
        (Backbone(model), (images,), ("images",), ("embedded",), backbone),
        (Cell(model), (z, embedded), ("z", "embedded"), ("f_z", "keypoints", "uncertainty"), cell),
    ):
        torch.onnx.export(
            module.eval(),
            tuple(tensor.clone() for tensor in inputs),
            path,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return backbone, cell


def rwr_landmarks(
    backbone: Path, cell: Path, crops: Iterable[np.ndarray], evaluations: int = 2
) -> Iterator[np.ndarray]:
    """Landmarks of the crops of a video by faithful RwR: every frame from the state of the one before.

    Args:
        backbone: backbone.onnx.
        cell: cell.onnx.
        crops: (3, S, S) float32 ImageNet-normalised RGB, in the order of the video.
        evaluations: of the cell per frame, the final one included.

    Yields:
        (K, 2) x, y in [0, 1] of every crop.
    """
    from onnxruntime import InferenceSession

    embed = InferenceSession(backbone, providers=["CPUExecutionProvider"])
    evaluate = InferenceSession(cell, providers=["CPUExecutionProvider"])
    channels = evaluate.get_inputs()[0].shape[1]
    z = None
    for crop in crops:
        (embedded,) = embed.run(None, {"images": crop[None]})
        if z is None:
            z = np.zeros((1, channels, *embedded.shape[2:]), np.float32)
        for _ in range(evaluations):
            z, keypoints, _ = evaluate.run(None, {"z": z, "embedded": embedded})
        yield keypoints[0]


def largest_difference(model: LDEQ, backbone: Path, cell: Path) -> float:
    """How far the export's keypoints are from PyTorch's on a few frames of noise, in the unit of the crop."""
    size = model.config.image_size
    crops = torch.randn(FRAMES, 3, size, size, generator=torch.Generator().manual_seed(0))
    rwr, whole = Streams(model, VARIANTS["faithful"]), np.eye(2, 3)[None]
    expected = [rwr.step(crop[None], whole, [0]).keypoints[0] for crop in crops]
    found = list(rwr_landmarks(backbone, cell, crops.numpy()))
    return float(np.abs(np.stack(found) - np.stack(expected)).max())


if __name__ == "__main__":
    sys.exit(run(main))
