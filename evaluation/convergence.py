"""Residual against evaluations from a cold and a warm start, and the time per frame."""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from evaluation.video_inference import CropSequence
from inference.network import Network
from inference.results import FrameResults
from inference.streams import Streams
from models.ldeq import LDEQ
from models.rwr import RwRConfig
from solvers import FixedPointConfig, SolverConfig

WARM_UP_FRAMES = 5

FrameSolver = Callable[[Tensor, np.ndarray, np.ndarray, np.ndarray], FrameResults]
"""`inference.streams.Streams.step`."""

Name = TypeVar("Name", bound=Hashable)


def milliseconds_per_frame(
    solvers: Mapping[Name, FrameSolver], crops: Mapping[Name, CropSequence]
) -> dict[Name, float]:
    """Time of the network for a frame of one clip, without decoding and cropping.

    The solvers take turns frame by frame, so that other load on the machine affects all of them.

    Args:
        solvers: The solvers, with one slot each.
        crops: The crops for each solver, all of one length; the first few are a warm-up.

    Returns:
        The medians in milliseconds; NaN if there are too few frames.
    """
    durations: dict[Name, list[float]] = {name: [] for name in solvers}
    for number in range(min((len(sequence.matrices) for sequence in crops.values()), default=0)):
        for name, solver in solvers.items():
            batch = crops[name].images[number, None].to(memory_format=torch.channels_last)
            matrix = crops[name].matrices[number, None]
            started = time.perf_counter()
            # The results are NumPy arrays, so the call waited for the device.
            solver(batch, matrix, np.array([0]), np.array([number == 0]))
            durations[name].append(time.perf_counter() - started)
    timed = {name: of_solver[WARM_UP_FRAMES:] for name, of_solver in durations.items()}
    return {name: 1000 * float(np.median(of_solver)) if of_solver else np.nan for name, of_solver in timed.items()}


@torch.inference_mode()
def convergence(
    model: LDEQ, config: RwRConfig, images: Iterable[Tensor], matrices: Iterable[np.ndarray], every: int, max_evals: int
) -> dict[str, np.ndarray]:
    """Residual of every evaluation of a solve, from zeros and from the state of RwR, on frames of a clip.

    Args:
        model: implicit, in evaluation mode.
        config: configuration of RwR.
        images: crops (3, S, S) of consecutive frames, on the model's device.
        matrices: (2, 3) each, see `Streams.step`.
        every: one frame in so many is measured, but not the first.
        max_evals: evaluations of a solve.

    Returns:
        (max_evals, frames) by "<solver>, cold start" and "<solver>, warm start", for fixed-point iteration and for the
        network's own solver if it is another.
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
            embedded, warm = network.embed(batch), rwr.start(batch, matrix[None], 0)
            for name, solver in solvers.items():
                solving = network.with_solver(replace(solver, max_evals=max_evals, tol=0), final_evaluation=False)
                for start, state in (("cold", None), ("warm", warm)):
                    traces[f"{name}, {start} start"].append(solving.solve(embedded, state).solved.trace[:, 0].cpu())
        rwr.step(batch, matrix[None], [0])
    return {name: torch.stack(of_start, dim=1).numpy() for name, of_start in traces.items() if of_start}
