"""Every code block of README and docs runs, and every command of theirs is one that its script understands."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from documents import PAGES, ROOT, Command, commands, commands_of_scripts, python_blocks

SAMPLE = ROOT / "datasets" / "sample"
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
# What makes a command short on the sample; it comes behind the command's own options.
SHORTENED = {
    "test_LDEQ_WFLW.py": ["--workers", "0"],
    "test_LDEQ_WFLW_V.py": ["--WFLW_V_workers", "0"],
    "train_LDEQ_WFLW.py": [
        "--epochs",
        "1",
        "--samples_per_epoch",
        "4",
        "--batch_size",
        "2",
        "--image_size",
        "64",
        "--workers",
        "0",
    ],
    "demo.py": [],
}
# A webcam, a window, half an hour, files of a run that is not there, or a type that is slow on many processors.
NOT_RUN = {"0", "--show", "--compare", "--resume", "--initial_weights", "FACES", "bf16"}


def script_of(words: list[str]) -> str | None:
    """The script that a command runs, relative to the root."""
    return next((word for word in words if word.endswith(".py")), None)


@pytest.mark.parametrize(("page", "source"), python_blocks(), ids=lambda value: value[:40].replace("\n", " "))
def test_a_block_of_python_runs(page: str, source: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    exec(compile(source, page, "exec"), {"__name__": page})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path):
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert target.startswith(("https://", "http://")) or (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "command", [*commands(), *commands_of_scripts()], ids=lambda command: " ".join(command.words)[:70]
)
def test_a_command_names_a_script_and_options_that_there_are(command: Command, monkeypatch: pytest.MonkeyPatch):
    script = script_of(command.words)
    if script is None:
        return
    assert (ROOT / script).is_file(), f"{command.page}: {script}"
    options = [word for word in command.words[command.words.index(script) + 1 :] if word != "..."]
    if not options:
        return
    spec = importlib.util.spec_from_file_location(f"script_{Path(script).stem}", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(sys, "argv", [script, *options])
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    spec.loader.exec_module(module)
    module.parse_arguments()


def runnable() -> list[Command]:
    """One command of each kind that runs on the sample."""
    chosen = {}
    for command in commands():
        script = script_of(command.words)
        if script in SHORTENED and command.words[0] != "torchrun" and not NOT_RUN & set(command.words):
            # The data are the sample, whether a command names them or not.
            options = {word for word in command.words if word.startswith("--")} - {"--dataset_path"}
            chosen.setdefault((script, *sorted(options)), command)
    return list(chosen.values())


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a fresh checkout, with the files that the pages' commands name."""
    folder = tmp_path_factory.mktemp("newcomer")
    for entry in ROOT.iterdir():
        if entry.name not in ("results", "runs") and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    shutil.copy(ROOT / "weights" / "ldeq_mini.safetensors", folder / "final.safetensors")
    (folder / "WFLW").mkdir()
    for entry in SAMPLE.glob("test*"):
        (folder / "WFLW" / entry.name).symlink_to(entry)
    lines = (SAMPLE / "test.txt").read_text(encoding="utf-8").splitlines()
    (folder / "WFLW" / "train.txt").write_text("\n".join(lines[:4]) + "\n", encoding="utf-8")
    (folder / "WFLW" / "train").symlink_to(SAMPLE / "test")
    (folder / "WFLW_V").symlink_to(SAMPLE)
    shutil.copy(SAMPLE / "test" / "hopper.jpg", folder / "portrait.jpg")
    shutil.copy(SAMPLE / "videos" / "hopper_hard.mp4", folder / "clip.mp4")
    np.save(folder / "boxes.npy", np.load(SAMPLE / "bboxes" / "hopper_hard.npy"))
    (folder / "pictures").mkdir()
    for name in ("hopper.jpg", "collins.jpg"):
        shutil.copy(SAMPLE / "test" / name, folder / "pictures" / name)
    return folder


@pytest.mark.parametrize("command", runnable(), ids=lambda command: " ".join(command.words)[:70])
def test_a_command_runs_on_the_sample(command: Command, newcomer: Path):
    script = script_of(command.words)
    words = ["final.safetensors" if word == "final.pth.tar" else word for word in command.words]
    line = [sys.executable, *words[words.index(script) :], *SHORTENED[script]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=newcomer, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
