import argparse
import csv
import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from small_networks import random_images, small_model

import inference.network
import models.deq
import train_LDEQ_WFLW
import training.config
from models import LDEQ
from models.config import PRESETS as NETWORKS
from models.config import Backbone, Gate
from models.rwr import carry_state
from training.config import PRESETS, InitialPart, TrainingConfig, add_options, from_options
from training.log import append_row, plot_curves, read_log
from training.losses import NARROWEST_HEATMAP, TYPICAL_FACE, face_size, jacobian_penalty, jitter_loss, landmark_loss
from training.network import learning_rate_factor, load_part
from training.step import StepPlan, TrainingStep, draw_plan, is_pair_step, warp_state
from utils.errors import OptionError

# Losses


def test_the_distance_part_of_the_loss_is_the_distance_relative_to_the_face_and_the_narrowest_heatmap():
    landmarks = torch.tensor([[[0.2, 0.2], [0.5, 0.6]]])  # a box of 0.3 x 0.4
    keypoints = landmarks + torch.tensor([[[0.03, 0.04], [0.0, 0.0]]])  # distances 0.05 and 0
    loss = landmark_loss(keypoints, torch.ones(1, 2), landmarks, heatmap_size=32, uncertainty_weight=0)
    narrowest = NARROWEST_HEATMAP / 32 / math.sqrt(3)
    assert loss.item() == pytest.approx(0.5 * 0.05 * TYPICAL_FACE / math.sqrt(0.12) / narrowest, rel=1e-4)


def test_the_likelihood_is_lowest_where_the_heatmap_is_as_wide_as_the_error():
    landmarks = torch.tensor([[[0.2, 0.2], [0.8, 0.8]]])
    keypoints = landmarks + torch.tensor([0.06, 0.08])  # distance 0.1: the best scale is 0.05, sigma sqrt(3) of it
    widths = torch.linspace(0.03, 0.3, 200)
    losses = [landmark_loss(keypoints, width.expand(1, 2), landmarks, 32, 1.0).item() for width in widths]
    assert widths[int(np.argmin(losses))].item() == pytest.approx(0.05 * math.sqrt(3), abs=2e-3)


def test_nothing_pulls_a_heatmap_narrower_than_a_pixel_allows():
    landmarks = torch.rand(1, 5, 2)
    uncertainty = torch.full((1, 5), 0.5 * NARROWEST_HEATMAP / 32, requires_grad=True)
    landmark_loss(landmarks + 0.001, uncertainty, landmarks, 32, 1.0).sum().backward()
    assert uncertainty.grad.abs().max() == 0


def test_a_perfect_prediction_has_a_finite_gradient():
    landmarks = torch.rand(2, 5, 2)
    keypoints = landmarks.clone().requires_grad_()
    landmark_loss(keypoints, torch.full((2, 5), 0.1), landmarks, 32, 0.5).sum().backward()
    assert keypoints.grad.isfinite().all()


def test_landmarks_outside_the_crop_are_drawn_to_its_border():
    keypoints = torch.tensor([[[0.0, 0.5], [0.9, 0.9]]])
    outside = torch.tensor([[[-0.2, 0.5], [0.9, 0.9]]])
    loss = landmark_loss(keypoints, torch.full((1, 2), 0.01), outside, 32, 1.0)
    assert loss.item() == pytest.approx(0, abs=1e-3)


def test_face_size_is_the_root_of_the_area_of_the_box():
    assert face_size(torch.tensor([[[0.1, 0.2], [0.4, 0.6], [0.2, 0.3]]])).item() == pytest.approx(math.sqrt(0.12))


def test_the_jacobian_penalty_estimates_the_squared_frobenius_norm_over_the_size():
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    z = torch.zeros(20000, 6, requires_grad=True)
    probe = torch.randn(20000, 6, generator=torch.Generator().manual_seed(1))
    penalty = jacobian_penalty(z @ matrix.T, z, probe)
    assert penalty.item() == pytest.approx(matrix.square().sum().item() / 6, rel=0.03)


def test_the_jitter_loss_is_the_change_of_the_error_relative_to_the_face():
    landmarks = torch.tensor([[[0.2, 0.2], [0.5, 0.6]]])  # a box of 0.3 x 0.4
    first = torch.tensor([[[0.5, 0.5], [0.01, 0.02]]])
    second = first + torch.tensor([[[0.0, 0.0], [-0.03, 0.04]]])
    narrowest = NARROWEST_HEATMAP / 32 / math.sqrt(3)
    loss = jitter_loss(first, second, landmarks, heatmap_size=32)
    assert loss.item() == pytest.approx(0.5 * 0.05 * TYPICAL_FACE / math.sqrt(0.12) / narrowest, rel=1e-4)


# Steps


def test_the_plan_of_a_step_depends_on_seed_step_and_rank_alone():
    config = TrainingConfig(warm_start_probability=0.5)
    plans = [[draw_plan(config, step, 0, 3) for step in range(20)] for _ in range(2)]
    assert [plan.depth for plan in plans[0]] == [plan.depth for plan in plans[1]]
    assert {plan.depth for plan in plans[0]} == set(range(config.max_depth + 1))
    assert any(plan.warp is None for plan in plans[0])
    assert any(plan.warp is not None for plan in plans[0])
    other = [draw_plan(replace(config, seed=1), step, 0, 3).depth for step in range(20)]
    assert other != [plan.depth for plan in plans[0]]


def test_pairs_come_as_often_as_asked_on_all_processes_alike():
    config = TrainingConfig(pair_probability=0.3, pair_depth=2, min_depth=2, max_depth=3)
    steps = range(400)
    pairs = [is_pair_step(config, step) for step in steps]
    assert 0.2 < np.mean(pairs) < 0.4
    for rank in (0, 1):
        plans = [draw_plan(config, step, rank, 2) for step in steps]
        assert {plan.depth for plan in plans} == {2, 3}
        second = [plan.second_depth for plan, pair in zip(plans, pairs, strict=True) if pair]
        assert 0.2 < np.mean([depth == 2 for depth in second]) < 0.5
        assert set(second) == {0, 1, 2}
    assert not any(is_pair_step(TrainingConfig(), step) for step in steps)


def test_the_jacobian_penalty_of_a_step_does_not_depend_on_what_was_drawn_before():
    config = TrainingConfig(jacobian_weight=1.0)
    step = TrainingStep(small_model(), config)
    images, landmarks = random_images(2), torch.rand(2, step.model.config.landmarks, 2)
    plans = [draw_plan(config, number, 0, 2) for number in (3, 3, 4)]
    losses = [step(images, landmarks, torch.ones(2), replace(plan, depth=1, warp=None))[0].item() for plan in plans]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("carry", ["unchanged", "crop"])
def test_the_second_view_starts_from_the_state_of_the_first(carry):
    config = TrainingConfig(pair_probability=1, pair_carry=carry, jitter_weight=0.7)
    model = small_model().eval()
    images, landmarks = torch.randn(2, 2, 3, 64, 64), torch.rand(2, 2, 5, 2)
    motion = torch.eye(2, 3).expand(2, 2, 3).clone()
    motion[:, 0, 2] = 0.1
    loss, keypoints = TrainingStep(model, config)(images, landmarks, torch.ones(2), StepPlan(1, None, 0), motion)

    with torch.no_grad():
        state = torch.zeros(2, model.config.state_channels, 16, 16)
        first, second = (model.embed(images[:, view]) for view in (0, 1))
        state = model.cell(model.cell(state, first), first)
        error = model.read_out(state)[0] - landmarks[:, 0]
        start = carry_state(state, motion) if carry == "crop" else state
        expected, uncertainty, _ = model.read_out(model.cell(start, second))
    torch.testing.assert_close(keypoints, expected)
    losses = landmark_loss(expected, uncertainty, landmarks[:, 1], 16, config.uncertainty_weight)
    losses = losses + 0.7 * jitter_loss(error, expected - landmarks[:, 1], landmarks[:, 1], 16)
    assert loss.item() == pytest.approx(losses.mean().item(), rel=1e-4)


def test_two_views_without_their_motion_are_refused_where_the_state_is_to_be_moved():
    images, landmarks = torch.randn(2, 2, 3, 64, 64), torch.rand(2, 2, 5, 2)
    step = TrainingStep(small_model(), TrainingConfig(pair_probability=1, pair_carry="crop"))
    with pytest.raises(ValueError, match="needs the motion"):
        step(images, landmarks, torch.ones(2), StepPlan(1, None, 0))


def test_a_step_of_pairs_reaches_every_weight():
    model = small_model().train()
    step = TrainingStep(model, TrainingConfig(pair_probability=1))
    motion = torch.eye(2, 3).expand(2, 2, 3)
    loss, _ = step(torch.randn(2, 2, 3, 64, 64), torch.rand(2, 2, 5, 2), torch.ones(2), StepPlan(2, None, 1), motion)
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_the_learning_rate_warms_up_and_ends_where_it_is_told():
    config = TrainingConfig(epochs=2, samples_per_epoch=320, batch_size=32, warm_up=0.2, final_learning_rate=0.4)
    factors = [learning_rate_factor(step, config) for step in range(21)]
    np.testing.assert_allclose(factors[:5], [0.25, 0.5, 0.75, 1, 1])
    assert factors[12] == pytest.approx(0.7)  # half way between 1 and 0.4
    assert factors[20] == pytest.approx(0.4)


def test_the_identity_leaves_a_state_and_a_shift_moves_it():
    z = torch.zeros(1, 2, 8, 8)
    z[:, :, 3, 4] = 1
    assert torch.allclose(warp_state(z, torch.eye(2, 3).unsqueeze(0)), z, atol=1e-6)
    shift = torch.eye(2, 3).unsqueeze(0)
    shift[:, 0, 2] = 2 / 8  # one pixel: what was at column 4 is now at 3
    assert torch.allclose(warp_state(z, shift), z.roll(-1, dims=3), atol=1e-6)


@pytest.mark.parametrize("gradient", ["jfb", "ift", "unroll"])
@pytest.mark.parametrize("jacobian_weight", [0.0, 1.0])
def test_every_gradient_rule_reaches_every_weight(gradient, jacobian_weight):
    config = TrainingConfig(gradient=gradient, jacobian_weight=jacobian_weight)
    model = small_model()
    model.config = replace(model.config, gradient=replace(model.config.gradient, rule=config.gradient))
    step = TrainingStep(model.train(), config)
    warp = torch.eye(2, 3).expand(2, 2, 3)
    loss, keypoints = step(torch.randn(2, 3, 64, 64), torch.rand(2, 5, 2), torch.ones(2), StepPlan(2, warp))
    loss.backward()
    assert not keypoints.requires_grad
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_a_face_of_weight_zero_does_not_count():
    step = TrainingStep(small_model().eval(), TrainingConfig())
    images, landmarks = torch.randn(2, 3, 64, 64), torch.rand(2, 5, 2)
    plan = StepPlan(1, None)
    loss, _ = step(images, landmarks, torch.tensor([1.0, 0.0]), plan)
    alone, _ = step(images[:1], landmarks[:1], torch.ones(1), plan)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-4)


def test_training_overfits_a_few_faces():
    torch.manual_seed(0)
    model = LDEQ(small_model(landmarks=3, cell_width=16, injection_channels=16).config).train()
    step = TrainingStep(model, TrainingConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images = torch.nn.functional.interpolate(torch.randn(4, 3, 8, 8), size=64)
    landmarks = 0.2 + 0.6 * torch.rand(4, 3, 2)
    errors = []
    for number in range(150):
        loss, keypoints = step(images, landmarks, torch.ones(4), StepPlan(number % 3, None))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append((keypoints - landmarks).norm(dim=2).mean().item())
    assert np.mean(errors[-5:]) < 0.1 * np.mean(errors[:5])


# Options


def parse(*options: str) -> TrainingConfig:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="mini")
    add_options(parser)
    return from_options(parser.parse_args(options))


def test_options_that_are_not_named_are_the_presets():
    assert parse("--preset", "paper") == PRESETS["paper"]
    assert parse("--epochs", "3", "--splits", "a", "b") == replace(PRESETS["mini"], epochs=3, splits=("a", "b"))


@pytest.mark.parametrize(
    "option",
    [
        "--epochs=0",
        "--ema_decay=2",
        "--pose_boost=0.5",
        "--max_depth=-1",
        "--pair_probability=2",
        "--jitter_weight=-1",
        "--samples_per_epoch=1",
        "--weight_decay=nan",
        "--learning_rate=inf",
        "--seed=1180591620717411303424",
        "--seed=-1",
        "--epochs=99999999999",
    ],
)
def test_an_option_out_of_range_is_named(option):
    with pytest.raises(ValueError, match=option.split("=")[0]):
        parse(option)


def test_options_that_do_not_go_together_are_named():
    with pytest.raises(ValueError, match=r"--max_depth .* --min_depth"):
        parse("--min_depth=3", "--max_depth=2")
    with pytest.raises(ValueError, match=r"--pair_probability must be 0 .* ift"):
        parse("--pair_probability=0.5", "--gradient=ift")


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 2.0), ("epochs", True), ("learning_rate", "0.1"), ("gradient", "bptt"), ("pair_carry", None)],
)
def test_a_value_of_another_type_is_named(name, value):
    with pytest.raises(OptionError, match=f"--{name} must be"):
        TrainingConfig(**{name: value})


def test_the_command_line_offers_what_the_registries_know():
    assert get_args(Backbone) == train_LDEQ_WFLW.BACKBONES
    assert get_args(Gate) == train_LDEQ_WFLW.GATES
    assert get_args(InitialPart) == train_LDEQ_WFLW.INITIAL_PARTS
    assert get_args(models.deq.GradientRule) == get_args(training.config.GradientRule)
    assert get_args(inference.network.Precision) == get_args(training.config.Precision)
    assert PRESETS.keys() == NETWORKS.keys()


def test_a_run_starts_from_a_network_without_a_gate_or_from_its_backbone_alone():
    source, other = small_model(seed=1), small_model(seed=2, gate="learned")
    own = {name: value.clone() for name, value in other.state_dict().items()}
    load_part(other, source, "backbone")
    assert all(
        torch.equal(value, source.state_dict()[name] if name.startswith("backbone.") else own[name])
        for name, value in other.state_dict().items()
    )
    load_part(other, source, "all")
    assert all(
        torch.equal(value, source.state_dict().get(name, own[name])) for name, value in other.state_dict().items()
    )
    with pytest.raises(RuntimeError, match="gate"):
        load_part(source, other, "all")


def test_the_log_replaces_epochs_that_are_done_again_and_draws_its_curves(tmp_path):
    for epoch, loss in ((0, 3.0), (1, 2.0), (1, 1.0)):
        row = {"epoch": epoch, "samples": epoch, "loss": loss, "validation_nme": 5, "train_nme": 6}
        # The speed is not known if no step of an epoch was left after a resume.
        append_row(tmp_path, {**row, "images_per_second": float("nan")})
    with (tmp_path / "log.csv").open() as file:
        assert [row["loss"] for row in csv.DictReader(file)] == ["3", "1"]
    assert len(read_log(tmp_path / "log.csv")) == 2
    plot_curves({"a": tmp_path / "log.csv", "b": tmp_path / "log.csv"}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
