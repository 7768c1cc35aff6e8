"""LDEQ: backbone, cell, fixed point, soft-argmax.

python -m models.ldeq --summary                 # layers and parameters of the preset "mini"
python -m models.ldeq --summary --preset paper
"""

if __name__ == "__main__":
    # `python -m models.ldeq --summary`, before the imports: torch is slow to load and `--help` does not need it.
    import sys

    from models.summary import main
    from utils.command_line import run

    sys.exit(run(main))

import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from models.backbones import make_backbone
from models.cell import Cell
from models.config import LDEQConfig
from models.deq import deq, repeat
from models.heatmaps import exponential_heatmaps, soft_argmax
from solvers import Solution, SolverConfig
from utils.errors import OptionError
from utils.tensors import check_dense
from utils.values import check_instance


@dataclass(frozen=True)
class LDEQOutput:
    """The output of the network.

    Attributes:
        keypoints: (B, K, 2) x, y in [0, 1] of the image.
        uncertainty: (B, K) standard deviation of the heatmap, in the unit of the keypoints. The original release's
            field of this name mixes units; nothing in the evaluation uses it.
        heatmaps: (B, K, H, W), the input of the soft-argmax, H = W = S/4.
        z_star: (B, Z, H, W) the final state, detached, usable as the next frame's z0.
        solution: result of the solver; None in explicit mode and for gradients by the "unroll" rule.
    """

    keypoints: Tensor
    uncertainty: Tensor
    heatmaps: Tensor
    z_star: Tensor
    solution: Solution | None

    @property
    def solved(self) -> Solution:
        """The result of the solver.

        Raises:
            ValueError: there is none, see `solution`.
        """
        if self.solution is None:
            raise ValueError("this output has no solution, as no solver computed it")
        return self.solution


class LDEQ(nn.Module):
    """The landmark deep equilibrium model (section 3 of the paper).

    Attributes:
        config: its full description.
        source: the checkpoint that it was read from; None for a new network.
    """

    def __init__(self, config: LDEQConfig):
        super().__init__()
        check_instance("config", config, LDEQConfig)
        self.config = config
        self.source: Path | None = None
        self.backbone = make_backbone(config.backbone, config.injection_channels)
        self.cell = Cell(config)

    def with_solver(self, solver: SolverConfig) -> "LDEQ":
        """The same network, sharing its weights, with another solver."""
        other = copy.copy(self)
        other.config = replace(self.config, solver=solver)
        return other

    def embed(self, images: Tensor) -> Tensor:
        """The part that is computed once per image: (B, 3, S, S) -> (B, cell width, S/4, S/4), for `Cell.forward`.

        Raises:
            ValueError: the images have another shape.
        """
        check_dense("images", images)
        size = self.config.image_size
        if images.dim() != 4 or images.shape[1:] != (3, size, size) or not len(images):
            raise ValueError(f"images must be (B, 3, {size}, {size}), not {tuple(images.shape)}")
        weight = next(self.parameters())
        same_type = images.dtype == weight.dtype or torch.is_autocast_enabled(images.device.type)
        if images.device != weight.device or not same_type:
            raise OptionError(
                f"images are {images.dtype} on {images.device}, but the weights are {weight.dtype} on {weight.device}; "
                "move the images or the network"
            )
        return self.cell.embed(self.backbone(images))

    def initial_state(self, embedded: Tensor) -> Tensor:
        """Zeros (B, Z, H, W), float32, on the device and in the memory format of `embed`'s value."""
        channels_last = not embedded.is_contiguous() and embedded.is_contiguous(memory_format=torch.channels_last)
        shape = (embedded.shape[0], self.config.state_channels, *embedded.shape[2:])
        zeros = embedded.new_zeros(shape, dtype=torch.promote_types(embedded.dtype, torch.float32))
        return zeros.contiguous(memory_format=torch.channels_last) if channels_last else zeros

    def _cell_is_trained(self) -> bool:
        return any(parameter.requires_grad for parameter in self.cell.parameters())

    def read_out(self, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints, uncertainty and heatmaps of a state (B, Z, H, W), see `LDEQOutput`.

        Raises:
            OptionError: the state has another form.
        """
        check_dense("state", state, 4)
        heatmaps = state[:, : self.config.landmarks]
        if self.config.normalisation == "none":
            heatmaps = exponential_heatmaps(heatmaps, self.config.effective_beta)
        return *soft_argmax(heatmaps), heatmaps

    def forward(self, images: Tensor, z0: Tensor | None = None) -> LDEQOutput:
        """Landmarks of a batch of face crops.

        Args:
            images: (B, 3, S, S) ImageNet-normalised RGB, S = config.image_size.
            z0: (B, Z, S/4, S/4) start of the solve, for example the previous frame's `z_star`; None means zeros.

        Raises:
            ValueError: a shape is not as above.
        """
        embedded = self.embed(images)
        start = self.initial_state(embedded)
        if z0 is not None:
            check_dense("z0", z0)
            if z0.shape != start.shape:
                raise ValueError(f"z0 must be {tuple(start.shape)}, not {tuple(z0.shape)}")
            start.copy_(z0)

        if self.config.mode == "explicit":
            state, solution = repeat(self.cell, start, self.config.explicit_depth, (embedded,)), None
        else:
            state, solution = deq(
                self.cell,
                start,
                self.config.solver,
                self.config.gradient,
                self.config.final_evaluation,
                track=torch.is_grad_enabled() and (embedded.requires_grad or self._cell_is_trained()),
                args=(embedded,),
            )
        keypoints, uncertainty, heatmaps = self.read_out(state)
        return LDEQOutput(keypoints, uncertainty, heatmaps, state.detach(), solution)
