"""One clip: found on disk, or downloaded, cut and checked."""

import shutil
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from utils.download.backends import Backend
from utils.download.cutting import VideoInfo, cut_frames, inspect_video
from utils.download.index import Clip
from utils.download.outcome import DownloadFailure, Result, Status
from utils.errors import InputError
from utils.reading import open_array

LONGEST_WAIT = 24 * 3600
"""Most seconds between two attempts."""


@dataclass(frozen=True)
class Folders:
    """The paths in the output folder."""

    root: Path

    @property
    def work(self) -> Path:
        """Folder of the index, the lock and unfinished files; on the clips' disk, so that renaming finishes a clip."""
        return self.root / ".download"

    @property
    def status_file(self) -> Path:
        """The table of results."""
        return self.root / "download_status.csv"

    def clip_file(self, clip: Clip) -> Path:
        """The finished clip."""
        return self.root / "videos" / f"{clip.video_id}.mp4"


@dataclass(frozen=True)
class Retries:
    """How often a download is tried again, and how fast.

    Attributes:
        attempts: Number of attempts, including the first.
        backoff: Seconds before the second attempt, doubled for each later one.
    """

    attempts: int
    backoff: float

    def wait_before(self, attempt: int) -> float:
        """Seconds to wait before an attempt, counted from 0; the first has no wait."""
        return min(self.backoff * 2 ** min(attempt - 1, 30), LONGEST_WAIT)


class Pace:
    """Starts at most one attempt every `interval` seconds, over all threads."""

    def __init__(self, interval: float, stop: threading.Event):
        self._interval = interval
        self._stop = stop
        self._lock = threading.Lock()
        self._next = time.monotonic()

    def wait(self) -> None:
        """Wait for this thread's turn.

        Raises:
            DownloadFailure: If the run is stopped meanwhile.
        """
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + self._interval
        if self._stop.wait(start - time.monotonic()):
            raise DownloadFailure(Status.PENDING, "stopped")


def get_clip(
    clip: Clip, folders: Folders, backend: Backend, pace: Pace, retries: Retries, stop: threading.Event
) -> Result:
    """Find a clip on disk, or download its video and cut it.

    Args:
        clip: The clip.
        folders: The output folder.
        backend: Downloads its video.
        pace: Spaces the attempts.
        retries: Number of attempts and their waits.
        stop: An event that is set when no further attempt is wanted.

    Returns:
        The status of the clip. A failure is a result too, so that the other clips go on.
    """
    failure = DownloadFailure(Status.PENDING, "")
    for attempt in range(retries.attempts):
        if attempt > 0 and stop.wait(retries.wait_before(attempt)):
            break
        try:
            info = find_clip(clip, folders) or download_clip(clip, folders, backend, pace)
            return Result(clip.video_id, Status.DONE, **asdict(info))
        except DownloadFailure as error:
            failure = error
        except Exception as error:
            failure = DownloadFailure(Status.FAILED, f"{type(error).__name__}: {error}")
        if not failure.retry:
            break
    return Result(clip.video_id, failure.status, reason=failure.reason)


def find_clip(clip: Clip, folders: Folders) -> VideoInfo | None:
    """The data of the clip's file if it exists and is right, else None.

    Raises:
        DownloadFailure: If a download would be useless, because the landmarks do not belong to the clip.
    """
    landmarks = read_landmarks(clip, folders)
    path = folders.clip_file(clip)
    if not path.exists():
        return None
    try:
        return check_clip(path, clip, landmarks)
    except DownloadFailure:
        return None


def download_clip(clip: Clip, folders: Folders, backend: Backend, pace: Pace) -> VideoInfo:
    """Wait for the turn, download the video, cut the clip, check it, and give it its name.

    Raises:
        DownloadFailure: If one of these fails.
    """
    pace.wait()
    work = folders.work / clip.video_id
    work.mkdir(parents=True, exist_ok=True)
    keep = False
    try:
        return make_clip(clip, folders, backend, work)
    except DownloadFailure as error:
        # The next attempt, or the next run, resumes from the part that was downloaded.
        keep = error.status in (Status.NETWORK_ERROR, Status.PENDING)
        raise
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def make_clip(clip: Clip, folders: Folders, backend: Backend, work: Path) -> VideoInfo:
    """As `download_clip`; `work` is a folder for unfinished files."""
    source, part = backend.download(clip.video_id, work), work / "clip.mp4"
    cut_frames(source, part, clip.first, clip.last)
    info = check_clip(part, clip, read_landmarks(clip, folders))
    part.replace(folders.clip_file(clip))
    return info


def read_landmarks(clip: Clip, folders: Folders) -> np.ndarray | None:
    """The landmarks of a clip, (frames, 98, 2) in pixels; None if they are not in the output folder.

    Raises:
        DownloadFailure: If they do not belong to the clip.
    """
    path = folders.root / "landmarks" / f"{clip.video_id}.npy"
    if not path.exists():
        return None
    try:
        landmarks = open_array(path)
    except InputError as error:
        raise DownloadFailure(Status.FAILED, str(error)) from error
    if landmarks.ndim != 3 or landmarks.shape[2] != 2:
        raise DownloadFailure(Status.FAILED, f"{path} has the shape {landmarks.shape}, not (frames, 98, 2)")
    if len(landmarks) != clip.frames:
        raise DownloadFailure(Status.WRONG_LENGTH, f"{path} has {len(landmarks)} frames, the index says {clip.frames}")
    return landmarks


def check_clip(path: Path, clip: Clip, landmarks: np.ndarray | None) -> VideoInfo:
    """Check that a file is the clip: by its number of frames and, if there are landmarks, by its frame size.

    Raises:
        DownloadFailure: If it is not.
    """
    info = inspect_video(path)
    if info.frames != clip.frames:
        raise DownloadFailure(Status.WRONG_LENGTH, f"the clip has {info.frames} frames instead of {clip.frames}")
    if landmarks is not None:
        outside = ((landmarks < 0) | (landmarks > (info.width, info.height))).any(axis=-1).mean()
        if outside > 0.5:
            raise DownloadFailure(
                Status.WRONG_SIZE,
                f"{outside:.0%} of the landmarks lie outside the frame of {info.width} x {info.height} pixels",
            )
    return info
