"""A whole sample of the augmentation: one or a pair of them, from a seed; its options and what it refuses."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from schematic_face import FAULTS, OFF, SIZE, schematic_face, texture

from datasets.wflw import Face, crop_face
from training.augmentation import Augmentation
from training.augmentation_config import AugmentationConfig
from utils.errors import InputError, OptionError
from utils.geometry import landmark_box, transform_points


def test_with_everything_off_the_crop_is_the_one_of_the_evaluation(tmp_path: Path):
    image, landmarks = texture(), schematic_face()
    cv2.imwrite(str(tmp_path / "face.png"), image[..., ::-1])
    face = Face("face.png", tmp_path / "face.png", landmarks, landmark_box(landmarks))
    crop, points = Augmentation(OFF, 256)(image, landmarks, np.random.default_rng(0))
    expected_crop, expected_points = crop_face(face, 256)
    np.testing.assert_array_equal(crop, expected_crop)
    np.testing.assert_allclose(points, expected_points, atol=1e-6)


def test_same_generator_state_gives_the_same_sample():
    augmentation = Augmentation(AugmentationConfig(), SIZE)
    image, landmarks = texture(), schematic_face()
    for seed in range(20):
        first = augmentation(image, landmarks, np.random.default_rng(seed))
        second = augmentation(image, landmarks, np.random.default_rng(seed))
        other = augmentation(image, landmarks, np.random.default_rng(seed + 1))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_array_equal(first[1], second[1])
        assert np.abs(first[1] - other[1]).max() > 1e-3
        assert first[0].shape == (SIZE, SIZE, 3)
        assert first[0].dtype == np.uint8
        assert first[1].dtype == np.float32


def test_pair_is_two_nearby_views_and_the_first_has_the_place_of_an_ordinary_one():
    augmentation = Augmentation(AugmentationConfig(), SIZE)
    image, landmarks = texture(), schematic_face()
    distances = []
    for seed in range(60):
        first, second, motion = augmentation.pair(image, landmarks, np.random.default_rng(seed))
        np.testing.assert_array_equal(first[1], augmentation(image, landmarks, np.random.default_rng(seed))[1])
        np.testing.assert_allclose(transform_points(first[1], motion), second[1], atol=1e-5)
        distances.append(np.linalg.norm(first[1] - second[1], axis=1).mean())
        assert (first[0] != second[0]).any()
    # A shift of 0.005 per axis, Rayleigh: 0.0063 on average, more with scale and rotation; 5 times in fast pairs.
    assert 0.006 < np.median(distances) < 0.012
    assert 0.025 < max(distances) < 0.15


def test_both_views_of_a_pair_show_one_scene_and_the_flicker_is_their_own():
    still = {"pair_shift": 0, "pair_scale": 0, "pair_rotation": 0}
    scene = {f"{fault}_probability": 1 for fault in FAULTS if fault != "noise"}
    image, landmarks = texture(), schematic_face()
    for seed in range(5):
        steady = Augmentation(replace(OFF, **still, **scene, pair_light=0), SIZE)
        first, second, motion = steady.pair(image, landmarks, np.random.default_rng(seed))
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_allclose(motion, np.eye(2, 3), atol=1e-6)
        for changes in ({"noise_probability": 1, "pair_light": 0}, {"pair_light": 0.1}):
            first, second, _ = Augmentation(replace(OFF, **still, **changes), SIZE).pair(
                image, landmarks, np.random.default_rng(seed)
            )
            assert (first[0] != second[0]).any()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("flip_probability", 1.5),
        ("noise", (0.2, 0.1)),
        ("rotation", -5.0),
        ("hue", 0.7),
        ("posterise_levels", (1, 6)),
        ("channel_gamma", (0.0, 2.0)),
        ("crop_scale", (1.0, 1.2)),
        ("box_jitter", float("nan")),
        ("border_probabilities", (0.5, 0.1, 0.1)),
        ("flip_probability", "1"),
        ("rotation", {}),
        ("occlusion_count", 1.7),
        ("occlusion_count", 1 + 2j),
    ],
)
def test_wrong_option_is_an_error_that_names_it(option, value):
    with pytest.raises(OptionError, match=option):
        AugmentationConfig(**{option: value})


def test_options_are_read_from_text():
    parsed = AugmentationConfig.parse(["hue=0.06", "gamma=0.5,2", "posterise_levels=3,4", "occlusion_count=3"])
    assert parsed == AugmentationConfig(hue=0.06, gamma=(0.5, 2.0), posterise_levels=(3, 4), occlusion_count=3)
    assert type(parsed.occlusion_count) is int
    for text, message in (
        ("hues=1", "unknown .* 'hues'"),
        ("hue=red", "'hue=red'"),
        ("hue", "'hue'"),
        ("hue=1", "hue"),
    ):
        with pytest.raises(OptionError, match=message):
            AugmentationConfig.parse([text])


def test_unusable_face_is_an_error():
    augmentation, generator = Augmentation(OFF, SIZE), np.random.default_rng(0)
    image, landmarks = texture(), schematic_face()
    with pytest.raises(InputError, match="uint8"):
        augmentation(image.astype(np.float32), landmarks, generator)
    with pytest.raises(InputError, match=r"\(68, 2\)"):
        augmentation(image, landmarks[:68], generator)
    with pytest.raises(InputError, match="NaN"):
        augmentation(image, np.where(np.arange(98)[:, None] == 5, np.nan, landmarks), generator)
    with pytest.raises(InputError, match="without extent"):
        Augmentation(replace(OFF, turn_probability=1), SIZE)(image, np.full((98, 2), 50.0), generator)
    with pytest.raises(InputError, match="size 0"):
        Augmentation(OFF, 0)
