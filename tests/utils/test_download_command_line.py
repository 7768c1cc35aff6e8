"""The command line of the download: bad input, a folder that it may not use, and its help."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from download_runs import Run, options
from download_site import Site

from utils import download_WFLW_V
from utils.download.index import SPLIT_FILES
from utils.download.outcome import Status

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--ids", "../x"], "--ids: '../x' is not a YouTube video id"),
        (["--ids", "clip_000099"], "--ids: clip_000099 not in the index"),
        (["--ids", "clip_000005", "--split", "easy"], "--ids: clip_000005 not in the index (--split easy)"),
        (["--index", "nowhere"], "nowhere: no such index folder"),
        (["--cookies", "nowhere.txt"], "nowhere.txt: no such file; export the browser's cookies"),
        (["--cookies", "README.md"], "README.md: not a cookie file"),
        (["--cookies", "cookies.txt", "--backend", "pytube"], "--cookies does not work with --backend pytube"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    index: Path,
    tmp_path: Path,
    download: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
):
    monkeypatch.chdir(ROOT)
    ended = download("--output_folder", tmp_path / "out", "--index", index, *arguments)
    assert ended.status == 2
    assert ended.err.startswith(f"error: {message}")
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_file_of_the_index_is_named(index: Path, tmp_path: Path, download: Callable[..., Run]):
    (index / "hard_video_IDs.txt").unlink()
    ended = download("--output_folder", tmp_path / "out", "--index", index)
    assert ended.status == 2
    assert ended.err.startswith(f"error: {index / 'hard_video_IDs.txt'}: no such file")


def test_a_table_of_something_else_is_refused_and_kept(
    site: Site, index: Path, tmp_path: Path, download: Callable[..., Run]
):
    (tmp_path / "out").mkdir()
    table = tmp_path / "out" / "download_status.csv"
    table.write_text("name,grade\nAda,1\n")
    ended = download(*options(index, tmp_path / "out"))
    assert ended.status == 2
    assert f"error: {table}: not a table of this script" in ended.err
    assert table.read_text() == "name,grade\nAda,1\n"


def test_a_second_run_into_the_same_folder_is_refused(index: Path, tmp_path: Path, download: Callable[..., Run]):
    script = "import sys; from tests.fixtures.held_folder import *; hold_folder(Path(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        ended = download("--output_folder", tmp_path / "out", "--index", index)
        other.communicate("\n")
    assert ended.status == 2
    assert f"error: {tmp_path / 'out'}: another run is writing into this folder" in ended.err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--backoff", "1e300"), ("--backoff", "nan"), ("--n_processes", "1000000000"), ("--retries", "-1")],
)
def test_a_number_outside_its_range_is_refused(option: str, value: str, tmp_path: Path, download: Callable[..., Run]):
    ended = download("--output_folder", tmp_path / "out", option, value)
    assert ended.status == 2
    assert f"argument {option}: must be" in ended.err
    assert not (tmp_path / "out").exists()


def test_the_choices_of_the_command_line_are_those_of_the_index():
    assert (*SPLIT_FILES, "all") == download_WFLW_V.SPLITS


def test_the_help_explains_every_option_and_every_status(download: Callable[..., Run]):
    ended = download("--help")
    assert ended.status == 0
    usage, _, text = ended.out.partition("Download the videos of WFLW-V")
    for option in set(re.findall(r"--[a-z_]+", usage)) - {"--help"}:
        assert f"    {option} " in text
    for status in Status:
        assert f"    {status} " in text
