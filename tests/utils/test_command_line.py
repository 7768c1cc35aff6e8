import argparse
from pathlib import Path

import pytest
from torch.utils.data import DataLoader, Dataset

from datasets.images import read_image
from utils.command_line import error_text, non_negative_integer, positive_integer, run
from utils.errors import InputError


class Images(Dataset):
    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        return read_image(self.paths[index])


def fail_with(error: Exception):
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


def test_integers_below_the_lowest_are_refused():
    assert (positive_integer("1"), non_negative_integer("0")) == (1, 0)
    for parse, text in ((positive_integer, "0"), (non_negative_integer, "-1"), (positive_integer, "2.5")):
        with pytest.raises(argparse.ArgumentTypeError, match=f"at least [01], not '{text}'"):
            parse(text)
