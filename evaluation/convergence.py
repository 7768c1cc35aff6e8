"""Residual against evaluations from a cold and a warm start, and the time that a frame takes."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from inference.network import Network
from inference.results import FrameResults
from inference.streams import Streams
from models.ldeq import LDEQ
from models.rwr import RwRConfig
from solvers import FixedPointConfig, SolverConfig

WARM_UP_FRAMES = 5

FrameSolver = Callable[[Tensor, np.ndarray, np.ndarray, np.ndarray], FrameResults]
"""`Streams.step`."""


def milliseconds_per_frame(solver: FrameSolver, images: Sequence[Tensor], matrices: Sequence[np.ndarray]) -> float:
    """Time that the network takes for a frame of one clip; decoding and cropping are left out.

    Args:
        solver: with one slot.
        images: crops (3, S, S) of consecutive frames, on the model's device; the first few only warm up.
        matrices: (2, 3) each, see `Streams.step`.

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
        matrices: (2, 3) each, see `Streams.step`.
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
    rwr, network = Streams(model, config), Network(model)
    for number, (image, matrix) in enumerate(zip(images, matrices, strict=True)):
        batch = image[None].to(memory_format=torch.channels_last)
        if number > 0 and number % every == 0:
            embedded = network.embed(batch)
            for name, solver in solvers.items():
                solving = network.with_solver(replace(solver, max_evals=max_evals, tol=0), final_evaluation=False)
                for start, state in (("cold", None), ("warm", rwr.state(0))):
                    traces[f"{name}, {start} start"].append(solving.solve(embedded, state).solution.trace[:, 0].cpu())
        rwr.step(batch, matrix[None], [0])
    return {name: torch.stack(of_start, dim=1).numpy() for name, of_start in traces.items() if of_start}
