import math

import pytest
import torch

from models.heatmaps import soft_argmax
from models.rwr import (
    MISMATCH,
    Carried,
    RwRConfig,
    agreement,
    carry_state,
    change_of_crop,
    follow_flow,
    invert_2x2,
    pull_back,
    sample_field,
    transform_points,
    warm_start,
)


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


def test_a_field_is_read_between_its_pixels_and_goes_on_beyond_its_border():
    field = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 2, 8, 8)
    points = torch.tensor([[[0.0, 0.5], [2.25 / 8, 0.1], [1.5, -0.5]]])
    torch.testing.assert_close(sample_field(field, points)[0, :, 1], torch.tensor([0.0, 2.25, 7.0]))


def test_a_flow_that_leads_back_has_no_mismatch_and_another_has_the_distance():
    flow = torch.tensor([0.1, -0.05, -0.1, 0.05]).view(1, 4, 1, 1).expand(1, 4, 16, 16).clone()
    points = torch.full((1, 3, 2), 0.5)
    steps, mismatch = follow_flow(flow, points)
    torch.testing.assert_close(steps, torch.tensor([0.1, -0.05]).expand(1, 3, 2))
    torch.testing.assert_close(mismatch, torch.zeros(1, 3))
    flow[:, 2:] = 0
    torch.testing.assert_close(follow_flow(flow, points)[1], torch.full((1, 3), math.hypot(0.1, 0.05)))


def test_a_warm_start_by_flow_moves_every_heatmap_with_the_picture_at_its_landmark():
    centres = torch.tensor([[0.3, 0.5], [0.7, 0.5], [0.7, 0.6]], dtype=torch.float64)
    heatmaps, moved = gaussian_heatmaps(centres), similarity(1.05, 0.1, (0.02, -0.03))
    before, _ = soft_argmax(heatmaps)
    state = torch.cat([heatmaps, heatmaps[:, :1]], dim=1)
    # The left half of the picture moves by two pixels of a heatmap to the right, the other half by one up.
    flow = torch.zeros(1, 4, 64, 64, dtype=torch.float64)
    flow[:, 0, :, :32], flow[:, 2, :, :32] = 2 / 32, -2 / 32
    flow[:, 1, :, 32:], flow[:, 3, :, 32:] = -1 / 32, 1 / 32
    carried = warm_start(RwRConfig(carry="flow"), state, before, moved, flow)
    steps = torch.tensor([[2 / 32, 0], [0, -1 / 32], [0, -1 / 32]], dtype=torch.float64)
    torch.testing.assert_close(carried.keypoints[0], transform_points(before, moved)[0] + steps)
    torch.testing.assert_close(carried.trust, torch.ones(1, 3, dtype=torch.float64))
    after, _ = soft_argmax(carried.state)
    torch.testing.assert_close(after[:, :3], carried.keypoints, atol=1e-3, rtol=0)
    # The latent channel moves with the median landmark.
    torch.testing.assert_close(after[0, 3], transform_points(before, moved)[0, 0] + steps[1], atol=1e-3, rtol=0)


def test_the_pull_of_a_landmark_falls_to_a_half_where_the_flow_back_misses_by_the_limit():
    state, keypoints = torch.rand(1, 2, 8, 8), torch.full((1, 2, 2), 0.5)
    still = torch.eye(2, 3).unsqueeze(0)
    flow = torch.zeros(1, 4, 8, 8)
    flow[:, 2] = MISMATCH
    config = RwRConfig(carry="flow", pull=0.6)
    carried = warm_start(config, state, keypoints, still, flow)
    torch.testing.assert_close(carried.state, state)
    found = torch.rand(1, 2, 8, 8)
    mixed = pull_back(config, carried, found, keypoints, torch.full((1, 2), 0.1))
    torch.testing.assert_close(mixed, 0.3 * state + 0.7 * found)


def test_agreement_falls_to_a_half_at_the_release():
    carried, found = torch.zeros(1, 3, 2), torch.tensor([[[0.0, 0.0], [0.03, 0.04], [0.0, 0.1]]])
    deviation = torch.full((1, 3), 0.1)
    torch.testing.assert_close(agreement(carried, found, deviation, 0.5), torch.tensor([[1.0, 0.5, 0.2]]))
    assert (agreement(carried, found, deviation, float("inf")) == 1).all()


def test_a_pull_mixes_the_carried_state_and_the_found_one_latent_channels_included():
    config = RwRConfig(pull=0.9)
    keypoints, deviation = torch.rand(2, 5, 2), torch.full((2, 5), 0.1)
    carried, found = torch.rand(2, 7, 8, 8), torch.rand(2, 7, 8, 8)
    mixed = pull_back(config, Carried(carried, keypoints), found, keypoints, deviation)
    torch.testing.assert_close(mixed, 0.9 * carried + 0.1 * found)


def test_a_warm_start_moves_state_and_landmarks_with_the_crop_only_where_it_is_asked_to():
    state, keypoints = torch.rand(1, 2, 8, 8), torch.rand(1, 2, 2)
    change = similarity(1.0, 0.0, (2 / 8, 0.0)).to(state)
    unchanged = warm_start(RwRConfig(), state, keypoints, change)
    assert torch.equal(unchanged.state, state) and torch.equal(unchanged.keypoints, keypoints)
    moved = warm_start(RwRConfig(carry="crop"), state, keypoints, change)
    torch.testing.assert_close(moved.state[..., 2:], state[..., :6])
    torch.testing.assert_close(moved.keypoints, keypoints + torch.tensor([2 / 8, 0.0]))


def test_the_closed_form_inverts_matrices():
    matrices = torch.randn(4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(invert_2x2(matrices), torch.linalg.inv(matrices))
    assert not invert_2x2(torch.zeros(1, 2, 2)).isfinite().any()


def test_a_map_that_is_flat_spoils_no_state_beside_it():
    states = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    maps = torch.cat([torch.zeros(1, 2, 3, dtype=torch.float64), similarity(1.0, 0.0, (0.0, 0.0))])
    torch.testing.assert_close(carry_state(states, maps)[1], states[1])


@pytest.mark.parametrize(
    ("option", "value"),
    [("max_iters", 0), ("carry", "away"), ("pull", 1.0), ("pull", -0.1), ("release", 0.0), ("release", 2**70)],
)
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=option):
        RwRConfig(**{option: value})
