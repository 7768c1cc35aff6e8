"""Inferring the crops of several clips side by side, a frame of each at a time: with RwR, or every frame afresh."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from models.config import LDEQConfig
from models.inference import Precision, autocast
from models.ldeq import LDEQ, LDEQOutput
from models.rwr import RwR, RwRConfig
from solvers import FixedPointConfig, SolverConfig

WARM_UP_FRAMES = 5


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
        precision: see `models.inference.autocast`.
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
        precision: see `models.inference.autocast`.
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


def milliseconds_per_frame(solver: FrameSolver, images: Sequence[Tensor], matrices: Sequence[np.ndarray]) -> float:
    """Time that the network takes for a frame of one clip; decoding and cropping are left out.

    Args:
        solver: with one slot.
        images: crops (3, S, S) of consecutive frames, on the model's device; the first few only warm up.
        matrices: (2, 3) each, see `FrameSolver`.

    Returns:
        The median in milliseconds; NaN without enough frames.
    """
    durations = []
    for number, (image, matrix) in enumerate(zip(images, matrices, strict=True)):
        batch = image[None].to(memory_format=torch.channels_last)
        started = time.perf_counter()
        # The results are NumPy arrays, so the call has waited for the device.
        solver(batch, matrix[None], np.array([0]), np.array([number == 0]))
        durations.append(time.perf_counter() - started)
    timed = durations[WARM_UP_FRAMES:]
    return 1000 * float(np.median(timed)) if timed else float("nan")


@torch.inference_mode()
def convergence(
    model: LDEQ, config: RwRConfig, images: Iterable[Tensor], matrices: Iterable[np.ndarray], every: int, max_evals: int
) -> dict[str, np.ndarray]:
    """Residual of every evaluation of a solve, from zeros and from the state that RwR has reached, on frames of a clip.

    Args:
        model: implicit, in evaluation mode.
        config: of RwR.
        images: crops (3, S, S) of consecutive frames, on the model's device.
        matrices: (2, 3) each, see `FrameSolver`.
        every: one frame in so many is measured, the first never.
        max_evals: evaluations of a solve.

    Returns:
        (max_evals, frames) by "<solver>, cold start" and "<solver>, warm start", for fixed-point iteration and, where
        that is another, the network's own solver.
    """
    own = model.config.solver
    solvers: dict[str, SolverConfig] = {"fixed point": FixedPointConfig(criterion=own.criterion)}
    if not isinstance(own, FixedPointConfig):
        solvers[type(own).__name__.removesuffix("Config")] = own
    traces: dict[str, list[Tensor]] = {f"{name}, {start} start": [] for name in solvers for start in ("cold", "warm")}
    rwr = RwR(model, 1, config)
    for number, (image, matrix) in enumerate(zip(images, matrices, strict=True)):
        batch = image[None].to(memory_format=torch.channels_last)
        if number > 0 and number % every == 0:
            for name, solver in solvers.items():
                solving = model.with_solver(replace(solver, max_evals=max_evals, tol=0))
                for start, state in (("cold", None), ("warm", rwr.state)):
                    traces[f"{name}, {start} start"].append(solving(batch, state).solution.trace[:, 0].cpu())
        rwr.step(batch, torch.from_numpy(matrix)[None])
    return {name: torch.stack(of_start, dim=1).numpy() for name, of_start in traces.items() if of_start}
