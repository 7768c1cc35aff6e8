"""LDEQ: backbone, cell, fixed point, soft-argmax.

python -m models.ldeq --summary                 # layers and parameters of the preset "mini"
python -m models.ldeq --summary --preset paper
"""

import argparse
import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.backbones import make_backbone
from models.cell import Cell
from models.config import PRESETS, LDEQConfig
from models.deq import deq, repeat
from models.heatmaps import exponential_heatmaps, soft_argmax
from solvers import Solution, SolverConfig


@dataclass(frozen=True)
class LDEQOutput:
    """What the network returns.

    Attributes:
        keypoints: (B, K, 2) x, y in [0, 1] of the image.
        uncertainty: (B, K) standard deviation of the heatmap, in the unit of the keypoints. The original release's
            field of this name mixes units; nothing in the evaluation uses it.
        heatmaps: (B, K, H, W) as they enter the soft-argmax, H = W = S/4.
        z_star: (B, Z, H, W) the final state, detached, ready to be the next frame's z0.
        solution: of the solver; None in explicit mode.
    """

    keypoints: Tensor
    uncertainty: Tensor
    heatmaps: Tensor
    z_star: Tensor
    solution: Solution | None


class LDEQ(nn.Module):
    """The landmark deep equilibrium model (section 3 of the paper)."""

    def __init__(self, config: LDEQConfig):
        super().__init__()
        self.config = config
        self.backbone = make_backbone(config.backbone, config.injection_channels)
        self.cell = Cell(config)

    def with_solver(self, solver: SolverConfig) -> "LDEQ":
        """The same network, sharing its weights, with another solver."""
        return self._with_config(replace(self.config, solver=solver))

    def _with_config(self, config: LDEQConfig) -> "LDEQ":
        other = copy.copy(self)
        other.config = config
        return other

    def initial_state(self, injection: Tensor) -> Tensor:
        """Zeros (B, Z, H, W) on the device and in the memory format of the injection (B, C, H, W)."""
        channels_last = not injection.is_contiguous() and injection.is_contiguous(memory_format=torch.channels_last)
        shape = (injection.shape[0], self.config.state_channels, *injection.shape[2:])
        zeros = injection.new_zeros(shape, dtype=torch.promote_types(injection.dtype, torch.float32))
        return zeros.contiguous(memory_format=torch.channels_last) if channels_last else zeros

    def forward(self, images: Tensor, z0: Tensor | None = None) -> LDEQOutput:
        """Landmarks of a batch of face crops.

        Args:
            images: (B, 3, S, S) ImageNet-normalised RGB, S = config.image_size.
            z0: (B, Z, S/4, S/4) where the solve starts, for example the previous frame's `z_star`; None means zeros.

        Raises:
            ValueError: a shape is not as above.
        """
        size = self.config.image_size
        if images.dim() != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(f"images must be (B, 3, {size}, {size}), not {tuple(images.shape)}")
        injection = self.backbone(images)
        start = self.initial_state(injection)
        if z0 is not None:
            if z0.shape != start.shape:
                raise ValueError(f"z0 must be {tuple(start.shape)}, not {tuple(z0.shape)}")
            start.copy_(z0)
        embedded = self.cell.embed(injection)

        def f(z: Tensor) -> Tensor:
            return self.cell(z, embedded)

        if self.config.mode == "explicit":
            state, solution = repeat(f, start, self.config.explicit_depth), None
        else:
            state, solution = deq(
                f,
                start,
                self.config.solver,
                self.config.gradient,
                self.config.final_evaluation,
                track=torch.is_grad_enabled() and embedded.requires_grad,
            )
        heatmaps = state[:, : self.config.landmarks]
        if self.config.normalisation == "none":
            heatmaps = exponential_heatmaps(heatmaps, self.config.effective_beta)
        keypoints, uncertainty = soft_argmax(heatmaps)
        return LDEQOutput(keypoints, uncertainty, heatmaps, state.detach(), solution)


def main() -> None:
    """Print a summary of a preset."""
    from torchinfo import summary

    parser = argparse.ArgumentParser(description="Print the layers and the parameters of a network.")
    parser.add_argument("--summary", action="store_true", required=True, help="what to print")
    parser.add_argument("--preset", choices=PRESETS, default="mini")
    args = parser.parse_args()
    config = PRESETS[args.preset]
    shape = (1, 3, config.image_size, config.image_size)
    summary(LDEQ(config), shape, depth=4, col_names=("output_size", "num_params", "mult_adds"))


if __name__ == "__main__":
    main()
