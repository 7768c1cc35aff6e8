from dataclasses import fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from datasets.degradation import adjust_gamma, low_resolution, motion_blur, occlude, sensor_noise, side_light
from datasets.face_warp import HeadTurn, face_frame
from datasets.wflw import Face, crop_face
from training.augmentation import Augmentation
from training.augmentation_config import AugmentationConfig
from training.colour import channel_curves, duotone, posterise, shift_hue
from training.occluders import face_mask, glasses, goggles, hand
from training.sampling import profile_measure
from utils.errors import InputError, OptionError
from utils.geometry import landmark_box, transform_points
from utils.landmark_groups import FLIP_PERMUTATION

SIZE = 128
FAULTS = (
    "colour",
    "hue",
    "channel",
    "permutation",
    "duotone",
    "posterise",
    "grayscale",
    "side_light",
    "worn",
    "occlusion",
    "low_resolution",
    "blur",
    "motion_blur",
    "noise",
    "jpeg",
    "picture_edge",
)
OFF = AugmentationConfig(
    **{field.name: 0.0 for field in fields(AugmentationConfig) if field.name.endswith("_probability")},
    crop_scale=(1.2, 1.2, 1.2),
    box_jitter=0,
    shift=0,
    rotation=0,
    large_rotation=0,
    stretch=0,
    shear=0,
    border_probabilities=(1, 0, 0),
)
AFFINE = {
    name: getattr(AugmentationConfig(), name) for name in ("box_jitter", "shift", "rotation", "stretch", "shear")
} | {"crop_scale": (1.3, 1.4, 1.7)}


def schematic_face() -> np.ndarray:
    """(98, 2) frontal face in pixels, symmetric about x = 100; its landmark box is exactly 60 60 140 150."""
    across = np.pi * np.linspace(1, 0, 33)
    contour = np.column_stack([100 + 40 * np.cos(across), 75 + 75 * np.sin(across)])

    def ring(x: float, y: float, width: float, height: float, count: int) -> np.ndarray:
        """Clockwise from the left end, half of the points on the upper side."""
        angles = np.pi + 2 * np.pi * np.arange(count) / count
        return np.column_stack([x + width * np.cos(angles), y + height * np.sin(angles)])

    upper_edge = [[66, 67], [72, 62], [80, 60], [88, 62], [94, 64]]
    lower_edge = [[93, 68], [86, 67], [79, 65], [71, 66]]
    left_brow = np.array(upper_edge + lower_edge, float)
    # The right eyebrow starts at the nose too, so both of its edges run the other way.
    right_brow = (left_brow * (-1, 1) + (200, 0))[[4, 3, 2, 1, 0, 8, 7, 6, 5]]
    nose = np.concatenate(
        [[(100, y) for y in (78, 86, 94, 102)], [(90, 106), (95, 109), (100, 111), (105, 109), (110, 106)]]
    )
    eyes = [ring(x, 80, 8, 4, 8) for x in (80, 120)]
    mouth = [ring(100, 128, 17, 8, 12), ring(100, 128, 13, 4, 8)]
    return np.concatenate([contour, left_brow, right_brow, nose, *eyes, *mouth, [(80, 80), (120, 80)]])


def texture(size: int = 200) -> np.ndarray:
    """A smooth coloured (size, size, 3) uint8 image."""
    coarse = np.random.default_rng(1).integers(20, 236, (12, 12, 3), dtype=np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


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


def test_with_everything_off_the_crop_is_the_one_of_the_evaluation(tmp_path: Path):
    image, landmarks = texture(), schematic_face()
    cv2.imwrite(str(tmp_path / "face.png"), image[..., ::-1])
    face = Face("face.png", tmp_path / "face.png", landmarks, landmark_box(landmarks))
    crop, points = Augmentation(OFF, 256)(image, landmarks, np.random.default_rng(0))
    expected_crop, expected_points = crop_face(face, 256)
    np.testing.assert_array_equal(crop, expected_crop)
    np.testing.assert_allclose(points, expected_points, atol=1e-6)


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


def degrade(augmentation: Augmentation, image: np.ndarray, seed: int) -> np.ndarray:
    landmarks = (schematic_face() / 200).astype(np.float32)
    return augmentation.degrade(image, landmarks, np.random.default_rng(seed), np.random.default_rng(seed))


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
