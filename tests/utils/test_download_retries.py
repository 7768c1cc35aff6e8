"""What is tried again, after how long, and how far apart the attempts start."""

import threading
import time
from pathlib import Path

import pytest
from download_runs import make_id

from utils.download.clip import Folders, Pace, Retries, get_clip
from utils.download.index import Clip
from utils.download.outcome import DownloadFailure, Status


def test_the_wait_before_an_attempt_ends_at_a_day():
    assert [Retries(9, 10).wait_before(attempt) for attempt in (1, 2, 3, 1_000_000)] == [10, 20, 40, 86_400]


class Recorder(threading.Event):
    """An event that is never set, and remembers how long it was waited for."""

    def __init__(self):
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        return False


class Broken:
    def __init__(self, failure: Exception):
        self.failure = failure
        self.attempts = 0

    def download(self, video_id: str, folder: Path) -> Path:
        self.attempts += 1
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "waits", "status"),
    [
        (DownloadFailure(Status.HTTP_ERROR, "503", retry=True), [10, 20, 40], Status.HTTP_ERROR),
        (DownloadFailure(Status.PRIVATE, "private"), [], Status.PRIVATE),
        (KeyError("requested_downloads"), [], Status.FAILED),
    ],
)
def test_errors_that_may_pass_are_tried_again_after_twice_the_time(
    tmp_path: Path, failure: Exception, waits: list[float], status: Status
):
    folders, backend, stop = Folders(tmp_path), Broken(failure), Recorder()
    folders.work.mkdir()
    pace = Pace(0, threading.Event())
    result = get_clip(Clip(make_id(0), 0, 9), folders, backend, pace, Retries(4, 10), stop)
    assert (result.status, stop.waits, backend.attempts) == (status, waits, len(waits) + 1)
    assert list(folders.work.iterdir()) == []


def test_attempts_start_one_interval_apart(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    stop = Recorder()
    pace = Pace(12, stop)
    for _ in range(3):
        pace.wait()
    assert stop.waits == [0, 12, 24]


def test_a_run_that_is_stopped_starts_no_further_attempt():
    stop = threading.Event()
    stop.set()
    with pytest.raises(DownloadFailure) as failure:
        Pace(0, stop).wait()
    assert failure.value.status == Status.PENDING
