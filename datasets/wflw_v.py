"""WFLW-V (Micaelli et al., CVPR 2023): labelled video clips, and the stream of their face crops.

    videos/<id>.mp4             one face in every frame
    bboxes/<id>.npy             (frames, 4 or more): x1 y1 x2 y2 ... in pixels
    landmarks/<id>.npy          (frames, 98, 2): x y in pixels
    splits/<split>_video_IDs.txt    the clips of "easy" and "hard", one id a line; optional

Without `splits` the easy clips are those in expected_wflw_v_easy.csv, the published results; all others are hard. With
one list only, the clips that it leaves out are those of the other split.

A clip is never completely in memory: worker processes decode a few frames ahead of the network.
"""

import csv
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utils.errors import ClipError, InputError
from utils.geometry import FARTHEST
from utils.landmark_groups import NUM_LANDMARKS
from utils.metrics import OUTER_EYE_CORNERS
from utils.reading import open_array, read_lines
from utils.sources import damage_flags, open_video

SPLITS = ("easy", "hard", "all")

PUBLISHED_RESULTS = Path(__file__).parent / "expected_wflw_v_easy.csv"
"""NME and NMJ of the original release on the easy clips, from its README."""


@dataclass(frozen=True)
class Clip:
    """A clip of WFLW-V whose three files exist and agree in length.

    Attributes:
        video_id: Its name.
        split: "easy" or "hard".
        root: Folder of the dataset.
        frames: Number of labelled frames.
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
        clips: The readable clips, in the order of the split.
        broken: The reason for every other clip, by its id.
    """

    clips: tuple[Clip, ...]
    broken: dict[str, str]


def list_clips(root: str | Path, split: str = "all") -> ClipList:
    """Find the clips of a split and read the headers of their files.

    Args:
        root: Folder of the dataset.
        split: "easy", "hard", or "all" for both; without `splits` in the folder, "all" means all clips of the folder.

    Returns:
        The readable clips, and the reasons for the others. The values in the files and the frames of the videos are not
        checked yet.

    Raises:
        InputError: If the folder is missing or has none of the clips, or a list has no id or one twice. The list of
            the other split is only read if the split has no list of its own.
    """
    root = Path(root)
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    if not root.is_dir():
        raise InputError(f"{root}: no such dataset folder; give the folder that holds WFLW-V")
    clips, broken = [], {}
    for video_id, of_split in _split_ids(root, split).items():
        try:
            clips.append(open_clip(root, video_id, of_split))
        except ClipError as error:
            broken[video_id] = str(error)
    if not clips:
        example = f"; {next(iter(broken))}: {next(iter(broken.values()))}" if broken else ""
        raise InputError(
            f"{root}: has none of the {len(broken)} clips of the split {split!r}{example}; give a folder with videos/, "
            "bboxes/ and landmarks/, and splits/ if its clips are not those of WFLW-V"
        )
    return ClipList(tuple(clips), broken)


def _split_ids(root: Path, split: str) -> dict[str, str]:
    """The ids of a split in order, and whether each is easy or hard."""
    lists = {name: root / "splits" / f"{name}_video_IDs.txt" for name in ("easy", "hard")}
    there_are = [name for name, path in lists.items() if os.path.lexists(path)]
    # The list of the other split only matters if this split is what that list leaves out.
    needed = [split] if split in there_are else there_are
    listed = {name: _read_ids(lists[name], split if split not in (name, "all") else None) for name in needed}
    folders = (("videos", ".mp4"), ("bboxes", ".npy"), ("landmarks", ".npy"))
    there = sorted({path.stem for name, suffix in folders for path in (root / name).glob(f"*{suffix}")})
    if "easy" not in listed:
        hard = set(listed.get("hard", ()))
        listed["easy"] = [video_id for video_id in published_results() if video_id not in hard]
        if split == "all":
            listed["easy"] = [video_id for video_id in listed["easy"] if video_id in there]
        if "hard" in listed:
            known = {*listed["easy"], *hard}
            listed["easy"] += [video_id for video_id in there if video_id not in known]
    if "hard" not in listed:
        easy = set(listed["easy"])
        listed["hard"] = [video_id for video_id in there if video_id not in easy]
    chosen = {video_id: name for name in ("easy", "hard") if split in (name, "all") for video_id in listed[name]}
    if split == "all" and len(chosen) < len(listed["easy"]) + len(listed["hard"]):
        twice = next(video_id for video_id in listed["easy"] if chosen[video_id] == "hard")
        raise InputError(f"{root / 'splits'}: {twice} is in both lists; remove it from one")
    return chosen


def _read_ids(path: Path, complement: str | None = None) -> list[str]:
    """The ids of a list; `complement` is the wanted split if its clips are those that the list leaves out."""
    ids = [line for _, line in read_lines(path)]
    if not ids:
        why = f", and the split {complement} is what this list leaves out" if complement else ""
        raise InputError(f"{path}: lists no clip{why}; the file is empty, get it again or remove it")
    if len(set(ids)) < len(ids):
        twice = next(video_id for video_id in ids if ids.count(video_id) > 1)
        raise InputError(f"{path}: {twice} is in the list twice; remove one of its lines")
    return ids


def published_results() -> dict[str, tuple[float, float]]:
    """NME in percent and NMJ of the original release by clip, for the easy clips of WFLW-V."""
    with PUBLISHED_RESULTS.open(newline="", encoding="utf-8") as file:
        return {row["video_id"]: (float(row["nme"]), float(row["nmj"])) for row in csv.DictReader(file)}


def open_clip(root: Path, video_id: str, split: str) -> Clip:
    """Open a clip; its three files must exist, and the headers of its boxes and landmarks must agree.

    Raises:
        ClipError: If they do not.
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
    """The boxes on disk, a memory map (T, 4 or more)."""
    boxes = _open_array(root, f"bboxes/{video_id}.npy")
    if boxes.ndim != 2 or boxes.shape[1] < 4:
        raise ClipError(f"bboxes/{video_id}.npy: has shape {boxes.shape}, expected (frames, 4): x1 y1 x2 y2")
    return boxes


def _open_landmarks(root: Path, video_id: str) -> np.ndarray:
    """The landmarks on disk, a memory map (T, 98, 2), T at least 1."""
    landmarks = _open_array(root, f"landmarks/{video_id}.npy")
    if landmarks.shape[1:] != (NUM_LANDMARKS, 2):
        raise ClipError(
            f"landmarks/{video_id}.npy: has shape {landmarks.shape}, expected (frames, {NUM_LANDMARKS}, 2): x y"
        )
    return landmarks


def _open_array(root: Path, name: str) -> np.ndarray:
    try:
        return open_array(root / name)
    except InputError as error:
        raise ClipError(str(error).replace(str(root / name), name, 1)) from error


def read_boxes(clip: Clip) -> np.ndarray:
    """The boxes of a clip: (T, 4) float64 x1, y1, x2, y2 in pixels.

    Raises:
        ClipError: If a box is not finite or outside every picture.
    """
    return _finite(_open_boxes(clip.root, clip.video_id)[:, :4], f"bboxes/{clip.video_id}.npy")


def read_landmarks(clip: Clip) -> np.ndarray:
    """The true landmarks of a clip: (T, 98, 2) float64 x, y in pixels.

    Raises:
        ClipError: If a coordinate is not finite or outside every picture, or the eyes of a frame coincide.
    """
    name = f"landmarks/{clip.video_id}.npy"
    landmarks = _finite(_open_landmarks(clip.root, clip.video_id), name)
    first, second = OUTER_EYE_CORNERS
    close = ~(np.linalg.norm(landmarks[:, first] - landmarks[:, second], axis=-1) >= 1)
    if close.any():
        raise ClipError(
            f"{name}: frame {np.flatnonzero(close)[0]}: the outer eye corners, landmarks {first} and {second}, are "
            "under a pixel apart; correct it"
        )
    return landmarks


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # half precision and long double have other ranges
        values = np.array(array, dtype=np.float64)
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not finite.all():
        raise ClipError(f"{name}: frame {np.flatnonzero(~finite)[0]} holds a number that is not finite; correct it")
    far = (np.abs(values) > FARTHEST).reshape(len(values), -1).any(axis=1)
    if far.any():
        raise ClipError(f"{name}: frame {np.flatnonzero(far)[0]} holds a number outside every picture; correct it")
    return values


def read_frames(clip: Clip) -> Iterator[np.ndarray]:
    """Decode a clip: its labelled frames one by one, each (H, W, 3) uint8 BGR.

    Raises:
        ClipError: If the video cannot be decoded, has a damaged frame (see `utils.sources.damage_flags`) or another
            number of frames. The last frame is only yielded if no frame follows it.
    """
    name = f"videos/{clip.video_id}.mp4"
    try:
        capture = open_video(clip.video_path)
    except InputError as error:
        raise ClipError(f"{name}: {str(error).removeprefix(f'{clip.video_path}: ')}") from error
    try:
        with closing(damage_flags(clip.video_path)) as flags:
            held = None
            for number in range(clip.frames):
                there, frame = capture.read()
                if not there:
                    raise ClipError(
                        f"{name}: ends after {number} of its {clip.frames} frames; get it again, it is truncated or "
                        "damaged"
                    )
                if next(flags, False):
                    raise ClipError(f"{name}: frame {number} is damaged; get it again")
                if held is not None:
                    yield held
                held = frame
            if capture.grab():
                raise ClipError(f"{name}: has more than the {clip.frames} labelled frames; get the files again")
            if held is not None:
                yield held
    finally:
        capture.release()


def frame_rate(clip: Clip, otherwise: float = 25) -> float:
    """Frames per second of a clip, or `otherwise` if its file does not say."""
    capture = open_video(clip.video_path)
    rate = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return rate if 0 < rate <= 1000 else otherwise
