"""The benchmark script, run as a user runs it, on synthetic faces and an untrained network."""

import csv
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from script_results import assert_one_error, read_results
from small_networks import small_model

from datasets.wflw import SPLITS, WFLWCrops, read_faces
from inference.flip import mean_with_mirrored
from models import load_checkpoint, save_checkpoint
from test_LDEQ_WFLW import main
from utils.command_line import run

SCRIPT = Path(__file__).parents[2] / "test_LDEQ_WFLW.py"
CHECKPOINTS = Path(__file__).parents[1] / "data" / "parity"
ORIGINAL = CHECKPOINTS / "fpi.pth.tar"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that is quick to run."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(small_model(landmarks=98), path)
    return path


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, network: Path) -> Callable[..., int]:
    """Runs the script in this process and returns its exit status."""

    def call(dataset: Path, *options: object, weights: Path = network, output: Path = tmp_path / "results") -> int:
        monkeypatch.setattr(sys, "argv", arguments(dataset, output, weights, *options))
        return run(main)

    return call


def arguments(dataset: Path, output: Path, weights: Path, *options: object) -> list[str]:
    paths = ("--landmark_model_weights", weights, "--dataset_path", dataset, "--output_folder", output)
    return [str(SCRIPT), *map(str, paths), "--device", "cpu", "--workers", "0", *map(str, options)]


def run_script(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, cwd=SCRIPT.parent)


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "per_face.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_nmes(folder: Path) -> np.ndarray:
    return np.array([float(row["nme"]) for row in read_table(folder)])


def test_a_run_prints_the_originals_lines_and_writes_every_result(precropped_wflw, wflw_members, tmp_path):
    output = tmp_path / "results"
    options = ("--batch_size", "4", "--workers", "2", "--plot", "2")
    process = run_script(*arguments(precropped_wflw, output, ORIGINAL, *options))
    assert process.returncode == 0, process.stderr

    results = read_results(output)
    assert {split: score["count"] for split, score in results["splits"].items()} == {
        split: len(members) for split, members in wflw_members.items()
    }
    printed = re.findall(r"-{12} (\w+) -{12}\nNME %: (\S+)\nFR_0.1% : (\S+)\nAUC_0.1: (\S+)\n", process.stdout)
    assert [split for split, *_ in printed] == list(SPLITS)
    for split, *numbers in printed:
        score = results["splits"][split]
        assert [float(number) for number in numbers] == pytest.approx(
            [score["nme"], score["fr"], score["auc"]], abs=1e-6
        )
    assert re.search(r"^Total time: \d+h\d\dm\d\ds$", process.stdout, re.MULTILINE)

    table = read_table(output)
    assert [row["image"] for row in table] == [f"test_{position}.png" for position in range(6)]
    assert table[4]["splits"] == "test test_illumination test_makeup test_blur"
    for name in ("cumulative_error.png", "faces.png"):
        with Image.open(output / name) as image:
            assert image.format == "PNG"


def test_scores_follow_from_the_predictions_on_disk(precropped_wflw, benchmark, tmp_path):
    assert benchmark(precropped_wflw) == 0
    with np.load(tmp_path / "results" / "predictions.npz") as saved:
        distances = np.linalg.norm(saved["keypoints"] - saved["landmarks"], axis=-1).mean(axis=-1)
        eyes = np.linalg.norm(saved["landmarks"][:, 60] - saved["landmarks"][:, 72], axis=-1)
        errors = 100 * distances / eyes
        assert saved["image"].tolist() == [row["image"] for row in read_table(tmp_path / "results")]
        np.testing.assert_allclose(read_nmes(tmp_path / "results"), errors, rtol=1e-8)
        for split, score in read_results(tmp_path / "results")["splits"].items():
            assert score["nme"] == pytest.approx(errors[saved[f"rows_{split}"]].mean())


@torch.no_grad()
def test_predictions_on_disk_are_the_networks_for_each_face_beside_its_truth(
    precropped_wflw, benchmark, network, tmp_path
):
    assert benchmark(precropped_wflw, "--batch_size", 4) == 0
    model = load_checkpoint(network)
    crops = WFLWCrops(read_faces(precropped_wflw, "test"), model.config.image_size)
    with np.load(tmp_path / "results" / "predictions.npz") as saved:
        for face, (image, landmarks) in enumerate(crops):
            output = model(image[None])
            np.testing.assert_allclose(saved["keypoints"][face], output.keypoints[0].numpy(), atol=1e-5)
            np.testing.assert_allclose(saved["uncertainty"][face], output.uncertainty[0].numpy(), atol=1e-5)
            np.testing.assert_array_equal(saved["landmarks"][face], landmarks.numpy())


def test_with_the_sample_rule_numbers_do_not_depend_on_batches_or_workers(precropped_wflw, benchmark, tmp_path):
    assert benchmark(precropped_wflw, "--batch_size", 6, output=tmp_path / "whole") == 0
    assert benchmark(precropped_wflw, "--batch_size", 1, output=tmp_path / "single") == 0
    assert benchmark(precropped_wflw, "--batch_size", 4, "--workers", 2, output=tmp_path / "workers") == 0
    for folder in ("single", "workers"):
        np.testing.assert_allclose(read_nmes(tmp_path / folder), read_nmes(tmp_path / "whole"), atol=1e-4, rtol=0)


def test_two_processes_give_the_numbers_of_one_even_under_the_batch_rule(precropped_wflw, benchmark, network, tmp_path):
    options = ("--batch_size", 2, "--stop_rule", "batch")
    assert benchmark(precropped_wflw, *options, output=tmp_path / "one") == 0
    process = run_script(*TORCHRUN, *arguments(precropped_wflw, tmp_path / "two", network, *options))
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("- test -") == 1
    one, two = (read_results(tmp_path / folder) for folder in ("one", "two"))
    assert (one["settings"]["processes"], two["settings"]["processes"]) == (1, 2)
    for split, score in one["splits"].items():
        assert two["splits"][split] == pytest.approx(score, abs=1e-4)
    np.testing.assert_allclose(read_nmes(tmp_path / "two"), read_nmes(tmp_path / "one"), atol=1e-4, rtol=0)


def test_the_raw_layout_reports_its_box_and_says_so_of_an_empty_subset(raw_wflw, benchmark, tmp_path, capsys):
    list_path = raw_wflw / "WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr_test.txt"
    fields = [line.split() for line in list_path.read_text().splitlines()]
    for line in fields:
        line[203] = "0"  # make-up
    list_path.write_text("".join(" ".join(line) + "\n" for line in fields))

    assert benchmark(raw_wflw, "--raw_box", "rectangle") == 0
    results = read_results(tmp_path / "results")
    assert results["settings"]["layout"] == "raw"
    assert results["settings"]["raw_box"] == "rectangle"
    assert results["splits"]["test_makeup"] == {
        **dict.fromkeys(("nme", "fr", "auc", "median_nme")),
        "count": 0,
        "failed": 0,
    }
    assert "- test_makeup ------------\nno faces in this subset\n" in capsys.readouterr().out


def test_a_box_for_precropped_faces_is_one_clear_error(precropped_wflw, benchmark, capsys):
    assert benchmark(precropped_wflw, "--raw_box", "landmarks") == 2
    assert re.fullmatch(r"error: raw_box landmarks: the faces of .* are already cropped; .*\n", capsys.readouterr().err)


def test_flip_scores_the_mean_with_the_mirrored_faces(benchmark, precropped_wflw, network, tmp_path):
    assert benchmark(precropped_wflw, "--flip", "--batch_size", 4) == 0
    crops = WFLWCrops(read_faces(precropped_wflw, "test"), 64)
    images = torch.stack([crops[index][0] for index in range(len(crops))])
    model = load_checkpoint(network)
    with torch.inference_mode():
        first, second = (model(view).keypoints.double().numpy() for view in (images, images.flip(3)))
    expected = mean_with_mirrored(first, second, 64)
    found = np.load(tmp_path / "results" / "predictions.npz")["keypoints"][: len(crops)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert read_results(tmp_path / "results")["settings"]["flip"] is True


def test_an_explicit_network_is_scored_without_a_solver(precropped_wflw, benchmark, tmp_path):
    assert benchmark(precropped_wflw, weights=CHECKPOINTS / "explicit.pth.tar") == 0
    assert read_results(tmp_path / "results")["settings"]["solver"] is None
    assert {(row["status"], row["residual"]) for row in read_table(tmp_path / "results")} == {("explicit", "")}


def test_another_solver_keeps_what_the_command_line_does_not_name(precropped_wflw, benchmark, network, tmp_path):
    original = load_checkpoint(network).config.solver
    assert benchmark(precropped_wflw, "--solver", "anderson", "--max_evals", 4) == 0
    solver = read_results(tmp_path / "results")["settings"]["solver"]
    assert (solver["name"], solver["max_evals"], solver["stop_rule"]) == ("anderson", 4, "sample")
    assert (solver["tol"], solver["criterion"]) == (original.tol, original.criterion)
    assert max(int(row["evaluations"]) for row in read_table(tmp_path / "results")) <= 4


def missing_dataset(dataset: Path) -> None:
    dataset.rename(dataset.parent / "elsewhere")


def split_without_images(dataset: Path) -> None:
    (dataset / "test_blur").rename(dataset / "elsewhere")


def short_line(dataset: Path) -> None:
    lines = (dataset / "test.txt").read_text().splitlines()
    lines[1] = lines[1].rsplit(" ", 1)[0]
    (dataset / "test.txt").write_text("\n".join(lines))


def undecodable_image(dataset: Path) -> None:
    path = dataset / "test" / "test_2.png"
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (missing_dataset, "precropped: no such dataset folder"),
        (split_without_images, "test_blur.txt: 2 of its 2 images are missing"),
        (short_line, "test.txt, line 2: expected 196 numbers after the image name, found 195"),
        (undecodable_image, "test_2.png: cannot be decoded as a picture"),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_dataset_is_one_error_that_names_the_file(
    damage, message, workers, precropped_wflw, benchmark, tmp_path, capfd
):
    damage(precropped_wflw)
    assert benchmark(precropped_wflw, "--workers", workers) == 2
    assert_one_error(capfd.readouterr().err, message)
    assert not (tmp_path / "results" / "results.json").exists()


def truncated(path: Path) -> None:
    path.write_bytes(ORIGINAL.read_bytes()[:100_000])


def pickle_of_other_classes(path: Path) -> None:
    torch.save({"args": Fraction(1, 2), "state_dict": {}}, path)


def without_some_weights(path: Path) -> None:
    content = torch.load(ORIGINAL, weights_only=False)
    del content["state_dict"]["tail.0.conv.weight"]
    torch.save(content, path)


def with_68_landmarks(path: Path) -> None:
    path.write_bytes((CHECKPOINTS / "points68_128px_prefix.pth.tar").read_bytes())


@pytest.mark.filterwarnings("ignore:.*ignored unknown weights")
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file; give a checkpoint"),
        (truncated, "truncated"),
        (pickle_of_other_classes, "Fraction"),
        (without_some_weights, "1 weights are missing, the first: backbone.block1.conv.weight"),
        (with_68_landmarks, "the network has 68 landmarks, WFLW has 98"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_one_error_that_names_it(
    write, message, precropped_wflw, benchmark, tmp_path, capfd
):
    weights = tmp_path / "final.pth.tar"
    write(weights)
    assert benchmark(precropped_wflw, weights=weights) == 2
    error = capfd.readouterr().err
    assert_one_error(error, message)
    assert "final.pth.tar" in error


def test_a_face_whose_solve_is_not_finite_is_a_failure_and_no_number(precropped_wflw, network, tmp_path):
    weights = tmp_path / "spoilt.safetensors"
    model = load_checkpoint(network)
    with torch.no_grad():
        # Every weight is finite, but what they compute is not.
        model.cell.head.weight.div_(model.cell.head.weight.abs().max()).mul_(3e38)
    save_checkpoint(model, weights)
    process = run_script(*arguments(precropped_wflw, tmp_path / "results", weights))
    assert process.returncode == 1, process.stderr
    results = read_results(tmp_path / "results")
    assert results["splits"]["test"] == {"nme": None, "median_nme": None, "fr": 100, "auc": 0, "count": 6, "failed": 6}
    assert results["failed"] == [f"test_{face}.png" for face in range(6)]
    assert {row["nme"] for row in read_table(tmp_path / "results")} == {""}
    assert process.stdout.count("failed: test_") == 6
    assert "Traceback" not in process.stderr


def test_the_sample_is_not_taken_for_the_benchmark(precropped_wflw, benchmark, tmp_path, capsys):
    assert benchmark(precropped_wflw) == 0
    printed = capsys.readouterr().out.splitlines()
    (first, second) = (line for line, text in enumerate(printed) if text == "6 of 2500 test faces: not the benchmark")
    original = [line for line, text in enumerate(printed) if text.startswith(("NME %:", "FR_0.1%", "AUC_0.1:"))]
    assert first < min(original) < max(original) < second
    results = read_results(tmp_path / "results")
    assert results["benchmark"] is False
    assert results["evaluated"] == "6 of 2500 test faces: not the benchmark"
    assert set(results["splits"]["test"]) <= set(results["units"])


def test_results_are_written_although_nobody_takes_what_is_printed(precropped_wflw, network, tmp_path):
    command = " ".join([sys.executable, *arguments(precropped_wflw, tmp_path / "results", network)])
    process = subprocess.run(f"{command} | head -n 1", shell=True, capture_output=True, text=True, timeout=300)
    assert (process.returncode, process.stderr.count("Traceback")) == (0, 0)
    assert read_results(tmp_path / "results")["splits"]["test"]["count"] == 6


def test_no_result_replaces_a_file_of_the_dataset(precropped_wflw, benchmark, network, tmp_path, capfd):
    weights = tmp_path / "results" / "predictions.npz"
    weights.parent.mkdir()
    weights.write_bytes(network.read_bytes())
    assert benchmark(precropped_wflw, weights=weights) == 2
    assert_one_error(capfd.readouterr().err, "would replace the input")
    assert weights.read_bytes() == network.read_bytes()


def test_a_second_run_in_the_folder_is_refused(precropped_wflw, benchmark, tmp_path, capfd):
    with locked_folder_elsewhere(tmp_path / "results"):
        assert benchmark(precropped_wflw) == 2
    assert_one_error(capfd.readouterr().err, "another run is writing into this folder")


@contextmanager
def locked_folder_elsewhere(folder: Path) -> Iterator[None]:
    """A process that has the lock of a folder."""
    program = f"from utils.files import *; lock = locked_folder(Path({str(folder)!r})); lock.__enter__()"
    command = [sys.executable, "-c", program + "; print(1, flush=True); input()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=SCRIPT.parent, **pipes) as process:
        process.stdout.readline()
        yield
        process.kill()


@pytest.mark.parametrize("script", ["test_LDEQ_WFLW.py", "test_LDEQ_WFLW_V.py"])
def test_options_are_read_before_torch_is_loaded(script):
    program = f"import {Path(script).stem}, sys; print({{'torch', 'numpy', 'cv2', 'matplotlib'}} & set(sys.modules))"
    assert run_script("-c", program).stdout == "set()\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--solver", "anderson"), "an explicit network has no solver"),
        (("--device", "cuda"), "device 'cuda' is not available here"),
    ],
)
def test_an_option_that_cannot_be_had_is_one_error(options, message, precropped_wflw, benchmark, monkeypatch, capfd):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark(precropped_wflw, *options, weights=CHECKPOINTS / "explicit.pth.tar") == 2
    assert_one_error(capfd.readouterr().err, message)


def test_an_output_folder_that_cannot_be_written_is_found_before_the_run(benchmark, tmp_path, capfd):
    (tmp_path / "file").touch()
    assert benchmark(tmp_path / "gone", output=tmp_path / "file" / "results") == 2
    assert_one_error(capfd.readouterr().err, "file/results: cannot be written")
