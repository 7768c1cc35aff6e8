"""Faces of a picture: what is dropped, in what order, in what batches."""

import numpy as np
import pytest

from inference.face_tracker import FollowingRules
from inference.pictures import FACES_TOGETHER, find_faces, predict_faces
from inference.results import Face

PICTURE = np.zeros((200, 300, 3), np.uint8)
PICTURE[..., 0] = 200


class Detector:
    """Sees given boxes with scores."""

    def __init__(self, *found: tuple[float, ...]):
        self.found = np.array(found).reshape(-1, 5)

    def detect(self, frame: np.ndarray) -> np.ndarray:
        self.frame = frame
        return self.found


class Predictor:
    """Puts landmarks at the corners of the boxes; by the left edge of a box, its relative uncertainty."""

    def __init__(self, uncertainty: dict[float, float] | None = None, colour: str = "bgr"):
        self.uncertainty = uncertainty or {}
        self.colour = colour
        self.batches: list[int] = []

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> list[Face]:
        self.batches.append(len(boxes))
        return [self.find(box) for box in boxes]

    def find(self, box: np.ndarray) -> Face:
        spread = np.full(2, self.uncertainty.get(box[0], 0.01) * np.max(box[2:] - box[:2]))
        landmarks = np.where(np.isinf(spread[0]), np.nan, box.reshape(2, 2))
        return Face(landmarks, spread, box, 2, 0.1)


def test_faces_are_numbered_from_0_with_the_score_of_their_detection():
    faces = find_faces(PICTURE, Predictor(), Detector((10, 10, 50, 50, 0.9), (100, 10, 140, 50, 0.6)))
    assert [(face.number, face.score) for face in faces] == [(0, 0.9), (1, 0.6)]
    np.testing.assert_array_equal(faces[1].landmarks, [[100, 10], [140, 50]])


@pytest.mark.parametrize("uncertainty", [0.041, np.inf])
def test_an_unsure_face_or_one_that_failed_is_dropped_and_leaves_no_gap_in_the_numbers(uncertainty):
    detector = Detector((10, 10, 50, 50, 0.9), (100, 10, 140, 50, 0.6))
    (face,) = find_faces(PICTURE, Predictor({10: uncertainty}), detector)
    assert (face.number, face.score) == (0, 0.6)
    assert len(find_faces(PICTURE, Predictor({10: 0.041}), detector, FollowingRules(uncertainty=0.05))) == 2


def test_of_two_finds_on_one_face_the_one_of_the_higher_score_is_kept():
    # The overlap is 35 / 45.
    faces = find_faces(PICTURE, Predictor(), Detector((10, 10, 50, 50, 0.9), (15, 10, 55, 50, 0.6)))
    assert [face.score for face in faces] == [0.9]


def test_the_detector_is_given_blue_first_whatever_order_the_picture_has():
    detector = Detector()
    assert find_faces(np.ascontiguousarray(PICTURE[..., ::-1]), Predictor(colour="rgb"), detector) == []
    np.testing.assert_array_equal(detector.frame, PICTURE)


def test_a_crowd_is_solved_in_batches_of_bounded_size_in_the_order_of_the_boxes():
    boxes = np.array([[index, 0, index + 10, 10] for index in range(2 * FACES_TOGETHER + 3)], float)
    predictor = Predictor()
    faces = predict_faces(PICTURE, predictor, boxes)
    assert predictor.batches == [FACES_TOGETHER, FACES_TOGETHER, 3]
    np.testing.assert_array_equal([face.box for face in faces], boxes)
    assert predict_faces(PICTURE, predictor, np.zeros((0, 4))) == []
