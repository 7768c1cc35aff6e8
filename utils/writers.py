"""Pictures, videos and animations as files."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import av
import cv2
import numpy as np
from PIL import Image

from utils.errors import OutputError
from utils.files import cannot_write


class VideoWriter:
    """Writes frames as H.264 in MP4, aside and then renamed; a context manager.

    Args:
        path: The file.
        fps: Frames per second.

    Raises:
        OutputError: If the file cannot be written.
    """

    def __init__(self, path: Path, fps: float):
        self.path = path
        self.aside = path.with_name(path.name + ".part")
        try:
            self.aside.touch()  # the library opens the file only at the first frame
            self.container = av.open(str(self.aside), "w", format="mp4")
        except OSError as error:
            raise cannot_write(path, error) from error
        rate = Fraction(fps).limit_denominator(1001)
        self.stream = self.container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "fast"})
        self.stream.pix_fmt = "yuv420p"
        self.stream.width = self.stream.height = 0

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 BGR, of the size of the first."""
        # The chroma sampling that every player knows needs even sides.
        height, width = frame.shape[:2]
        frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self.stream.width == 0:
            self.stream.height, self.stream.width = frame.shape[:2]
        self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.container.mux(self.stream.encode(None))
            self.container.close()
            if error is None:
                self.aside.replace(self.path)
        except OSError as problem:
            raise OutputError(f"{self.path}: cannot be written ({problem}); choose another output folder") from problem
        finally:
            self.aside.unlink(missing_ok=True)


ANIMATION_SUFFIXES = (".webp", ".gif")

VIDEO_SUFFIXES = (".mp4",)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


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
        OutputError: If the suffix is of another kind, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in VIDEO_SUFFIXES + ANIMATION_SUFFIXES:
        raise OutputError(
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
        OutputError: If the suffix is another, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES:
        raise OutputError(
            f"{path}: an overlay of a picture is written as {', '.join(PICTURE_SUFFIXES)}; choose such a name"
        )
    encoded = cv2.imencode(suffix, picture)[1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise cannot_write(path, error) from error
