from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import original_args, original_weights
from implicit_problems import Problem, make_problem
from small_networks import small_model

from models import save_checkpoint


@pytest.fixture
def original_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint in the original's format, by default that of `small_model`."""

    def write(args: Any = None, weights: Any = None, **extra: Any) -> Path:
        path = tmp_path / "final.pth.tar"
        content = {
            "args": original_args() if args is None else args,
            "state_dict": original_weights(small_model()) if weights is None else weights,
        }
        torch.save({**content, **extra}, path)
        return path

    return write


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    """A checkpoint of `small_model` in our own format."""
    path = tmp_path / "ldeq.safetensors"
    save_checkpoint(small_model(), path)
    return path


@pytest.fixture(params=[False, True], ids=["linear", "nonlinear"])
def problem(request: pytest.FixtureRequest) -> Problem:
    return make_problem(request.param)
