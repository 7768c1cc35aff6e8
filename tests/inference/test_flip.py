import numpy as np
import pytest

from inference.flip import mean_with_mirrored, mirror_landmarks
from utils.errors import OptionError
from utils.landmark_groups import FLIP_PERMUTATION

LANDMARKS = np.random.default_rng(0).uniform(size=(3, 98, 2))


def test_a_pixel_and_its_mirror_image_are_the_same_place():
    size = 64
    columns = np.arange(98) % size
    picture = np.column_stack([columns / size, np.full(98, 0.25)])
    mirrored_picture = np.column_stack([(size - 1 - columns) / size, np.full(98, 0.25)])
    np.testing.assert_allclose(mirror_landmarks(mirrored_picture[FLIP_PERMUTATION], size), picture, atol=1e-12)


def test_mirroring_twice_is_the_identity_and_leaves_its_input():
    before = LANDMARKS.copy()
    np.testing.assert_allclose(mirror_landmarks(mirror_landmarks(LANDMARKS, 128), 128), LANDMARKS, atol=1e-12)
    np.testing.assert_array_equal(LANDMARKS, before)


def test_the_left_pupil_of_the_mirrored_picture_is_the_right_one():
    landmarks = np.zeros((98, 2))
    landmarks[96] = 0.25, 0.4
    np.testing.assert_allclose(mirror_landmarks(landmarks, 4)[97], [0.5, 0.4])


def test_the_mean_of_a_network_that_is_right_both_times_is_right():
    of_mirrored = mirror_landmarks(LANDMARKS, 128)
    np.testing.assert_allclose(mean_with_mirrored(LANDMARKS, of_mirrored, 128), LANDMARKS, atol=1e-12)
    moved = of_mirrored + np.array([0.02, 0.01])
    expected = LANDMARKS + np.array([-0.01, 0.005])
    np.testing.assert_allclose(mean_with_mirrored(LANDMARKS, moved, 128), expected, atol=1e-12)


def test_other_landmarks_have_no_known_partners():
    with pytest.raises(OptionError, match=r"98 landmarks of WFLW.* \(68, 2\)"):
        mirror_landmarks(np.zeros((68, 2)), 128)
