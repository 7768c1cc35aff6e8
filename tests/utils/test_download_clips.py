"""Whole runs of the download: which clips are there afterwards, and how a run goes on after a stop."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from download_runs import Run, make_id, options, read_table
from download_site import Site
from download_videos import read_frames, read_numbers

from utils.download import run as download_run
from utils.download.cutting import cut_frames
from utils.download.index import SPLIT_FILES

ROOT = Path(__file__).parents[2]
FROM_SITE = """
import sys
from utils import download_WFLW_V
from utils.command_line import run
from utils.download import backends

backends.YOUTUBE_URL = sys.argv.pop(1)
sys.exit(run(download_WFLW_V.main))
"""


def test_every_clip_gets_its_status_and_none_stops_the_others(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run], source: Path
):
    out = tmp_path / "out"
    with (index / "download_ranges.txt").open("a") as file:
        file.write(f"{make_id(6)} 30 45\n{make_id(7)} 5 20\n")
    answers = ["video", 404, 403, "drop", "drop once", "page", "video", 503]
    site.answers = dict(zip(map(make_id, range(8)), answers, strict=True))
    ended = download(*options(index, out))
    assert ended.status == 1
    table = read_table(out)
    assert [table[make_id(number)]["status"] for number in range(8)] == [
        "done",
        "unavailable",
        "http error",
        "network error",
        "done",
        "failed",
        "wrong length",
        "http error",
    ]
    for number in (0, 4):
        assert read_numbers(out / "videos" / f"{make_id(number)}.mp4", source) == list(range(5, 21))
        row = table[make_id(number)]
        assert (row["frames"], row["width"], row["height"]) == ("16", "96", "64")
    assert len(list((out / "videos").iterdir())) == 2
    assert "404" in table[make_id(1)]["reason"]
    assert "403" in table[make_id(2)]["reason"]
    assert "40 frames" in table[make_id(6)]["reason"]
    # A video that is gone is asked for once, an answer that may change in both attempts.
    assert site.asked[make_id(1)] == 1
    assert site.asked[make_id(2)] == 2
    assert site.ranges, "a broken download must be gone on with, not begun again"
    assert "done: 2\nunavailable: 1\n" in ended.out
    assert "2 of 8 clips are in" in ended.out
    assert f"{make_id(1)}: unavailable: " in ended.out
    assert "https://github.com/polo5/LDEQ_RwR/issues/2" in ended.out
    assert "the index in" in ended.err


def test_all_done_is_exit_status_0_and_a_second_run_asks_the_site_for_nothing(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    out = tmp_path / "100% of $HOME, %(id)s"
    site.answers = {make_id(number): "video" for number in range(6)}
    first = download(*options(index, out), "--split", "easy", "--limit", 2)
    assert first.status == 0
    assert {path.name for path in tmp_path.iterdir()} == {"index", out.name}
    assert sorted(path.stem for path in (out / "videos").iterdir()) == [make_id(0), make_id(1)]
    assert (out / "splits" / SPLIT_FILES["hard"]).read_text() == f"{make_id(4)}\n{make_id(5)}\n"
    assert "bboxes/ is missing" in first.out
    assert "landmarks/ is missing" in first.out

    table, asked = (out / "download_status.csv").read_bytes(), site.asked.copy()
    (out / "bboxes").mkdir()
    second = download(*options(index, out), "--split", "easy", "--limit", 2)
    assert second.status == 0
    assert (site.asked, (out / "download_status.csv").read_bytes()) == (asked, table)
    assert "bboxes/ is missing" not in second.out

    third = download(*options(index, out), "--ids", f"{make_id(5)},{make_id(4)}")
    assert third.status == 0
    assert "2 of 2 clips" in third.out
    assert list(read_table(out)) == [make_id(0), make_id(1), make_id(4), make_id(5)]


def test_a_clip_that_is_not_whole_is_downloaded_again(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run], source: Path
):
    out = tmp_path / "out"
    (out / "videos").mkdir(parents=True)
    cut_frames(source, out / "videos" / f"{make_id(0)}.mp4", 5, 19)
    (out / "videos" / f"{make_id(1)}.mp4").write_bytes(source.read_bytes()[:500])
    cut_frames(source, out / "videos" / f"{make_id(2)}.mp4", 5, 20)
    site.answers = {make_id(number): "video" for number in range(3)}
    assert download(*options(index, out), "--limit", 3).status == 0
    for number in range(3):
        assert read_numbers(out / "videos" / f"{make_id(number)}.mp4", source) == list(range(5, 21))
    assert set(site.asked) == {make_id(0), make_id(1)}


def test_a_run_that_was_killed_goes_on_to_the_same_end(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    site.answers = {make_id(0): "video", make_id(1): "video", make_id(2): "video", make_id(3): 404}
    assert download(*options(index, tmp_path / "undisturbed"), "--limit", 4).status == 1

    out = tmp_path / "out"
    site.answers[make_id(2)] = "hold"
    site.asked.clear()
    script = [sys.executable, "-c", FROM_SITE, site.url_template, *map(str, options(index, out)), "--limit", "4"]
    process = subprocess.Popen(script, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert site.held.wait(60)
    wait_for(lambda: [row["status"] for row in read_table(out).values()] == ["done", "done", "pending", "unavailable"])
    process.send_signal(signal.SIGKILL)
    process.wait()
    site.released.set()

    before = site.asked.copy()
    ended = download(*options(index, out), "--limit", 4)
    assert ended.status == 1
    assert "done: 3\nunavailable: 1\n3 of 4 clips are in" in ended.out
    assert (out / "download_status.csv").read_bytes() == (tmp_path / "undisturbed/download_status.csv").read_bytes()
    for number in range(3):
        name = f"videos/{make_id(number)}.mp4"
        # Not the bytes: with several threads the encoder's differ from run to run.
        again, once = read_frames(out / name).astype(float), read_frames(tmp_path / "undisturbed" / name)
        assert again.shape == once.shape
        assert np.abs(again - once).mean() < 1
    assert len(list((out / "videos").iterdir())) == 3
    assert [site.asked[make_id(number)] for number in range(2)] == [before[make_id(number)] for number in range(2)]
    assert [path.name for path in (out / ".download").iterdir()] == []


def test_control_c_ends_the_run_and_keeps_what_is_done(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    site.answers = {make_id(0): "video", make_id(1): "hold"}

    class Stop(threading.Event):
        def set(self) -> None:
            super().set()
            site.released.set()

    monkeypatch.setattr(download_run, "threading", SimpleNamespace(Event=Stop))

    def press() -> None:
        assert site.held.wait(60)
        wait_for(lambda: (out / "download_status.csv").read_text().count("done") == 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    ended = download(*options(index, out), "--limit", 2)
    thread.join()
    assert ended.status == 130
    assert "run the same command to resume\n\nstopped by Ctrl-C\n" in ended.err
    assert [row["status"] for row in read_table(out).values()] == ["done", "pending"]
    assert [path.stem for path in (out / "videos").iterdir()] == [make_id(0)]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_lists_of_easy_and_hard_clips_that_are_there_are_kept(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    splits = tmp_path / "out" / "splits"
    splits.mkdir(parents=True)
    (splits / SPLIT_FILES["easy"]).write_text("mine_000001\n")
    download(*options(index, tmp_path / "out"), "--retries", 0)
    assert (splits / SPLIT_FILES["easy"]).read_text() == "mine_000001\n"


def test_landmarks_that_are_there_tell_a_clip_of_another_size_or_length(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    landmarks = tmp_path / "out" / "landmarks"
    landmarks.mkdir(parents=True)
    inside = np.full((16, 98, 2), (90.0, 60.0))
    np.save(landmarks / f"{make_id(0)}.npy", inside)
    np.save(landmarks / f"{make_id(1)}.npy", 1.5 * inside)
    np.save(landmarks / f"{make_id(2)}.npy", inside[:15])
    (landmarks / f"{make_id(3)}.npy").write_text("no array")
    site.answers = {make_id(number): "video" for number in range(4)}
    ended = download(*options(index, tmp_path / "out"), "--limit", 4)
    table = read_table(tmp_path / "out")
    assert [table[make_id(number)]["status"] for number in range(4)] == ["done", "wrong size", "wrong length", "failed"]
    assert "100% of the landmarks lie outside the frame of 96 x 64" in table[make_id(1)]["reason"]
    assert [path.stem for path in (tmp_path / "out" / "videos").iterdir()] == [make_id(0)]
    assert site.asked[make_id(2)] == site.asked[make_id(3)] == 0
    assert "--max_resolution" in ended.out
