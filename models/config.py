"""The configuration that fully describes a network, and the presets."""

import math
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from models.deq import GradientConfig
from models.heatmaps import Normalisation
from solvers import SOLVERS, AndersonConfig, SolverConfig, solver_config

Mode = Literal["implicit", "explicit"]
Backbone = Literal["stem", "hrnet_w18", "hrnet_w18_small", "hrnet_mini"]

# Two stride-2 convolutions in the backbone, then four poolings in the hourglass.
HEATMAP_STRIDE = 4
SIZE_MULTIPLE = HEATMAP_STRIDE * 16


@dataclass(frozen=True, kw_only=True)
class LDEQConfig:
    """A network.

    Attributes:
        landmarks: K, the first channels of the state.
        latent_channels: further channels of the state.
        image_size: S, side of the input in pixels, a multiple of 64; heatmaps are S/4.
        backbone: what makes the injection.
        injection_channels: width of the injection.
        cell_width: w, width of the hourglass at full resolution.
        cell_width_increment: added to the width at each level down.
        cell_groups: groups of the cell's group norms; must divide every width.
        normalisation: how the cell turns its last features into heatmaps.
        softargmax_beta: factor in the exponent of the heatmap normalisation.
        softplus_beta: use softplus(softargmax_beta) instead, as checkpoints with a learned factor do.
        mode: "implicit", a fixed point, or "explicit", `explicit_depth` evaluations.
        explicit_depth: evaluations of the cell in explicit mode.
        explicit_batch_norm: batch norm instead of group norm in the cell, explicit mode only.
        solver: finds the fixed point.
        final_evaluation: the output is f(z) of the solver's z (taken from the solver where it has it); otherwise z.
        gradient: how the fixed point is differentiated.

    Raises:
        ValueError: an option is out of range; the message names it.
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
    mode: Mode = "implicit"
    explicit_depth: int = 2
    explicit_batch_norm: bool = True
    solver: SolverConfig = field(default_factory=AndersonConfig)
    final_evaluation: bool = True
    gradient: GradientConfig = field(default_factory=GradientConfig)

    def __post_init__(self) -> None:
        for name, known in (("backbone", Backbone), ("normalisation", Normalisation), ("mode", Mode)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, not {getattr(self, name)!r}")
        for name in ("landmarks", "injection_channels", "cell_width", "cell_groups", "explicit_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.image_size < SIZE_MULTIPLE or self.image_size % SIZE_MULTIPLE:
            raise ValueError(f"image_size must be a multiple of {SIZE_MULTIPLE}, not {self.image_size}")

    @property
    def heatmap_size(self) -> int:
        """Side of the heatmaps in pixels."""
        return self.image_size // HEATMAP_STRIDE

    @property
    def state_channels(self) -> int:
        """Z, channels of the state."""
        return self.landmarks + self.latent_channels

    @property
    def effective_beta(self) -> float:
        """The factor that multiplies the exponent."""
        return math.log1p(math.exp(self.softargmax_beta)) if self.softplus_beta else self.softargmax_beta

    @property
    def batch_norm_cell(self) -> bool:
        """Whether the cell has batch norms."""
        return self.mode == "explicit" and self.explicit_batch_norm

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the inverse of `from_dict`."""
        return {**asdict(self), "solver": _solver_dict(self.solver), "gradient": _gradient_dict(self.gradient)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "LDEQConfig":
        """Read what `to_dict` wrote.

        Raises:
            ValueError: an unknown option, or one out of range.
        """
        known = [item.name for item in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"unknown option {name!r} of the network")
        gradient = dict(values["gradient"])
        gradient["backward_solver"] = solver_config(**gradient["backward_solver"])
        return cls(**{**values, "solver": solver_config(**values["solver"]), "gradient": GradientConfig(**gradient)})


def _solver_dict(solver: SolverConfig) -> dict[str, Any]:
    name = next(name for name, kind in SOLVERS.items() if type(solver) is kind)
    return {"name": name, **asdict(solver)}


def _gradient_dict(gradient: GradientConfig) -> dict[str, Any]:
    return {**asdict(gradient), "backward_solver": _solver_dict(gradient.backward_solver)}


PRESETS: dict[str, LDEQConfig] = {
    "mini": LDEQConfig(
        image_size=128,
        backbone="hrnet_mini",
        injection_channels=64,
        cell_width=32,
        cell_width_increment=8,
    ),
    "paper": LDEQConfig(),
}


def preset(name: str, **changes: Any) -> LDEQConfig:
    """A preset with some options changed.

    Raises:
        ValueError: an unknown preset, or an option out of range.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
    return replace(PRESETS[name], **changes)
