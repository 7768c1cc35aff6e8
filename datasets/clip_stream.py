"""The face crops of many parallel clips, decoded ahead in worker processes."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datasets.wflw_v import Clip, read_boxes, read_frames, read_landmarks
from utils.crops import CropRule, crop_box
from utils.errors import ClipError
from utils.geometry import check_box_in_picture, check_face_in_picture, steady_box
from utils.images import to_rgb
from utils.sources import initialise_decoder

CHUNK_FRAMES = 8
"""Frames of every slot that a worker delivers at once."""

ORIGINAL_RULE = (CropRule(),)


@dataclass(frozen=True, eq=False)
class Frame:
    """The face crops of a frame, one for each of C ways to cut it out (`utils.crops.CropRule`).

    Attributes:
        images: (C, S, S, 3) uint8 RGB.
        matrices: (C, 2, 3) float64, from frame pixels to the crop as [0, 1] x [0, 1].
    """

    images: np.ndarray
    matrices: np.ndarray


@dataclass(frozen=True)
class ClipEnd:
    """The end of a clip.

    Attributes:
        clip: Index of the clip.
        reason: Why it cannot be evaluated; None if all its frames came.
    """

    clip: int
    reason: str | None


@dataclass(frozen=True, eq=False)
class TimeStep:
    """The next frames of the n slots that still have frames.

    Attributes:
        slots: (n,) in ascending order.
        clips: (n,) index of the clip of every frame.
        frames: (n,) position of the frame in its clip, from 0.
        images: (n, C, S, S, 3) uint8 RGB crops.
        matrices: (n, C, 2, 3) float64, from frame pixels to the crop as [0, 1] x [0, 1].
        ended: The clips whose last frame was in an earlier step.
    """

    slots: np.ndarray
    clips: np.ndarray
    frames: np.ndarray
    images: np.ndarray
    matrices: np.ndarray
    ended: tuple[ClipEnd, ...]


def read_crops(clip: Clip, size: int, rules: Sequence[CropRule] = ORIGINAL_RULE) -> Iterator[Frame]:
    """The face crops of a clip, frame by frame.

    Args:
        clip: The clip.
        size: Side of a crop in pixels.
        rules: How the crops of a frame are cut out.

    Raises:
        ClipError: As `read_frames`, or if a box or landmark is not finite, a box has no area or lies outside its
            frame, or the landmarks of a frame lie far or all outside it.
    """
    boxes, landmarks = read_boxes(clip), read_landmarks(clip)
    steadied = boxes[0]
    for number, (image, box) in enumerate(zip(read_frames(clip), boxes, strict=True)):
        try:
            steadied = steady_box(steadied, box)
            crops, matrices = zip(
                *(crop_box(image, steadied if rule.steady else box, size, rule.exact) for rule in rules), strict=True
            )
            check_box_in_picture(box, image.shape[1], image.shape[0])
        except ValueError as error:
            raise ClipError(f"bboxes/{clip.video_id}.npy: frame {number}: {error}; correct it") from error
        try:
            check_face_in_picture(landmarks[number], image.shape[1], image.shape[0])
        except ValueError as error:
            raise ClipError(f"landmarks/{clip.video_id}.npy: frame {number}: {error}; correct it") from error
        yield Frame(np.stack([to_rgb(crop, "bgr") for crop in crops]), np.stack(matrices))


def plan_slots(frames: Sequence[int], slots: int) -> list[list[int]]:
    """Distribute clips over parallel slots.

    The longest remaining clip goes to the slot with the fewest frames so far.

    Args:
        frames: Length of every clip.
        slots: Number of slots, at least 1; there are never more than clips.

    Returns:
        The indices of the clips of every slot.
    """
    plan: list[list[int]] = [[] for _ in range(min(slots, len(frames)))]
    loads = [(0, slot) for slot in range(len(plan))]
    for clip in sorted(range(len(frames)), key=lambda index: -frames[index]):
        load, slot = heapq.heappop(loads)
        plan[slot].append(clip)
        heapq.heappush(loads, (load + frames[clip], slot))
    return plan


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Up to `CHUNK_FRAMES` time steps of some slots; m frames, each with its time step in the chunk and its slot."""

    steps: np.ndarray
    slots: np.ndarray
    clips: np.ndarray
    frames: np.ndarray
    images: torch.Tensor
    matrices: np.ndarray
    ended: tuple[tuple[int, ClipEnd], ...]


_Step = tuple[list[ClipEnd], tuple[int, int, Frame] | None]
"""Of a slot: the clips that ended before a time step; clip, position and crop of its frame, None if it has none."""


class ClipStream(IterableDataset[_Chunk]):
    """The crops of many clips, decoded in the processes of a `DataLoader`.

    Worker w of W serves the slots w, w + W, ... All workers yield the same number of chunks. The loader takes from its
    workers in turn, which keeps the slots in step. Use `stream_crops`.
    """

    def __init__(self, clips: Sequence[Clip], plan: Sequence[Sequence[int]], size: int, rules: Sequence[CropRule]):
        self.clips = clips
        self.plan = plan
        self.size = size
        self.rules = rules
        # One more step, for the ends of the last clips.
        steps = 1 + max(sum(clips[index].frames for index in indices) for indices in plan)
        self.chunks = -(-steps // CHUNK_FRAMES)

    def __iter__(self) -> Iterator[_Chunk]:
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        slots = {slot: self._steps_of(self.plan[slot]) for slot in range(first, len(self.plan), stride)}
        for _ in range(self.chunks):
            yield self._next_chunk(slots)

    def _steps_of(self, indices: Sequence[int]) -> Iterator[_Step]:
        """For every time step of a slot the clips that ended before, and clip, position and crop of its frame."""
        ended: list[ClipEnd] = []
        for index in indices:
            reason = None
            try:
                for position, frame in enumerate(read_crops(self.clips[index], self.size, self.rules)):
                    yield ended, (index, position, frame)
                    ended = []
            except ClipError as error:
                reason = str(error)
            ended.append(ClipEnd(index, reason))
        yield ended, None

    def _next_chunk(self, slots: dict[int, Iterator[_Step]]) -> _Chunk:
        rules = len(self.rules)
        rows: list[tuple[int, int, int, int]] = []
        images: list[np.ndarray] = []
        matrices: list[np.ndarray] = []
        ended: list[tuple[int, ClipEnd]] = []
        for step in range(CHUNK_FRAMES):
            for slot, steps in slots.items():
                ends, entry = next(steps, ([], None))
                ended.extend((step, end) for end in ends)
                if entry is not None:
                    index, position, frame = entry
                    rows.append((step, slot, index, position))
                    images.append(frame.images)
                    matrices.append(frame.matrices)
        columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
        return _Chunk(
            steps=columns[0],
            slots=columns[1],
            clips=columns[2],
            frames=columns[3],
            # A tensor goes through shared memory; an array would be copied through a pipe.
            images=torch.from_numpy(np.array(images, dtype=np.uint8).reshape(-1, rules, self.size, self.size, 3)),
            matrices=np.array(matrices, dtype=np.float64).reshape(-1, rules, 2, 3),
            ended=tuple(ended),
        )


def stream_crops(
    clips: Sequence[Clip], slots: int, size: int, workers: int = 0, rules: Sequence[CropRule] = ORIGINAL_RULE
) -> Iterator[TimeStep]:
    """Go through many clips, `slots` of them in parallel.

    When a clip ends, the next one takes its slot in the next time step.

    Args:
        clips: The clips, at least one.
        slots: Number of parallel clips.
        size: Side of a crop in pixels.
        workers: Processes that decode ahead; 0 for none.
        rules: How the crops of a frame are cut out.

    Yields:
        Time steps until every clip has ended.
    """
    plan = plan_slots([clip.frames for clip in clips], slots)
    workers = min(workers, len(plan))
    stream = ClipStream(clips, plan, size, rules)
    loader = DataLoader(stream, batch_size=None, num_workers=workers, worker_init_fn=initialise_decoder)
    chunks = iter(loader)
    for of_each_worker in zip(*[chunks] * max(1, workers), strict=True):
        yield from _time_steps(of_each_worker)


def _time_steps(chunks: Sequence[_Chunk]) -> Iterator[TimeStep]:
    """The time steps of one chunk of every worker."""
    steps, slots, clips, frames, matrices = (
        np.concatenate([getattr(chunk, name) for chunk in chunks])
        for name in ("steps", "slots", "clips", "frames", "matrices")
    )
    images = np.concatenate([chunk.images.numpy() for chunk in chunks])
    ended = list(chain.from_iterable(chunk.ended for chunk in chunks))
    for step in range(CHUNK_FRAMES):
        rows = np.flatnonzero(steps == step)
        rows = rows[np.argsort(slots[rows])]
        ends = tuple(end for of_step, end in ended if of_step == step)
        if rows.size or ends:
            yield TimeStep(slots[rows], clips[rows], frames[rows], images[rows], matrices[rows], ends)
