"""One training step: where the solve starts, how deep it goes, what is tracked, the loss."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import LDEQ
from models.deq import Tracked, phantom, repeat, tracked_deq
from models.rwr import carry_state
from training.config import TrainingConfig
from training.losses import jacobian_penalty, jitter_loss, landmark_loss


@dataclass(frozen=True)
class StepPlan:
    """The random choices of a step.

    Attributes:
        depth: untracked evaluations before the tracked ones (`jfb` only), from zeros.
        warp: (B, 2, 3) affine maps that move the state before the tracked evaluations, like the motion between two
            frames, see `torch.nn.functional.affine_grid`; None keeps it. Not used for pairs.
        second_depth: untracked evaluations of a pair's second view, from the state of the first.
        probe_seed: of the random direction of the Jacobian penalty.
    """

    depth: int
    warp: Tensor | None
    second_depth: int = 0
    probe_seed: int = 0


def is_pair_step(config: TrainingConfig, step: int) -> bool:
    """Whether the faces of a step have two views, on every process."""
    return bool(np.random.default_rng((config.seed, step)).random() < config.pair_probability)


def draw_plan(config: TrainingConfig, step: int, rank: int, batch_size: int) -> StepPlan:
    """The plan of a step. It depends only on its arguments, so that a run resumes exactly."""
    # Not the rank itself: a seed (seed, step, 0) is that of `is_pair_step`, so the draws would depend on each other.
    generator = np.random.default_rng((config.seed, step, rank + 1))
    probe_seed = int(generator.integers(2**63))
    depth = int(generator.integers(config.min_depth, config.max_depth, endpoint=True))
    if is_pair_step(config, step):
        return StepPlan(depth, None, int(generator.integers(config.pair_depth, endpoint=True)), probe_seed)
    if generator.random() >= config.warm_start_probability:
        return StepPlan(depth, None, probe_seed=probe_seed)
    warp = np.eye(2, 3) + config.warm_start_jitter * generator.standard_normal((batch_size, 2, 3))
    return StepPlan(max(depth, 1), torch.from_numpy(warp).float(), probe_seed=probe_seed)


class TrainingStep(nn.Module):
    """Images and landmarks in, loss out; a module so that DistributedDataParallel can wrap it."""

    def __init__(self, model: LDEQ, config: TrainingConfig):
        super().__init__()
        self.model = model
        self.config = config

    def forward(
        self, images: Tensor, landmarks: Tensor, weights: Tensor, plan: StepPlan, motion: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The loss and the keypoints of a batch.

        With two views the first is solved without a graph, the second starts from its state, and the loss is that of
        the second plus the change of the error from the first to the second (`jitter_loss`).

        Args:
            images: (B, 3, S, S), or (B, 2, 3, S, S) with two views.
            landmarks: (B, K, 2) in [0, 1], or (B, 2, K, 2).
            weights: (B,) of the faces in the loss.
            plan: see `draw_plan`.
            motion: (B, 2, 3) from the first view to the second, see `models.rwr.carry_state`; only for two views.

        Returns:
            The loss, a scalar with a graph, and the keypoints (B, K, 2) without a graph, of the second view if there
            are two.

        Raises:
            ValueError: the state of the first view is to be moved, and the motion is missing.
        """
        first_error = None
        carried = None
        if images.dim() == 5:
            first_state = self._solve_first(images[:, 0], plan.depth)
            first_error = self.model.read_out(first_state)[0] - landmarks[:, 0]
            carried = first_state
            if self.config.pair_carry == "crop":
                if motion is None:
                    raise ValueError("pair_carry 'crop' needs the motion between the views")
                carried = carry_state(first_state, motion)
            images, landmarks = images[:, 1], landmarks[:, 1]

        embedded = self.model.embed(images.contiguous(memory_format=torch.channels_last))
        if carried is None:
            tracked = self._solve(self.model.initial_state(embedded), embedded, plan)
        else:
            tracked = self._solve(carried, embedded, StepPlan(plan.second_depth, None))
        keypoints, uncertainty, heatmaps = self.model.read_out(tracked.state)
        losses = landmark_loss(keypoints, uncertainty, landmarks, heatmaps.shape[-1], self.config.uncertainty_weight)
        if first_error is not None:
            change = jitter_loss(first_error, keypoints - landmarks, landmarks, heatmaps.shape[-1])
            losses = losses + self.config.jitter_weight * change
        loss = (losses * weights).sum() / weights.sum()
        if self.config.jacobian_weight:
            # Not from the global generator, whose state a resumed run would lack.
            generator = torch.Generator(tracked.z.device).manual_seed(plan.probe_seed)
            probe = torch.empty_like(tracked.z).normal_(generator=generator)
            loss = loss + self.config.jacobian_weight * jacobian_penalty(tracked.image, tracked.z, probe)
        return loss, keypoints.detach()

    @torch.no_grad()
    def _solve_first(self, images: Tensor, depth: int) -> Tensor:
        """The state (B, Z, H, W) of a pair's first view: depth + 1 evaluations from zeros."""
        embedded = self.model.embed(images.contiguous(memory_format=torch.channels_last))
        return repeat(self.model.cell, self.model.initial_state(embedded), depth + 1, (embedded,))

    def _solve(self, start: Tensor, embedded: Tensor, plan: StepPlan) -> Tracked:
        """The tracked end of a solve: with `jfb` after the planned evaluations, otherwise by the model's own solver."""
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
