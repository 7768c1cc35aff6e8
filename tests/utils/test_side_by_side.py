import numpy as np
import pytest

from utils.side_by_side import PANEL_SIDE, TRAIL_FRAMES, JitterMeter, SideBySide, view_matrix

TITLES = ("still", "trembling")


def face(centre: tuple[float, float]) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 98, endpoint=False)
    return np.asarray(centre) + 40 * np.column_stack([np.cos(angles), np.sin(angles)])


def frame() -> np.ndarray:
    return np.full((120, 160, 3), 90, np.uint8)


def test_steady_motion_has_no_jitter_and_trembling_has():
    moving, trembling = JitterMeter(), JitterMeter()
    assert np.isnan(moving.mean)
    for step in range(6):
        moving.add({0: face((60 + step, 60))})
        trembling.add({0: face((60 + step % 2, 60))})
    # The second difference is 2 pixels on a face of 80.
    assert moving.mean == pytest.approx(0, abs=1e-9)
    assert trembling.mean == pytest.approx(100 * 2 / 80, rel=0.01)


def test_there_is_a_panel_for_every_method_and_the_size_never_changes():
    drawn = SideBySide(TITLES)
    shapes = set()
    for faces in ({}, {0: face((60, 60))}, {0: face((62, 60)), 1: face((110, 60))}, {}):
        shapes.add(drawn.draw(frame(), dict.fromkeys(TITLES, faces)).shape)
    ((_, width, _),) = shapes
    assert width == 2 * PANEL_SIDE


def test_the_same_landmarks_give_the_same_panels_and_others_do_not():
    drawn = SideBySide(TITLES)
    same = drawn.draw(frame(), {title: {0: face((60, 60))} for title in TITLES})
    np.testing.assert_array_equal(same[40:-40, :PANEL_SIDE], same[40:-40, PANEL_SIDE:])
    other = drawn.draw(frame(), {"still": {0: face((60, 60))}, "trembling": {0: face((63, 60))}})
    assert (other[40:-40, :PANEL_SIDE] != other[40:-40, PANEL_SIDE:]).any()


def test_the_way_of_the_points_is_forgotten_after_some_frames_and_with_the_face():
    drawn = SideBySide(TITLES)
    for step in range(TRAIL_FRAMES + 5):
        drawn.draw(frame(), {title: {0: face((60 + step, 60))} for title in TITLES})
    assert {len(trail) for trail in drawn._trails.values()} == {TRAIL_FRAMES}
    drawn.draw(frame(), {title: {1: face((60, 60))} for title in TITLES})
    assert {len(trail) for trail in drawn._trails.values()} == {1}


def test_a_face_whose_solve_failed_is_not_followed():
    drawn = SideBySide(TITLES)
    failed = np.full((98, 2), np.nan)
    drawn.draw(frame(), {"still": {0: face((60, 60))}, "trembling": {0: failed}})
    assert drawn._face is None


def test_a_view_has_its_centre_in_the_middle():
    matrix = view_matrix(np.array([30.0, 20.0]), 4.0, 100, 50)
    np.testing.assert_allclose(matrix @ [30, 20, 1], [50, 25])
    np.testing.assert_allclose(matrix @ [31, 20, 1], [54, 25])
