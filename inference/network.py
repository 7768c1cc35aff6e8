"""The network in use: loaded on a device, computed by an engine, with the solver of the command line."""

import copy
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import torch
from torch import Tensor

from inference.engines import Engine, EngineName, Precision, open_engine
from models.checkpoints import load_checkpoint
from models.deq import deq, repeat
from models.ldeq import LDEQ, LDEQOutput
from models.rwr import RwRConfig, pull_back, warm_start
from solvers import SOLVERS, Solution, SolverConfig
from solvers.contract import StopRule
from utils.errors import CheckpointError, OptionError
from utils.values import check_choice, check_instance


def resolve_device(name: str) -> torch.device:
    """The device of a command line's `--device`.

    Args:
        name: "cpu", "cuda", "mps", or "auto" for a GPU if there is one, else the CPU.

    Raises:
        OptionError: If the device is not available.
    """
    check_instance("device", name, str)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available.get(name, False):
        raise OptionError(f"device {name!r} is not available here; use --device auto or --device cpu")
    return torch.device(name)


def load_network(
    path: Path,
    device: torch.device,
    landmarks: int,
    stop_rule: StopRule,
    solver: str | None = None,
    options: dict[str, Any] | None = None,
) -> LDEQ:
    """Load a checkpoint's network, channels-last, with the solver changes of the command line.

    Args:
        path: checkpoint of this project or of the original release.
        device: device of the network.
        landmarks: number of landmarks of the data.
        stop_rule: stop rule of the solver; without effect on an explicit network.
        solver: name of another solver, which keeps budget, tolerance and criterion.
        options: options of the solver, for example {"max_evals": 8}.

    Raises:
        CheckpointError: If the checkpoint cannot be read, has another number of landmarks, or is explicit although a
            solver or options are given.
        OptionError: If an option is out of range.
    """
    model = load_checkpoint(path, device).to(memory_format=torch.channels_last)
    if model.config.landmarks != landmarks:
        raise CheckpointError(
            f"{path}: the network has {model.config.landmarks} landmarks, WFLW has {landmarks}; use another"
        )
    if model.config.mode == "explicit":
        if solver or options:
            raise CheckpointError(f"{path}: an explicit network has no solver; leave out --solver, --max_evals, --tol")
        return model
    own = model.config.solver
    if solver and type(own) is not SOLVERS[solver]:
        own = SOLVERS[solver](max_evals=own.max_evals, tol=own.tol, criterion=own.criterion)
    return model.with_solver(replace(own, stop_rule=stop_rule, **(options or {})))


def switch_off_tf32() -> None:
    """Compute "fp32" in full: TF32 rounds the inputs of convolutions to 10 bits, and differently for other batches."""
    torch.backends.cudnn.allow_tf32 = False


def without_autocast(model: LDEQ) -> AbstractContextManager[object]:
    """Keep the caller's autocast away from solver, RwR and read-out; an engine has its own, see `Precision`."""
    return torch.autocast(next(model.parameters()).device.type, enabled=False)


def use_threads(count: int | None) -> None:
    """Let torch, OpenCV and onnxruntime (if opened later) each use so many cores; None changes nothing."""
    if count is not None:
        torch.set_num_threads(count)
        cv2.setNumThreads(count)


class Network:
    """A network in use, in separate steps: the injection of an image, the solve, and the landmarks of a state.

    So the caller can choose where a solve starts, and repeat it on some of the images.

    Args:
        model: the network.
        precision: see `inference.engines.autocast`; without effect if an open engine is given.
        engine: the name of an engine, see `open_engine`, or an open engine.

    Attributes:
        config: configuration of the network, with the solver in use.

    Raises:
        OptionError: If the weights are not float32 with values, or the engine is missing, or does not support the
            device or precision.
        CheckpointError: If the engine needs an export and there is none.
    """

    def __init__(self, model: LDEQ, precision: Precision = "fp32", engine: EngineName | Engine = "auto"):
        check_instance("model", model, LDEQ)
        check_choice("precision", precision, get_args(Precision))
        weight = next(model.parameters())
        if weight.is_meta or weight.dtype != torch.float32:
            raise OptionError(
                f"model must have float32 weights with values, not {weight.dtype} on {weight.device}; "
                "use model.float(), and precision for a lower one"
            )
        switch_off_tf32()
        self.model = model.eval()
        self.config = model.config
        if not hasattr(engine, "embed"):
            check_choice("engine", engine, get_args(EngineName))
        self.engine: Engine = open_engine(model, engine, precision) if isinstance(engine, str) else engine

    def with_solver(self, solver: SolverConfig, final_evaluation: bool) -> "Network":
        """The same network with another solver, and with a final evaluation or without."""
        other = copy.copy(self)
        other.config = replace(self.config, solver=solver, final_evaluation=final_evaluation)
        return other

    def embed(self, images: Tensor) -> Tensor:
        """The injection, computed once per image, see `LDEQ.embed`; the images may be on any device."""
        return self.engine.embed(images)

    def solve(self, embedded: Tensor, z0: Tensor | None = None) -> LDEQOutput:
        """Find the fixed points and their landmarks.

        Args:
            embedded: (B, C, S/4, S/4) of `embed`.
            z0: (B, Z, S/4, S/4) start of the solve; None means zeros.
        """
        start = self.model.initial_state(embedded)
        if z0 is not None:
            start.copy_(z0)
        config, args = self.config, (embedded,)
        if config.mode == "explicit":
            return self.read_out(repeat(self.engine.cell, start, config.explicit_depth, args), None)
        cell, solver = self.engine.cell, config.solver
        state, solution = deq(cell, start, solver, config.gradient, config.final_evaluation, track=False, args=args)
        return self.read_out(state, solution)

    def advance(
        self,
        rwr: RwRConfig,
        embedded: Tensor,
        state: Tensor,
        keypoints: Tensor,
        moved: Tensor | None,
        flow: Tensor | None,
    ) -> LDEQOutput:
        """One step of RwR from the previous frames, by the solver of this network.

        Args:
            rwr: how a frame is solved from the previous frame.
            embedded: (B, C, S/4, S/4) of `embed`.
            state: (B, Z, S/4, S/4) of the previous frames.
            keypoints: (B, K, 2) of the previous frames.
            moved: (B, 2, 3) see `models.rwr.warm_start`.
            flow: (B, 4, h, w) see `models.rwr.warm_start`.
        """
        carried = warm_start(rwr, state, keypoints, moved, flow)
        output = self.solve(embedded, carried.state)
        if not rwr.pull:
            return output
        pulled = pull_back(rwr, carried, output.z_star, output.keypoints, output.uncertainty)
        return self.read_out(pulled, output.solution)

    def read_out(self, state: Tensor, solution: Solution | None) -> LDEQOutput:
        """The landmarks of states (B, Z, S/4, S/4), together with the solution that gave them."""
        return LDEQOutput(*self.model.read_out(state), state, solution)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> LDEQOutput:
        """Landmarks of a batch of crops (B, 3, S, S), solved from zeros."""
        with without_autocast(self.model):
            return self.solve(self.embed(images))


def predict(
    model: LDEQ, batches: Iterable[Tensor], precision: Precision = "fp32", engine: EngineName | Engine = "auto"
) -> Iterator[LDEQOutput]:
    """Landmarks of a stream of image batches.

    Args:
        model: the network.
        batches: of (B, 3, S, S) ImageNet-normalised RGB images, on any device.
        precision: see `Network`.
        engine: see `Network`.

    Yields:
        The output of each batch, on the model's device.
    """
    yield from map(Network(model, precision, engine), batches)
