"""Command-line options of the network in use: weights, device, precision.

Nothing here loads torch, so that a script answers `--help` and a wrong option at once. The names are those of the
registries of the other rooms; `tests/inference/test_options.py` checks this.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from utils.command_line import given_path, integer_in

if TYPE_CHECKING:
    from inference.engines import EngineName

DEVICES = ("auto", "cpu", "cuda", "mps")

PRECISIONS = ("fp32", "bf16")

ENGINES: "tuple[EngineName, ...]" = ("auto", "torch", "onnxruntime")

SOLVERS = ("fixed_point", "anderson", "broyden")

STOP_RULES = ("sample", "batch")

RWR_VARIANTS = ("faithful", "carried", "damped", "steady")

CROPS = ("original", "exact", "steady")

SHIPPED_WEIGHTS = Path(__file__).resolve().parents[1] / "weights" / "ldeq_mini.safetensors"


class OptionReceiver(Protocol):
    """A parser or a group of its options."""

    def add_argument(self, *names: str, **settings: Any) -> Any:
        """See `argparse.ArgumentParser.add_argument`."""


def add_weights_option(parser: OptionReceiver) -> None:
    """Add the option for the checkpoint."""
    parser.add_argument(
        "--landmark_model_weights",
        type=given_path,
        default=SHIPPED_WEIGHTS,
        help="checkpoint of this project or of the original release (default: the shipped weights)",
    )


def add_machine_options(parser: OptionReceiver) -> None:
    """Add the options for device and precision, see `resolve_device` and `autocast`."""
    parser.add_argument(
        "--device", choices=DEVICES, default="auto", help="where the network runs; auto: a GPU if there is one"
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="bf16 is faster on processors that support it",
    )


def add_engine_options(parser: OptionReceiver) -> None:
    """Add the options for the engine and its cores, see `open_engine` and `use_threads`."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="library that computes the network; auto: onnxruntime on a CPU if there is an export of these weights",
    )
    parser.add_argument(
        "--threads", type=integer_in(1, 4096), metavar="N", help="cores to use (default: PyTorch's choice)"
    )
