"""The configuration that fully describes a network, and the presets."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from models.deq import GradientConfig
from models.heatmaps import Normalisation
from solvers import SOLVERS, AndersonConfig, SolverConfig
from utils.errors import OptionError
from utils.values import check_choice, check_integer, check_types

Mode = Literal["implicit", "explicit"]
Gate = Literal["none", "constant", "learned"]
Backbone = Literal["stem", "hrnet_w18", "hrnet_w18_small", "hrnet_mini"]

# Two stride-2 convolutions in the backbone, then four poolings in the hourglass.
HEATMAP_STRIDE = 4
HOURGLASS_LEVELS = 4
SIZE_MULTIPLE = HEATMAP_STRIDE * 2**HOURGLASS_LEVELS

# A larger network would not fit any machine, or never end: such a value is a mistake in a file.
MOST_CHANNELS = 16_384
LARGEST_IMAGE = 8_192
MOST_EVALUATIONS = 100_000
LARGEST_BETA = 1e6

LATER_OPTIONS = ("gate", "gate_start")
"""Options that files of earlier versions lack; they had the defaults."""


@dataclass(frozen=True, kw_only=True)
class LDEQConfig:
    """The configuration of a network.

    Attributes:
        landmarks: K, the first channels of the state.
        latent_channels: further channels of the state.
        image_size: S, side of the input in pixels, a multiple of 64; heatmaps are S/4.
        backbone: name of the network that makes the injection.
        injection_channels: width of the injection.
        cell_width: w, width of the hourglass at full resolution.
        cell_width_increment: increase of the width at each level down.
        cell_groups: groups of the cell's group norms; must divide every width.
        normalisation: how the cell converts its last features into heatmaps.
        softargmax_beta: factor in the exponent of the heatmap normalisation.
        softplus_beta: use softplus(softargmax_beta) instead, as checkpoints with a learned factor do.
        gate: share g of the new heatmaps f in the cell's output, z + g (f - z): "none", g = 1, as in the paper;
            "constant", g = `gate_start`, a damped cell; "learned", g per sample and channel, see
            `models.cell.LearnedGate`. The fixed points are the same; with a smaller g the start is forgotten more
            slowly.
        gate_start: g of a constant gate, or g of a learned gate before training if z = f.
        mode: "implicit", a fixed point, or "explicit", `explicit_depth` evaluations.
        explicit_depth: evaluations of the cell in explicit mode.
        explicit_batch_norm: batch norm instead of group norm in the cell, explicit mode only.
        solver: finds the fixed point.
        final_evaluation: the output is f(z) of the solver's z (taken from the solver if it has it); otherwise z.
        gradient: how the fixed point is differentiated.

    Raises:
        OptionError: an option is out of range; the message names it.
    """

    landmarks: int = 98
    latent_channels: int = 0
    image_size: int = 256
    backbone: Backbone = "hrnet_w18"
    injection_channels: int = 256
    cell_width: int = 256
    cell_width_increment: int = 32
    cell_groups: int = 8
    normalisation: Normalisation = "softargmax"
    softargmax_beta: float = 1.0
    softplus_beta: bool = False
    gate: Gate = "none"
    gate_start: float = 0.7
    mode: Mode = "implicit"
    explicit_depth: int = 2
    explicit_batch_norm: bool = True
    solver: SolverConfig = field(default_factory=AndersonConfig)
    final_evaluation: bool = True
    gradient: GradientConfig = field(default_factory=GradientConfig)

    def __post_init__(self) -> None:
        check_types(LDEQConfig, {item.name: getattr(self, item.name) for item in fields(self)}, "the network")
        for name, lowest, highest in (
            ("landmarks", 1, MOST_CHANNELS),
            ("latent_channels", 0, MOST_CHANNELS),
            ("image_size", SIZE_MULTIPLE, LARGEST_IMAGE),
            ("injection_channels", 4, MOST_CHANNELS),  # the first layer of the stem has a quarter of them
            ("cell_width", 1, MOST_CHANNELS),
            ("cell_width_increment", 0, MOST_CHANNELS),
            ("cell_groups", 1, MOST_CHANNELS),
            ("explicit_depth", 1, MOST_EVALUATIONS),
        ):
            check_integer(name, getattr(self, name), lowest, highest)
        if not isinstance(self.solver, SolverConfig):
            raise OptionError(f"solver must be a solver's configuration, not {type(self.solver).__name__}")
        if not isinstance(self.gradient, GradientConfig):
            raise OptionError(f"gradient must be a GradientConfig, not {type(self.gradient).__name__}")
        check_integer("max_evals", self.solver.max_evals, 1, MOST_EVALUATIONS)
        check_integer("m", getattr(self.solver, "m", 1), 1, MOST_EVALUATIONS)
        if not self.batch_norm_cell and any(width % self.cell_groups for width in self.cell_widths):
            widths = ", ".join(map(str, self.cell_widths))
            raise OptionError(
                f"cell_width {self.cell_width} and cell_width_increment {self.cell_width_increment} give the cell the "
                f"widths {widths}; cell_groups {self.cell_groups} must divide every one of them"
            )
        if self.normalisation != "linear" and not 0 < self.effective_beta <= LARGEST_BETA:
            raise OptionError(
                f"softargmax_beta must give a positive factor of at most {LARGEST_BETA:g}, not {self.effective_beta:g}"
            )
        if not 0 < self.gate_start < 1:
            raise OptionError(f"gate_start must be in (0, 1), not {self.gate_start}")
        if self.gate == "learned" and self.normalisation == "none":
            raise OptionError("a learned gate reads the state as heatmaps: normalisation must not be 'none'")
        if self.image_size % SIZE_MULTIPLE:
            raise OptionError(f"image_size must be a multiple of {SIZE_MULTIPLE}, not {self.image_size}")

    @property
    def heatmap_size(self) -> int:
        """Side of the heatmaps in pixels."""
        return self.image_size // HEATMAP_STRIDE

    @property
    def state_channels(self) -> int:
        """Z, channels of the state."""
        return self.landmarks + self.latent_channels

    @property
    def cell_widths(self) -> tuple[int, ...]:
        """Widths of the hourglass, from full resolution down."""
        return tuple(self.cell_width + level * self.cell_width_increment for level in range(HOURGLASS_LEVELS + 1))

    @property
    def effective_beta(self) -> float:
        """The factor that multiplies the exponent."""
        beta = self.softargmax_beta
        # Written so that a large beta does not overflow.
        return max(beta, 0) + math.log1p(math.exp(-abs(beta))) if self.softplus_beta else beta

    @property
    def batch_norm_cell(self) -> bool:
        """Whether the cell has batch norms."""
        return self.mode == "explicit" and self.explicit_batch_norm

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the inverse of `from_dict`."""
        return {**asdict(self), "solver": _solver_dict(self.solver), "gradient": _gradient_dict(self.gradient)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LDEQConfig":
        """Read the result of `to_dict`; the options in `LATER_OPTIONS` may be missing.

        Raises:
            OptionError: an unknown or missing option, or one out of range; the message names it.
        """
        values = dict(_options(values, "the network"))
        if missing := [item.name for item in fields(cls) if item.name not in (*values, *LATER_OPTIONS)]:
            raise OptionError(f"the network has no option {', '.join(missing)}")
        values["solver"] = _solver_from(values["solver"], "solver")
        gradient = dict(_options(values["gradient"], "gradient"))
        if "backward_solver" in gradient:
            gradient["backward_solver"] = _solver_from(gradient["backward_solver"], "backward_solver")
        check_types(GradientConfig, gradient, "the gradient")
        values["gradient"] = GradientConfig(**gradient)
        check_types(cls, values, "the network")
        return cls(**values)


def _options(values: Any, owner: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise OptionError(f"the options of {owner} must have names, not be {type(values).__name__}")
    return values


def _solver_from(values: Any, owner: str) -> SolverConfig:
    options = dict(_options(values, owner))
    name = options.pop("name", None)
    check_choice(f"the name of {owner}", name, SOLVERS)
    check_types(SOLVERS[name], options, f"the solver {name!r}")
    try:
        return SOLVERS[name](**options)
    except ValueError as error:
        raise OptionError(f"{owner}: {error}") from error


def _solver_dict(solver: SolverConfig) -> dict[str, Any]:
    for name, kind in SOLVERS.items():
        if type(solver) is kind:
            return {"name": name, **asdict(solver)}
    raise OptionError(
        f"solver {type(solver).__name__} has no name, so it cannot be written; use one of {', '.join(SOLVERS)}"
    )


def _gradient_dict(gradient: GradientConfig) -> dict[str, Any]:
    return {**asdict(gradient), "backward_solver": _solver_dict(gradient.backward_solver)}


PRESETS: dict[str, LDEQConfig] = {
    "mini": LDEQConfig(
        image_size=128,
        backbone="hrnet_mini",
        injection_channels=64,
        cell_width=32,
        cell_width_increment=8,
        gate="learned",
        gate_start=0.5,
        # Hardly any face needs more than 12. Without enough evaluations for those, rounding alone would move landmarks.
        solver=AndersonConfig(max_evals=20, tol=1e-3),
    ),
    # HRNet-W18 instead of the original's stem, a cell for a total of 22 M parameters as in the paper, and a gate.
    "paper": LDEQConfig(cell_width=192, cell_width_increment=24, gate="learned", gate_start=0.5),
}


def preset(name: str, **changes: Any) -> LDEQConfig:
    """A preset with some options changed.

    Raises:
        OptionError: an unknown preset, or an option out of range.
    """
    if name not in PRESETS:
        raise OptionError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
