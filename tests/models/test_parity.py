"""Small checkpoints in the original release's format, and what the original computed from them (numbers only)."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models import LDEQ, LDEQOutput, load_checkpoint
from solvers import AndersonConfig, BroydenConfig

CASES = sorted(
    path.name.removesuffix(".pth.tar") for path in (Path(__file__).parents[1] / "data/parity").glob("*.pth.tar")
)
# Two processors round float32 differently; where Anderson over-relaxes (beta 2) that alone moves keypoints by 1e-5.
FLOAT32_TOLERANCE = 2e-5
FILLING_EVALUATIONS = {AndersonConfig: 2, BroydenConfig: 1}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[LDEQ, dict[str, np.ndarray], Tensor, Tensor]:
    folder = Path(__file__).parents[1] / "data/parity"
    expected = dict(np.load(folder / f"{request.param}.npz"))
    model = load_checkpoint(folder / f"{request.param}.pth.tar")
    size = model.config.image_size
    frames = [
        F.interpolate(torch.from_numpy(expected[name]), size=(size, size), mode="bicubic", align_corners=False)
        for name in ("noise_frame1", "noise_frame2")
    ]
    return model, expected, *frames


def batch_rule(model: LDEQ) -> LDEQ:
    return model.with_solver(replace(model.config.solver, stop_rule="batch"))


@torch.no_grad()
def run(model: LDEQ, images: Tensor, z0: Tensor | None = None) -> LDEQOutput:
    return model(images, z0)


def iterations(model: LDEQ, output: LDEQOutput) -> list[int]:
    """In the original's count, which leaves out the evaluations that fill a history."""
    if output.solution is None:
        return [-1, -1]
    return (output.solution.evals - FILLING_EVALUATIONS.get(type(model.config.solver), 0)).tolist()


def test_in_double_precision_the_batch_rule_gives_the_originals_keypoints(case):
    model, expected, frame1, _ = case
    output = run(batch_rule(copy.deepcopy(model).double()), frame1.double())
    assert np.abs(output.keypoints.numpy() - expected["keypoints_batch"]).max() < 1e-5


def test_the_batch_rule_gives_the_originals_keypoints_state_and_iterations(case):
    model, expected, frame1, _ = case
    output = run(batch_rule(model), frame1)
    assert np.abs(output.keypoints.numpy() - expected["keypoints_batch"]).max() < FLOAT32_TOLERANCE
    assert np.abs(output.z_star.numpy()[:, ::16, ::8, ::8] - expected["z_star_batch_sub"]).max() < 1e-4
    assert iterations(model, output) == [expected["n_iters_batch"]] * 2


def test_the_batch_rule_gives_the_originals_residual(case):
    model, expected, frame1, _ = case
    if model.config.mode == "explicit":
        pytest.skip("explicit networks have no residual")
    key = "rel_diff_batch" if model.config.solver.criterion == "relative" else "abs_diff_batch"
    residual = run(batch_rule(model), frame1).solution.residual.mean().item()
    assert residual == pytest.approx(expected[key].item(), rel=0.01, abs=1e-6)


def test_the_sample_rule_gives_in_any_batch_what_the_original_gives_for_a_single_image(case):
    model, expected, frame1, _ = case
    output = run(model, frame1)
    assert np.abs(output.keypoints.numpy() - expected["keypoints_single"]).max() < 1e-5
    assert iterations(model, output) == expected["n_iters_single"].tolist()


def test_a_warm_start_from_the_previous_frame_gives_the_originals_keypoints(case):
    model, expected, frame1, frame2 = case
    model = batch_rule(model)
    warm = run(model, frame2, run(model, frame1).z_star)
    assert np.abs(warm.keypoints.numpy() - expected["keypoints_warm_batch"]).max() < 1e-5
