"""The network in use on CUDA, captured in CUDA graphs: the host starts a graph by one call, not every kernel.

A small network on a GPU spends most of its time on Python starting some hundreds of kernels a frame. A CUDA graph holds
all of them, with the memory addresses that they read and write. So inputs are copied into fixed buffers, and outputs
are copied out of fixed buffers before the next replay.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from inference.network import Network
from models.config import LDEQConfig
from models.ldeq import LDEQOutput
from models.rwr import RwRConfig
from solvers import SolverConfig
from utils.errors import OptionError

WARM_UPS = 3
"""Runs before a capture, so that libraries choose their kernels and make their handles."""


class Recorder(Protocol):
    """Captures work on a device."""

    device: torch.device

    def record(self, action: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """Capture an action.

        Args:
            action: reads and writes tensors with fixed addresses.

        Returns:
            The result of the action, and a function that recomputes its tensors in place.
        """
        ...


class CudaRecorder:
    """Captures in CUDA graphs, which share their memory because they never run at the same time.

    Args:
        device: the device of the network.

    Raises:
        OptionError: If it is not a CUDA device.
    """

    def __init__(self, device: torch.device):
        if device.type != "cuda":
            raise OptionError(
                f"CUDA graphs need a CUDA device, but the network is on {device.type!r}; leave out cuda_graphs"
            )
        self.device = device
        self._memory = torch.cuda.graph_pool_handle()

    def record(self, action: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """See `Recorder.record`."""
        with torch.cuda.device(self.device):
            current, side = torch.cuda.current_stream(), torch.cuda.Stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(WARM_UPS):
                    action()
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may meanwhile use CUDA, for example to pin memory; this must not end the capture.
            with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
                outputs = action()
        return outputs, graph.replay


@dataclass(frozen=True, eq=False)
class _Recording:
    """A captured call: the buffers of its inputs, its result, and the function that recomputes the result."""

    inputs: list[Tensor | None]
    outputs: Any
    replay: Callable[[], None]


class CapturedFunction:
    """A function of tensors, captured once for every form of its inputs (shape, dtype, memory order), then replayed.

    Args:
        function: takes tensors or None; returns a tensor or a dataclass of tensors. It must not wait for the device,
            nor depend on values of the host that change.
        recorder: captures it.
    """

    def __init__(self, function: Callable[..., Any], recorder: Recorder):
        self._function = function
        self._recorder = recorder
        self._recordings: dict[tuple[Any, ...], _Recording] = {}

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor | None) -> Any:
        """The result of the function, copied into new tensors; inputs may be on another device."""
        form = tuple(None if given is None else (given.shape, given.dtype, given.stride()) for given in inputs)
        if form not in self._recordings:
            self._recordings[form] = self._record(inputs)
        recording = self._recordings[form]
        _fill(recording.inputs, inputs)
        recording.replay()
        return _copy(recording.outputs)

    def _record(self, inputs: tuple[Tensor | None, ...]) -> _Recording:
        device = self._recorder.device
        buffers = [None if given is None else torch.empty_like(given, device=device) for given in inputs]
        # The warm-up runs on real inputs, because they may decide the choice of kernels.
        _fill(buffers, inputs)
        return _Recording(buffers, *self._recorder.record(partial(self._function, *buffers)))


def _fill(buffers: list[Tensor | None], inputs: tuple[Tensor | None, ...]) -> None:
    for buffer, given in zip(buffers, inputs, strict=True):
        if buffer is not None and given is not None:
            buffer.copy_(given, non_blocking=True)


def _copy(outputs: Any) -> Any:
    """A copy of a tensor or a dataclass of tensors; shared memory is copied once, such as heatmaps within a state."""
    copies: dict[tuple[Any, ...], Tensor] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            place = (value.data_ptr(), value.shape, value.stride(), value.dtype)
            if place not in copies:
                copies[place] = value.clone()
            return copies[place]
        if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{field.name: copy(getattr(value, field.name)) for field in fields(value)})
        return value

    return copy(outputs)


def check_fixed_budget(config: LDEQConfig) -> None:
    """Check that a solve can be captured.

    Raises:
        OptionError: If the solver has a tolerance: the host would have to wait for every residual.
    """
    if config.mode == "implicit" and config.solver.tol > 0:
        raise OptionError(
            f"CUDA graphs need a fixed budget, but the solver has the tolerance {config.solver.tol:g}; use "
            "model.with_solver(dataclasses.replace(model.config.solver, max_evals=N, tol=0)), or leave out cuda_graphs"
        )


class GraphedNetwork(Network):
    """A network whose `embed`, `solve` and `advance` are each captured and replayed.

    The weights are part of the graphs: change them in place, or make a new network.

    Args:
        network: the network without graphs, with a fixed budget.
        recorder: captures it; networks with the same recorder share memory.

    Raises:
        OptionError: If the solver has a tolerance.
    """

    def __init__(self, network: Network, recorder: Recorder):
        check_fixed_budget(network.config)
        super().__init__(network.model, engine=network.engine)
        self.config = network.config
        self._plain = network
        self._recorder = recorder
        self._embed = CapturedFunction(network.embed, recorder)
        self._solve = CapturedFunction(network.solve, recorder)
        self._advance: dict[RwRConfig, CapturedFunction] = {}

    def with_solver(self, solver: SolverConfig, final_evaluation: bool) -> "GraphedNetwork":
        """See `Network.with_solver`."""
        return GraphedNetwork(self._plain.with_solver(solver, final_evaluation), self._recorder)

    def embed(self, images: Tensor) -> Tensor:
        """See `Network.embed`."""
        return self._embed(images)

    def solve(self, embedded: Tensor, z0: Tensor | None = None) -> LDEQOutput:
        """See `Network.solve`."""
        return self._solve(embedded, z0)

    def advance(
        self,
        rwr: RwRConfig,
        embedded: Tensor,
        state: Tensor,
        keypoints: Tensor,
        moved: Tensor | None,
        flow: Tensor | None,
    ) -> LDEQOutput:
        """See `Network.advance`."""
        if rwr not in self._advance:
            self._advance[rwr] = CapturedFunction(partial(self._plain.advance, rwr), self._recorder)
        return self._advance[rwr](embedded, state, keypoints, moved, flow)
