from dataclasses import replace

import pytest
import torch
from small_networks import random_images, small_model

from inference.streams import RwR
from models.heatmaps import soft_argmax
from models.rwr import (
    VARIANTS,
    RwRConfig,
    agreement,
    carry_state,
    change_of_crop,
    fit_similarity,
    partial_motion,
    transform_points,
)
from solvers import FixedPointConfig

WHOLE_FRAME = torch.eye(2, 3, dtype=torch.float64)[None]
STEADY = VARIANTS["steady"]


def similarity(scale: float, angle: float, shift: tuple[float, float]) -> torch.Tensor:
    turn = torch.tensor(angle, dtype=torch.float64)
    cosine, sine = scale * turn.cos(), scale * turn.sin()
    return torch.stack([cosine, -sine, torch.tensor(shift[0]), sine, cosine, torch.tensor(shift[1])]).view(1, 2, 3)


def gaussian_heatmaps(centres: torch.Tensor, size: int = 32, deviation: float = 1.5) -> torch.Tensor:
    """(1, K, size, size) with maxima at the centres (K, 2) in [0, 1]."""
    pixels = torch.arange(size, dtype=centres.dtype) / size
    across = torch.exp(-0.5 * ((pixels - centres[:, :1]) * size / deviation) ** 2)
    down = torch.exp(-0.5 * ((pixels - centres[:, 1:]) * size / deviation) ** 2)
    return (down.unsqueeze(2) * across.unsqueeze(1))[None]


@pytest.mark.parametrize("max_iters", [1, 3])
@pytest.mark.parametrize("final_evaluation", [True, False])
def test_faithful_rwr_is_a_loop_of_the_network_from_the_last_state(max_iters, final_evaluation):
    model = small_model(solver=FixedPointConfig(max_evals=max_iters, tol=0), final_evaluation=final_evaluation)
    rwr = RwR(small_model(), 1, RwRConfig(max_iters=max_iters, final_evaluation=final_evaluation))
    state = None
    for seed in range(3):
        images = random_images(1, seed)
        with torch.inference_mode():
            expected = model(images, state)
        state = expected.z_star
        output = rwr.step(images, WHOLE_FRAME)
        assert torch.equal(output.keypoints, expected.keypoints)
        assert torch.equal(rwr.state, state)


def test_the_originals_settings_take_two_evaluations_a_frame(monkeypatch):
    model = small_model()
    calls = []
    forward = model.cell.forward
    monkeypatch.setattr(model.cell, "forward", lambda *args: calls.append(1) or forward(*args))
    rwr = RwR(model, 1)
    for seed in range(4):
        calls.clear()
        rwr.step(random_images(1, seed), WHOLE_FRAME)
        assert len(calls) == 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_after_a_reset_a_frame_is_a_first_frame(variant):
    first = RwR(small_model(), 1, VARIANTS[variant]).step(random_images(1, 5), WHOLE_FRAME)
    rwr = RwR(small_model(), 1, VARIANTS[variant])
    rwr.step(random_images(1, 4), WHOLE_FRAME)
    rwr.reset(0)
    again = rwr.step(random_images(1, 5), WHOLE_FRAME)
    torch.testing.assert_close(again.keypoints, first.keypoints)
    torch.testing.assert_close(again.z_star, first.z_star)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_reset_forgets_values_that_are_not_finite(variant):
    rwr = RwR(small_model(), 1, VARIANTS[variant])
    rwr.step(torch.full((1, 3, 64, 64), torch.nan), WHOLE_FRAME)
    rwr.reset(0)
    assert rwr.step(random_images(1, 0), WHOLE_FRAME).keypoints.isfinite().all()
    assert rwr.step(random_images(1, 1), WHOLE_FRAME).keypoints.isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_streams_side_by_side_do_not_affect_each_other(variant):
    model = small_model()
    together = RwR(model, 2, VARIANTS[variant])
    alone = [RwR(model, 1, VARIANTS[variant]) for _ in range(2)]
    crops = torch.cat([similarity(1.0, 0.0, (0.0, 0.0)), similarity(1.1, 0.0, (0.02, -0.03))])
    for seed in range(3):
        images = random_images(2, seed)
        output = together.step(images, crops)
        for stream in range(2):
            expected = alone[stream].step(images[stream : stream + 1], crops[stream : stream + 1])
            torch.testing.assert_close(output.keypoints[stream], expected.keypoints[0], atol=1e-5, rtol=1e-5)


def test_a_state_whose_crop_moves_by_whole_pixels_is_shifted():
    state = torch.rand(1, 2, 8, 8, dtype=torch.float64)
    moved = carry_state(state, similarity(1.0, 0.0, (2 / 8, -1 / 8)))
    torch.testing.assert_close(moved[..., :7, 2:], state[..., 1:, :6])
    assert (moved[..., 7, :] == 0).all() and (moved[..., :2] == 0).all()


def test_the_landmarks_of_a_carried_state_have_moved_with_it():
    centres = torch.tensor([[0.4, 0.5], [0.55, 0.45], [0.5, 0.6]], dtype=torch.float64)
    heatmaps, motion = gaussian_heatmaps(centres), similarity(1.1, 0.2, (0.03, -0.04))
    before, _ = soft_argmax(heatmaps)
    after, _ = soft_argmax(carry_state(heatmaps, motion))
    torch.testing.assert_close(after, transform_points(before, motion), atol=1e-3, rtol=0)


def test_a_change_of_crop_takes_a_point_of_the_frame_from_one_crop_to_the_other():
    before, after = similarity(0.01, 0.1, (-0.5, 0.2)), similarity(0.02, -0.3, (0.1, 0.4))
    frame = torch.tensor([[[30.0, 50.0], [80.0, 20.0]]], dtype=torch.float64)
    moved = transform_points(transform_points(frame, before), change_of_crop(before, after))
    torch.testing.assert_close(moved, transform_points(frame, after))


def test_the_motion_of_a_face_is_found_although_some_landmarks_move_otherwise():
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(1, 98, 2, dtype=torch.float64, generator=generator)
    motion = similarity(1.05, 0.1, (0.02, -0.01))
    target = transform_points(source, motion)
    target[:, :15] += 0.2
    found = fit_similarity(source, target, torch.full((1, 98), 0.01, dtype=torch.float64))
    torch.testing.assert_close(found, motion, atol=2e-3, rtol=0)


def test_a_partial_motion_goes_a_share_of_the_way():
    motion, points = similarity(1.2, 0.4, (0.1, 0.2)), torch.rand(1, 5, 2, dtype=torch.float64)
    way = transform_points(points, motion) - points
    torch.testing.assert_close(transform_points(points, partial_motion(motion, 0.25)) - points, 0.25 * way)


def test_agreement_falls_to_a_half_at_the_release():
    carried, found = torch.zeros(1, 3, 2), torch.tensor([[[0.0, 0.0], [0.03, 0.04], [0.0, 0.1]]])
    deviation = torch.full((1, 3), 0.1)
    torch.testing.assert_close(agreement(carried, found, deviation, 0.5), torch.tensor([[1.0, 0.5, 0.2]]))
    assert (agreement(carried, found, deviation, float("inf")) == 1).all()


def test_the_pull_mixes_the_carried_state_and_the_found_one():
    model = small_model()
    plain, pulled = RwR(model, 1), RwR(model, 1, VARIANTS["damped"])
    for rwr in (plain, pulled):
        rwr.step(random_images(1, 0), WHOLE_FRAME)
    carried = plain.state.clone()
    found = plain.step(random_images(1, 1), WHOLE_FRAME).z_star
    torch.testing.assert_close(pulled.step(random_images(1, 1), WHOLE_FRAME).z_star, 0.3 * carried + 0.7 * found)


def test_the_steady_variant_moves_less_than_the_faithful_one_between_noisy_copies_of_a_picture():
    generator = torch.Generator().manual_seed(0)
    picture = random_images(1, 0)
    frames = [picture + 0.3 * torch.randn(picture.shape, generator=generator) for _ in range(12)]

    def movement(config: RwRConfig) -> float:
        rwr = RwR(small_model(), 1, config)
        keypoints = torch.cat([rwr.step(frame, WHOLE_FRAME).keypoints for frame in frames])
        return float(keypoints.diff(dim=0).norm(dim=2).mean())

    assert movement(STEADY) < 0.8 * movement(RwRConfig())


def test_latent_channels_are_pulled_as_well():
    model = small_model(latent_channels=2)
    rwr = RwR(model, 1, replace(VARIANTS["damped"], pull=0.9))
    rwr.step(random_images(1, 0), WHOLE_FRAME)
    carried = rwr.state.clone()
    output = rwr.step(random_images(1, 1), WHOLE_FRAME)
    found = RwR(model, 1)
    found.state = carried.clone()
    expected = found.step(random_images(1, 1), WHOLE_FRAME).z_star
    torch.testing.assert_close(output.z_star[:, 5:], 0.9 * carried[:, 5:] + 0.1 * expected[:, 5:])


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_iters", 0), ("carry", "away"), ("pull", 1.0), ("pull", -0.1), ("follow", 0.0), ("release", 0.0)],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=option):
        RwRConfig(**{option: value})
