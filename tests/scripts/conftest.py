import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_networks import small_model
from video_script import arguments

from models import save_checkpoint
from solvers import FixedPointConfig
from test_LDEQ_WFLW_V import main
from utils.command_line import run


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network that is quick to run on clips."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_checkpoint(small_model(landmarks=98, solver=FixedPointConfig(max_evals=8, tol=1e-3)), path)
    return path


@pytest.fixture
def evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, network: Path) -> Callable[..., int]:
    """Runs the script in this process and returns its exit status."""

    def call(dataset: Path, *options: object, weights: Path = network, output: Path = tmp_path / "results") -> int:
        monkeypatch.setattr(sys, "argv", arguments(dataset, output, weights, *options))
        return run(main)

    return call
