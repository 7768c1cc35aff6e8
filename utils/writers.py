"""Pictures, videos and animations as files."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import av
import cv2
import numpy as np
from PIL import Image

from utils.errors import OutputError
from utils.files import Aside, write_bytes, written


@contextmanager
def encoded(path: Path) -> Iterator[None]:
    """Turn an encoder's error inside the `with` block into an `OutputError` that names the file."""
    try:
        with written(path):
            yield
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be encoded ({error}); choose another format") from error


def fit(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Fit a frame (H, W, 3) into another size: scaled with its aspect ratio kept, centred, on black."""
    if frame.shape[:2] == (height, width):
        return frame
    scale = min(width / frame.shape[1], height / frame.shape[0])
    inner = max(1, round(scale * frame.shape[1])), max(1, round(scale * frame.shape[0]))
    across, down = width - inner[0], height - inner[1]
    resized = cv2.resize(frame, inner, interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(
        resized, down // 2, down - down // 2, across // 2, across - across // 2, cv2.BORDER_CONSTANT
    )


class VideoWriter:
    """Writes frames as H.264 in MP4; a context manager. The file appears at the end; without a frame there is no file.

    Args:
        path: The file.
        fps: Frames per second.

    Raises:
        OutputError: If the file cannot be written.
    """

    def __init__(self, path: Path, fps: float):
        self.path = path
        self.aside = Aside(path)
        with encoded(path):
            self.container = av.open(str(self.aside.part), "w", format="mp4")
        rate = Fraction(fps).limit_denominator(1001)
        self.stream = self.container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "fast"})
        self.stream.pix_fmt = "yuv420p"
        self.stream.width = self.stream.height = 0

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 BGR; one of another size than the first is fitted into it."""
        if self.stream.width == 0:
            # The chroma sampling that every player knows needs even sides.
            self.stream.height, self.stream.width = (side + side % 2 for side in frame.shape[:2])
            height, width = frame.shape[:2]
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = fit(frame, self.stream.width, self.stream.height)
        with encoded(self.path):
            self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        complete = error is None and self.stream.width > 0
        try:
            with encoded(self.path):
                if complete:
                    self.container.mux(self.stream.encode(None))
                self.container.close()
        except OutputError:
            self.aside.discard()
            # Report the first error only.
            if error is None:
                raise
        if complete:
            self.aside.commit()
        else:
            self.aside.discard()


ANIMATION_SUFFIXES = (".webp", ".gif")

VIDEO_SUFFIXES = (".mp4",)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")


class FrameWriter(Protocol):
    """Anything that writes the frames of an overlay; a context manager."""

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 BGR; one of another size than the first is fitted into it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_writer(path: Path, rate: float) -> FrameWriter:
    """A writer for the frames of a video, chosen by the suffix of the file.

    Raises:
        OutputError: If the suffix is not one of a video, or the file cannot be written.
    """
    check_suffix(path, VIDEO_SUFFIXES + ANIMATION_SUFFIXES, "a video")
    return VideoWriter(path, rate) if path.suffix.lower() in VIDEO_SUFFIXES else AnimationWriter(path, rate)


def check_suffix(path: Path, suffixes: Sequence[str], kind: str) -> Path:
    """The path of an overlay, if its suffix is one of the given ones.

    Raises:
        OutputError: If it is not.
    """
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path}: an overlay of {kind} is written as {', '.join(suffixes)}; choose one of these")
    return path


class AnimationWriter:
    """Writes frames as an endless animation, WebP or GIF; a context manager. All frames stay in memory until the end.

    Args:
        path: The file.
        rate: Frames per second.
        quality: Quality of WebP, 0 to 100.
    """

    def __init__(self, path: Path, rate: float, quality: int = 42):
        self.aside = Aside(path)
        self.duration = round(1000 / rate)
        self.quality = quality
        self.frames: list[Image.Image] = []

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 BGR; one of another size than the first is fitted into it."""
        if self.frames:
            frame = fit(frame, *self.frames[0].size)
        self.frames.append(Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.aside.discard()
        if error is not None or not self.frames:
            return
        first, *others = self.frames
        kind_of_file = self.aside.path.suffix.lower().removeprefix(".")
        options = {"quality": self.quality, "method": 4} if kind_of_file == "webp" else {}
        content = io.BytesIO()
        with encoded(self.aside.path):
            first.save(
                content,
                kind_of_file,
                save_all=True,
                append_images=others,
                duration=self.duration,
                loop=0,
                **options,
            )
        write_bytes(self.aside.path, content.getvalue())


def write_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) uint8 BGR as PNG or JPEG, chosen by the suffix.

    Raises:
        OutputError: If the suffix is neither, or the file cannot be written.
    """
    check_suffix(path, PICTURE_SUFFIXES, "a picture")
    done, content = cv2.imencode(path.suffix.lower(), picture)
    if not done:
        height, width = picture.shape[:2]
        raise OutputError(f"{path}: the format cannot hold {width} x {height} pixels; choose another format")
    write_bytes(path, content.tobytes())
