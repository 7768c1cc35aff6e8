import numpy as np
import pytest

from utils.drawing import (
    LARGEST_ZOOM,
    PART_COLOURS,
    Stroke,
    bgr,
    dashes,
    draw_face,
    draw_faces,
    draw_rings,
    draw_strokes,
    enlarge_points,
    line_width,
    readable_zoom,
)

GREY = 128


def picture(side: int) -> np.ndarray:
    return np.full((side, side, 3), GREY, np.uint8)


def face(side: float, centre: float) -> np.ndarray:
    """98 points on a circle whose box has this side."""
    angles = np.linspace(0, 2 * np.pi, 98, endpoint=False)
    return centre + side / 2 * np.column_stack([np.cos(angles), np.sin(angles)])


def ink(before: np.ndarray, after: np.ndarray) -> int:
    return int((before != after).any(axis=2).sum())


def test_a_colour_is_read_as_blue_green_red():
    assert bgr("#ff8001") == (1, 128, 255)


@pytest.mark.parametrize(("side", "width"), [(20, 0.7), (200, 1.2), (400, 2.4), (1500, 3.0)])
def test_lines_are_six_thousandths_of_the_face_within_limits(side, width):
    assert line_width(side) == pytest.approx(width)


def test_a_line_of_less_than_a_pixel_is_fainter_than_a_line_of_one():
    line = [np.array([[2.0, 10.0], [18.0, 10.0]])]
    shades = []
    for width in (0.4, 0.8, 1.6):
        drawn = np.zeros((20, 20, 3), np.uint8)
        draw_strokes(drawn, [Stroke(line, width, "#ffffff")])
        shades.append(drawn[:, 10].max())
    assert shades[0] < shades[1] < shades[2] == 255


def test_a_line_lies_where_its_points_are():
    drawn = picture(40)
    draw_strokes(drawn, [Stroke([np.array([[5.0, 20.0], [35.0, 20.0]])], 1.0, "#ff0000")])
    red = drawn[:, 20, 2].astype(int) - drawn[:, 20, 0]
    assert red.argmax() == 20 and red[19] == pytest.approx(red[21], abs=2)
    assert (drawn[:15] == GREY).all() and (drawn[26:] == GREY).all()


def test_landmarks_outside_the_picture_or_far_away_are_cut_off():
    drawn = picture(100)
    draw_face(drawn, face(60, 50) + 1e7)
    assert ink(drawn, picture(100)) == 0
    draw_face(drawn, face(120, 0))
    assert ink(drawn, picture(100)) > 0


def test_a_face_that_failed_is_not_drawn():
    landmarks = face(60, 50)
    landmarks[3] = np.nan
    assert ink(draw_faces(picture(700), [landmarks], numbers=[0]), picture(700)) == 0


def test_dots_are_drawn_only_on_faces_over_120_pixels():
    pupil = slice(96, 98)
    for side, seen in ((110, False), (130, True)):
        landmarks = face(side, 350)
        landmarks[pupil] = [[345, 350], [355, 350]]
        drawn = picture(700)
        draw_face(drawn, landmarks)
        assert (tuple(drawn[350, 345]) == bgr(PART_COLOURS["eyes"])) == seen


def test_an_unsure_face_is_drawn_with_less_ink():
    sure, unsure = (draw_faces(picture(700), [face(300, 350)], unsure=[dashed]) for dashed in (False, True))
    assert 0 < ink(unsure, picture(700)) < 0.8 * ink(sure, picture(700))


def test_dashes_cover_half_of_a_line_and_follow_its_corners():
    line = np.array([[0.0, 0.0], [30.0, 0.0], [30.0, 30.0]])
    pieces = dashes(line, 5.0)
    lengths = [np.linalg.norm(np.diff(piece, axis=0), axis=1).sum() for piece in pieces]
    assert lengths == pytest.approx([5.0] * 6)
    # The fourth dash begins on the corner.
    np.testing.assert_allclose(pieces[3][0], [30.0, 0.0], atol=1e-9)


def test_numbers_are_written_only_where_there_are_several_faces():
    one = face(80, 200)
    alone, counted = (draw_faces(picture(700), [one], numbers=numbers) for numbers in (None, [0]))
    np.testing.assert_array_equal(alone, counted)
    pair = [one, face(80, 450)]
    assert ink(draw_faces(picture(700), pair, numbers=[0, 1]), draw_faces(picture(700), pair)) > 20


@pytest.mark.parametrize(("side", "zoom"), [(2000, 1), (640, 1), (639, 2), (320, 2), (100, 7), (20, LARGEST_ZOOM)])
def test_small_pictures_are_enlarged_to_a_readable_size(side, zoom):
    assert readable_zoom(picture(side)) == zoom
    assert draw_faces(picture(side), []).shape == (zoom * side, zoom * side, 3)


def test_the_centre_of_a_pixel_becomes_the_centre_of_its_block():
    np.testing.assert_allclose(enlarge_points(np.array([[0.0, 2.0]]), 3), [[1.0, 7.0]])


def test_a_ring_leaves_its_centre_to_be_seen():
    drawn = picture(300)
    draw_rings(drawn, np.array([[50.0, 50.0], [250.0, 250.0]]))
    assert (drawn[50, 50] == GREY).all()
    assert ink(drawn[40:60, 40:60], picture(20)) > 8


def test_the_picture_given_is_left_as_it_is():
    given = picture(700)
    draw_faces(given, [face(100, 350)])
    assert (given == GREY).all()


def test_another_number_of_landmarks_is_an_error():
    with pytest.raises(ValueError, match=r"\(98, 2\), got \(5, 2\)"):
        draw_face(picture(100), np.zeros((5, 2)))
