"""What the demo shows: landmarks on the frames, two methods side by side with their jitter, animations."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import cv2
import numpy as np
from PIL import Image

from utils.geometry import landmark_box
from utils.reports import ReportError, cannot_write
from utils.video_drawing import VideoWriter, bgr, draw_points, draw_text

ANIMATION_SUFFIXES = (".webp", ".gif")
VIDEO_SUFFIXES = (".mp4",)
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")
COLOURS = ("#ff2d78", "#2ee6ff", "#ffd21f", "#7dff5a", "#ff8a2b", "#c08bff")
"""Of the faces, by their numbers."""
BACKGROUND = (32, 28, 26)
METER_FRAMES = 60
"""How far back the curves of the jitter meter go."""
FULL_SCALE = 1.0
"""Of the jitter meter at least, in percent of the face."""


def draw_face(picture: np.ndarray, landmarks: np.ndarray, colour: str, caption: str) -> None:
    """Draw the landmarks of a face into a picture (H, W, 3) uint8 BGR.

    Args:
        picture: Is changed.
        landmarks: (K, 2) x, y in pixels of the picture.
        colour: As matplotlib knows it.
        caption: A line above the face; may be empty.
    """
    box = landmark_box(landmarks)
    side = np.max(box[2:] - box[:2])
    # Far outside the picture, OpenCV's integers would overflow.
    limit = 4 * max(picture.shape)
    draw_points(picture, landmarks.clip(-limit, limit), max(1.0, 0.008 * side), bgr(colour))
    height = max(13, 0.025 * picture.shape[0])
    left, top = np.round([box[0], box[1] - 0.5 * height]).clip(-limit, limit).astype(int).tolist()
    if caption:
        draw_text(picture, caption, (max(0, left), max(round(height), top)), height, bgr(colour))


def frame_shake(landmarks: Sequence[np.ndarray]) -> float:
    """How much landmarks tremble, without knowing the truth.

    The root mean square over the landmarks of the second difference |p_t - 2 p_{t-1} + p_{t-2}|, in percent of
    sqrt(width * height) of their box: steady motion cancels, jitter does not.

    Args:
        landmarks: of three frames, (K, 2) each.
    """
    first, second, third = landmarks
    box = landmark_box(third)
    size = np.sqrt(np.prod(box[2:] - box[:2]))
    change = np.linalg.norm(third - 2 * second + first, axis=1)
    return float(100 * np.sqrt(np.mean(change**2)) / size)


class JitterMeter:
    """The jitter of one method over the last frames, averaged over faces."""

    def __init__(self) -> None:
        self.history: deque[float] = deque(maxlen=METER_FRAMES)
        self._recent: dict[int, deque[np.ndarray]] = {}
        self._sum, self._count = 0.0, 0

    def add(self, faces: dict[int, np.ndarray]) -> None:
        """Take the landmarks (K, 2) of the faces of the next frame, by their numbers."""
        self._recent = {number: self._recent.get(number, deque(maxlen=3)) for number in faces}
        for number, landmarks in faces.items():
            self._recent[number].append(landmarks)
        shakes = [frame_shake(recent) for recent in self._recent.values() if len(recent) == 3]
        self.history.append(float(np.mean(shakes)) if shakes else np.nan)
        if shakes:
            self._sum, self._count = self._sum + self.history[-1], self._count + 1

    @property
    def mean(self) -> float:
        """Over all frames so far; NaN before the third."""
        return self._sum / self._count if self._count else float("nan")


def side_by_side(
    panels: dict[str, np.ndarray], meters: dict[str, JitterMeter], colours: Sequence[str] = COLOURS
) -> np.ndarray:
    """Pictures beside each other under their titles, and below them the jitter of each over the last frames.

    Args:
        panels: Two or more pictures (H, W, 3) uint8 BGR of one size, by their titles.
        meters: Of the same titles.
        colours: Of the curves, in their order.

    Returns:
        (H + M, W of all, 3) uint8 BGR.
    """
    top = np.hstack(list(panels.values()))
    height = max(18, round(0.07 * top.shape[0]))
    strip = np.full((5 * height, top.shape[1], 3), BACKGROUND, np.uint8)
    highest = max([FULL_SCALE, *(value for meter in meters.values() for value in meter.history if value == value)])
    for index, (title, colour) in enumerate(zip(panels, colours, strict=False)):
        mean = meters[title].mean
        left = index * top.shape[1] // len(panels) + height // 2
        text = f"{title}: jitter {'-' if np.isnan(mean) else format(mean, '.2f')} %"
        draw_text(strip, text, (left, round(1.2 * height)), height, bgr(colour))
        values = np.array(meters[title].history)
        across = np.arange(len(values)) * (strip.shape[1] - 1) / (METER_FRAMES - 1)
        down = strip.shape[0] - 2 - (strip.shape[0] - 2 * height) * values / highest
        known = np.isfinite(down)
        curve = np.round(np.column_stack([across, down])[known]).astype(np.int32)
        cv2.polylines(strip, [curve[:, None]], False, bgr(colour), max(2, height // 8), cv2.LINE_AA)
    return np.vstack([top, strip])


class FrameWriter(Protocol):
    """Anything that takes the frames of an overlay; a context manager."""

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 BGR, of the size of the first."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_writer(path: Path, rate: float) -> FrameWriter:
    """A writer for the frames of a video, by the suffix of the file.

    Raises:
        ReportError: If the suffix is of another kind, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in VIDEO_SUFFIXES + ANIMATION_SUFFIXES:
        raise ReportError(
            f"{path}: an overlay of a video is written as {', '.join(VIDEO_SUFFIXES + ANIMATION_SUFFIXES)}; choose "
            "such a name"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return VideoWriter(path, rate) if suffix in VIDEO_SUFFIXES else AnimationWriter(path, rate)


class AnimationWriter:
    """Writes frames as an endless animation, WebP or GIF; keeps them in memory until the end. A context manager.

    Args:
        path: The file.
        rate: Frames per second.
        quality: Of WebP, 0 to 100.
    """

    def __init__(self, path: Path, rate: float, quality: int = 50):
        self.path = path
        self.duration = round(1000 / rate)
        self.quality = quality
        self.frames: list[Image.Image] = []

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 BGR."""
        self.frames.append(Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or not self.frames:
            return
        first, *others = self.frames
        options = {"quality": self.quality, "method": 4} if self.path.suffix.lower() == ".webp" else {}
        try:
            first.save(self.path, save_all=True, append_images=others, duration=self.duration, loop=0, **options)
        except OSError as problem:
            raise cannot_write(self.path, problem) from problem


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) uint8 BGR as PNG or JPEG, by the suffix.

    Raises:
        ReportError: If the suffix is another, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise ReportError(
            f"{path}: an overlay of a picture is written as {', '.join(PICTURE_SUFFIXES)}; choose such a name"
        )
    encoded = cv2.imencode(suffix, picture)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise cannot_write(path, error) from error
