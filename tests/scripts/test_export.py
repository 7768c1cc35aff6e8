import subprocess
import sys
from pathlib import Path

import torch
from small_networks import small_model

from export import main
from inference.engines import OnnxEngine, open_engine
from models import load_checkpoint, save_checkpoint
from utils.command_line import run

ROOT = Path(__file__).parents[2]


def export(*options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "export.py", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_export_lies_beside_the_checkpoint_and_is_used_and_nothing_is_warned_of(tmp_path):
    weights = tmp_path / "small.safetensors"
    save_checkpoint(small_model(), weights, torch.float16)
    done = export("--landmark_model_weights", weights)
    assert (done.returncode, done.stderr) == (0, "")
    assert "keypoints differ from PyTorch's by at most" in done.stdout
    assert isinstance(open_engine(load_checkpoint(weights)), OnnxEngine)


def test_an_output_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "taken").touch()
    failed = export("--output_folder", tmp_path / "taken")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ") and "taken" in failed.stderr and failed.stderr.count("\n") == 1


def test_a_missing_package_is_named(tmp_path, monkeypatch, capsys):
    save_checkpoint(small_model(), tmp_path / "weights.safetensors")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(sys, "argv", ["export.py", "--landmark_model_weights", str(tmp_path / "weights.safetensors")])
    assert run(main) == 2
    assert "onnxscript is missing; pip install" in capsys.readouterr().err
