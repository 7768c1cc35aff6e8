"""Pictures, folders of pictures, videos and webcams as streams of frames."""

import io
import multiprocessing
import os
import re
import signal
import socket
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import av.logging
import cv2
import numpy as np
from PIL import Image, ImageOps

from utils.errors import InputError
from utils.images import read_bgr
from utils.progress import print_warning
from utils.reading import cannot_read, check_file
from utils.values import check_instance

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")

LAST_WEBCAM = 99

ASSUMED_RATE = 25.0
"""Frames per second if a source does not say."""


@dataclass(frozen=True)
class Source:
    """An input that can be read.

    Attributes:
        kind: "picture", "folder", "video" or "webcam".
        name: used in the names of its outputs.
        paths: the file, or the pictures of a folder in natural order (2 before 10); empty for a webcam.
        rate: frames per second.
        frames: number of frames according to the file; None for a webcam.
        webcam: its index; None for the other kinds.
    """

    kind: str
    name: str
    paths: tuple[Path, ...]
    rate: float
    frames: int | None
    webcam: int | None = None


def open_source(text: str) -> Source:
    """Recognise the kind of an input.

    Args:
        text: path of a picture, of a folder of pictures or of a video, or the index of a webcam. Write ./NUMBER for a
            file whose name is a number.

    Raises:
        InputError: If it does not exist, or holds no picture.
        OptionError: If it is no text.
    """
    check_instance("input", text, str)
    if text.isdecimal():
        if len(text) > len(str(LAST_WEBCAM)) or int(text) > LAST_WEBCAM:
            raise InputError(
                f"webcam {text[:20]}: the largest index is {LAST_WEBCAM}; write ./{text[:20]} for a file of that name"
            )
        return Source("webcam", f"webcam_{int(text)}", (), ASSUMED_RATE, None, int(text))
    path = Path(text)
    try:
        entries = list(path.iterdir()) if path.is_dir() else None
    except (OSError, ValueError) as error:  # also a name that is too long, or that no file can have
        raise cannot_read(path, error) from error
    if entries is not None:
        pictures = [entry for entry in entries if is_picture(entry) and not entry.is_dir()]
        if not pictures:
            raise InputError(f"{path}: the folder holds no picture ({' '.join(PICTURE_SUFFIXES)}); give another")
        pictures.sort(key=lambda entry: natural_order(entry.name))
        return Source("folder", path.resolve().name or "folder", tuple(pictures), ASSUMED_RATE, len(pictures))
    check_file(path, "give a picture, a folder, a video or the index of a webcam")
    if is_picture(path):
        return Source("picture", path.stem, (path,), ASSUMED_RATE, 1)
    capture = open_video(path)
    rate, frames = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return Source(
        "video", path.stem, (path,), rate if 0 < rate <= 1000 else ASSUMED_RATE, frames if frames > 0 else None
    )


def silence_opencv() -> None:
    """Turn off OpenCV's own messages; the readers here report the reasons."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def is_picture(path: Path) -> bool:
    """Whether the suffix is that of a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sorting key that orders numbers in a name by value."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def read_picture(path: Path) -> np.ndarray:
    """Read a picture of any bit depth, grey or colour, rotated according to its metadata; transparent parts are white.

    Args:
        path: Any format that OpenCV decodes.

    Returns:
        (H, W, 3) uint8 BGR.

    Raises:
        InputError: See `utils.images.read_bgr`.
    """
    picture, content = read_bgr(path)
    alpha = _read_alpha(content)
    if alpha is None or alpha.shape != picture.shape[:2]:
        return picture
    share = alpha[:, :, None].astype(np.float32) / 255
    return np.round(share * picture + (1 - share) * 255).astype(np.uint8)


def _read_alpha(content: bytes) -> np.ndarray | None:
    """Opacity (H, W) uint8, rotated according to the metadata; None if opaque. OpenCV would not rotate it."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as picture:
            warnings.simplefilter("ignore")
            if not picture.has_transparency_data:
                return None
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGBA").getchannel("A"))
    except Exception:
        # A format that only OpenCV knows, or damage that only Pillow notices; it raises many kinds of error.
        return None


def read_frames(source: Source) -> Iterator[np.ndarray]:
    """The frames of a video or webcam, each (H, W, 3) uint8 BGR, rotated according to the metadata.

    A webcam never ends. A truncated video ends at its last readable frame, with a warning on stderr; another warning
    names damaged frames.

    Raises:
        InputError: If it does not open, or no frame can be decoded.
    """
    capture = _open_webcam(source.webcam) if source.webcam is not None else open_video(source.paths[0])
    count, damaged = 0, []
    with closing(damage_flags(source.paths[0] if source.paths else None)) as flags:
        try:
            while True:
                there, frame = capture.read()
                if not there:
                    break
                if next(flags, False):
                    damaged.append(count)
                count += 1
                yield frame if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
        finally:
            capture.release()
    if count == 0:
        name = source.paths[0] if source.paths else f"webcam {source.webcam}"
        raise InputError(f"{name}: no frame can be decoded; it is damaged or has another format")
    if damaged:
        others = f" and {len(damaged) - 1} others are" if len(damaged) > 1 else " is"
        print_warning(
            f"{source.paths[0]}: frame {damaged[0]}{others} damaged; landmarks there and just after may be wrong"
        )
    if source.frames is not None and _falls_short(count, source.frames) and not _reaches_its_end(source, count):
        print_warning(f"{source.paths[0]}: ends after {count} of {source.frames} frames; it is truncated or damaged")


def _falls_short(count: float, expected: int) -> bool:
    # Containers without an index compute their length from duration and rate, which is slightly off.
    return count < 0.97 * expected - 1


def _reaches_its_end(source: Source, count: int) -> bool:
    """Whether the file is whole although fewer frames were decoded than it names.

    A header may give only a duration and the usual rate, which a video of variable rate falls below. A whole file has
    packets up to the end of that duration, and all of those with pictures can be decoded.
    """
    packets, end = 0, 0.0
    try:
        with av.open(str(source.paths[0]), metadata_errors="ignore") as container:
            video = container.streams.video[0]
            for packet in container.demux():
                packets += packet.stream == video and packet.size > 0
                if packet.pts is not None and packet.time_base is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    except (av.error.FFmpegError, IndexError):
        return False
    return not _falls_short(count, packets) and not _falls_short(end * source.rate, source.frames or 0)


def damage_flags(path: Path | None) -> Generator[bool]:
    """Whether the decoder found damage in a frame, for every frame of a video; it ends where decoding fails.

    FFmpeg replaces what it cannot decode by parts of other frames, and OpenCV does not say so. So the video is decoded
    once more, without the filter that smooths block edges: in about two thirds of the time of the first decoding.
    Damage that gives a valid stream again is not found, except in FFV1, whose frames have checksums.

    Args:
        path: the video; None for a source without a file, which has no flags.
    """
    if path is None:
        return
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            video = container.streams.best("video")
            if not isinstance(video, av.VideoStream):  # the reader reports it
                return
            video.codec_context.thread_count = 1
            video.codec_context.options = {"skip_loop_filter": "all"}
            frames = container.decode(video)
            # FFV1 does not mark a frame whose checksum is wrong.
            messages_of = _decoder_errors if video.codec_context.name == "ffv1" else partial(nullcontext, "")
            while True:
                with messages_of() as messages:
                    frame = next(frames, None)
                if frame is None:
                    return
                yield bool(frame.is_corrupt) or "CRC mismatch" in str(messages)
    except (av.error.FFmpegError, AttributeError):  # a stream without a decoder: the reader reports it
        return


@contextmanager
def _decoder_errors() -> Iterator[list[tuple[int, str, str]]]:
    """The errors that FFmpeg reports in this thread inside the block: level, part of FFmpeg, message."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as messages:
            yield messages
    finally:
        av.logging.set_level(level)


def open_video(path: Path) -> cv2.VideoCapture:
    """A video file, open for reading, with frames rotated according to its metadata.

    Raises:
        InputError: If it cannot be decoded, is text or interlaced, or has a path that is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: the path of a video must be valid UTF-8; rename it") from error
    # One thread for decoding: the network needs the others.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise InputError(f"{path}: cannot be decoded as a picture or video; it is damaged or has another format")
    if int(capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"ansi"):
        capture.release()
        raise InputError(f"{path}: is text, which FFmpeg would draw as a video; give a picture or video")
    if int(cv2.__version__.split(".")[0]) >= 5 and _is_interlaced(path):
        # It would deliver uninitialised memory.
        capture.release()
        raise InputError(
            f"{path}: OpenCV 5 cannot read interlaced video; convert it: ffmpeg -i VIDEO -vf yadif NEW.mp4"
        )
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _is_interlaced(path: Path) -> bool:
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            first = next(container.decode(video=0), None)
    except (av.error.FFmpegError, IndexError):  # without a video stream: the reader reports it
        return False
    return first is not None and first.interlaced_frame


def _open_webcam(index: int) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        raise InputError(f"webcam {index} does not open; check that it is connected, allowed and free, or try another")
    # Queued frames would be late.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def has_display() -> bool:
    """Whether a window can be opened, that is, a display answers. Without one OpenCV would end the process."""
    if sys.platform in ("win32", "darwin"):
        return True
    wayland = os.environ.get("WAYLAND_DISPLAY")
    if wayland and _answers(socket.AF_UNIX, str(Path(os.environ.get("XDG_RUNTIME_DIR", "/")) / wayland)):
        return True
    display = re.fullmatch(r"(?:[a-z]+/)?([^:]*):(\d{1,4})(?:\.\d+)?", os.environ.get("DISPLAY", ""))
    if display is None:
        return False
    host, number = display[1], int(display[2])
    if host in ("", "unix"):
        path = f"/tmp/.X11-unix/X{number}"
        return _answers(socket.AF_UNIX, path) or (sys.platform == "linux" and _answers(socket.AF_UNIX, "\0" + path))
    return _answers(socket.AF_INET, (host, 6000 + number))


def _answers(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(address)
    except (OSError, ValueError):
        return False
    return True


def initialise_decoder(worker_id: int = 0) -> None:
    """Prepare a process for decoding: one thread, and no messages from OpenCV; the readers report the reasons."""
    silence_opencv()
    cv2.setNumThreads(0)
    if multiprocessing.parent_process() is not None:
        # Only the main process handles Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
