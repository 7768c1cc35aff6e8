import numpy as np
import pytest

from utils.geometry import (
    box_overlap,
    box_to_crop,
    check_face_in_picture,
    check_in_reach,
    crop_image,
    landmark_box,
    steady_box,
    transform_points,
)


def test_landmark_box_is_tight():
    assert landmark_box([[3, 8], [1, 9], [2, 5]]).tolist() == [1, 5, 3, 9]


def test_landmark_box_of_a_video_is_a_box_a_frame():
    points = np.random.default_rng(0).normal(size=(4, 98, 2))
    boxes = landmark_box(points)
    assert boxes.shape == (4, 4)
    assert np.array_equal(boxes[2], landmark_box(points[2]))


@pytest.mark.parametrize("shape", [(2,), (98, 3), (0, 2)])
def test_landmark_box_refuses_what_is_not_points(shape):
    with pytest.raises(ValueError, match=r"\(\.\.\., K, 2\)"):
        landmark_box(np.zeros(shape))


def test_box_to_crop_by_hand():
    # w = 101, h = 51, centre (10 + 50, 20 + 25), side 1.2 * 100 = 120.
    zoom = 256 / 120
    expected = [[zoom, 0, 128 - zoom * 60], [0, zoom, 128 - zoom * 45]]
    np.testing.assert_allclose(box_to_crop([10, 20, 110, 70]), expected, rtol=1e-12)


def test_box_to_crop_centre_of_an_even_extent_is_rounded_down():
    # w = 4, h = 3: centre (0 + 4 // 2, 0 + 3 // 2) = (2, 1).
    matrix = box_to_crop([0, 0, 3, 2])
    np.testing.assert_allclose(transform_points([2, 1], matrix), [128, 128])


def test_box_to_crop_rounds_the_corners_first():
    assert np.array_equal(box_to_crop([10.5, 20.49, 110.5, 69.5]), box_to_crop([11, 20, 111, 70]))


def test_box_to_crop_truncates_towards_zero_left_of_the_frame():
    # Corners (-1, -2) and (30, 30): w = 32, h = 33, centre (-1 + 16, -2 + 16), side 1.2 * 32.
    matrix = box_to_crop([-1.6, -2.5, 30, 30])
    np.testing.assert_allclose(transform_points([15, 14], matrix), [128, 128])
    assert matrix[0, 0] == pytest.approx(256 / 38.4)


def test_box_to_crop_of_another_size_scales_with_it():
    box = [10, 20, 110, 70]
    np.testing.assert_allclose(box_to_crop(box, size=128), box_to_crop(box, size=256) / 2, rtol=1e-12)


def test_box_to_crop_scale_is_the_share_that_the_box_fills():
    matrix = box_to_crop([0, 0, 100, 100], size=200, scale=2.0)
    assert matrix[0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (5.1, 5.1, 5.3, 5.3)])
def test_box_without_area_is_an_error(box):
    with pytest.raises(ValueError, match="no area"):
        box_to_crop(box)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_box_that_is_not_finite_is_an_error(value):
    with pytest.raises(ValueError, match="not finite"):
        box_to_crop([0, 0, value, 10])


def test_box_of_five_numbers_is_an_error():
    with pytest.raises(ValueError, match=r"a box, x1 y1 x2 y2, must have shape \(4\), got \(5,\)"):
        box_to_crop([0, 0, 10, 10, 0.9])


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 1.5}, {"size": 10**9}, {"scale": -1.0}, {"scale": None}])
def test_crop_size_and_scale_must_be_positive(options):
    with pytest.raises(ValueError, match=r"crop (size|scale) must be"):
        box_to_crop([0, 0, 10, 10], **options)


def test_transform_points_by_hand():
    matrix = [[0, -2, 5], [2, 0, 7]]
    assert transform_points([[1, 3], [0, 0]], matrix).tolist() == [[-1, 9], [5, 7]]


def test_inverse_transform_undoes_the_transform():
    generator = np.random.default_rng(0)
    points, matrix = generator.normal(size=(3, 98, 2)), generator.normal(size=(2, 3))
    back = transform_points(transform_points(points, matrix), matrix, inverse=True)
    np.testing.assert_allclose(back, points, atol=1e-9)


def test_inverse_of_a_singular_matrix_is_an_error():
    with pytest.raises(ValueError, match="singular"):
        transform_points([[1, 2]], [[1, 2, 0], [2, 4, 0]], inverse=True)


def test_transform_points_refuses_other_shapes():
    with pytest.raises(ValueError, match="points must have shape"):
        transform_points(np.zeros((98, 3)), np.eye(2, 3))
    with pytest.raises(ValueError, match="affine matrix must have shape"):
        transform_points(np.zeros((98, 2)), np.eye(3))


def test_crop_image_puts_the_pixel_where_the_matrix_puts_its_point():
    image = np.zeros((80, 100, 3), np.uint8)
    image[45, 60] = (255, 100, 50)
    matrix = box_to_crop([50, 35, 69, 54], size=24, scale=24 / 19)
    column, row = transform_points([60, 45], matrix).round().astype(int)
    crop = crop_image(image, matrix, size=24)
    assert crop.shape == (24, 24, 3)
    assert crop[row, column].tolist() == [255, 100, 50]
    assert np.count_nonzero(crop.any(axis=-1)) == 1


def test_crop_image_is_bilinear():
    image = np.array([[0, 100, 200]] * 3, np.uint8)
    crop = crop_image(image, np.array([[1.0, 0, 0.5], [0, 1.0, 0]]), size=3)
    assert crop[:, 1:].tolist() == [[50, 150]] * 3


def test_crop_image_is_black_outside_the_image():
    crop = crop_image(np.full((10, 10, 3), 200, np.uint8), np.array([[1.0, 0, 5], [0, 1.0, 0]]), size=20)
    assert (crop[:10, 5:15] == 200).all()
    assert not crop[:, :4].any()
    assert not crop[11:].any()


def test_an_exact_crop_follows_the_box_in_fractions_of_a_pixel():
    matrix = box_to_crop([10.25, 20.5, 60.25, 60.5], size=120, scale=1.2, exact=True)
    np.testing.assert_allclose(matrix, [[2, 0, 60 - 2 * 35.25], [0, 2, 60 - 2 * 40.5]])


def test_overlap_is_intersection_over_union():
    assert box_overlap([0, 0, 4, 2], [2, 0, 6, 2]) == pytest.approx(4 / 12)
    assert box_overlap([0, 0, 1, 1], [0, 0, 1, 1]) == 1
    assert box_overlap([0, 0, 1, 1], [2, 2, 3, 3]) == 0
    assert box_overlap([1, 1, 1, 1], [1, 1, 1, 1]) == 0


def test_a_steady_box_follows_a_fifth_of_a_jitter_and_nearly_all_of_a_motion():
    box = np.array([0.0, 0.0, 100.0, 80.0])
    np.testing.assert_allclose(steady_box(box, box), box)
    # d = 0.02 is the jitter itself: half of the rest is followed.
    np.testing.assert_allclose(steady_box(box, box + np.array([2, 0, 2, 0]))[0], 2 * (0.2 + 0.8 / 2))
    assert steady_box(box, box + 0.01)[0] == pytest.approx(0.2 * 0.01, rel=1e-3)
    assert steady_box(box, box + 50)[0] == pytest.approx(50, rel=1e-2)
    with pytest.raises(ValueError, match="no area"):
        steady_box(box, [0, 0, 0, 5])


@pytest.mark.parametrize("box", [(0, 0, 0.4, 10), (0, 0, 10, 0.4), (1e7, 0, 1e7 + 50, 50), (-1e300, 0, 1e300, 1)])
@pytest.mark.parametrize("exact", [False, True])
def test_a_box_under_a_pixel_or_outside_every_picture_is_refused(box, exact):
    with pytest.raises(ValueError, match=r"has no area|lies outside every picture"):
        box_to_crop(box, exact=exact)


def test_points_far_outside_a_picture_are_refused():
    check_in_reach([[-400, 0], [500, 480]], 100, 80)
    for point in ((-401, 0), (0, 481), (np.nan, 0), (0, -np.inf)):
        with pytest.raises(ValueError, match="far outside the picture of 100 x 80 pixels"):
            check_in_reach([[50, 40], point], 100, 80)


def test_a_face_is_in_a_picture_if_one_landmark_is():
    outside = np.array([[-1.0, 10], [10, -1], [21, 5], [5, 11]])
    check_face_in_picture([*outside, (20, 10)], 20, 10)
    with pytest.raises(ValueError, match="every landmark lies outside the picture of 20 x 10 pixels"):
        check_face_in_picture(outside, 20, 10)
    with pytest.raises(ValueError, match="far outside the picture"):
        check_face_in_picture([(5, 5), (900, 5)], 20, 10)


def test_a_crop_does_not_depend_on_the_byte_order_of_picture_and_matrix():
    image = np.random.default_rng(0).integers(0, 60_000, (20, 30), dtype=np.uint16)
    matrix = box_to_crop([5, 5, 15, 15], 8)
    expected = crop_image(image, matrix, 8)
    np.testing.assert_array_equal(crop_image(image.astype(">u2"), matrix.astype(">f8"), 8), expected)


@pytest.mark.parametrize(
    ("image", "matrix", "size", "named"),
    [
        (None, np.eye(2, 3), 8, "image"),
        (np.zeros((4, 4), bool), np.eye(2, 3), 8, "image"),
        (np.zeros((4, 4, 5), np.uint8), np.eye(2, 3), 8, "image"),
        (np.zeros((0, 4), np.uint8), np.eye(2, 3), 8, "image"),
        (np.zeros((4, 4), np.uint8), np.eye(3), 8, "an affine matrix"),
        (np.zeros((4, 4), np.uint8), np.eye(2, 3), 0, "crop size"),
    ],
)
def test_what_cannot_be_cropped_is_named(image, matrix, size, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        crop_image(image, matrix, size)


@pytest.mark.parametrize("option", [{"least": -1.0}, {"least": np.nan}, {"jitter": 0.0}])
def test_an_option_of_steady_boxes_out_of_range_is_named(option):
    with pytest.raises(ValueError, match=f"^{next(iter(option))} must be"):
        steady_box([0, 0, 5, 5], [0, 0, 5, 5], **option)
