"""Inferring the crops of several clips side by side, a frame of each at a time: with RwR, or every frame afresh."""

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from inference.network import Precision, autocast
from models.config import LDEQConfig
from models.ldeq import LDEQ, LDEQOutput
from models.rwr import (
    RwRConfig,
    agreement,
    carry_state,
    change_of_crop,
    fit_similarity,
    partial_motion,
    transform_points,
)
from solvers import FixedPointConfig


@dataclass(frozen=True, eq=False)
class FrameResults:
    """What the network said about n frames.

    Attributes:
        keypoints: (n, K, 2) float64 x, y in [0, 1] of the crop.
        evaluations: (n,) int64 evaluations of the cell, the final one included.
        residual: (n,) float32 residual of the solver; NaN without a solver.
    """

    keypoints: np.ndarray
    evaluations: np.ndarray
    residual: np.ndarray


class FrameSolver(Protocol):
    """A way of solving the frames of several clips that lie in slots side by side."""

    def __call__(self, images: Tensor, matrices: np.ndarray, slots: np.ndarray, first: np.ndarray) -> FrameResults:
        """Landmarks of the next frame of n slots.

        Args:
            images: (n, 3, S, S) ImageNet-normalised RGB crops on the model's device, channels-last.
            matrices: (n, 2, 3) float64, from frame pixels to the crop as [0, 1] x [0, 1].
            slots: (n,) slot of every frame.
            first: (n,) whether the frame is the first of its clip.
        """
        ...


class RecurrentSolver:
    """RwR over a fixed number of slots; see `FrameSolver`.

    The batch has every slot at every step, with a black crop where there is no frame, so that a result does not even
    depend by a rounding on which clips lie side by side.

    Args:
        model: implicit, in evaluation mode.
        slots: number of slots.
        config: how a frame is solved from the one before.
        precision: see `inference.network.autocast`.
    """

    def __init__(self, model: LDEQ, slots: int, config: RwRConfig, precision: Precision = "fp32"):
        self.rwr = RwR(model, slots, config)
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, images: Tensor, matrices: np.ndarray, slots: np.ndarray, first: np.ndarray) -> FrameResults:
        """See `FrameSolver`."""
        for slot in slots[first].tolist():
            self.rwr.reset(slot)
        every_image = images.new_zeros(self.rwr.streams, *images.shape[1:]).to(memory_format=torch.channels_last)
        every_matrix = torch.eye(2, 3, dtype=torch.float64).repeat(self.rwr.streams, 1, 1)
        every_image[slots] = images
        every_matrix[slots] = torch.from_numpy(matrices)
        with autocast(images.device, self.precision):
            output = self.rwr.step(every_image, every_matrix)
        results = to_results(output, self.rwr.model.config)
        return FrameResults(results.keypoints[slots], results.evaluations[slots], results.residual[slots])


class FreshSolver:
    """Every frame from zeros by the network's own solver; see `FrameSolver`.

    Args:
        model: in evaluation mode.
        precision: see `inference.network.autocast`.
    """

    def __init__(self, model: LDEQ, precision: Precision = "fp32"):
        self.model = model
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, images: Tensor, matrices: np.ndarray, slots: np.ndarray, first: np.ndarray) -> FrameResults:
        """See `FrameSolver`."""
        with autocast(images.device, self.precision):
            output = self.model(images)
        return to_results(output, self.model.config)


def to_results(output: LDEQOutput, config: LDEQConfig) -> FrameResults:
    """What is kept of a network's output: everything but heatmaps and states."""
    keypoints, solution = output.keypoints.cpu().double().numpy(), output.solution
    if solution is None:
        evaluations, residual = np.full(len(keypoints), config.explicit_depth), np.full(len(keypoints), np.nan)
    else:
        evaluations, residual = solution.evals.cpu().numpy(), solution.residual.cpu().float().numpy()
        evaluations = evaluations + (config.final_evaluation and solution.f_z is None)
    return FrameResults(keypoints, evaluations, residual)


class RwR:
    """The states of B streams of face crops that advance side by side, one frame each at a time.

    Args:
        model: implicit, in evaluation mode.
        streams: B.
        config: how a frame is solved from the one before.
    """

    def __init__(self, model: LDEQ, streams: int, config: RwRConfig | None = None):
        self.config = config or RwRConfig()
        self.network = model
        self.model = model.with_solver(FixedPointConfig(max_evals=self.config.max_iters, tol=0))
        self.model.config = replace(self.model.config, final_evaluation=self.config.final_evaluation)
        self.streams = streams
        self.state: Tensor | None = None
        self.keypoints: Tensor | None = None
        self.matrices: Tensor | None = None
        self.started: Tensor | None = None

    @torch.inference_mode()
    def reset(self, stream: int) -> None:
        """Forget what a stream has seen: its next frame is a first frame."""
        if self.state is not None:
            self.state[stream] = 0
            self.started[stream] = False

    @torch.inference_mode()
    def step(self, images: Tensor, matrices: Tensor) -> LDEQOutput:
        """Landmarks of the next frame of every stream.

        Args:
            images: (B, 3, S, S) ImageNet-normalised RGB crops.
            matrices: (B, 2, 3) float64, from frame pixels to the crop as [0, 1] x [0, 1].

        Returns:
            The network's output for the B crops; with a pull, keypoints, uncertainty, heatmaps and z_star are those of
            the state after it.
        """
        # Half precision would round the geometry to a pixel; only the network may use it.
        with torch.autocast(images.device.type, enabled=False):
            if self.state is None or self.config.carry == "unchanged":
                start, previous = self.state, self.keypoints
            else:
                moved = change_of_crop(self.matrices, matrices).to(self.state)
                start, previous = carry_state(self.state, moved), transform_points(self.keypoints, moved)
        output = self.model(images, start)
        if self.config.pull and start is not None:
            with torch.autocast(images.device.type, enabled=False):
                output = self._pulled(output, start, previous)
        self._remember(output, matrices)
        return output

    @torch.inference_mode()
    def begin(self, images: Tensor, matrices: Tensor) -> LDEQOutput:
        """As `step`, but every stream starts anew, with a full solve by the network's own solver."""
        output = self.network(images)
        self._remember(output, matrices)
        return output

    def _remember(self, output: LDEQOutput, matrices: Tensor) -> None:
        self.state, self.keypoints, self.matrices = output.z_star.clone(), output.keypoints, matrices
        self.started = torch.ones(self.streams, dtype=torch.bool, device=output.z_star.device)

    def _pulled(self, output: LDEQOutput, carried: Tensor, previous: Tensor) -> LDEQOutput:
        if self.config.carry == "face":
            motion = partial_motion(fit_similarity(previous, output.keypoints, output.uncertainty), self.config.follow)
            carried, previous = carry_state(carried, motion), transform_points(previous, motion)
        pull = self.config.pull * agreement(previous, output.keypoints, output.uncertainty, self.config.release)
        latent = pull.median(dim=1, keepdim=True).values.expand(-1, self.model.config.latent_channels)
        pull = torch.cat([pull, latent], dim=1)
        # Chosen, not weighted by zero: what a stream had before its reset need not be finite.
        pulled = torch.lerp(output.z_star, carried, pull.unsqueeze(2).unsqueeze(3))
        state = torch.where(self.started.view(-1, 1, 1, 1), pulled, output.z_star)
        keypoints, uncertainty, heatmaps = self.model.read_out(state)
        return replace(output, keypoints=keypoints, uncertainty=uncertainty, heatmaps=heatmaps, z_star=state)
