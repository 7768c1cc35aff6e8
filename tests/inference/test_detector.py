"""The sizes at which faces are looked for, tiles, doubles, and faces of many sizes found."""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from inference.detector import TILE_OVERLAP, TILE_SIDE, CenterFaceDetector, detection_sides, drop_doubles, tiles
from utils.geometry import box_overlap, landmark_box

SAMPLE = Path(__file__).parents[2] / "datasets" / "sample"


@pytest.mark.parametrize(
    ("longer", "mode", "min_face", "sides"),
    [
        (500, "picture", None, (500,)),
        (700, "picture", None, (640,)),
        (1000, "picture", None, (640, 1000)),
        (4096, "picture", None, (640, 1280, 2560, 4096)),
        (300, "video", None, (300,)),
        (900, "video", None, (450,)),
        (1920, "video", None, (640,)),
        (4096, "picture", 24, (640, 2048)),
        (4096, "video", 12, (640, 4096)),
        (1000, "picture", 100, (320,)),
    ],
)
def test_the_inputs_follow_from_the_picture_the_mode_and_the_smallest_face(longer, mode, min_face, sides):
    assert detection_sides(longer, mode, min_face) == sides


@pytest.mark.parametrize("size", [(640, 480), (TILE_SIDE, 100), (TILE_SIDE + 1, 700), (4096, 2736)])
def test_tiles_cover_an_input_overlap_enough_and_are_not_too_large(size):
    covered = np.zeros(size[::-1], bool)
    parts = list(tiles(*size))
    for rows, columns in parts:
        covered[rows, columns] = True
        assert max(rows.stop - rows.start, columns.stop - columns.start) <= TILE_SIDE
    assert covered.all()
    starts = sorted({(columns.start, columns.stop) for _, columns in parts})
    assert all(before[1] - after[0] >= TILE_OVERLAP - 1 for before, after in pairwise(starts))
    assert (len(parts) == 1) == (max(size) <= TILE_SIDE)


def test_of_boxes_on_one_face_the_best_is_kept_also_where_one_lies_in_the_other():
    found = np.array(
        [
            [0, 0, 10, 10, 0.6],
            [1, 0, 11, 10, 0.9],  # overlaps the first by 9 / 11
            [2, 2, 6, 6, 0.7],  # lies in both
            [20, 0, 30, 10, 0.5],
        ]
    )
    np.testing.assert_array_equal(drop_doubles(found), found[[1, 3]])
    assert drop_doubles(np.zeros((0, 5))).shape == (0, 5)


def test_small_faces_on_a_large_picture_are_found_in_a_picture_and_where_asked_for_in_a_frame():
    capture = cv2.VideoCapture(str(SAMPLE / "videos" / "collins_easy.mp4"))
    face = capture.read()[1]
    box = landmark_box(np.load(SAMPLE / "landmarks" / "collins_easy.npy")[0])
    zoom = 40 / np.max(box[2:] - box[:2])
    small = cv2.resize(face, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    picture = np.full((1600, 2400, 3), 110, np.uint8)
    places = [(100, 100), (1230, 700), (2200, 1400)]
    for x, y in places:
        picture[y : y + small.shape[0], x : x + small.shape[1]] = small

    def seen(detector: CenterFaceDetector) -> int:
        found = detector.detect(picture)
        return sum(any(box_overlap(zoom * box + [x, y, x, y], other[:4]) > 0.5 for other in found) for x, y in places)

    assert seen(CenterFaceDetector("picture")) == 3
    assert seen(CenterFaceDetector("video", min_face=30)) == 3
    assert len(CenterFaceDetector("picture", min_face=60).detect(picture)) == 0


@pytest.mark.parametrize("frame", [None, range(3), np.empty((0, 4)), np.zeros((9, 9), np.uint8)], ids=repr)
def test_what_is_no_picture_is_refused_by_the_detector(frame):
    with pytest.raises(ValueError, match="a picture must be an array"):
        CenterFaceDetector().detect(frame)
