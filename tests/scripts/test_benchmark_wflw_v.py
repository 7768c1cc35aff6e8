"""The video evaluation, run as a user runs it, on synthetic clips and an untrained network."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_networks import small_model
from synthetic_clips import DAMAGES, HEIGHT, WIDTH, write_clip, write_split

from datasets.clip_stream import read_crops
from datasets.wflw_v import Clip, published_results, read_landmarks
from evaluation.comparison import MethodScore
from evaluation.filters import ExponentialMovingAverage, filter_grids
from evaluation.methods import methods_of
from evaluation.settings import ClipSettings
from evaluation.video_figures import clip_figure, comparison_figure, convergence_figure, draw_overlay, unbeaten
from evaluation.wflw_v import check_options, choose_tuning_clips
from inference.streams import Streams
from models import LDEQ, load_checkpoint, save_checkpoint
from models.cell import Cell
from solvers import FixedPointConfig
from test_LDEQ_WFLW_V import main, parse_arguments
from utils.command_line import run
from utils.drawing import PART_COLOURS, bgr
from utils.errors import OptionError
from utils.geometry import transform_points
from utils.images import to_network_input
from utils.metrics import video_nme, video_nmj
from utils.processes import Process
from utils.writers import VideoWriter

SCRIPT = Path(__file__).parents[2] / "test_LDEQ_WFLW_V.py"
ORIGINAL = Path(__file__).parents[1] / "data" / "parity" / "fpi_rwr.pth.tar"
EXPLICIT = Path(__file__).parents[1] / "data" / "parity" / "explicit.pth.tar"
LENGTHS = {"a": 12, "b": 6, "c": 9, "d": 12}
EASY, HARD = ["a", "b"], ["c", "d"]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that is quick to run."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(small_model(landmarks=98, solver=FixedPointConfig(max_evals=8, tol=1e-3)), path)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four clips, two easy and two hard; not to be changed."""
    return make_clips(tmp_path_factory.mktemp("clips"))


def make_clips(root: Path) -> Path:
    for seed, (video_id, frames) in enumerate(LENGTHS.items()):
        write_clip(root, video_id, frames, seed)
    write_split(root, "easy", EASY)
    write_split(root, "hard", HARD)
    return root


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, network: Path) -> Callable[..., int]:
    """Runs the script in this process and returns its exit status."""

    def call(dataset: Path, *options: object, weights: Path = network, output: Path = tmp_path / "results") -> int:
        monkeypatch.setattr(sys, "argv", arguments(dataset, output, weights, *options))
        return run(main)

    return call


def arguments(dataset: Path, output: Path, weights: Path, *options: object) -> list[str]:
    paths = ("--landmark_model_weights", weights, "--WFLW_V_dataset_path", dataset, "--output_folder", output)
    return [str(SCRIPT), *map(str, paths), "--device", "cpu", "--WFLW_V_workers", "0", *map(str, options)]


def read_results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def read_table(folder: Path, name: str = "per_video.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_scores(folder: Path) -> dict[str, tuple[float, float]]:
    rows = read_table(folder)
    scores = {row["video_id"]: (float(row["nme"]), float(row["nmj"])) for row in rows}
    assert len(scores) == len(rows)
    return scores


def read_predictions(folder: Path, video_id: str, mode: str = "rwr") -> dict[str, np.ndarray]:
    with np.load(folder / "predictions" / mode / f"{video_id}.npz") as saved:
        return dict(saved)


def clip_of(root: Path, video_id: str) -> Clip:
    return Clip(video_id, "", root, LENGTHS[video_id])


@torch.no_grad()
def plain_loop(model: LDEQ, clip: Clip, recurrent: bool) -> np.ndarray:
    """The landmarks of a clip, a frame at a time."""
    if recurrent:
        model = model.with_solver(FixedPointConfig(max_evals=1, tol=0))
    state, landmarks = None, []
    for crop in read_crops(clip, model.config.image_size):
        output = model(to_network_input(crop.images[0])[None], state)
        state = output.z_star if recurrent else None
        landmarks.append(transform_points(output.keypoints[0].double().numpy(), crop.matrices[0], inverse=True))
    return np.stack(landmarks)


def assert_same_scores(one: Path, other: Path) -> None:
    """But for what another order of the clips, and so of the sums in a batch, rounds differently."""
    scores, expected = read_scores(one), read_scores(other)
    assert list(scores) == list(expected)
    for video_id, (nme, nmj) in expected.items():
        assert scores[video_id] == pytest.approx((nme, nmj), rel=1e-5)


def settings_of(*options: object) -> ClipSettings:
    """Those of a command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), *map(str, options)])
        return parse_arguments()


def assert_one_error(stderr: str, message: str) -> None:
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in stderr


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


def test_a_resumed_run_may_have_another_batch_size(clips, evaluation, tmp_path):
    assert evaluation(clips) == 0
    assert evaluation(clips, "--resume", "--WFLW_V_batch_size", 2) == 0


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


def test_an_explicit_network_is_evaluated_without_rwr(clips, evaluation, tmp_path):
    assert evaluation(clips, "--rwr", "false", weights=EXPLICIT) == 0
    assert {(row["start_residual"], row["answer_residual"]) for row in read_table(tmp_path / "results")} == {("", "")}


@pytest.mark.parametrize("option", [("--rwr", "yes"), ("--WFLW_V_split", "medium"), ("--tuning_ids", "a")])
def test_an_option_out_of_range_ends_with_usage(option, clips, evaluation, capfd):
    assert evaluation(clips, *option) == 2
    assert option[0] in capfd.readouterr().err


def test_two_processes_share_out_the_clips_and_give_the_numbers_of_one_also_when_resumed(
    clips, network, evaluation, tmp_path
):
    assert evaluation(clips, "--compare", "--tuning_ids", "c", output=tmp_path / "one") == 0
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    options = ("--compare", "--tuning_ids", "c")
    command = [sys.executable, *torchrun, *arguments(clips, tmp_path / "two", network, *options)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=SCRIPT.parent)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("Avg (NME, NMJ)") == 1
    assert_same_scores(tmp_path / "two", tmp_path / "one")
    for name in ("a", "d"):
        (tmp_path / "two" / "predictions" / "rwr" / f"{name}.npz").unlink()
    process = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=300, cwd=SCRIPT.parent)
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("2 of 4 clips are already done") == 1
    assert sorted(re.findall(r"^video (\w+) ", process.stdout, re.MULTILINE)) == ["a", "d"]
    assert_same_scores(tmp_path / "two", tmp_path / "one")
    one, two = (read_results(tmp_path / name)["comparison"]["methods"] for name in ("one", "two"))
    assert [method["nmj"] for method in two] == pytest.approx([method["nmj"] for method in one], rel=1e-5)


def test_clips_that_depend_on_each_other_are_not_shared_out(clips, network):
    process = Process(0, 2, torch.device("cpu"))
    options = settings_of("--rwr", "false", "--stop_rule", "batch")
    with pytest.raises(OptionError, match="--stop_rule batch: without RwR"):
        check_options(options, load_checkpoint(network), methods_of(options), process)
    alone = replace(options, WFLW_V_batch_size=1)
    check_options(alone, load_checkpoint(network), methods_of(alone), process)


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


@pytest.mark.parametrize(("content", "message"), [(b"", "lists no clip"), (b"\x93NUMPY\x01", "is not UTF-8 text")])
def test_a_list_of_tuning_clips_without_ids_is_an_error(content, message, clips, evaluation, tmp_path, capfd):
    (tmp_path / "ids.txt").write_bytes(content)
    assert evaluation(clips, "--compare", "--tuning_ids", tmp_path / "ids.txt") == 2
    assert_one_error(capfd.readouterr().err, message)


def test_videos_never_replace_those_of_the_dataset(tmp_path, evaluation, capfd):
    root = make_clips(tmp_path / "data")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert evaluation(root, "--save_video", output=root) == 2
    assert_one_error(capfd.readouterr().err, "would replace the input")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_an_overlay_shows_box_contours_and_true_landmarks_where_they_are():
    frame = np.full((240, 320, 3), 100, np.uint8)
    angles = np.linspace(0, 2 * np.pi, 98, endpoint=False)
    predicted = np.array([200, 140]) + 60 * np.column_stack([np.cos(angles), np.sin(angles)])
    shift = np.array([0, 20])
    picture = draw_overlay(frame, predicted, predicted + shift, np.array([100, 60, 300, 220]), 0.03, None)
    drawn = (picture != frame).any(axis=2)
    assert tuple(picture[60, 150]) == (255, 255, 255)
    # The face contour runs through its points.
    across, down = predicted[16].round().astype(int)
    towards = np.subtract(bgr(PART_COLOURS["face"]), 100)
    assert (picture[down, across].astype(int) - 100) @ towards > 0.3 * towards @ towards
    ring = (predicted[24] + shift).round().astype(int)
    assert drawn[ring[1] - 4 : ring[1] + 5, ring[0] - 4 : ring[0] + 5].any()
    assert (frame == 100).all()


def test_a_video_of_odd_sides_is_written_whole(tmp_path):
    with VideoWriter(tmp_path / "odd.mp4", fps=29.97) as writer:
        for shade in (20, 120, 220):
            writer.write(np.full((51, 65, 3), shade, np.uint8))
    capture = cv2.VideoCapture(str(tmp_path / "odd.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(29.97, abs=0.01)
    frames = [capture.read()[1] for _ in range(3)]
    assert not capture.read()[0]
    assert [frame.shape for frame in frames] == 3 * [(52, 66, 3)]
    assert [frame.mean() for frame in frames] == pytest.approx([20, 120, 220], abs=6)


def test_the_curves_of_a_clip_are_its_errors_and_its_jitter(clips):
    true = read_landmarks(clip_of(clips, "b"))
    predicted = true + np.random.default_rng(0).normal(size=true.shape)
    above, below = clip_figure("b", {"RwR": predicted, "no RwR": true}, true).axes
    assert above.lines[0].get_ydata().mean() == pytest.approx(video_nme(predicted, true))
    assert np.sqrt(np.mean(below.lines[0].get_ydata() ** 2)) == pytest.approx(video_nmj(predicted, true))
    assert below.lines[0].get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert above.lines[1].get_ydata().tolist() == 6 * [0]


def test_what_coincides_is_drawn_once_under_both_names(clips):
    true = read_landmarks(clip_of(clips, "b"))
    predicted = {"RwR": true + 1, "no RwR": true + 1.0001, "filter": true + 2}
    above, below = clip_figure("b", predicted, true).axes
    for axes in (above, below):
        assert [line.get_label().split(":")[0] for line in axes.lines] == ["RwR \u2248 no RwR", "filter"]


def test_the_convergence_plot_shows_the_median_over_frames_the_tolerance_and_where_rwr_ends():
    traces = {"cold": np.array([[1, 2, 9], [0.1, 0.5, 0.2]])}
    (axes,) = convergence_figure(traces, "relative", "title", tolerance=0.25, rwr_evaluations=2).axes
    curve, end, tolerance = axes.lines
    assert curve.get_xdata().tolist() == [1, 2]
    assert curve.get_ydata().tolist() == [2, 0.2]
    assert list(end.get_xdata()) == [2, 2]
    assert list(tolerance.get_ydata()) == [0.25, 0.25]


def test_methods_whose_jitter_differs_have_a_curve_each(clips):
    true = read_landmarks(clip_of(clips, "b"))
    shaken = true + 1 + 0.2 * (np.arange(len(true)) % 2)[:, None, None]
    above, below = clip_figure("b", {"RwR": true + 1, "no RwR": shaken}, true).axes
    assert [len(axes.lines) for axes in (above, below)] == [2, 2]


def test_the_curve_of_a_filter_leaves_out_settings_that_another_beats():
    curve = np.array([[3.0, 80], [2.0, 120], [2.5, 130], [2.1, 90]])
    np.testing.assert_array_equal(unbeaten(curve), [[2.0, 120], [2.1, 90], [3.0, 80]])


def test_the_comparison_plot_has_a_labelled_point_a_method_and_a_curve_a_filter_on_every_crop():
    names = ("RwR", "no RwR", "no RwR, One-Euro (min_cutoff 1, beta 0)")
    scores = [
        MethodScore(name, crop, nme, nmj, nmj, nmj, nmj, nmj, 0.0, 2.0, 1.0)
        for crop in ("original", "steady")
        for name, nme, nmj in zip(names, (2, 2, 2.001), (90, 120, 110), strict=True)
    ]
    curve = np.array([[2, 120], [2.1, 80]])
    figure = comparison_figure(scores, {("original", "One-Euro"): curve}, "title")
    for axes, crop in zip(figure.axes, ("original", "steady"), strict=True):
        assert axes.get_title() == f"{crop} crops"
        assert [points.get_offsets().tolist() for points in axes.collections] == [[[2, 90]], [[2, 120]], [[2.001, 110]]]
        assert {text.get_text() for text in axes.texts} == {"RwR", "no RwR", "One-Euro", "better"}
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), curve)
    # A difference of a thousandth is not to look like one.
    assert np.diff(figure.axes[0].get_xlim()) >= 0.2
