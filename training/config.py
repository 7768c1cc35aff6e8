"""Options of training, on the command line and in the run folder, and the two presets.

Nothing here loads torch, so that the script answers `--help` and a wrong option at once.
"""

import argparse
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from utils.errors import OptionError
from utils.values import check_choice, check_integer, check_number

GradientRule = Literal["ift", "jfb", "unroll"]

Precision = Literal["fp32", "bf16"]

PairCarry = Literal["unchanged", "crop"]

InitialPart = Literal["all", "backbone"]


MOST_STEPS = 1_000_000_000

MOST_EVALUATIONS = 10_000


def option(default: Any, text: str) -> Any:
    """A field whose help text the command line shows."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The options of the training itself; `RunOptions` has those of the network, its start, and the machine.

    Raises:
        OptionError: an option is out of range; the message names it.
    """

    splits: tuple[str, ...] = option(("train",), "lists of faces to train on")
    more_faces: tuple[str, ...] = option(
        (), "further lists, each ROOT:SPLIT, or ROOT:SPLIT=SHARE with the share of the samples drawn from it"
    )
    validation_split: str = option("test", "list of faces to validate on")
    epochs: int = option(60, "epochs of --samples_per_epoch")
    samples_per_epoch: int = option(7500, "faces drawn per epoch, with replacement")
    batch_size: int = option(32, "faces per step, over all processes")
    learning_rate: float = option(1e-3, "peak of the schedule: linear warm-up, then half a cosine")
    final_learning_rate: float = option(0.0, "end of the cosine, as a share of the peak")
    warm_up: float = option(0.03, "share of the steps spent on warm-up")
    weight_decay: float = option(0.05, "weight decay of AdamW, on weights of more than one dimension")
    clip_norm: float = option(1.0, "largest norm of the gradient")
    ema_decay: float = option(0.999, "decay of the moving average of the weights; the average is saved")
    uncertainty_weight: float = option(0.5, "share of the likelihood in the loss, in [0, 1]; the rest is the distance")
    pose_boost: float = option(
        10.0, "how much more often a near profile is drawn than a frontal face; 1: equally often"
    )
    gradient: GradientRule = option("jfb", "how the fixed point is differentiated")
    phantom_steps: int = option(1, "tracked evaluations of jfb")
    min_depth: int = option(0, "jfb: smallest number of untracked evaluations before the tracked ones")
    max_depth: int = option(4, "jfb: largest number of untracked evaluations before the tracked ones")
    warm_start_probability: float = option(0.3, "share of the steps that start near the fixed point, as under RwR")
    warm_start_jitter: float = option(0.04, "standard deviation of the affine change of such a start, in half crops")
    pair_probability: float = option(
        0.0,
        "jfb: share of the steps with two views of a face, like two frames; the second starts from the first's state",
    )
    pair_depth: int = option(0, "0 to this many untracked evaluations of the second view before the tracked ones")
    pair_carry: PairCarry = option(
        "unchanged", "state of the first view for the second: unchanged or moved with the crop"
    )
    jitter_weight: float = option(
        0.5, "weight of the change of the error between the two views; the error itself has 1"
    )
    jacobian_weight: float = option(0.0, "weight of the Jacobian penalty")
    seed: int = option(0, "seed of weights, sampling, augmentation and depths")

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("epochs", 1, MOST_STEPS),
            ("samples_per_epoch", 1, MOST_STEPS),
            ("batch_size", 1, MOST_STEPS),
            ("phantom_steps", 1, MOST_EVALUATIONS),
            ("min_depth", 0, MOST_EVALUATIONS),
            ("max_depth", 0, MOST_EVALUATIONS),
            ("pair_depth", 0, MOST_EVALUATIONS),
            ("seed", 0, 2**63 - 1),
        ):
            check_integer(f"--{name}", getattr(self, name), lowest, highest)
        for name in ("learning_rate", "clip_norm"):
            check_number(f"--{name}", getattr(self, name), 0, open_below=True)
        for name in (
            "warm_up",
            "final_learning_rate",
            "ema_decay",
            "uncertainty_weight",
            "warm_start_probability",
            "pair_probability",
        ):
            check_number(f"--{name}", getattr(self, name), 0, 1)
        for name in ("weight_decay", "warm_start_jitter", "jitter_weight", "jacobian_weight"):
            check_number(f"--{name}", getattr(self, name), 0)
        check_number("--pose_boost", self.pose_boost, 1)
        check_choice("--gradient", self.gradient, get_args(GradientRule))
        check_choice("--pair_carry", self.pair_carry, get_args(PairCarry))
        if self.max_depth < self.min_depth:
            raise OptionError(f"--max_depth must be at least --min_depth {self.min_depth}, not {self.max_depth}")
        if self.pair_probability and self.gradient != "jfb":
            raise OptionError(f"--pair_probability must be 0 with --gradient {self.gradient}; pairs need jfb")
        if self.samples_per_epoch < self.batch_size:
            raise OptionError(f"--samples_per_epoch must be at least --batch_size {self.batch_size}")

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.samples_per_epoch // self.batch_size


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The start of a run, and the options that do not change its result.

    Attributes:
        dataset_path: folder of WFLW, in either layout.
        output_folder: the run folder.
        resume: whether to resume the run in it.
        preset: network and defaults, changed by the named options.
        backbone: name of the backbone; None for the preset's.
        image_size: side of the network's input; None for the preset's.
        cell_width: channels of the cell at its finest level; None for the preset's.
        cell_width_increment: further channels at each coarser level; None for the preset's.
        gate: share of the new heatmaps in the cell's output; None for the preset's.
        gate_start: value of that share, or initial value of a learned gate; None for the preset's.
        max_evals: budget of the network's solver; None for the preset's.
        backbone_weights: ImageNet weights of a published HRNet.
        initial_weights: checkpoint to start from.
        initial_part: the part of it to use.
        augmentation: strengths of the augmentation that differ from the defaults, each NAME=VALUE.
        workers: processes that read and augment faces.
        device: see `inference.network.resolve_device`.
        precision: see `inference.engines.autocast`.
        compile: run the backbone and the cell through torch.compile; it needs a C++ compiler on a CPU.
        save_minutes: minutes between saves of the state within an epoch.
    """

    dataset_path: Path
    output_folder: Path
    resume: bool = False
    preset: str = "mini"
    backbone: str | None = None
    image_size: int | None = None
    cell_width: int | None = None
    cell_width_increment: int | None = None
    gate: str | None = None
    gate_start: float | None = None
    max_evals: int | None = None
    backbone_weights: Path | None = None
    initial_weights: Path | None = None
    initial_part: InitialPart = "all"
    augmentation: tuple[str, ...] = ()
    workers: int = 2
    device: str = "auto"
    precision: Precision = "fp32"
    compile: bool = False
    save_minutes: float = 10


# See docs/depth.md: with pairs of views and a gate, the network remembers its start.
_MEMORY: dict[str, Any] = {
    "min_depth": 1,
    "warm_start_probability": 0.1,
    "pair_probability": 0.33,
    "jitter_weight": 1.0,
}

PRESETS: dict[str, TrainingConfig] = {
    # The shipped weights took these samples in several stages, see weights/README.md.
    "mini": TrainingConfig(epochs=60, samples_per_epoch=7488, warm_up=0.02, max_depth=4, **_MEMORY),
    "paper": TrainingConfig(epochs=120, samples_per_epoch=7500, max_depth=8, **_MEMORY),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add one command-line option per field of `TrainingConfig`; the preset gives the defaults."""
    group = parser.add_argument_group("training (defaults: the preset's)")
    for item in fields(TrainingConfig):
        group.add_argument(f"--{item.name}", default=None, help=item.metadata["help"], **_kind(item))


def _kind(item: Field[Any]) -> dict[str, Any]:
    if get_origin(item.type) is tuple:
        return {"nargs": "+", "metavar": item.name.upper()}
    if get_origin(item.type) is Literal:
        return {"choices": get_args(item.type)}
    return {"type": item.type, "metavar": getattr(item.type, "__name__", "value").upper()}


def from_options(args: argparse.Namespace) -> TrainingConfig:
    """The preset, changed by the options of the command line.

    Raises:
        OptionError: an option is out of range.
    """
    named = {item.name: getattr(args, item.name) for item in fields(TrainingConfig)}
    changes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in named.items() if value is not None
    }
    return replace(PRESETS[args.preset], **changes)
