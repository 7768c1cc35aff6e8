"""The video evaluation with --compare: methods, filters and the clips that these are tuned on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from four_clips import clip_of
from script_results import assert_one_error, read_results
from video_script import plain_loop, read_scores, read_table, settings_of

from datasets.wflw_v import Clip, read_landmarks
from evaluation.filters import ExponentialMovingAverage, filter_grids
from evaluation.wflw_v import choose_tuning_clips
from models import load_checkpoint
from utils.metrics import video_nmj


def test_the_comparison_scores_every_method_on_the_clips_that_are_not_for_tuning(
    clips, network, evaluation, tmp_path, capsys
):
    assert evaluation(clips, "--compare", "--tuning_ids", "c") == 0
    printed = capsys.readouterr().out
    assert evaluation(clips, "--rwr", "false", output=tmp_path / "fresh") == 0
    results = read_results(tmp_path / "results")
    rwr, fresh = read_scores(tmp_path / "results"), read_scores(tmp_path / "fresh")
    evaluated = ["a", "b", "d"]
    every = results["comparison"]["methods"]
    methods = {method["method"]: method for method in every if method["crop"] == "original"}
    for name, scores in (("RwR", rwr), ("no RwR", fresh)):
        nmes, nmjs = zip(*(scores[clip] for clip in evaluated), strict=True)
        assert methods[name]["nme_percent"] == pytest.approx(np.mean(nmes), rel=1e-4)
        assert methods[name]["nmj"] == pytest.approx(np.mean(nmjs), rel=1e-4)
        assert methods[name]["median_nmj"] == pytest.approx(np.median(nmjs), rel=1e-4)
    assert results["average"]["nmj"] == pytest.approx(methods["RwR"]["nmj"])
    assert methods["RwR"]["evaluations"] == 2
    assert results["comparison"]["tuning_clips"] == ["c"]
    assert {row["video_id"] for row in read_table(tmp_path / "results") if row["use"] == "tuning"} == {"c"}
    assert len(methods) == 2 + len(filter_grids())
    for name in filter_grids():
        assert sum(method.startswith(f"no RwR, {name} (") for method in methods) == 1

    (average,) = (method for method in methods if "exponential moving average" in method)
    smooth = ExponentialMovingAverage(float(average.split("alpha ")[1].rstrip(")")))
    filtered = [smooth(plain_loop(load_checkpoint(network), clip_of(clips, clip), False)) for clip in evaluated]
    nmjs = [
        video_nmj(track, read_landmarks(clip_of(clips, clip))) for track, clip in zip(filtered, evaluated, strict=True)
    ]
    assert methods[average]["nmj"] == pytest.approx(np.mean(nmjs), rel=1e-4)

    assert "Tuning clips, not evaluated: c." in printed
    table = [(row["method"], row["crop"]) for row in read_table(tmp_path / "results", "comparison.csv")]
    assert table == [(method["method"], method["crop"]) for method in every]
    assert len(every) == 2 * len(methods)
    assert evaluation(clips, "--crop", "steady", output=tmp_path / "steady") == 0
    (on_steady,) = (method for method in every if (method["method"], method["crop"]) == ("RwR", "steady"))
    steady = read_scores(tmp_path / "steady")
    assert on_steady["nmj"] == pytest.approx(np.mean([steady[clip][1] for clip in evaluated]), rel=1e-4)
    assert on_steady["nmj"] != pytest.approx(methods["RwR"]["nmj"], rel=1e-3)
    names = ["comparison.png", "convergence.png", *(f"plots/{clip}.png" for clip in evaluated)]
    for name in names:
        assert cv2.imread(str(tmp_path / "results" / name)) is not None


@pytest.mark.parametrize(("count", "every"), [(2, 4), (9, 4), (500, 25)])
def test_filters_are_tuned_on_an_even_choice_of_the_split(count, every):
    clips = {f"{number:03}": Clip(f"{number:03}", "easy", Path(), 5) for number in reversed(range(count))}
    chosen = choose_tuning_clips(settings_of(), clips)
    assert list(chosen) == [f"{number:03}" for number in range(0, count, every)]


def test_a_variant_of_rwr_is_scored_and_compared_with_the_faithful_one(clips, evaluation, tmp_path):
    options = ("--rwr_variant", "damped", "--WFLW_V_split", "easy")
    assert evaluation(clips, *options, "--compare", "--tuning_ids", "c") == 0
    assert evaluation(clips, "--WFLW_V_split", "easy", output=tmp_path / "faithful") == 0
    every = read_results(tmp_path / "results")["comparison"]["methods"]
    methods = {method["method"]: method for method in every if method["crop"] == "original"}
    faithful = read_results(tmp_path / "faithful")["average"]["nmj"]
    assert methods["RwR"]["nmj"] == pytest.approx(faithful, rel=1e-4)
    assert methods["RwR, damped"]["nmj"] < 0.95 * faithful
    assert read_results(tmp_path / "results")["average"]["nmj"] == pytest.approx(methods["RwR, damped"]["nmj"])


def test_filters_are_tuned_on_the_clips_of_a_file(clips, evaluation, tmp_path):
    (tmp_path / "ids.txt").write_text("c\nd\n")
    assert evaluation(clips, "--compare", "--WFLW_V_split", "easy", "--tuning_ids", tmp_path / "ids.txt") == 0
    results = read_results(tmp_path / "results")
    assert results["comparison"]["tuning_clips"] == ["c", "d"]
    assert results["count"] == 2


@pytest.mark.parametrize(("content", "message"), [(b"", "lists no clip"), (b"\x93NUMPY\x01", "is not UTF-8 text")])
def test_a_list_of_tuning_clips_without_ids_is_an_error(content, message, clips, evaluation, tmp_path, capfd):
    (tmp_path / "ids.txt").write_bytes(content)
    assert evaluation(clips, "--compare", "--tuning_ids", tmp_path / "ids.txt") == 2
    assert_one_error(capfd.readouterr().err, message)
