"""Several faces in parallel, each solved from its own previous frame by RwR, or every frame from zeros."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from inference.cuda_graphs import CudaRecorder, GraphedNetwork, Recorder
from inference.engines import Engine, EngineName, Precision
from inference.network import Network, without_autocast
from inference.optical_flow import CropFlow, to_grey
from inference.results import FrameResults, to_results
from models.ldeq import LDEQ, LDEQOutput
from models.rwr import RwRConfig, change_of_crop, warm_start
from solvers import FixedPointConfig
from utils.arrays import to_numbers
from utils.errors import OptionError
from utils.tensors import check_dense
from utils.values import check_flag, check_instance, check_integer, check_number

BATCH_SIZE = 32
"""Faces in one batch; a larger batch would take more memory for its heatmaps and be no faster."""

NO_PICTURE = np.empty((0, 0), np.uint8)
"""In place of a picture of `to_grey` where no flow is measured."""


@dataclass(frozen=True, kw_only=True)
class RestartRule:
    """When the state of the previous frame is useless, so that the frame counts as a first frame.

    Attributes:
        overlap: a frame restarts if its box and the previous box have an intersection over union below this: another
            face, or a jump.
        residual: a frame whose box agrees restarts if the relative residual of the warm start,
            ||f(z0) - z0|| / ||f(z0)||, exceeds this: a cut. With the shipped weights and the variant "steady" the
            median is 0.22 and the 99th percentile 0.48 over 704 frames of 16 real clips, half of them degraded. Over
            224 cuts between these clips to another person at the same place the median is 0.98 and the 5th percentile
            0.79. So 0.7 finds 96 % of these cuts. With the variant "faithful", 1.7 % of the other frames exceed it
            (benchmarks/tracking_rules.py).

    Raises:
        OptionError: If an option is out of range.
    """

    overlap: float = 0.3
    residual: float = 0.7

    def __post_init__(self) -> None:
        check_number("overlap of the restart rule", self.overlap, 0, 1)
        check_number("residual of the restart rule", self.residual, 0, open_below=True, infinite=True)


@dataclass(frozen=True, eq=False)
class _Slot:
    """The last frame of a slot: state (1, Z, H, W), keypoints (1, K, 2), matrix (1, 2, 3), picture as in `_Crops`."""

    state: Tensor
    keypoints: Tensor
    matrix: Tensor
    picture: np.ndarray


@dataclass(frozen=True, eq=False)
class _Crops:
    """The next crops of n slots: embedded (n, C, H, W), matrices (n, 2, 3) float64 on the host, the slots, pictures."""

    embedded: Tensor
    matrices: Tensor
    slots: list[int]
    pictures: list[np.ndarray]

    def rows(self, rows: Sequence[int]) -> "_Crops":
        if len(rows) == len(self.slots):
            return self
        # Unlike an index by lists, this keeps the memory format.
        embedded = self.embedded.index_select(0, torch.tensor(rows, device=self.embedded.device))
        slots, pictures = [self.slots[row] for row in rows], [self.pictures[row] for row in rows]
        return _Crops(embedded, self.matrices[rows], slots, pictures)


class Streams:
    """Advances several faces in parallel, each in a slot with its own state, all faces of a step in one batch.

    A slot is filled by its first frame and emptied by `leave`. The other slots change its results only by rounding. The
    one exception is a solver with the "batch" rule that is used without RwR.

    If a solve is not finite, the slot is solved once more as a first frame. If that is not finite either, the results
    say so and the slot is emptied.

    Args:
        model: the network.
        rwr: how a frame is solved from the previous frame, see `models.rwr.VARIANTS`; None solves every frame from
            zeros by the network's own solver.
        solve_first_frame: whether a first frame gets a full solve by the network's own solver. The original gives it
            the same few evaluations as the others.
        restart: when a frame counts as a first frame; only `residual` is used here. None for never, as in the
            original.
        precision: see `inference.network.Network`.
        engine: see `inference.network.Network`.
        batch_size: crops in one batch.
        cuda_graphs: whether the work of a step is captured in CUDA graphs, see `inference.cuda_graphs`. Full solves,
            also those of first frames, then need a fixed budget.

    Raises:
        OptionError: If RwR is asked of an explicit network, or CUDA graphs are asked for and not possible.
    """

    def __init__(
        self,
        model: LDEQ,
        rwr: RwRConfig | None,
        *,
        solve_first_frame: bool = False,
        restart: RestartRule | None = None,
        precision: Precision = "fp32",
        engine: EngineName | Engine = "auto",
        batch_size: int = BATCH_SIZE,
        cuda_graphs: bool = False,
    ):
        check_instance("rwr", rwr, RwRConfig, optional=True)
        check_instance("restart", restart, RestartRule, optional=True)
        check_flag("solve_first_frame", solve_first_frame)
        check_flag("cuda_graphs", cuda_graphs)
        check_integer("batch_size", batch_size, 1)
        self.network = Network(model, precision, engine)
        self.rwr = rwr
        if rwr is not None:
            if model.config.mode == "explicit":
                raise OptionError("RwR needs an implicit network, and this one is explicit; leave out RwR")
            solver = FixedPointConfig(max_evals=rwr.max_iters, tol=0)
            self.recurrent = self.network.with_solver(solver, rwr.final_evaluation)
        self.first = self.network if rwr is None or solve_first_frame else self.recurrent
        if cuda_graphs:
            self._capture(CudaRecorder(next(model.parameters()).device))
        self.restart = restart
        self.batch_size = batch_size
        self._flow = CropFlow() if rwr is not None and rwr.carry == "flow" else None
        self._slots: dict[int, _Slot] = {}

    def _capture(self, recorder: Recorder) -> None:
        self.first = GraphedNetwork(self.first, recorder)
        if self.rwr is not None:
            self.recurrent = GraphedNetwork(self.recurrent, recorder)
        self.network = self.first

    def leave(self, slot: int) -> None:
        """Empty a slot: its next frame, if any, is a first frame."""
        self._slots.pop(slot, None)

    def reset(self) -> None:
        """Empty all slots."""
        self._slots.clear()

    def state(self, slot: int) -> Tensor | None:
        """The state (1, Z, H, W) after a slot's last frame, not yet moved for the next one; None for a first frame."""
        return self._slots[slot].state if slot in self._slots else None

    @torch.inference_mode()
    def step(
        self, images: Tensor, matrices: np.ndarray, slots: Sequence[int] | np.ndarray, first: np.ndarray | None = None
    ) -> FrameResults:
        """Landmarks of the next frame of some of the slots.

        Args:
            images: (n, 3, S, S) ImageNet-normalised RGB crops; channels-last is faster.
            matrices: (n, 2, 3) float64, from frame pixels to the crop as [0, 1] x [0, 1].
            slots: (n,) slot of every crop, each once.
            first: (n,) whether the frame is the first of its video; None if none is.

        Returns:
            The results of the n crops.

        Raises:
            ValueError: If two crops share a slot.
            OptionError: If the images, matrices or slots have another kind or shape.
        """
        check_dense("images", images)
        size = self.network.config.image_size
        matrices = to_numbers("matrices", matrices, (len(images) if images.ndim else 0, 2, 3))
        if images.shape != (len(matrices), 3, size, size):
            raise OptionError(f"images must have shape ({len(matrices)}, 3, {size}, {size}), not {tuple(images.shape)}")
        if not len(images):
            raise OptionError("images must hold a crop at least; leave the step out")
        numbers = to_numbers("slots", slots, (len(matrices),))
        if (numbers % 1 != 0).any():
            raise OptionError(f"slots must be whole numbers, not {numbers.tolist()}")
        slots = [int(slot) for slot in numbers]
        if len(set(slots)) != len(slots):
            raise ValueError(f"every slot has one next frame, but the slots are {slots}")
        for slot, starts in zip(slots, () if first is None else first, strict=first is not None):
            if starts:
                self.leave(slot)
        starts = range(0, len(slots), self.batch_size)
        parts = [slice(start, start + self.batch_size) for start in starts]
        # A copy, because torch takes no negative strides.
        rows = torch.from_numpy(matrices.copy())
        with without_autocast(self.network.model):
            return FrameResults.concatenate([self._step(images[part], rows[part], slots[part]) for part in parts])

    def _step(self, images: Tensor, matrices: Tensor, slots: list[int]) -> FrameResults:
        pictures = [NO_PICTURE] * len(slots) if self._flow is None else list(to_grey(images))
        crops = _Crops(self.network.embed(images), matrices, slots, pictures)
        entered = [row for row, slot in enumerate(slots) if slot in self._slots]
        parts, order = [], []
        if self.rwr is not None and entered:
            results, goes_on = self._advance(self.rwr, crops.rows(entered))
            order += [row for row, kept in zip(entered, goes_on, strict=True) if kept]
            parts.append(results.rows(np.flatnonzero(goes_on)))
        firsts = sorted(set(range(len(slots))) - set(order))
        if firsts:
            parts.append(self._begin(crops.rows(firsts)))
        return FrameResults.concatenate(parts).rows(np.argsort(order + firsts))

    def start(self, images: Tensor, matrices: np.ndarray, slot: int) -> Tensor | None:
        """The state (1, Z, H, W) from which the next frame of a slot is solved under RwR; None for a first frame.

        Args:
            images: (1, 3, S, S) the crop of that frame.
            matrices: (1, 2, 3) see `step`.
            slot: the slot.
        """
        if self.rwr is None or slot not in self._slots:
            return None
        pictures = [NO_PICTURE] if self._flow is None else list(to_grey(images))
        before = [self._slots[slot]]
        change = self._change(self.rwr, before, torch.from_numpy(matrices.copy()), pictures)
        return warm_start(self.rwr, before[0].state, before[0].keypoints, *change).state

    def _change(
        self, rwr: RwRConfig, before: list[_Slot], matrices: Tensor, pictures: list[np.ndarray]
    ) -> tuple[Tensor | None, Tensor | None]:
        """The motion of the crops and the optical flow in them since the frames before, see `warm_start`."""
        if rwr.carry == "unchanged":
            return None, None
        moved = change_of_crop(_join([slot.matrix for slot in before]), matrices)
        state = before[0].state
        if self._flow is None:
            return moved.to(state), None
        return moved.to(state), _measure_flow(self._flow, before, pictures, moved.numpy()).to(state)

    def _advance(self, rwr: RwRConfig, crops: _Crops) -> tuple[FrameResults, np.ndarray]:
        """One step of RwR from the previous frame: the results, and (n,) whether a slot continues with them."""
        before = [self._slots[slot] for slot in crops.slots]
        state, keypoints = _join([slot.state for slot in before]), _join([slot.keypoints for slot in before])
        change = self._change(rwr, before, crops.matrices, crops.pictures)
        output = self.recurrent.advance(rwr, crops.embedded, state, keypoints, *change)
        results = to_results(output, self.recurrent.config)
        goes_on = self._are_sound(output, results)
        if self.restart is not None:
            goes_on &= output.solved.trace[0].cpu().numpy() <= self.restart.residual
        self._remember(crops, output, goes_on)
        return results, goes_on

    def _begin(self, crops: _Crops) -> FrameResults:
        """Solve the frames as first frames."""
        output = self.first.solve(crops.embedded)
        results = to_results(output, self.first.config)
        if self.rwr is not None:
            self._remember(crops, output, self._are_sound(output, results))
        return results

    def _are_sound(self, output: LDEQOutput, results: FrameResults) -> np.ndarray:
        """(n,) whether the next frame can start from the state: a sum is finite if all its terms are."""
        return ~results.failed & output.z_star.sum(dim=(1, 2, 3)).isfinite().cpu().numpy()

    def _remember(self, crops: _Crops, output: LDEQOutput, sound: np.ndarray) -> None:
        for row, slot in enumerate(crops.slots):
            if sound[row]:
                part = slice(row, row + 1)
                picture = crops.pictures[row]
                self._slots[slot] = _Slot(output.z_star[part], output.keypoints[part], crops.matrices[part], picture)
            else:
                self.leave(slot)


def _measure_flow(measure: CropFlow, before: list[_Slot], pictures: list[np.ndarray], moved: np.ndarray) -> Tensor:
    pairs = zip(before, pictures, moved, strict=True)
    return torch.from_numpy(np.stack([measure(slot.picture, picture, change) for slot, picture, change in pairs]))


def _join(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)
