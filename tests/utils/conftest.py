import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from download_runs import Run, make_id, write_index
from download_site import Site, serve
from download_videos import write_video

from utils import download_WFLW_V
from utils.command_line import run
from utils.download import backends


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 40 frames; not to be changed."""
    return write_video(tmp_path_factory.mktemp("source") / "source.mp4")


@pytest.fixture
def site(source: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Has the video `source`, and stands for YouTube; what it answers is the test's choice."""
    state = Site(source.read_bytes(), {})
    with serve(state):
        monkeypatch.setattr(backends, "YOUTUBE_URL", state.url_template)
        yield state


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Six clips, frames 5 to 20 of each video; the first four are easy."""
    ids = [make_id(number) for number in range(6)]
    return write_index(tmp_path / "index", [f"{video_id} 5 20" for video_id in ids], ids[:4], ids[4:])


@pytest.fixture
def download(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Run]:
    """Runs the script in this process."""

    def call(*arguments: object) -> Run:
        monkeypatch.setattr(sys, "argv", ["download_WFLW_V.py", *map(str, arguments)])
        try:
            status = run(download_WFLW_V.main)
        except SystemExit as end:
            status = end.code
        return Run(status, *capsys.readouterr())

    return call
