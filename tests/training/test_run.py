import csv
import itertools
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from small_disk import small_disk
from synthetic_faces import make_face, to_text, write_image

import train_LDEQ_WFLW
import training.loop
from models import load_checkpoint
from training.step import StepPlan
from utils.command_line import run

ROOT = Path(__file__).parents[2]
QUICK = ["--backbone", "stem", "--image_size", "64", "--batch_size", "4", "--workers", "0", "--device", "cpu"]


class Outcome(NamedTuple):
    status: int
    stderr: str

    def is_one_clear_error(self, *words: str) -> bool:
        errors = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        return (
            self.status == 2
            and "Traceback" not in self.stderr
            and len(errors) == 1
            and all(word in errors[0] for word in words)
        )


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the script's main function as the command line would, without a new process."""

    def call(*options: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["train_LDEQ_WFLW.py", *QUICK, *map(str, options)])
        capsys.readouterr()
        status = run(train_LDEQ_WFLW.main)
        return Outcome(status, capsys.readouterr().err)

    return call


def test_a_killed_run_that_is_resumed_ends_with_the_same_weights(train, precropped_wflw, tmp_path):
    options = [
        "--dataset_path", precropped_wflw, "--more_faces", f"{precropped_wflw}:test=0.3", "--epochs", "3",
        "--samples_per_epoch", "8", "--save_minutes", "0", "--pair_probability", "0.5",
    ]  # fmt: skip
    assert train(*options, "--output_folder", tmp_path / "whole").status == 0

    folder = tmp_path / "killed"
    command = [sys.executable, ROOT / "train_LDEQ_WFLW.py", *QUICK, *options, "--output_folder", folder]
    process = subprocess.Popen([*map(str, command)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not (folder / "state.pt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "log.csv").exists() or len((folder / "log.csv").read_text().splitlines()) < 4
    resumed = train(*options, "--output_folder", folder, "--resume")
    assert resumed.status == 0, resumed.stderr

    whole, killed = (load_file(path / "weights.safetensors") for path in (tmp_path / "whole", folder))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    rows = [list(csv.DictReader((path / "log.csv").open())) for path in (tmp_path / "whole", folder)]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]
    assert len(rows[0]) == 3


@pytest.mark.parametrize("gradient", ["ift", "unroll"])
def test_a_run_with_the_jacobian_penalty_takes_every_gradient_rule(train, precropped_wflw, tmp_path, gradient):
    options = [
        "--dataset_path",
        precropped_wflw,
        "--epochs",
        "1",
        "--samples_per_epoch",
        "4",
        "--max_evals",
        "3",
        "--pair_probability",
        "0",
    ]
    outcome = train(*options, "--gradient", gradient, "--jacobian_weight", "1", "--output_folder", tmp_path / "run")
    assert outcome.status == 0, outcome.stderr
    with (tmp_path / "run" / "log.csv").open() as file:
        assert all(math.isfinite(float(row["loss"])) for row in csv.DictReader(file))


def test_a_run_leaves_weights_that_load_its_configuration_and_its_curves(train, precropped_wflw, tmp_path):
    folder = tmp_path / "run"
    result = train(
        "--dataset_path", precropped_wflw, "--output_folder", folder, "--epochs", "1", "--samples_per_epoch", "4"
    )  # fmt: skip
    assert result.status == 0, result.stderr
    assert load_checkpoint(folder / "weights.safetensors").config.image_size == 64
    assert json.loads((folder / "config.json").read_text())["training"]["epochs"] == 1
    assert (folder / "curves.png").exists()
    again = train("--dataset_path", precropped_wflw, "--output_folder", folder, "--epochs", "1")
    assert again.is_one_clear_error(str(folder), "--resume")
    other = train("--dataset_path", precropped_wflw, "--output_folder", folder, "--epochs", "2", "--resume")
    assert other.is_one_clear_error("epochs", "--output_folder")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_batch(train, precropped_wflw, tmp_path):
    folder = tmp_path / "run"
    result = train(
        "--dataset_path", precropped_wflw, "--output_folder", folder, "--epochs", "1", "--samples_per_epoch", "400",
        "--learning_rate", "1e30", "--clip_norm", "1e30", "--warm_up", "0",
    )  # fmt: skip
    assert result.is_one_clear_error("bad_batch.pt", "--learning_rate")
    assert torch.load(folder / "bad_batch.pt", weights_only=True)["images"].shape == (4, 3, 64, 64)


def test_a_full_disk_leaves_the_last_good_state(train, precropped_wflw, tmp_path):
    options = [
        "--dataset_path", precropped_wflw, "--output_folder", tmp_path / "run", "--epochs", "2",
        "--samples_per_epoch", "4",
    ]  # fmt: skip
    with small_disk():
        assert train(*options).is_one_clear_error("state.pt", "cannot be written")
    assert list((tmp_path / "run").iterdir()) == []
    with interrupt_in_step(1):
        assert train(*options).status == 130
    before = (tmp_path / "run" / "state.pt").read_bytes()
    with small_disk():
        assert train(*options, "--resume").is_one_clear_error("cannot be written")
    assert (tmp_path / "run" / "state.pt").read_bytes() == before


@contextmanager
def interrupt_in_step(number: int) -> Iterator[None]:
    """Presses Ctrl-C in a step of the run, counted from 1."""
    calls = itertools.count(1)
    original = training.loop.draw_plan

    def press(*arguments: object) -> StepPlan:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.loop, "draw_plan", press)
        yield


def test_ctrl_c_saves_the_state_and_a_resumed_run_ends_with_the_same_weights(train, precropped_wflw, tmp_path):
    options = ["--dataset_path", precropped_wflw, "--epochs", "1", "--samples_per_epoch", "16"]
    assert train(*options, "--output_folder", tmp_path / "whole").status == 0
    with interrupt_in_step(2):
        stopped = train(*options, "--output_folder", tmp_path / "stopped")
    assert stopped.status == 130
    assert "Traceback" not in stopped.stderr
    assert torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)["step"] == 2
    assert train(*options, "--output_folder", tmp_path / "stopped", "--resume").status == 0
    whole, resumed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_that_fails_in_its_first_step_can_be_resumed(train, precropped_wflw, tmp_path):
    options = [
        "--dataset_path", precropped_wflw, "--output_folder", tmp_path / "run", "--epochs", "1",
        "--samples_per_epoch", "24",
    ]  # fmt: skip
    for number in range(6):
        path = precropped_wflw / "train" / f"train_{number}.png"
        path.rename(path.with_suffix(".kept"))
        path.write_bytes(b"no image")
    assert train(*options).is_one_clear_error("train_")
    assert train(*options).is_one_clear_error("--resume")
    for path in (precropped_wflw / "train").glob("*.kept"):
        path.rename(path.with_suffix(".png"))
    assert train(*options, "--resume").status == 0


def leave_as_it_is(folder: Path) -> None:
    pass


def config_that_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def config_of_something_else(folder: Path) -> None:
    (folder / "config.json").write_text('{"network": 3}')


def config_cut_short(folder: Path) -> None:
    (folder / "config.json").write_text('{"network": {')


def config_gone(folder: Path) -> None:
    (folder / "config.json").unlink()


def state_gone(folder: Path) -> None:
    (folder / "state.pt").unlink()


def state_without_keys(folder: Path) -> None:
    torch.save({}, folder / "state.pt")


def state_of_a_wrong_kind(folder: Path) -> None:
    state = torch.load(folder / "state.pt", weights_only=True)
    torch.save({**state, "optimizer": 3}, folder / "state.pt")


def state_of_another_network(folder: Path) -> None:
    state = torch.load(folder / "state.pt", weights_only=True)
    state["model"].popitem()
    torch.save(state, folder / "state.pt")


def state_cut_short(folder: Path) -> None:
    (folder / "state.pt").write_bytes((folder / "state.pt").read_bytes()[:1000])


FOREIGN_STATE = "state.pt: damaged, or not the state of a run of this project; choose another --output_folder"


def state_of_something_else(folder: Path) -> None:
    with (folder / "state.pt").open("wb") as file:
        pickle.dump(Fraction(1, 3), file)


def state_with_a_foreign_object(folder: Path) -> None:
    torch.save({"model": Fraction(1, 3)}, folder / "state.pt")


def state_that_is_text(folder: Path) -> None:
    (folder / "state.pt").write_text("epoch 3")


def folder_for_the_state(folder: Path) -> None:
    (folder / "state.pt").unlink()
    (folder / "state.pt").mkdir()


def state_with_a_changed_byte(folder: Path) -> None:
    content = bytearray((folder / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "state.pt").write_bytes(content)


def log_of_something_else(folder: Path) -> None:
    (folder / "log.csv").write_text("name,grade\nAda,1\n")


def log_that_is_cut(folder: Path) -> None:
    head, row = (folder / "log.csv").read_text().splitlines()
    (folder / "log.csv").write_text(f"{head}\n{','.join(row.split(',')[:4])}")


def log_in_one_line(folder: Path) -> None:
    (folder / "log.csv").write_text(",".join((folder / "log.csv").read_text().splitlines()) + "\n")


def folder_for_the_log(folder: Path) -> None:
    (folder / "log.csv").unlink()
    (folder / "log.csv").mkdir()


def state_of_a_later_time(folder: Path) -> None:
    state = torch.load(folder / "state.pt", weights_only=True)
    torch.save({**state, "epoch": 2}, folder / "state.pt")


def pipe_for_the_log(folder: Path) -> None:
    (folder / "log.csv").unlink()
    os.mkfifo(folder / "log.csv")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (leave_as_it_is, ()),
        (state_of_a_later_time, ("log.csv", "ends with epoch 1, but the state is of epoch 2")),
        (pipe_for_the_log, ("log.csv", "not the log of a run")),
        (config_that_is_a_list, ("config.json", "not the configuration of a run")),
        (config_of_something_else, ("config.json", "not the configuration of a run")),
        (config_cut_short, ("config.json", "cannot be read")),
        (config_gone, ("config.json", "no such file")),
        (state_gone, ("state.pt", "nothing to resume")),
        (state_without_keys, ("state.pt", "not the state of a run")),
        (state_of_a_wrong_kind, ("state.pt", "does not fit the run")),
        (state_of_another_network, ("state.pt", "does not fit the run")),
        (state_cut_short, (FOREIGN_STATE,)),
        (state_of_something_else, (FOREIGN_STATE,)),
        (
            state_with_a_foreign_object,
            (FOREIGN_STATE,),
        ),
        (state_that_is_text, (FOREIGN_STATE,)),
        (folder_for_the_state, ("state.pt", "is not a file")),
        (state_with_a_changed_byte, ("state.pt", "does not match its checksum")),
        (log_of_something_else, ("log.csv", "not the log of a run")),
        (log_that_is_cut, ("log.csv", "not the log of a run")),
        (log_in_one_line, ("log.csv", "not the log of a run")),
        (folder_for_the_log, ("log.csv", "not the log of a run")),
    ],
)
def test_a_damaged_run_folder_is_one_clear_error_that_names_the_file(finished_run, train, tmp_path, damage, words):
    options, folder = finished_run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    state = torch.load(copy / "state.pt", weights_only=True)
    # An epoch that is done again, so that the log is read.
    torch.save({**state, "epoch": 0}, copy / "state.pt")
    damage(copy)
    outcome = train(*options, "--output_folder", copy, "--resume")
    if words:
        assert outcome.is_one_clear_error(*words), outcome.stderr
    else:
        assert outcome.status == 0


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> tuple[list[str], Path]:
    """The options and the folder of a run of one step."""
    root = tmp_path_factory.mktemp("finished")
    lines = []
    for number in range(4):
        image, landmarks = make_face(number)
        for split in ("train", "test"):
            write_image(root / "data" / split / f"{number}.png", image)
        lines.append(f"{number}.png {to_text(landmarks)}\n")
    for split in ("train", "test"):
        (root / "data" / f"{split}.txt").write_text("".join(lines))
    options = ["--dataset_path", str(root / "data"), "--epochs", "1", "--samples_per_epoch", "4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", *QUICK, *options, "--output_folder", str(root / "run")])
        assert run(train_LDEQ_WFLW.main) == 0
    return options, root / "run"


def test_outputs_never_replace_inputs(train, precropped_wflw, tmp_path, finished_run):
    before = (precropped_wflw / "train.txt").read_bytes()
    result = train("--dataset_path", precropped_wflw, "--output_folder", precropped_wflw)
    assert result.is_one_clear_error("would replace the input")
    assert (precropped_wflw / "train.txt").read_bytes() == before
    weights = tmp_path / "run" / "weights.safetensors"
    weights.parent.mkdir()
    shutil.copy(finished_run[1] / "weights.safetensors", weights)
    result = train(
        "--dataset_path", precropped_wflw, "--output_folder", tmp_path / "run", "--initial_weights", weights
    )  # fmt: skip
    assert result.is_one_clear_error("would replace the input")


def test_a_second_run_in_the_same_folder_is_refused(train, finished_run, tmp_path):
    options, folder = finished_run
    shutil.copytree(folder, tmp_path / "run")
    script = (
        "import sys; from pathlib import Path; from utils.files import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])): print('locked', flush=True); sys.stdin.readline()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        second = train(*options, "--output_folder", tmp_path / "run", "--resume")
        other.communicate("\n")
    assert second.is_one_clear_error("another run is writing into this folder")


def test_a_corrupt_image_is_one_clear_error(train, precropped_wflw, tmp_path):
    (precropped_wflw / "train" / "train_2.png").write_bytes(b"no image")
    result = train(
        "--dataset_path", precropped_wflw, "--output_folder", tmp_path / "run", "--samples_per_epoch", "24",
        "--epochs", "1", "--workers", "1",
    )  # fmt: skip
    assert result.is_one_clear_error("train_2.png")


def test_an_empty_list_and_a_bad_line_are_one_clear_error_each(train, precropped_wflw, tmp_path):
    options = ["--dataset_path", precropped_wflw, "--output_folder", tmp_path / "run"]
    lines = (precropped_wflw / "train.txt").read_text().splitlines()
    (precropped_wflw / "train.txt").write_text("\n".join([lines[0], lines[1].rsplit(" ", 1)[0]]))
    assert train(*options).is_one_clear_error("train.txt", "line 2", "195")
    (precropped_wflw / "train.txt").write_text("")
    assert train(*options).is_one_clear_error("train.txt", "empty")
    assert not (tmp_path / "run").exists()
