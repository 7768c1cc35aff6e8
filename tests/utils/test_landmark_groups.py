import numpy as np
import pytest

from utils.landmark_groups import (
    FLIP_PERMUTATION,
    JOINED_GROUPS,
    LANDMARK_GROUPS,
    NUM_LANDMARKS,
    PARTS,
    landmark_group,
)


def test_every_landmark_is_in_exactly_one_group_and_every_group_in_a_part():
    points = [point for group in LANDMARK_GROUPS.values() for point in group.points]
    assert sorted(points) == list(range(NUM_LANDMARKS))
    assert {group.part for group in LANDMARK_GROUPS.values()} == set(PARTS)


def test_mirroring_turns_right_groups_into_left_ones_lines_included():
    for name, group in LANDMARK_GROUPS.items():
        mirror = name.replace("right", "left") if "right" in name else name.replace("left", "right")
        mirrored = {frozenset(FLIP_PERMUTATION[list(pair)].tolist()) for pair in group.connections}
        assert mirrored == {frozenset(pair) for pair in LANDMARK_GROUPS[mirror].connections}
        assert set(FLIP_PERMUTATION[list(group.points)].tolist()) == set(LANDMARK_GROUPS[mirror].points)


def test_left_is_the_persons_left_which_a_frontal_picture_shows_on_the_right():
    points = np.zeros((NUM_LANDMARKS, 2))
    points[60], points[72] = (0.3, 0.4), (0.7, 0.4)  # the outer eye corners of a frontal face
    assert 72 in LANDMARK_GROUPS["left_eye"].points and 97 in LANDMARK_GROUPS["left_pupil"].points


def test_a_closed_line_has_as_many_connections_as_points_and_an_open_one_has_one_fewer():
    assert len(LANDMARK_GROUPS["left_eye"].connections) == len(LANDMARK_GROUPS["left_eye"].points) == 8
    assert len(LANDMARK_GROUPS["face_contour"].connections) == len(LANDMARK_GROUPS["face_contour"].points) - 1 == 32
    assert LANDMARK_GROUPS["left_pupil"].connections == ()


def test_joined_groups_have_the_points_of_their_members():
    assert JOINED_GROUPS["lips"].points == tuple(range(76, 96))
    assert landmark_group("pupils").points == (96, 97)


def test_an_unknown_group_is_an_error_that_lists_the_names():
    with pytest.raises(KeyError, match=r"'mouth'.*face_contour.*lips"):
        landmark_group("mouth")
