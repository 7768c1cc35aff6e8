"""Pictures, folders of pictures, videos and webcams as streams of frames."""

import io
import multiprocessing
import os
import re
import signal
import socket
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from utils.errors import InputError
from utils.images import read_bgr
from utils.reading import cannot_read, check_file

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")

LAST_WEBCAM = 99

ASSUMED_RATE = 25.0
"""Frames per second where a source does not say."""


@dataclass(frozen=True)
class Source:
    """An input that was found to be readable.

    Attributes:
        kind: "picture", "folder", "video" or "webcam".
        name: for the names of what is made from it.
        paths: the file, or the pictures of a folder in natural order (2 before 10); none for a webcam.
        rate: frames per second.
        frames: how many there are, as far as is known; None for a webcam.
        webcam: its index; None for the others.
    """

    kind: str
    name: str
    paths: tuple[Path, ...]
    rate: float
    frames: int | None
    webcam: int | None = None


def open_source(text: str) -> Source:
    """Find out what an input is.

    Args:
        text: path of a picture, of a folder of pictures or of a video, or the index of a webcam. A file whose name is
            a number is meant by ./NUMBER.

    Raises:
        InputError: There is no such thing, or it holds no picture.
    """
    if text.isdecimal():
        if len(text) > len(str(LAST_WEBCAM)) or int(text) > LAST_WEBCAM:
            raise InputError(
                f"webcam {text[:20]}: indices go to {LAST_WEBCAM}; a file of that name is meant by ./{text[:20]}"
            )
        return Source("webcam", f"webcam_{int(text)}", (), ASSUMED_RATE, None, int(text))
    path = Path(text)
    if path.is_dir():
        try:
            entries = list(path.iterdir())
        except OSError as error:
            raise cannot_read(path, error) from error
        pictures = [entry for entry in entries if entry.is_file() and is_picture(entry)]
        if not pictures:
            raise InputError(f"{path}: the folder holds no picture ({' '.join(PICTURE_SUFFIXES)}); give another")
        pictures.sort(key=lambda entry: natural_order(entry.name))
        return Source("folder", path.resolve().name or "folder", tuple(pictures), ASSUMED_RATE, len(pictures))
    check_file(path, "give a picture, a folder, a video or the index of a webcam")
    if is_picture(path):
        return Source("picture", path.stem, (path,), ASSUMED_RATE, 1)
    capture = _open_video(path)
    rate, frames = capture.get(cv2.CAP_PROP_FPS), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return Source(
        "video", path.stem, (path,), rate if 0 < rate <= 1000 else ASSUMED_RATE, frames if frames > 0 else None
    )


def silence_opencv() -> None:
    """No messages of OpenCV's own, since the readers here give their reasons."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read when the first video is opened
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def is_picture(path: Path) -> bool:
    """Whether the suffix is one of a picture."""
    return path.suffix.lower() in PICTURE_SUFFIXES


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sorting key that puts numbers in a name by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part.lower()) for part in re.split(r"(\d+)", name)]


def read_picture(path: Path) -> np.ndarray:
    """Read a picture of any depth, grey or in colour, turned as its metadata say; white where it is transparent.

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
    """(H, W) uint8, turned as the metadata say; None without transparency. OpenCV would decode it, but not turn it."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as picture:
            warnings.simplefilter("ignore")
            if not picture.has_transparency_data:
                return None
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGBA").getchannel("A"))
    except Exception:
        # A format that only OpenCV knows, or a damage that only Pillow minds; it raises nearly anything then.
        return None


def read_frames(source: Source) -> Iterator[np.ndarray]:
    """The frames of a video or webcam, each (H, W, 3) uint8 BGR, turned as the metadata say.

    A webcam has no end. A video that is cut short ends where it does, with a warning on stderr.

    Raises:
        InputError: If it does not open or has no frame that decodes.
    """
    capture = _open_webcam(source.webcam) if source.webcam is not None else _open_video(source.paths[0])
    count = 0
    try:
        while True:
            there, frame = capture.read()
            if not there:
                break
            count += 1
            yield frame if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
    finally:
        capture.release()
    if count == 0:
        name = source.paths[0] if source.paths else f"webcam {source.webcam}"
        raise InputError(f"{name}: gives no frame that decodes; it is damaged or of another format")
    # Containers without an index tell their length by duration and rate, which is off by a little.
    if source.frames is not None and count < 0.97 * source.frames - 1:
        tqdm.write(
            f"warning: {source.paths[0]}: ends after {count} of {source.frames} frames; it is cut short or damaged",
            file=sys.stderr,
        )


def _open_video(path: Path) -> cv2.VideoCapture:
    # One thread: the network needs the others, and frames are decoded while it waits.
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise InputError(f"{path}: is no picture or video that can be decoded; it is damaged or of another format")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
    return capture


def _open_webcam(index: int) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        raise InputError(f"webcam {index} does not open; check that it is connected, allowed and free, or try another")
    # What the driver has queued is late.
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    return capture


def has_display() -> bool:
    """Whether a window can be opened: a display answers. OpenCV would end the process where none does."""
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
    """Prepare a process for decoding: one thread, and no messages of OpenCV, since a reader gives its own reasons."""
    silence_opencv()
    cv2.setNumThreads(0)
    if multiprocessing.parent_process() is not None:
        # Ctrl-C is the main process's.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
