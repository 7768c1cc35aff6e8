import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from datasets.images import read_image
from utils.command_line import (
    error_text,
    evaluation_budget,
    given_path,
    non_negative_integer,
    non_negative_number,
    number_in,
    positive_integer,
    run,
    seed,
    share,
    true_or_false,
    worker_count,
)
from utils.errors import InputError

ROOT = Path(__file__).parents[2]


class Images(Dataset):
    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        return read_image(self.paths[index])


def fail_with(error: BaseException):
    def command() -> None:
        raise error

    return command


def test_success_is_exit_status_0_and_silent(capsys: pytest.CaptureFixture):
    assert run(lambda: None) == 0
    assert capsys.readouterr().err == ""


def test_bad_input_is_exit_status_2_and_one_line(capsys: pytest.CaptureFixture):
    assert run(fail_with(InputError("WFLW: no such\ndataset folder"))) == 2
    assert capsys.readouterr().err == "error: WFLW: no such dataset folder\n"


def test_an_error_that_another_process_has_told_is_silent(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setattr("utils.processes.is_first_report", lambda: False)
    assert run(fail_with(InputError("WFLW: no such dataset folder"))) == 2
    assert capsys.readouterr().err == ""


def test_a_mistake_in_the_program_keeps_its_traceback():
    with pytest.raises(KeyError):
        run(fail_with(KeyError("heatmaps")))


def test_the_message_of_an_error_in_a_worker_comes_without_the_workers_traceback(tmp_path: Path):
    path = tmp_path / "InputError: face.png"
    path.write_bytes(b"no image")
    with pytest.raises(InputError) as plain:
        read_image(path)
    with pytest.raises(InputError) as wrapped:
        list(DataLoader(Images([path]), num_workers=1))
    assert "Traceback" in str(wrapped.value)
    assert error_text(wrapped.value) == error_text(plain.value) == str(plain.value)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (positive_integer, "0"),
        (positive_integer, "2.5"),
        (positive_integer, "1_000"),
        (positive_integer, "1000000000000"),
        (positive_integer, "9" * 5000),
        (non_negative_integer, "-1"),
        (worker_count, "1000000000"),
        (evaluation_budget, "1000000000"),
        (seed, str(2**70)),
        (number_in(0, 1e9, above=True), "0"),
        (number_in(0, 1e9, above=True), "nan"),
        (number_in(0, 1e9, above=True), "inf"),
        (number_in(0, 1e9, above=True), "1e300"),
        (non_negative_number, "-0.1"),
        (share, "1.01"),
        (share, "half"),
        (true_or_false, "yes"),
        (given_path, ""),
    ],
)
def test_a_value_outside_its_range_is_refused(parse: Callable[[str], object], text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="must be"):
        parse(text)


def test_the_bounds_themselves_are_taken():
    assert (positive_integer("1"), non_negative_integer("0"), seed(str(2**63 - 1))) == (1, 0, 2**63 - 1)
    assert (non_negative_number("0"), share("1"), number_in(0, 1e9, above=True)("1e-9")) == (0, 1, 1e-9)


def test_the_message_about_a_wrong_value_stays_short():
    with pytest.raises(argparse.ArgumentTypeError) as error:
        positive_integer("9" * 5000)
    assert len(str(error.value)) < 200


PRINTS_THEN_WRITES = """
import sys
from pathlib import Path
from utils.command_line import run

def main():
    for _ in range(20000):
        print("NME %: 3.95")
    Path(sys.argv[1]).write_text("whole")

sys.exit(run(main))
"""


def run_in_shell(tail: str, result: Path, script: str = PRINTS_THEN_WRITES) -> subprocess.CompletedProcess:
    command = f"set -o pipefail; '{sys.executable}' -c '{script}' {result} {tail}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize(
    ("tail", "status", "message"),
    [
        ("| head -1", 0, ""),
        ("> /dev/full", 2, "error: stdout: cannot be written (No space left on device); free some space\n"),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("2> /dev/full > /dev/null", 0, ""),
    ],
)
def test_a_script_whose_output_nobody_takes_still_does_its_work(tail: str, status: int, message: str, tmp_path: Path):
    ended = run_in_shell(tail, tmp_path / "result")
    assert (ended.returncode, ended.stderr) == (status, message)
    assert (tmp_path / "result").read_text() == "whole"


def test_help_into_a_full_disk_is_no_success(tmp_path: Path):
    script = """
import argparse, sys
from utils.command_line import run
sys.exit(run(lambda: argparse.ArgumentParser().parse_args(["--help"])))
"""
    assert run_in_shell("> /dev/full", tmp_path, script).returncode == 2


def test_ctrl_c_is_status_130_and_no_traceback(capsys: pytest.CaptureFixture):
    assert run(fail_with(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "\nstopped by Ctrl-C\n"


def test_ctrl_c_after_the_work_does_not_change_the_status():
    script = """
import atexit, os, signal, sys
from utils.command_line import run
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.exit(run(lambda: print("done")))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_a_file_name_that_is_no_text_can_be_printed(capsys: pytest.CaptureFixture):
    assert run(lambda: print("\udcff.jpg")) == 0
    assert capsys.readouterr().out == "\\udcff.jpg\n"


def test_an_error_of_the_operating_system_names_the_file(capsys: pytest.CaptureFixture, tmp_path: Path):
    assert run(lambda: (tmp_path / "gone").read_text()) == 2
    assert (
        capsys.readouterr().err == f"error: {tmp_path / 'gone'}: No such file or directory; check the file or folder\n"
    )


def test_the_command_line_needs_neither_torch_nor_numpy():
    script = (
        "import sys, utils.command_line, utils.errors, utils.files; print({'torch', 'numpy', 'cv2'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT).stdout == "set()\n"


def test_a_package_that_is_missing_is_one_line_and_a_module_of_ours_is_a_bug(capsys):
    assert run(lambda: __import__("no_such_package.part") and None) == 2
    assert capsys.readouterr().err == "error: the package no_such_package is missing; pip install -r requirements.txt\n"
    with pytest.raises(ModuleNotFoundError):
        run(lambda: __import__("utils.no_such_module") and None)


def test_a_warning_of_a_library_is_one_line(capsys):
    assert run(lambda: warnings.warn("a\nb", stacklevel=1)) == 0
    assert capsys.readouterr().err == "warning: a b\n"


def test_a_backend_that_matplotlib_does_not_know_is_no_obstacle():
    script = "from utils.command_line import run; run(lambda: __import__('matplotlib') and None)"
    environment = os.environ | {"MPLBACKEND": "nonsense"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.parametrize(("given", "expected"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_a_script_lets_the_threads_of_torch_sleep_unless_the_user_says_otherwise(given, expected):
    script = "import os, sys; from utils.command_line import run; run(lambda: print(os.environ['OMP_WAIT_POLICY']))"
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert ended.stdout == f"{expected}\n"


def test_the_mark_of_argparse_is_no_value(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["script.py", "--batch_size=--"])
    assert run(lambda: pytest.fail("the script ran")) == 2
    assert "--batch_size=--: -- is not a value" in capsys.readouterr().err
