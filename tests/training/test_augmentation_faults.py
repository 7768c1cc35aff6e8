"""What the augmentation does to the picture: colour, light, blur, noise, and what hides a part of the face."""

from dataclasses import replace

import numpy as np
import pytest
from schematic_face import FAULTS, OFF, SIZE, schematic_face, texture

from datasets.degradation import adjust_gamma, low_resolution, motion_blur, occlude, sensor_noise, side_light
from training.augmentation import Augmentation
from training.colour import channel_curves, duotone, posterise, shift_hue
from training.occluders import face_mask, glasses, goggles, hand, headgear
from utils.geometry import landmark_box


def degrade(augmentation: Augmentation, image: np.ndarray, seed: int) -> np.ndarray:
    landmarks = (schematic_face() / 200).astype(np.float32)
    return augmentation.degrade(image, landmarks, np.random.default_rng(seed), np.random.default_rng(seed))


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_changes_the_image_and_not_its_input(fault):
    augmentation = Augmentation(replace(OFF, **{f"{fault}_probability": 1}), SIZE)
    image = texture(SIZE)
    before = image.copy()
    degraded = degrade(augmentation, image, 3)
    np.testing.assert_array_equal(image, before)
    assert (degraded != image).any()
    assert degraded.shape == image.shape
    assert degraded.dtype == np.uint8


def test_grayscale_has_equal_channels():
    degraded = degrade(Augmentation(replace(OFF, grayscale_probability=1), SIZE), texture(SIZE), 0)
    assert (degraded == degraded[..., :1]).all()


def test_picture_edge_blackens_one_side():
    augmentation = Augmentation(replace(OFF, picture_edge_probability=1, picture_edge=(0.25, 0.25)), SIZE)
    for seed in range(8):
        black = (degrade(augmentation, np.full((SIZE, SIZE, 3), 9, np.uint8), seed) == 0).all(axis=2)
        assert black.sum() == SIZE * SIZE // 4
        assert 32 in (black.all(axis=0).sum(), black.all(axis=1).sum())


def test_a_third_of_the_hue_circle_renames_the_primary_colours_and_keeps_grey():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [70, 70, 70]]], np.uint8)
    expected = np.array([[[0, 255, 0], [0, 0, 255], [255, 0, 0], [70, 70, 70]]])
    np.testing.assert_allclose(shift_hue(image, 1 / 3), expected, atol=4)
    np.testing.assert_allclose(shift_hue(image, -2 / 3), expected, atol=4)


def test_channel_curves_are_a_gain_and_a_power_of_each_channel():
    image = np.array([[[51, 102, 255]]], np.uint8)
    curved = channel_curves(image, np.array([1, 0.5, 2]), np.array([2, 1, 1]))
    np.testing.assert_array_equal(curved, [[[10, 51, 255]]])  # 255 * 0.2^2 = 10.2


def test_duotone_draws_black_white_and_the_middle_in_colours_between_the_two():
    image = np.array([[[0, 0, 0], [255, 255, 255], [128, 128, 128]]], np.uint8)
    drawn = duotone(image, np.array([10, 20, 30]), np.array([110, 220, 130]), contrast=1)
    np.testing.assert_allclose(drawn, [[[10, 20, 30], [110, 220, 130], [60, 120, 80]]], atol=1)
    assert (duotone(image, np.zeros(3), np.full(3, 200), contrast=0) == 100).all()


def test_posterising_leaves_equally_spaced_intensities():
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.unique(posterise(ramp, 4)).tolist() == [0, 85, 170, 255]
    np.testing.assert_array_equal(posterise(ramp, 256), ramp)


@pytest.mark.parametrize(
    ("occluder", "hidden", "seen"),
    [
        (glasses, [*range(60, 76), 96, 97], [16, 76, 82, 85, 8, 24]),
        (goggles, [*range(60, 76), 96, 97], [16, 76, 82, 85, 8, 24]),
        (face_mask, [76, 82, 85, 16, 54, 57], [64, 68, 96, 97, 35, 48, 0, 32]),
    ],
)
def test_what_is_worn_lies_where_it_is_worn(occluder, hidden, seen):
    landmarks = schematic_face()
    changed = np.zeros((200, 200))
    for seed in range(40):
        image = np.full((200, 200, 3), 200, np.uint8)
        changed += (occluder(image, landmarks, np.random.default_rng(seed)) != image).any(axis=2)
        assert (image == 200).all()
    x, y = np.rint(landmarks).astype(int).T
    assert changed[y[hidden], x[hidden]].min() > 20
    assert changed[y[seen], x[seen]].max() == 0


def test_headgear_covers_the_forehead_and_not_the_mouth():
    landmarks = schematic_face()
    brows, chin = landmarks[33:51].mean(axis=0), landmarks[16]
    forehead = np.rint(brows + 0.45 * (brows - chin)).astype(int)
    mouth = np.rint(landmarks[76:96]).astype(int)
    for seed in range(40):
        image = np.full((200, 200, 3), 200, np.uint8)
        worn = headgear(image, landmarks, np.random.default_rng(seed))
        assert (image == 200).all()
        assert (worn[forehead[1], forehead[0]] != 200).any()
        assert (worn[mouth[:, 1], mouth[:, 0]] == 200).all()


def test_a_hand_touches_the_face_and_has_the_colour_of_its_skin():
    landmarks = schematic_face()
    image = np.full((200, 200, 3), (220, 130, 40), np.uint8)
    for seed in range(20):
        held = hand(image, landmarks, np.random.default_rng(seed))
        changed = (held != image).any(axis=2)
        left, top, right, bottom = landmark_box(landmarks).astype(int)
        assert changed[top - 20 : bottom + 20, left - 20 : right + 20].any()
        assert changed.mean() < 0.5
        assert (np.diff(held[changed].mean(axis=0)) < 0).all()  # red, green, blue in the order of the skin


def test_gamma_is_a_power_of_the_intensity():
    image = np.array([[[0, 51, 255]]], np.uint8)
    np.testing.assert_array_equal(adjust_gamma(image, 2), [[[0, 10, 255]]])  # 255 * 0.2^2 = 10.2
    np.testing.assert_array_equal(adjust_gamma(texture(), 1), texture())


def test_side_light_brightens_one_end_and_darkens_the_other():
    lit = side_light(np.full((5, 5, 3), 100, np.uint8), 0.5, 0.0)
    np.testing.assert_array_equal(lit[2, :, 0], [50, 75, 100, 125, 150])


def test_motion_blur_spreads_a_point_along_a_line():
    image = np.zeros((21, 21, 3), np.uint8)
    image[10, 10] = 250
    blurred = motion_blur(image, 8, 0.0)[..., 0]
    assert (blurred[10, 6:15] > 0).all()
    assert blurred.sum() == blurred[10, 6:15].sum() == pytest.approx(250, abs=9)
    np.testing.assert_array_equal(blurred[10], blurred[10, ::-1])


def test_low_resolution_keeps_means_and_loses_detail():
    image = texture(SIZE)
    image[::2] //= 2
    small = low_resolution(image, 0.25)
    assert small.mean() == pytest.approx(image.mean(), rel=0.02)
    assert np.abs(np.diff(small.astype(int), axis=0)).mean() < 0.3 * np.abs(np.diff(image.astype(int), axis=0)).mean()


def test_sensor_noise_has_the_asked_deviation():
    noisy = sensor_noise(np.full((100, 100, 3), 128, np.uint8), 0.05, np.random.default_rng(0))
    assert noisy.std() == pytest.approx(0.05 * 255, rel=0.05)


def test_occluder_hides_an_area_of_its_size():
    image = np.full((100, 100, 3), 77, np.uint8)
    hidden = [(occlude(image, (0.2, 0.4), np.random.default_rng(seed)) != 77).any(axis=2).mean() for seed in range(60)]
    assert max(hidden) <= 0.4**2 * 1.1
    assert np.count_nonzero(hidden) > 30
