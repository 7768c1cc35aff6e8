"""The video evaluation, run as a user runs it: what it prints and writes, and that its numbers are right."""

import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from four_clips import EASY, HARD, LENGTHS, clip_of
from script_results import read_results
from synthetic_clips import HEIGHT, WIDTH, write_clip
from video_script import EXPLICIT, ORIGINAL, SCRIPT, arguments, plain_loop, read_predictions, read_scores, read_table

from datasets.wflw_v import published_results, read_landmarks
from models import load_checkpoint
from models.cell import Cell
from utils.metrics import video_nme, video_nmj


def test_a_run_prints_the_originals_lines_and_writes_every_result(clips, network, tmp_path):
    command = arguments(clips, tmp_path, network, "--WFLW_V_workers", 2, "--save_video", "--WFLW_V_batch_size", 3)
    process = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr

    results, scores = read_results(tmp_path), read_scores(tmp_path)
    printed = re.findall(r"^video (\w+) \(NME, NMJ\) = \((\S+), (\S+)\)$", process.stdout, re.MULTILINE)
    assert {name: (float(nme), float(nmj)) for name, nme, nmj in printed} == {
        name: (pytest.approx(nme, abs=0.006), pytest.approx(nmj, abs=0.006)) for name, (nme, nmj) in scores.items()
    }
    (average,) = re.findall(r"^Avg \(NME, NMJ\) = (\S+), (\S+)$", process.stdout, re.MULTILINE)
    expected = np.mean(list(scores.values()), axis=0)
    assert [float(number) for number in average] == pytest.approx(expected, abs=0.006)
    assert (results["average"]["nme"], results["average"]["nmj"]) == pytest.approx(tuple(expected))
    assert results["count"] == 4
    assert results["failed"] == {}
    assert results["splits"]["hard"]["nme"] == pytest.approx(np.mean([scores[name][0] for name in HARD]))
    assert {row["video_id"]: (int(row["frames"]), row["split"]) for row in read_table(tmp_path)} == {
        name: (frames, "easy" if name in EASY else "hard") for name, frames in LENGTHS.items()
    }
    for name, frames in LENGTHS.items():
        capture = cv2.VideoCapture(str(tmp_path / "videos" / f"{name}.mp4"))
        shapes = [capture.read()[1].shape for _ in range(frames)]
        assert set(shapes) == {(HEIGHT, WIDTH, 3)}
        assert not capture.read()[0]


def test_without_arguments_the_shipped_weights_run_on_the_shipped_clips(tmp_path):
    command = [sys.executable, str(SCRIPT), "--output_folder", str(tmp_path), "--device", "cpu"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    assert read_results(tmp_path)["count"] == len(list((SCRIPT.parent / "datasets/sample/videos").glob("*.mp4")))


@pytest.mark.parametrize("recurrent", [True, False])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_landmarks_are_those_of_a_plain_loop_over_each_clip_for_every_batch_size(
    recurrent, batch_size, clips, network, evaluation, tmp_path
):
    assert evaluation(clips, "--rwr", str(recurrent).lower(), "--WFLW_V_batch_size", batch_size) == 0
    model = load_checkpoint(network)
    for name, (nme, nmj) in read_scores(tmp_path / "results").items():
        saved = read_predictions(tmp_path / "results", name, "rwr" if recurrent else "no_rwr")["landmarks"]
        expected, true = plain_loop(model, clip_of(clips, name), recurrent), read_landmarks(clip_of(clips, name))
        np.testing.assert_allclose(saved, expected, atol=5e-3)
        assert (nme, nmj) == pytest.approx((video_nme(expected, true), video_nmj(expected, true)), rel=1e-4)


def test_rwr_and_a_fresh_solve_of_the_network_of_these_tests_differ(clips, network):
    model, clip = load_checkpoint(network), clip_of(clips, "a")
    assert np.abs(plain_loop(model, clip, True) - plain_loop(model, clip, False)).max() > 0.05


@pytest.mark.parametrize(("max_iters", "one_less", "evaluations"), [(1, "false", 2), (1, "true", 1), (3, "false", 4)])
def test_a_frame_takes_the_evaluations_of_the_original_from_the_last_state(
    max_iters, one_less, evaluations, clips, evaluation, tmp_path, monkeypatch
):
    calls = []
    forward = Cell.forward

    def recording(self, z, embedded):
        result = forward(self, z, embedded)
        calls.append((z.clone(), result.clone()))
        return result

    monkeypatch.setattr(Cell, "forward", recording)
    options = ("--rwr_max_iters", max_iters, "--rwr_take_one_less_inference_step", one_less)
    assert evaluation(clips, *options, "--WFLW_V_split", "easy", "--WFLW_V_batch_size", 1) == 0
    assert len(calls) == evaluations * (LENGTHS["a"] + LENGTHS["b"])
    for number, (z, _) in enumerate(calls):
        # Every evaluation takes the value of the one before, also that of the next frame; a clip starts from zeros.
        starts = number in (0, evaluations * LENGTHS["a"])
        np.testing.assert_array_equal(z, torch.zeros_like(z) if starts else calls[number - 1][1])
    assert {row["evaluations"] for row in read_table(tmp_path / "results")} == {str(evaluations)}
    assert set(read_predictions(tmp_path / "results", "a")["evaluations"].tolist()) == {evaluations}


def test_a_checkpoint_of_the_original_is_evaluated_with_its_own_solver(clips, evaluation, tmp_path):
    assert evaluation(clips, "--rwr", "false", "--stop_rule", "batch", weights=ORIGINAL) == 0
    settings = read_results(tmp_path / "results")["settings"]
    assert settings["solver"]["name"] == "fixed_point"
    assert settings["solver"]["stop_rule"] == "batch"
    assert settings["rwr"] == {}


def test_the_published_result_of_a_clip_stands_beside_ours(tmp_path, evaluation):
    video_id, (nme, nmj) = next(iter(published_results().items()))
    root = tmp_path / "data"
    write_clip(root, video_id, 4)
    write_clip(root, "unknown", 4)
    assert evaluation(root) == 0
    rows = {row["video_id"]: row for row in read_table(tmp_path / "results")}
    row = rows[video_id]
    assert (float(row["reference_nme"]), float(row["reference_nmj"])) == (nme, nmj)
    assert float(row["nme_difference"]) == pytest.approx(float(row["nme"]) - nme)
    assert float(row["nmj_difference"]) == pytest.approx(float(row["nmj"]) - nmj)
    assert rows["unknown"]["reference_nme"] == rows["unknown"]["nme_difference"] == ""


def test_a_line_a_frame_is_printed_on_request(clips, evaluation, capsys):
    assert evaluation(clips, "--WFLW_V_split", "easy", "--verbose_solver", "true") == 0
    lines = re.findall(
        r"^video (\w) frame (\d+) RwR: 2 evaluations, start residual \S+$", capsys.readouterr().out, re.MULTILINE
    )
    assert sorted((name, int(frame)) for name, frame in lines) == [(n, t) for n in EASY for t in range(LENGTHS[n])]


def test_an_explicit_network_is_evaluated_without_rwr(clips, evaluation, tmp_path):
    assert evaluation(clips, "--rwr", "false", weights=EXPLICIT) == 0
    assert {(row["start_residual"], row["answer_residual"]) for row in read_table(tmp_path / "results")} == {("", "")}


def test_what_was_run_stands_above_and_below_the_averages(clips, evaluation, tmp_path, capsys):
    assert evaluation(clips) == 0
    text = "4 of 1000 clips of WFLW-V: not the benchmark"
    printed = capsys.readouterr().out.splitlines()
    (average,) = (line for line, text in enumerate(printed) if text.startswith("Avg (NME, NMJ)"))
    assert text in printed[:average]
    assert text in printed[average:]
    results = read_results(tmp_path / "results")
    assert (results["benchmark"], results["evaluated"]) == (False, text)
    assert set(results["average"]) <= set(results["units"])
    assert results["settings"]["rwr"]["rwr"]["release"] == "inf"


def test_residuals_say_where_they_were_measured(clips, evaluation, tmp_path):
    assert evaluation(clips, output=tmp_path / "rwr") == 0
    assert evaluation(clips, "--rwr_take_one_less_inference_step", "true", output=tmp_path / "less") == 0
    for row in read_table(tmp_path / "rwr"):
        assert float(row["start_residual"]) > 0
        assert row["answer_residual"] == ""
    for row in read_table(tmp_path / "less"):
        assert row["answer_residual"] == row["start_residual"] != ""
