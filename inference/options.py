"""What the command lines say of the network in use: weights, device, precision.

Nothing here loads torch, so that a script answers `--help` and a wrong option at once. The names are those of the
registries of the other rooms; `tests/inference/test_options.py` holds them to it.
"""

import argparse
from pathlib import Path

DEVICES = ("auto", "cpu", "cuda", "mps")

PRECISIONS = ("fp32", "bf16")

SOLVERS = ("fixed_point", "anderson", "broyden")

STOP_RULES = ("sample", "batch")

RWR_VARIANTS = ("faithful", "carried", "damped", "steady")

CROPS = ("original", "exact", "steady")

SHIPPED_WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "ldeq_mini.safetensors"


def add_weights_option(parser: argparse.ArgumentParser) -> None:
    """Let a command line name the checkpoint."""
    parser.add_argument(
        "--landmark_model_weights",
        type=Path,
        default=SHIPPED_WEIGHTS,
        help="checkpoint of this project or of the original release (default: the shipped one)",
    )


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Let a command line choose the device and the precision, see `resolve_device` and `autocast`."""
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
