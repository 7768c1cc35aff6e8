"""The video evaluation on clips, options and folders that cannot be had: the others are evaluated, or one error."""

from pathlib import Path

import numpy as np
import pytest
from four_clips import make_clips
from script_results import assert_one_error, read_results
from synthetic_clips import DAMAGES, write_clip, write_split
from video_script import EXPLICIT, read_scores

from inference.streams import Streams


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_that_cannot_be_evaluated_are_reported_and_the_others_evaluated(workers, tmp_path, evaluation, capfd):
    root = tmp_path / "data"
    for number, damage in enumerate(DAMAGES):
        # The reasons are those of tests/test_wflw_v.py; a clip `b` is damaged, then takes the name of its damage.
        write_clip(root, "b", 6, seed=number)
        damage(root, "b")
        for path in root.glob("*/b.*"):
            path.rename(path.with_stem(damage.__name__))
    write_clip(root, "sound", 6)
    broken = [damage.__name__ for damage in DAMAGES]
    write_split(root, "easy", [*broken, "sound", "missing", "../sound"])

    assert evaluation(root, "--WFLW_V_split", "easy", "--WFLW_V_workers", workers) == 1
    captured = capfd.readouterr()
    results = read_results(tmp_path / "results")
    assert list(read_scores(tmp_path / "results")) == ["sound"]
    assert results["count"] == 1
    assert set(results["failed"]) == {*broken, "missing", "../sound"}
    for damage, reason in DAMAGES.items():
        assert results["failed"][damage.__name__].startswith(reason.replace("/b.", f"/{damage.__name__}."))
        assert captured.out.count(f"not evaluated: {damage.__name__}: ") == 1
    (warning,) = [line for line in captured.err.splitlines() if line.startswith("warning: not evaluated: ")]
    assert {*broken, "missing", "../sound"} == set(warning.split(": ")[2].split("; ")[0].split(", "))
    assert "Traceback" not in captured.err
    assert "ffmpeg" not in captured.err.lower()


@pytest.mark.parametrize(
    ("options", "weights", "message"),
    [
        ((), EXPLICIT, "RwR needs an implicit network, this one is explicit; use --rwr false"),
        (("--rwr", "false", "--compare"), EXPLICIT, "RwR needs an implicit network"),
        (("--compare", "--tuning_ids", "x"), None, "--tuning_ids: landmarks/x.npy: no such file"),
        (("--compare", "--tuning_ids", "a", "b", "c", "d"), None, "none is left to evaluate"),
        ((), Path("gone.safetensors"), "gone.safetensors: no such file; give a checkpoint"),
    ],
)
def test_an_option_that_cannot_be_had_is_one_error(options, weights, message, clips, network, evaluation, capfd):
    assert evaluation(clips, *options, weights=weights or network) == 2
    assert_one_error(capfd.readouterr().err, message)


@pytest.mark.parametrize("option", [("--rwr", "yes"), ("--WFLW_V_split", "medium"), ("--tuning_ids", "a")])
def test_an_option_out_of_range_ends_with_usage(option, clips, evaluation, capfd):
    assert evaluation(clips, *option) == 2
    assert option[0] in capfd.readouterr().err


def test_a_clip_with_a_solve_that_is_not_finite_fails_alone(clips, network, evaluation, tmp_path, monkeypatch, capsys):
    step = Streams.step

    def failing(self, images, matrices, slots, first):
        results = step(self, images, matrices, slots, first)
        # Slots are 0 and 1 here; the clip of the first begins once more while the second one goes on.
        results.keypoints[np.asarray(slots) == 1] = np.nan
        return results

    monkeypatch.setattr(Streams, "step", failing)
    options = ("--WFLW_V_split", "easy", "--WFLW_V_batch_size", 2)
    assert evaluation(clips, *options) == 1
    results = read_results(tmp_path / "results")
    assert results["count"] == 1
    (reason,) = results["failed"].values()
    assert "the solve of 6 of its 6 frames is not finite, the first is frame 0" in reason
    capsys.readouterr()
    assert evaluation(clips, *options, "--resume") == 1
    assert read_results(tmp_path / "results")["failed"] == results["failed"]


def test_absurd_clips_fail_alone(tmp_path, evaluation):
    root = make_clips(tmp_path / "data")
    for video_id, folder in (("a", "bboxes"), ("b", "landmarks")):
        path = root / folder / f"{video_id}.npy"
        values = np.load(path)
        values[1] = 1e300
        np.save(path, values)
    write_split(root, "easy", ["a", "b", "x" * 300, "\x7f"])
    assert evaluation(root) == 1
    results = read_results(tmp_path / "results")
    assert set(results["failed"]) == {"a", "b", "x" * 300, "\x7f"}
    assert set(read_scores(tmp_path / "results")) == {"c", "d"}


def test_videos_never_replace_those_of_the_dataset(tmp_path, evaluation, capfd):
    root = make_clips(tmp_path / "data")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert evaluation(root, "--save_video", output=root) == 2
    assert_one_error(capfd.readouterr().err, "would replace the input")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
