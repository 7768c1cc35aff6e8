import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evaluation.scores import Predictions, Score, format_scores, write_predictions
from utils.command_line import format_duration
from utils.errors import OutputError
from utils.files import prepare_output_folder, write_csv, write_json


def make_predictions(faces: int) -> Predictions:
    """Every landmark of face i lies 0.01 * i to the right of the truth; the outer eye corners are 0.5 apart."""
    landmarks = np.full((faces, 98, 2), 0.4)
    landmarks[:, 60], landmarks[:, 72] = (0.2, 0.4), (0.7, 0.4)
    shift = np.zeros_like(landmarks)
    shift[..., 0] = 0.01 * np.arange(faces)[:, None]
    return Predictions(
        keypoints=landmarks + shift,
        landmarks=landmarks,
        uncertainty=np.full((faces, 98), 0.02, np.float32),
        evaluations=np.arange(faces),
        residual=np.linspace(0, 1, faces),
        status=np.array(["converged"] * faces),
    )


def test_the_error_of_a_face_is_its_shift_over_the_distance_of_the_eye_corners():
    np.testing.assert_allclose(make_predictions(4).nmes(), [0, 0.02, 0.04, 0.06], atol=1e-12)


def test_a_face_whose_solve_failed_has_no_error():
    predictions = make_predictions(4)
    keypoints = predictions.keypoints.copy()
    keypoints[2, 5, 0] = np.nan
    predictions = replace(predictions, keypoints=keypoints)
    assert predictions.failed.tolist() == [False, False, True, False]
    np.testing.assert_allclose(predictions.nmes(), [0, 0.02, np.nan, 0.06], atol=1e-12)


def test_concatenating_keeps_the_order_of_the_parts():
    whole = make_predictions(5)
    order = [3, 4, 0, 1, 2]
    parts = [
        Predictions(**{name: values[rows] for name, values in vars(whole).items()}) for rows in (order[:2], order[2:])
    ]
    joined = Predictions.concatenate(parts)
    for name, values in vars(whole).items():
        np.testing.assert_array_equal(getattr(joined, name), values[order])


def test_a_score_has_percent_percent_and_a_share():
    score = Score.of(np.array([0.02, 0.06, 0.10, 0.22]))
    assert score.nme == pytest.approx(10)
    assert score.fr == pytest.approx(25)  # an error of exactly 0.10 is no failure
    # The area below a step at x is 0.10 - x.
    assert score.auc == pytest.approx((0.08 + 0.04) / 4 / 0.10, abs=1e-3)
    assert score.count == 4
    assert score.median_nme == pytest.approx(8)
    assert score.failed == 0


def test_a_failed_face_counts_as_a_failure_and_is_left_out_of_the_mean_error():
    score = Score.of(np.array([0.02, np.nan, 0.04, 0.06]))
    assert (score.nme, score.median_nme) == pytest.approx((4, 4))
    assert score.fr == pytest.approx(25)
    assert score.auc == pytest.approx((0.08 + 0.06 + 0.04) / 4 / 0.10, abs=1e-3)
    assert (score.count, score.failed) == (4, 1)


def test_where_every_face_failed_there_is_no_error_at_all():
    score = Score.of(np.full(3, np.nan))
    assert (score.nme, score.median_nme, score.fr, score.auc) == (None, None, 100, 0)
    assert "NME %: nan" in score.lines("test")


def test_the_table_has_a_line_a_split_with_plain_heads():
    scores = {"test": Score.of(np.array([0.02, 0.06, 0.10, 0.22])), "test_blur": Score.of(np.array([]))}
    head, test, blur = format_scores(scores).splitlines()
    assert head.split("  ")[-1].strip() == "AUC@10 %" or head.endswith("AUC@10 %")
    assert [name in head for name in ("faces", "NME %", "median NME %", "FR@10 % %")] == [True] * 4
    assert test.split() == ["test", "4", "10.00", "8.00", "25.00", "0.300"]
    assert blur.split() == ["test_blur", "0", "-", "-", "-", "-"]


def test_a_score_is_printed_in_the_lines_of_the_original():
    assert Score(3.9465690643, 2.4, 0.62124933333, 2500, 3.5, 0).lines("test").splitlines() == [
        "------------ test ------------",
        "NME %: 3.946569",
        "FR_0.1% : 2.400000",
        "AUC_0.1: 0.621249",
    ]


def test_an_empty_subset_has_no_numbers_and_says_so():
    score = Score.of(np.array([]))
    assert (score.nme, score.fr, score.auc, score.count) == (None, None, None, 0)
    assert score.lines("test_blur").splitlines() == ["------------ test_blur ------------", "no faces in this subset"]


@pytest.mark.parametrize(("seconds", "text"), [(3988, "1h06m28s"), (59.6, "0h01m00s"), (5, "0h00m05s")])
def test_durations_read_as_the_original_prints_them(seconds: float, text: str):
    assert format_duration(seconds) == text


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path):
    path = tmp_path / "table.csv"
    write_csv(path, {"image": ["a,b.png", "c.png"], "nme": np.array([1 / 3, np.nan]), "evaluations": np.array([7, 12])})
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"image": "a,b.png", "nme": "0.333333333", "evaluations": "7"},
        {"image": "c.png", "nme": "", "evaluations": "12"},
    ]


def test_columns_of_different_lengths_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="same length"):
        write_csv(tmp_path / "table.csv", {"image": ["a.png", "b.png"], "nme": [1.0]})


def test_predictions_are_read_back_as_they_were_written(tmp_path: Path):
    predictions = make_predictions(3)
    write_predictions(tmp_path / "predictions.npz", predictions, image=np.array(["a", "b", "c"]))
    with np.load(tmp_path / "predictions.npz") as arrays:
        np.testing.assert_array_equal(arrays["keypoints"], predictions.keypoints)
        np.testing.assert_array_equal(arrays["status"], predictions.status)
        assert arrays["image"].tolist() == ["a", "b", "c"]


def test_json_is_written_for_strict_readers(tmp_path: Path):
    write_json(tmp_path / "results.json", {"splits": {"test": {"nme": None}}})
    assert json.loads((tmp_path / "results.json").read_text()) == {"splits": {"test": {"nme": None}}}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "results.json", {"nme": float("nan")})


def test_the_output_folder_is_made_with_its_parents_and_left_empty(tmp_path: Path):
    prepare_output_folder(tmp_path / "results" / "wflw")
    assert list((tmp_path / "results" / "wflw").iterdir()) == []


def test_an_output_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/wflw: cannot be written .*choose another"):
        prepare_output_folder(tmp_path / "file" / "wflw")
