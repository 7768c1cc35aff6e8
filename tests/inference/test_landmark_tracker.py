from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from small_networks import small_model

from inference.face_tracker import FaceTracker
from inference.landmark_tracker import TRACKING, BoxTracker, LandmarkTracker, TrackingConfig
from inference.predictor import LandmarkPredictor, crop_faces
from inference.streams import RestartRule, Streams
from models.rwr import VARIANTS
from utils.crops import CROP_RULES
from utils.geometry import steady_box

GENERATOR = np.random.default_rng(0)
FRAMES = [cv2.resize(GENERATOR.integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120)) for _ in range(4)]
BOX = np.array([20.3, 15.6, 80.9, 90.2])
OTHER_BOX = np.array([90.0, 20.0, 150.0, 80.0])
RESTARTING = TrackingConfig(solve_first_frame=True, restart=RestartRule(overlap=0.3, residual=1e9))


class NoDetector:
    """Fails where something is detected."""

    def detect(self, frame: np.ndarray) -> np.ndarray:
        raise AssertionError("the boxes are given")


@pytest.mark.parametrize("rule", CROP_RULES.values(), ids=CROP_RULES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_evaluation_the_tracker_of_one_face_and_that_of_all_faces_agree(variant, rule):
    model, config = small_model(), TrackingConfig(rwr=VARIANTS[variant], crop=rule)
    one, streams = LandmarkTracker(model, config), Streams(model, config.rwr)
    several = FaceTracker(model, config, detector=NoDetector())
    box = BOX
    for number, frame in enumerate(FRAMES):
        box = steady_box(box, BOX + number) if rule.steady and number else BOX + number
        images, matrices = crop_faces(frame, box[None], 64, "bgr", rule)
        results = streams.step(images, matrices, [7], np.array([number == 0]))
        expected = (results.keypoints[0] - matrices[0, :, 2]) / matrices[0, 0, 0]
        of_the_crop = {"rtol": 0, "atol": 1e-5 / matrices[0, 0, 0]}
        np.testing.assert_allclose(one.step(frame, BOX + number), expected, **of_the_crop)
        _, face = several.step(frame, {4: OTHER_BOX, 5: BOX + number})
        np.testing.assert_allclose(face.landmarks, expected, **of_the_crop)
        np.testing.assert_allclose(face.uncertainty, one.last.uncertainty, **of_the_crop)
        np.testing.assert_array_equal(face.box, one.last.box)
        assert face.evaluations == one.last.evaluations == 2


def test_without_rwr_every_frame_is_that_of_a_predictor():
    model = small_model()
    tracker = LandmarkTracker(model, TrackingConfig(rwr=None))
    predictor = LandmarkPredictor(model, crop=CROP_RULES["original"])
    for frame in FRAMES:
        np.testing.assert_array_equal(tracker.step(frame, BOX), predictor(frame, [BOX])[0].landmarks)


@pytest.mark.parametrize("config", TRACKING.values(), ids=TRACKING)
def test_after_a_reset_nothing_is_left_of_the_frames_before(config):
    model = small_model()
    used, fresh = (LandmarkTracker(model, config) for _ in range(2))
    used.step(FRAMES[0], BOX)
    used.reset()
    assert used.last is None
    for frame in FRAMES[1:]:
        np.testing.assert_array_equal(used.step(frame, BOX), fresh.step(frame, BOX))


def test_a_face_that_was_left_is_a_new_one_and_the_others_go_on():
    model = small_model()
    tracker = BoxTracker(model, TrackingConfig(solve_first_frame=True))
    boxes = {0: BOX, 1: OTHER_BOX}
    tracker.step(FRAMES[0], boxes)
    tracker.leave(1)
    found = tracker.step(FRAMES[1], boxes)
    assert list(found) == [0, 1]
    assert found[0].evaluations == 2 and found[1].evaluations > 2
    assert tracker.step(FRAMES[2], {}) == {}


def restarts(config, frames, boxes):
    """Whether the second of two frames got a full solve."""
    tracker = LandmarkTracker(small_model(), config)
    for frame, box in zip(frames, boxes, strict=True):
        tracker.step(frame, box)
    return tracker.last.evaluations > 2


def test_a_box_that_jumps_is_a_restart_and_one_that_moves_a_little_is_not():
    assert restarts(RESTARTING, FRAMES[:2], [BOX, OTHER_BOX])
    assert not restarts(RESTARTING, FRAMES[:2], [BOX, BOX + 3])
    assert not restarts(replace(RESTARTING, restart=None), FRAMES[:2], [BOX, OTHER_BOX])


def test_a_box_that_jumps_is_not_steadied():
    tracker = LandmarkTracker(small_model(), replace(RESTARTING, crop=CROP_RULES["steady"]))
    tracker.step(FRAMES[0], BOX)
    tracker.step(FRAMES[1], OTHER_BOX)
    np.testing.assert_array_equal(tracker.last.box, OTHER_BOX)


def test_a_face_whose_solve_fails_has_no_landmarks_and_the_next_frame_is_a_first_one(monkeypatch):
    model = small_model()
    tracker, fresh = (LandmarkTracker(model, replace(RESTARTING, crop=CROP_RULES["steady"])) for _ in range(2))
    tracker.step(FRAMES[0], BOX)
    with monkeypatch.context() as patch:
        patch.setattr(model.cell, "forward", lambda z, embedded: torch.full_like(z, torch.nan))
        assert np.isnan(tracker.step(FRAMES[1], BOX + 1)).all()
        assert tracker.last.failed and np.isposinf(tracker.last.uncertainty).all()
    np.testing.assert_array_equal(tracker.step(FRAMES[2], BOX + 2), fresh.step(FRAMES[2], BOX + 2))
    np.testing.assert_array_equal(tracker.last.box, BOX + 2)


def test_a_bad_box_leaves_the_state_as_it_was():
    model = small_model()
    disturbed, calm = (LandmarkTracker(model) for _ in range(2))
    for tracker in (disturbed, calm):
        tracker.step(FRAMES[0], BOX)
    with pytest.raises(ValueError, match="no area"):
        disturbed.step(FRAMES[1], [10, 10, 10, 30])
    with pytest.raises(ValueError, match="shape"):
        disturbed.step(FRAMES[1], [10, 10, 10])
    np.testing.assert_array_equal(disturbed.step(FRAMES[1], BOX), calm.step(FRAMES[1], BOX))


def test_an_explicit_network_cannot_be_warm_started():
    with pytest.raises(ValueError, match="this one is explicit"):
        LandmarkTracker(small_model(mode="explicit"))
    LandmarkTracker(small_model(mode="explicit"), TrackingConfig(rwr=None)).step(FRAMES[0], BOX)
