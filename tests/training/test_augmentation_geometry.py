"""Where the augmentation puts face and landmarks: flip, turn, crop, shift and border."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from schematic_face import OFF, SIZE, schematic_face, texture

from datasets.face_warp import HeadTurn, face_frame
from training.augmentation import Augmentation
from training.augmentation_config import AugmentationConfig
from training.sampling import profile_measure
from utils.geometry import landmark_box, transform_points
from utils.landmark_groups import FLIP_PERMUTATION

AFFINE = {
    name: getattr(AugmentationConfig(), name) for name in ("box_jitter", "shift", "rotation", "stretch", "shear")
} | {"crop_scale": (1.3, 1.4, 1.7)}


def dot(position: np.ndarray, size: int = 200) -> np.ndarray:
    """A black image with one soft white dot."""
    x, y = np.arange(size) - position[0], np.arange(size)[:, None] - position[1]
    return np.repeat(np.rint(255 * np.exp(-(x * x + y * y) / 2)).astype(np.uint8)[..., None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    y, x = np.indices(weight.shape)
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def test_flip_permutation_is_an_involution():
    assert sorted(FLIP_PERMUTATION) == list(range(98))
    np.testing.assert_array_equal(FLIP_PERMUTATION[FLIP_PERMUTATION], np.arange(98))


def test_flip_permutation_names_the_points_of_a_mirrored_face():
    face = schematic_face()
    np.testing.assert_allclose((face * (-1, 1) + (200, 0))[FLIP_PERMUTATION], face, atol=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        AFFINE,
        {"flip_probability": 1},
        {"turn_probability": 1},
        {**AFFINE, "flip_probability": 1, "turn_probability": 1},
    ],
    ids=["affine", "flip", "turn", "all"],
)
def test_landmarks_follow_the_image(changes):
    augmentation = Augmentation(replace(OFF, **changes), SIZE)
    landmarks = schematic_face()
    for seed in range(4):
        warp = augmentation.sample_warp(texture(), landmarks, np.random.default_rng(seed))
        expected = warp.landmarks(landmarks) * SIZE
        for index in range(0, 98, 3):
            source = FLIP_PERMUTATION[index] if warp.mirrored else index
            if np.all((expected[index] > 6) & (expected[index] < SIZE - 7)):
                found = centroid(warp.image(dot(landmarks[source])))
                np.testing.assert_allclose(found, expected[index], atol=0.3, err_msg=f"landmark {index}")


def test_flipping_twice_is_the_identity():
    # A box of side 80 around the middle of a 160 x 160 image, cropped at twice its side: no scaling, no shift.
    image, landmarks = texture(160), (schematic_face() - 60) * (1, 80 / 90) + 40
    flip = Augmentation(replace(OFF, flip_probability=1, crop_scale=(2, 2, 2)), 160)
    once, points = flip(image, landmarks, np.random.default_rng(0))
    twice, points = flip(once, points * 160.0, np.random.default_rng(0))
    assert np.abs(once[:, 1:].astype(int) - image[:, 1:]).max() > 50
    np.testing.assert_array_equal(once[:, 1:], image[:, :0:-1])
    np.testing.assert_array_equal(twice[:, 1:], image[:, 1:])
    np.testing.assert_allclose(points * 160, landmarks, atol=1e-4)


@pytest.mark.parametrize(("turn", "nod"), [(40, 0), (-40, 12), (80, 80), (0, -30)])
def test_turn_is_one_to_one(turn, nod):
    head = HeadTurn.from_angles(schematic_face(), turn, nod)
    x, y = head.source_maps(np.eye(2, 3), 200)
    back = head.transform(np.dstack([x, y]))
    np.testing.assert_allclose(back, np.dstack(np.meshgrid(np.arange(200), np.arange(200))), atol=0.3)
    orientation = np.gradient(x, axis=1) * np.gradient(y, axis=0) - np.gradient(x, axis=0) * np.gradient(y, axis=1)
    assert orientation.min() > 0


def test_turn_by_nothing_moves_nothing():
    landmarks = schematic_face()
    np.testing.assert_allclose(HeadTurn.from_angles(landmarks, 0, 0).transform(landmarks), landmarks, atol=1e-9)


@pytest.mark.parametrize("side", [-1, 1])
def test_turn_makes_a_profile_on_its_side(side):
    landmarks = schematic_face()
    turned = HeadTurn.from_angles(landmarks, side * 35, 0).transform(landmarks)
    assert profile_measure(turned[None])[0] > profile_measure(landmarks[None])[0] + 0.4
    towards = (turned[54] - landmark_box(turned).reshape(2, 2).mean(axis=0))[0]
    assert side * towards > 8


def test_turns_away_make_turned_faces_more_turned():
    half_turned = HeadTurn.from_angles(schematic_face(), 20, 0).transform(schematic_face())
    augmentation = Augmentation(replace(OFF, turn_probability=1, turn_away_probability=1), SIZE)
    for seed in range(10):
        warp = augmentation.sample_warp(texture(), half_turned, np.random.default_rng(seed))
        assert profile_measure(warp.landmarks(half_turned)[None]) > profile_measure(half_turned[None])


def test_face_frame_is_upright_and_of_unit_height_for_a_rotated_face():
    rotation = cv2.getRotationMatrix2D((30, 70), 35, 1.7)
    face = schematic_face()
    frame = transform_points(face, face_frame(face))
    rotated = transform_points(face, rotation)
    np.testing.assert_allclose(transform_points(rotated, face_frame(rotated)), frame, atol=1e-9)
    assert np.ptp(frame[:, 1]) == pytest.approx(2)
    assert frame[16, 1] == pytest.approx(1)


def test_crop_scale_covers_its_range():
    augmentation = Augmentation(replace(OFF, crop_scale=(1.0, 1.2, 1.7)), SIZE)
    landmarks, generator = schematic_face() * 4, np.random.default_rng(0)
    image = texture(800)
    scales = np.array(
        [
            1 / np.ptp(augmentation.sample_warp(image, landmarks, generator).landmarks(landmarks), axis=0).max()
            for _ in range(300)
        ]
    )
    assert 0.99 < scales.min() < 1.05
    assert 1.6 < scales.max() < 1.71
    assert 1.2 < np.median(scales) < 1.4


def test_shift_keeps_the_box_inside_the_crop():
    augmentation = Augmentation(replace(OFF, crop_scale=(1.1, 1.3, 1.7), shift=0.9), SIZE)
    generator, landmarks = np.random.default_rng(0), schematic_face()
    points = np.stack(
        [augmentation.sample_warp(texture(), landmarks, generator).landmarks(landmarks) for _ in range(200)]
    )
    assert points.min() > 0
    assert points.max() < 1
    assert np.ptp(points.mean(axis=1), axis=0).min() > 0.1


@pytest.mark.parametrize(("shares", "expected"), [((1, 0, 0), 0), ((0, 1, 0), 200), ((0, 0, 1), 200)])
def test_border_is_black_or_continues_the_image(shares, expected):
    white = np.full((160, 160, 3), 200, np.uint8)
    augmentation = Augmentation(replace(OFF, crop_scale=(3, 3, 3), border_probabilities=shares), SIZE)
    crop, _ = augmentation(white, schematic_face(), np.random.default_rng(0))
    assert (crop[0, 0] == expected).all()
    assert (crop[64, 64] == 200).all()
