"""WFLW-V (Micaelli et al., CVPR 2023): labelled video clips, and the stream of their face crops.

    videos/<id>.mp4             one face in every frame
    bboxes/<id>.npy             (frames, 4 or more): x1 y1 x2 y2 ... in pixels
    landmarks/<id>.npy          (frames, 98, 2): x y in pixels
    splits/<split>_video_IDs.txt    the clips of "easy" and "hard", an id a line; optional

Without `splits` the easy clips are those of expected_wflw_v_easy.csv, which lists the published results, and the hard
ones are the others.

A clip is never in memory as a whole: worker processes decode a few frames ahead of the network.
"""

import csv
import heapq
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from datasets.errors import DatasetError
from datasets.wflw import NUM_LANDMARKS
from utils.geometry import steady_box
from utils.images import crop_box, to_rgb

SPLITS = ("easy", "hard", "all")
PUBLISHED_RESULTS = Path(__file__).parent / "expected_wflw_v_easy.csv"
"""NME and NMJ of the original release on the easy clips, from its README."""
CHUNK_FRAMES = 8
"""Frames of every slot that a worker hands over at once."""


class Cut(NamedTuple):
    """A way to cut the faces of a clip out; WFLW-V's own is the default.

    Attributes:
        exact: Whether the crop is exact or rounded, see `utils.geometry.box_to_crop`.
        steady: Whether the boxes are freed from jitter before, see `utils.geometry.steady_box`.
    """

    exact: bool = False
    steady: bool = False


Cuts = Sequence[Cut]
WFLW_V_CUT: Cuts = (Cut(),)


class ClipError(DatasetError):
    """A clip that cannot be evaluated; the message is the reason."""


@dataclass(frozen=True)
class Clip:
    """A clip of WFLW-V whose three files are there and agree in length.

    Attributes:
        video_id: Its name.
        split: "easy" or "hard".
        root: Folder of the dataset.
        frames: Number of frames that are labelled.
    """

    video_id: str
    split: str
    root: Path
    frames: int

    @property
    def video_path(self) -> Path:
        """The MP4 file."""
        return self.root / "videos" / f"{self.video_id}.mp4"


@dataclass(frozen=True)
class ClipList:
    """The clips of a split.

    Attributes:
        clips: Those that can be read, in the order of the split.
        broken: The reason of every other clip by its id.
    """

    clips: tuple[Clip, ...]
    broken: dict[str, str]


@dataclass(frozen=True, eq=False)
class Frame:
    """The face crops of a frame, one for each of C ways to cut it out (`Cuts`).

    Attributes:
        images: (C, S, S, 3) uint8 RGB.
        matrices: (C, 2, 3) float64, from frame pixels to the crop as [0, 1] x [0, 1].
    """

    images: np.ndarray
    matrices: np.ndarray


@dataclass(frozen=True)
class ClipEnd:
    """A clip is over.

    Attributes:
        clip: Index of the clip.
        reason: Why it cannot be evaluated; None if all its frames came.
    """

    clip: int
    reason: str | None


@dataclass(frozen=True, eq=False)
class TimeStep:
    """The next frames of the n slots that still have one.

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


def list_clips(root: str | Path, split: str = "all") -> ClipList:
    """Find the clips of a split and look at the headers of their files.

    Args:
        root: Folder of the dataset.
        split: "easy", "hard", or "all" for both; without `splits` in the folder, "all" is what the folder holds.

    Returns:
        The clips that can be read, and the reasons of the others. The values in the files and the frames of the videos
        are not looked at yet.

    Raises:
        DatasetError: If the folder is missing or has none of the clips, or a list of the split has no id or one twice.
    """
    root = Path(root)
    if split not in SPLITS:
        raise DatasetError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if not root.is_dir():
        raise DatasetError(f"{root}: no such dataset folder; give the folder that holds WFLW-V")
    clips, broken = [], {}
    for video_id, of_split in _split_ids(root, split).items():
        try:
            clips.append(open_clip(root, video_id, of_split))
        except ClipError as error:
            broken[video_id] = str(error)
    if not clips:
        example = f"; {next(iter(broken))}: {next(iter(broken.values()))}" if broken else ""
        raise DatasetError(
            f"{root}: has none of the {len(broken)} clips of the split {split!r}{example}; give a folder with videos/, "
            "bboxes/ and landmarks/, and splits/ if its clips are not those of WFLW-V"
        )
    return ClipList(tuple(clips), broken)


def _split_ids(root: Path, split: str) -> dict[str, str]:
    """The ids of a split in order, and whether each is easy or hard."""
    lists = {name: root / "splits" / f"{name}_video_IDs.txt" for name in ("easy", "hard")}
    listed = {name: _read_ids(path) for name, path in lists.items() if path.is_file()}
    folders = (("videos", ".mp4"), ("bboxes", ".npy"), ("landmarks", ".npy"))
    there = sorted({path.stem for name, suffix in folders for path in (root / name).glob(f"*{suffix}")})
    if "easy" not in listed:
        hard = set(listed.get("hard", ()))
        listed["easy"] = [video_id for video_id in published_results() if video_id not in hard]
        if split == "all":
            listed["easy"] = [video_id for video_id in listed["easy"] if video_id in there]
    if "hard" not in listed:
        easy = set(listed["easy"])
        listed["hard"] = [video_id for video_id in there if video_id not in easy]
    chosen = {video_id: name for name in ("easy", "hard") if split in (name, "all") for video_id in listed[name]}
    if split == "all" and len(chosen) < len(listed["easy"]) + len(listed["hard"]):
        twice = next(video_id for video_id in listed["easy"] if chosen[video_id] == "hard")
        raise DatasetError(f"{root / 'splits'}: {twice} is in both lists; remove it from one")
    return chosen


def _read_ids(path: Path) -> list[str]:
    try:
        ids = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text ({error}); get the file again") from error
    ids = [video_id.strip() for video_id in ids if video_id.strip()]
    if not ids:
        raise DatasetError(f"{path}: lists no clip; the file is empty, get it again or remove it")
    if len(set(ids)) < len(ids):
        twice = next(video_id for video_id in ids if ids.count(video_id) > 1)
        raise DatasetError(f"{path}: {twice} stands in the list twice; remove one of its lines")
    return ids


def published_results() -> dict[str, tuple[float, float]]:
    """NME in percent and NMJ of the original release by clip, for the easy clips of WFLW-V."""
    with PUBLISHED_RESULTS.open(newline="", encoding="utf-8") as file:
        return {row["video_id"]: (float(row["nme"]), float(row["nmj"])) for row in csv.DictReader(file)}


def open_clip(root: Path, video_id: str, split: str) -> Clip:
    """A clip, if its three files are there and the headers of its boxes and landmarks agree.

    Raises:
        ClipError: If not.
    """
    if Path(video_id).name != video_id or "\\" in video_id or video_id in (".", "..") or not video_id.isprintable():
        raise ClipError(f"the id {video_id!r} is not a plain file name; correct the list of the split")
    landmarks, boxes = _open_landmarks(root, video_id), _open_boxes(root, video_id)
    if len(boxes) != len(landmarks):
        raise ClipError(f"boxes for {len(boxes)} frames but landmarks for {len(landmarks)}; get the files again")
    if len(landmarks) == 0:
        raise ClipError(f"landmarks/{video_id}.npy: labels no frame; get it again")
    clip = Clip(video_id, split, root, len(landmarks))
    if not clip.video_path.is_file():
        raise ClipError(f"videos/{video_id}.mp4: no such file")
    return clip


def _open_boxes(root: Path, video_id: str) -> np.ndarray:
    """Boxes as they are on disk, a memory map (T, 4 or more)."""
    boxes = _open_array(root, f"bboxes/{video_id}.npy")
    if boxes.ndim != 2 or boxes.shape[1] < 4:
        raise ClipError(f"bboxes/{video_id}.npy: has shape {boxes.shape}, expected (frames, 4): x1 y1 x2 y2")
    return boxes


def _open_landmarks(root: Path, video_id: str) -> np.ndarray:
    """Landmarks as they are on disk, a memory map (T, 98, 2), T at least 1."""
    landmarks = _open_array(root, f"landmarks/{video_id}.npy")
    if landmarks.shape[1:] != (NUM_LANDMARKS, 2):
        raise ClipError(
            f"landmarks/{video_id}.npy: has shape {landmarks.shape}, expected (frames, {NUM_LANDMARKS}, 2): x y"
        )
    return landmarks


def _open_array(root: Path, name: str) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(root / name, mode="r")
    except FileNotFoundError as error:
        raise ClipError(f"{name}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise ClipError(f"{name}: is not an array of numbers that can be read ({error}); get it again") from error
    if array.dtype.kind not in "fiu":
        raise ClipError(f"{name}: holds {array.dtype}, expected numbers")
    return array


def read_boxes(clip: Clip) -> np.ndarray:
    """The boxes of a clip: (T, 4) float64 x1, y1, x2, y2 in pixels.

    Raises:
        ClipError: If a box is not finite.
    """
    return _finite(_open_boxes(clip.root, clip.video_id)[:, :4], f"bboxes/{clip.video_id}.npy")


def read_landmarks(clip: Clip) -> np.ndarray:
    """The true landmarks of a clip: (T, 98, 2) float64 x, y in pixels.

    Raises:
        ClipError: If a coordinate is not finite.
    """
    return _finite(_open_landmarks(clip.root, clip.video_id), f"landmarks/{clip.video_id}.npy")


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    values = np.array(array, dtype=np.float64)
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise ClipError(f"{name}: frame {np.flatnonzero(~finite)[0]} holds a number that is not finite; correct it")
    return values


def read_frames(clip: Clip) -> Iterator[np.ndarray]:
    """Decode a clip: its labelled frames one by one, each (H, W, 3) uint8 BGR.

    Raises:
        ClipError: If the video cannot be decoded, or has another number of frames. The last frame comes only if there
            is none behind it.
    """
    name = f"videos/{clip.video_id}.mp4"
    capture = cv2.VideoCapture(str(clip.video_path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    try:
        if not capture.isOpened():
            raise ClipError(f"{name}: is not a video that can be decoded; get it again, it is damaged")
        held = None
        for number in range(clip.frames):
            there, frame = capture.read()
            if not there:
                raise ClipError(
                    f"{name}: ends after {number} of its {clip.frames} frames; get it again, it is truncated or damaged"
                )
            if held is not None:
                yield held
            held = frame
        if capture.grab():
            raise ClipError(f"{name}: has more than the {clip.frames} frames that are labelled; get the files again")
        yield held
    finally:
        capture.release()


def frame_rate(clip: Clip, otherwise: float = 25) -> float:
    """Frames per second of a clip, `otherwise` where its file does not say."""
    capture = cv2.VideoCapture(str(clip.video_path), cv2.CAP_FFMPEG)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate if rate > 0 else otherwise


def read_crops(clip: Clip, size: int, cuts: Cuts = WFLW_V_CUT) -> Iterator[Frame]:
    """The face crops of a clip, frame by frame.

    Args:
        clip: The clip.
        size: Side of a crop in pixels.
        cuts: How the crops of a frame are cut out.

    Raises:
        ClipError: As `read_frames`, or if a box or landmark is not finite, or a box has no area.
    """
    boxes = read_boxes(clip)
    read_landmarks(clip)
    steadied = boxes[0]
    for number, (image, box) in enumerate(zip(read_frames(clip), boxes, strict=True)):
        try:
            steadied = steady_box(steadied, box)
            crops, matrices = zip(
                *(crop_box(image, steadied if cut.steady else box, size, cut.exact) for cut in cuts), strict=True
            )
        except ValueError as error:
            raise ClipError(f"bboxes/{clip.video_id}.npy: frame {number}: {error}; correct it") from error
        yield Frame(np.stack([to_rgb(crop, "bgr") for crop in crops]), np.stack(matrices))


def plan_slots(frames: Sequence[int], slots: int) -> list[list[int]]:
    """Share out clips over slots that are worked off side by side.

    The longest clip that is left goes to the slot with the fewest frames so far.

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


class ClipStream(IterableDataset[_Chunk]):
    """The crops of many clips, decoded in the processes of a `DataLoader`.

    Worker w of W serves the slots w, w + W, ... and all workers yield the same number of chunks, so that the loader,
    which takes from its workers in turn, keeps the slots in step. Use `stream_crops`.
    """

    def __init__(self, clips: Sequence[Clip], plan: Sequence[Sequence[int]], size: int, cuts: Cuts):
        self.clips = clips
        self.plan = plan
        self.size = size
        self.cuts = cuts
        # One step more, for the ends of the last clips.
        steps = 1 + max(sum(clips[index].frames for index in indices) for indices in plan)
        self.chunks = -(-steps // CHUNK_FRAMES)

    def __iter__(self) -> Iterator[_Chunk]:
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        slots = {slot: self._steps_of(self.plan[slot]) for slot in range(first, len(self.plan), stride)}
        for _ in range(self.chunks):
            yield self._next_chunk(slots)

    def _steps_of(self, indices: Sequence[int]) -> Iterator[tuple[list[ClipEnd], tuple[int, int, Frame] | None]]:
        """For every time step of a slot the clips that ended before, and clip, position and crop of its frame."""
        ended: list[ClipEnd] = []
        for index in indices:
            reason = None
            try:
                for position, frame in enumerate(read_crops(self.clips[index], self.size, self.cuts)):
                    yield ended, (index, position, frame)
                    ended = []
            except ClipError as error:
                reason = str(error)
            ended.append(ClipEnd(index, reason))
        yield ended, None

    def _next_chunk(self, slots: dict[int, Iterator]) -> _Chunk:
        cuts = len(self.cuts)
        rows, images, matrices, ended = [], [], [], []
        for step in range(CHUNK_FRAMES):
            for slot, steps in slots.items():
                ends, entry = next(steps, ((), None))
                ended.extend((step, end) for end in ends)
                if entry is not None:
                    index, position, frame = entry
                    rows.append((step, slot, index, position))
                    images.append(frame.images)
                    matrices.append(frame.matrices)
        return _Chunk(
            *np.array(rows, dtype=np.int64).reshape(-1, 4).T,
            # A tensor goes through shared memory, an array would be copied through a pipe.
            images=torch.from_numpy(np.array(images, dtype=np.uint8).reshape(-1, cuts, self.size, self.size, 3)),
            matrices=np.array(matrices, dtype=np.float64).reshape(-1, cuts, 2, 3),
            ended=tuple(ended),
        )


def stream_crops(
    clips: Sequence[Clip], slots: int, size: int, workers: int = 0, cuts: Cuts = WFLW_V_CUT
) -> Iterator[TimeStep]:
    """Go through many clips, `slots` of them side by side.

    When a clip ends, the next one takes its slot in the next time step.

    Args:
        clips: The clips, at least one.
        slots: Clips side by side.
        size: Side of a crop in pixels.
        workers: Processes that decode ahead; 0 for none.
        cuts: How the crops of a frame are cut out.

    Yields:
        Time steps until every clip has ended.
    """
    plan = plan_slots([clip.frames for clip in clips], slots)
    workers = min(workers, len(plan))
    stream = ClipStream(clips, plan, size, cuts)
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


def initialise_decoder(worker_id: int = 0) -> None:
    """Prepare a process for decoding: one thread, and no messages of OpenCV, since a reader gives its own reasons."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    cv2.setNumThreads(0)
