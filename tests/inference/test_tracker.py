import cv2
import numpy as np
import pytest
import torch
from small_networks import small_model

from inference.predictor import LandmarkPredictor, crop_face
from inference.streams import RwR
from inference.tracker import LandmarkTracker, RestartRule
from models.rwr import VARIANTS
from utils.crops import CROP_RULES
from utils.geometry import steady_box

GENERATOR = np.random.default_rng(0)
FRAMES = [cv2.resize(GENERATOR.integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120)) for _ in range(4)]
BOX = np.array([20.3, 15.6, 80.9, 90.2])
OTHER_BOX = np.array([90.0, 20.0, 150.0, 80.0])


@pytest.mark.parametrize("rule", CROP_RULES.values(), ids=CROP_RULES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_landmarks_are_those_of_rwr_on_the_crops(variant, rule):
    model, config = small_model(), VARIANTS[variant]
    tracker, rwr = LandmarkTracker(model, config=config, crop=rule), RwR(model, 1, config)
    box = BOX
    for shift, frame in enumerate(FRAMES):
        box = steady_box(box, BOX + shift) if rule.steady and shift else BOX + shift
        image, matrix = crop_face(frame, box, 64, "bgr", rule.exact)
        output = rwr.step(image[None].to(memory_format=torch.channels_last), torch.from_numpy(matrix)[None])
        expected = (output.keypoints[0].double().numpy() - matrix[:, 2]) / matrix[0, 0]
        np.testing.assert_allclose(tracker.step(frame, BOX + shift), expected, atol=1e-6)
        assert tracker.last.evaluations == 2


def test_without_rwr_every_frame_is_that_of_a_predictor():
    model = small_model()
    tracker, predictor = LandmarkTracker(model, rwr=False), LandmarkPredictor(model, crop=CROP_RULES["original"])
    for frame in FRAMES:
        np.testing.assert_array_equal(tracker.step(frame, BOX), predictor(frame, [BOX])[0].landmarks)


@pytest.mark.parametrize("variant", VARIANTS)
def test_after_a_reset_nothing_is_left_of_the_frames_before(variant):
    model, config = small_model(), VARIANTS[variant]
    used, fresh = (LandmarkTracker(model, config=config) for _ in range(2))
    used.step(FRAMES[0], BOX)
    used.reset()
    assert used.last is None
    for frame in FRAMES[1:]:
        np.testing.assert_array_equal(used.step(frame, OTHER_BOX), fresh.step(frame, OTHER_BOX))


def test_the_first_frame_can_have_a_full_solve():
    model = small_model()
    tracker = LandmarkTracker(model, solve_first_frame=True)
    first = tracker.step(FRAMES[0], BOX)
    (expected,) = LandmarkPredictor(model, crop=CROP_RULES["original"])(FRAMES[0], [BOX])
    np.testing.assert_array_equal(first, expected.landmarks)
    assert tracker.last.evaluations == expected.evaluations > 2
    tracker.step(FRAMES[1], BOX)
    assert tracker.last.evaluations == 2


def restarts(rule, frames, boxes):
    """Whether the second of two frames got a full solve."""
    tracker = LandmarkTracker(small_model(), solve_first_frame=True, restart=rule)
    for frame, box in zip(frames, boxes, strict=True):
        tracker.step(frame, box)
    return tracker.last.evaluations > 2


def test_a_box_that_jumps_is_a_restart_and_one_that_moves_a_little_is_not():
    rule = RestartRule(overlap=0.3, residual=1e9)
    assert restarts(rule, FRAMES[:2], [BOX, OTHER_BOX])
    assert not restarts(rule, FRAMES[:2], [BOX, BOX + 3])
    assert not restarts(None, FRAMES[:2], [BOX, OTHER_BOX])


def test_a_warm_start_whose_residual_is_above_the_rule_is_a_restart():
    model = small_model()
    rwr = RwR(model, 1, VARIANTS["faithful"])
    for frame in FRAMES[:2]:
        image, matrix = crop_face(frame, BOX, 64, "bgr", False)
        output = rwr.step(image[None].to(memory_format=torch.channels_last), torch.from_numpy(matrix)[None])
    residual = float(output.solution.trace[0])
    assert 0 < residual < 10
    assert restarts(RestartRule(residual=0.9 * residual), FRAMES[:2], [BOX, BOX])
    assert not restarts(RestartRule(residual=1.1 * residual), FRAMES[:2], [BOX, BOX])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("solve_first_frame", [True, False])
def test_a_state_that_is_not_finite_does_not_outlive_its_frame(variant, solve_first_frame):
    config = VARIANTS[variant]
    options = {"config": config, "solve_first_frame": solve_first_frame, "restart": RestartRule()}
    model = small_model()
    spoilt, fresh = (LandmarkTracker(model, **options) for _ in range(2))
    spoilt.step(FRAMES[0], BOX)
    spoilt.rwr.state = torch.full_like(spoilt.rwr.state, torch.nan)
    spoilt.rwr.keypoints = torch.full_like(spoilt.rwr.keypoints, torch.nan)
    np.testing.assert_array_equal(spoilt.step(FRAMES[1], BOX), fresh.step(FRAMES[1], BOX))


def test_a_bad_box_leaves_the_state_as_it_was():
    model = small_model()
    disturbed, calm = (LandmarkTracker(model, restart=RestartRule()) for _ in range(2))
    for tracker in (disturbed, calm):
        tracker.step(FRAMES[0], BOX)
    with pytest.raises(ValueError, match="no area"):
        disturbed.step(FRAMES[1], [10, 10, 10, 30])
    with pytest.raises(ValueError, match="shape"):
        disturbed.step(FRAMES[1], [10, 10, 10])
    np.testing.assert_array_equal(disturbed.step(FRAMES[1], BOX), calm.step(FRAMES[1], BOX))


def test_an_explicit_network_cannot_be_warm_started():
    with pytest.raises(ValueError, match="explicit network"):
        LandmarkTracker(small_model(mode="explicit"))
    LandmarkTracker(small_model(mode="explicit"), rwr=False).step(FRAMES[0], BOX)


@pytest.mark.parametrize(("name", "value"), [("overlap", 1.5), ("overlap", -0.1), ("residual", 0.0)])
def test_a_rule_out_of_range_is_an_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=name):
        RestartRule(**{name: value})
