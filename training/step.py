"""One training step: where the solve starts, how deep it goes, what is tracked, the loss."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import LDEQ
from models.deq import Tracked, phantom, repeat, tracked_deq
from training.config import TrainingConfig
from training.losses import jacobian_penalty, landmark_loss


@dataclass(frozen=True)
class StepPlan:
    """What chance decides for a step.

    Attributes:
        depth: untracked evaluations before the tracked one (`jfb` only).
        warp: (B, 2, 3) moves the state before the tracked evaluation as the next frame of a video would find it, see
            `torch.nn.functional.affine_grid`; None keeps it.
    """

    depth: int
    warp: Tensor | None


def draw_plan(config: TrainingConfig, step: int, rank: int, batch_size: int) -> StepPlan:
    """The plan of a step; it depends on nothing but its arguments, so that a resumed run goes on as it would have."""
    generator = np.random.default_rng((config.seed, step, rank))
    depth = int(generator.integers(config.max_depth + 1))
    if generator.random() >= config.warm_start_probability:
        return StepPlan(depth, None)
    warp = np.eye(2, 3) + config.warm_start_jitter * generator.standard_normal((batch_size, 2, 3))
    return StepPlan(max(depth, 1), torch.from_numpy(warp).float())


class TrainingStep(nn.Module):
    """Images and landmarks in, loss out; a module so that DistributedDataParallel can wrap it."""

    def __init__(self, model: LDEQ, config: TrainingConfig):
        super().__init__()
        self.model = model
        self.config = config

    def forward(self, images: Tensor, landmarks: Tensor, weights: Tensor, plan: StepPlan) -> tuple[Tensor, Tensor]:
        """The loss and the keypoints of a batch.

        Args:
            images: (B, 3, S, S).
            landmarks: (B, K, 2) in [0, 1].
            weights: (B,) of the faces in the loss.
            plan: see `draw_plan`.

        Returns:
            A scalar with a graph, and keypoints (B, K, 2) without.
        """
        embedded = self.model.embed(images)
        start = self.model.initial_state(embedded)
        tracked = self._solve(start, embedded, plan)
        keypoints, uncertainty, heatmaps = self.model.read_out(tracked.state)
        losses = landmark_loss(keypoints, uncertainty, landmarks, heatmaps.shape[-1], self.config.uncertainty_weight)
        loss = (losses * weights).sum() / weights.sum()
        if self.config.jacobian_weight:
            loss = loss + self.config.jacobian_weight * jacobian_penalty(
                tracked.image, tracked.z, torch.randn_like(tracked.z)
            )
        return loss, keypoints.detach()

    def _solve(self, start: Tensor, embedded: Tensor, plan: StepPlan) -> Tracked:
        """The tracked end of a solve: by `jfb` of as many evaluations as planned, otherwise of the model's own."""
        cell, args, gradient = self.model.cell, (embedded,), self.model.config.gradient
        jacobian = self.config.jacobian_weight > 0
        if gradient.rule != "jfb":
            solver = self.model.config.solver
            return tracked_deq(cell, start, solver, gradient, final_evaluation=True, args=args, jacobian=jacobian)[0]
        with torch.no_grad():
            z = repeat(cell, start, plan.depth, args)
            if plan.warp is not None:
                z = warp_state(z, plan.warp)
        return phantom(cell, z, gradient.phantom_steps, args, jacobian)


def warp_state(z: Tensor, warp: Tensor) -> Tensor:
    """Resample a state (B, Z, H, W) by affine maps (B, 2, 3) in [-1, 1] coordinates; zero outside."""
    grid = F.affine_grid(warp.to(z), list(z.shape), align_corners=False)
    return F.grid_sample(z, grid, align_corners=False)
