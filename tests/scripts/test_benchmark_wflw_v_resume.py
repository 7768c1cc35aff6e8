"""The video evaluation after a stop: what is done is kept, and the end is the same."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from four_clips import EASY, LENGTHS, make_clips
from script_results import assert_one_error, read_results
from video_script import arguments, assert_same_scores, read_scores


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(clips, network, evaluation, tmp_path, capsys):
    options = ("--WFLW_V_batch_size", 2)
    assert evaluation(clips, *options, output=tmp_path / "whole") == 0
    stopped = tmp_path / "stopped"
    command = [sys.executable, *arguments(clips, stopped, network, *options, "--WFLW_V_workers", 2)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (stopped / "per_video.csv").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (stopped / "results.json").exists()
    # a clip's prediction is written before its line in the table, so a kill may fall between the two
    done = len(list((stopped / "predictions" / "rwr").glob("*.npz")))
    assert 0 < len(read_scores(stopped)) <= done < 4

    capsys.readouterr()
    assert evaluation(clips, *options, "--resume", output=stopped) == 0
    assert f"{done} of 4 clips are already done" in capsys.readouterr().out
    assert_same_scores(stopped, tmp_path / "whole")
    one, other = read_results(stopped), read_results(tmp_path / "whole")
    assert one["average"] == pytest.approx(other["average"], rel=1e-5)
    for name in ("count", "failed", "evaluated", "benchmark"):
        assert one[name] == other[name]


def test_a_resumed_run_keeps_the_clips_whose_predictions_are_whole(clips, evaluation, tmp_path, capsys):
    folder = tmp_path / "results"
    assert evaluation(clips, output=tmp_path / "whole") == 0
    assert evaluation(clips) == 0
    (folder / "predictions" / "rwr" / "a.npz").unlink()
    cut = folder / "predictions" / "rwr" / "b.npz"
    cut.write_bytes(cut.read_bytes()[:-100])
    (folder / "per_video.csv").unlink()
    capsys.readouterr()
    assert evaluation(clips, "--resume") == 0
    assert "2 of 4 clips are already done" in capsys.readouterr().out
    assert_same_scores(folder, tmp_path / "whole")


def test_a_resumed_run_infers_a_clip_that_has_changed_once_more(tmp_path, evaluation, capsys):
    root = make_clips(tmp_path / "data")
    assert evaluation(root) == 0
    boxes = np.load(root / "bboxes" / "b.npy")
    np.save(root / "bboxes" / "b.npy", boxes + 3)
    capsys.readouterr()
    assert evaluation(root, "--resume") == 0
    assert "3 of 4 clips are already done" in capsys.readouterr().out
    assert evaluation(root, output=tmp_path / "anew") == 0
    assert_same_scores(tmp_path / "results", tmp_path / "anew")


def test_a_resumed_run_looks_at_a_video_again_that_has_changed_and_kept_its_size(tmp_path, evaluation, capsys):
    root = make_clips(tmp_path / "data")
    assert evaluation(root) == 0
    video = root / "videos" / "b.mp4"
    content = bytearray(video.read_bytes())
    content[len(content) // 2] ^= 1
    video.write_bytes(content)
    capsys.readouterr()
    evaluation(root, "--resume")
    assert "3 of 4 clips are already done" in capsys.readouterr().out


def test_a_resumed_run_forgets_a_clip_that_is_gone(tmp_path, evaluation):
    root = make_clips(tmp_path / "data")
    (root / "splits" / "easy_video_IDs.txt").unlink()
    (root / "splits" / "hard_video_IDs.txt").unlink()
    assert evaluation(root) == 0
    for path in root.glob("*/b.*"):
        path.unlink()
    assert evaluation(root, "--resume") == 0
    assert set(read_scores(tmp_path / "results")) == set(LENGTHS) - {"b"}


def test_predictions_of_another_run_in_the_same_folder_are_not_taken_for_ones_own(clips, evaluation, tmp_path, capsys):
    assert evaluation(clips) == 0
    run = json.loads((tmp_path / "results" / "settings.json").read_text())
    # As a run leaves it that was stopped before its first clip was done.
    (tmp_path / "results" / "settings.json").write_text(json.dumps({**run, "run": "another"}))
    capsys.readouterr()
    assert evaluation(clips, "--resume") == 0
    assert "0 of 4 clips are already done" in capsys.readouterr().out


def test_a_repaired_clip_is_added_by_resuming(tmp_path, evaluation):
    root = make_clips(tmp_path / "data")
    video = root / "videos" / "b.mp4"
    video.rename(tmp_path / "elsewhere.mp4")
    assert evaluation(root) == 1
    (tmp_path / "elsewhere.mp4").rename(video)
    assert evaluation(root, "--resume") == 0
    assert set(read_scores(tmp_path / "results")) == set(LENGTHS)


def test_a_run_that_is_not_resumed_starts_anew(clips, evaluation, tmp_path):
    assert evaluation(clips, "--WFLW_V_split", "hard") == 0
    assert evaluation(clips, "--WFLW_V_split", "easy") == 0
    assert set(read_scores(tmp_path / "results")) == set(EASY)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rwr_max_iters", 2), "has rwr = "),
        (("--WFLW_V_split", "easy"), "has split = 'all', not 'easy'"),
        (("--compare",), "has modes = ['rwr'], not ['no_rwr', 'rwr', 'no_rwr_on_steady_crops', 'rwr_on_steady_crops']"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(options, message, clips, evaluation, tmp_path, capfd):
    assert evaluation(clips) == 0
    before = (tmp_path / "results" / "per_video.csv").read_text()
    assert evaluation(clips, "--resume", *options) == 2
    error = capfd.readouterr().err
    assert_one_error(error, message)
    assert "leave out --resume" in error
    assert (tmp_path / "results" / "per_video.csv").read_text() == before


def test_settings_that_are_a_pipe_are_refused_and_not_waited_for(clips, evaluation, tmp_path, capfd):
    (tmp_path / "results").mkdir()
    os.mkfifo(tmp_path / "results" / "settings.json")
    assert evaluation(clips, "--resume") == 2
    assert_one_error(capfd.readouterr().err, "settings.json: cannot be read")


def test_a_resumed_run_may_have_another_batch_size(clips, evaluation, tmp_path):
    assert evaluation(clips) == 0
    assert evaluation(clips, "--resume", "--WFLW_V_batch_size", 2) == 0


def test_ctrl_c_keeps_the_clips_that_are_done(clips, network, tmp_path):
    command = [sys.executable, *arguments(clips, tmp_path, network, "--WFLW_V_batch_size", 1)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "per_video.csv").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert len(read_scores(tmp_path)) >= 1
