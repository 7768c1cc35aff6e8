"""Export a network to ONNX, and check it against PyTorch with onnxruntime.

python export.py                                                # the shipped weights
python export.py --landmark_model_weights W --output_folder onnx

It needs: pip install "onnx>=1.17" "onnxscript>=0.3". For a checkpoint W.safetensors it writes two files, for any batch
size B, to the output folder:

    W.backbone.onnx  images (B, 3, S, S) -> embedded (B, C, S/4, S/4), once a frame
    W.cell.onnx      z (B, Z, S/4, S/4), embedded -> f_z, keypoints (B, K, 2) and uncertainty (B, K) of f_z

If they lie next to the checkpoint, --engine auto uses them; on a CPU they are up to twice as fast as PyTorch. They
hold the SHA-256 of the weights, and are used for these weights only.

Faithful RwR outside PyTorch only has to keep z: for every frame compute `embedded`, then run the cell twice, starting
from the z of the previous frame (zeros for the first). The keypoints of the second run are the landmarks.
"""

import argparse
import sys

from inference.options import add_weights_option
from utils.command_line import given_path, run, script_parser

TOLERANCE = 1e-4


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = script_parser(__doc__)
    add_weights_option(parser)
    parser.add_argument(
        "--output_folder", type=given_path, help="folder of the export (default: the checkpoint's folder)"
    )
    return parser.parse_args()


def main() -> None:
    """Export, check, report."""
    args = parse_arguments()

    from inference.exports import export_paths
    from inference.onnx_export import export_network, largest_difference
    from models import load_checkpoint
    from utils.errors import OutputError
    from utils.files import prepare_output_folder

    model = load_checkpoint(args.landmark_model_weights)
    export = export_paths(args.landmark_model_weights, args.output_folder)
    prepare_output_folder(export.backbone.parent)
    export_network(model, export)
    difference = largest_difference(model, export)
    print(
        f"{export.backbone} and {export.cell}: keypoints differ from PyTorch's by at most {difference:.1e} of the crop"
    )
    if not difference < TOLERANCE:
        raise OutputError(f"{export.backbone}: the export differs from PyTorch by more than {TOLERANCE}; do not use it")


if __name__ == "__main__":
    sys.exit(run(main))
