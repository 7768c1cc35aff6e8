import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from small_networks import small_model

from inference.detector import SHIFT, SIZE_RATIO, CenterFaceDetector, detect_faces, to_landmark_boxes
from inference.face_tracker import FaceTracker, FollowingRules, match_boxes
from inference.landmark_tracker import TrackingConfig
from inference.results import Face
from utils.errors import OptionError

ROOT = Path(__file__).parents[2]
FRAME = cv2.resize(np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8), (160, 120))
LEFT, RIGHT = np.array([10.0, 20.0, 50.0, 60.0]), np.array([90.0, 30.0, 140.0, 90.0])
LEFT_WITH_SCORE = [*LEFT.tolist(), 0.9]


OPTION_NAMES = {"mode": "mode", "threshold": "threshold", "min_face": "smallest face"}


class ScriptedDetector:
    """Sees the boxes of a script, one entry a call."""

    def __init__(self, *script: list[np.ndarray]):
        self.script = list(script)
        self.calls = 0

    def detect(self, frame: np.ndarray) -> np.ndarray:
        boxes = self.script[min(self.calls, len(self.script) - 1)]
        self.calls += 1
        return np.array([[*box, 0.9] for box in boxes]).reshape(-1, 5)


class StandIn:
    """Finds faces in the boxes it is given; by number, uncertainties over the sides of the boxes, and pixels moved."""

    def __init__(self, uncertainty: dict[int, float] | None = None, drift: dict[int, float] | None = None):
        self.uncertainty = uncertainty or {}
        self.drift = drift or {}
        self.left = []

    def leave(self, number: int) -> None:
        self.left.append(number)

    def reset(self) -> None:
        self.left.clear()

    def step(self, frame: np.ndarray, boxes: dict[int, np.ndarray]) -> dict[int, Face]:
        return {number: self.find(number, np.asarray(box)) for number, box in boxes.items()}

    def find(self, number: int, box: np.ndarray) -> Face:
        corners = np.add([[box[0], box[1]], [box[2], box[3]]], [self.drift.get(number, 0.0), 0])
        spread = np.full(2, self.uncertainty.get(number, 0.01) * (box[2:] - box[:2]).max())
        return Face(np.where(np.isinf(spread[0]), np.nan, corners), spread, box, 2, 0.1, number)


def face_tracker(detector: ScriptedDetector, stand_in: StandIn | None = None, **rules: float) -> FaceTracker:
    tracker = FaceTracker(small_model(), detector=detector, rules=FollowingRules(**rules))
    tracker.tracker = stand_in or StandIn()
    return tracker


def numbers(faces) -> list[int]:
    return [face.number for face in faces]


def test_boxes_are_paired_for_the_largest_sum_of_overlaps():
    # The overlaps are 9/11 and 7/13; 1/3 and 1/19. The last lies below either limit.
    first = [np.array([0, 0, 10, 10]), np.array([-6, 0, 4, 10])]
    second = np.array([[-1, 0, 9, 10], [3, 0, 13, 10]])
    assert match_boxes(first, second, 0.4) == {0: 0}
    assert match_boxes(first, second, 0.3) == {0: 1, 1: 0}
    assert match_boxes([], second, 0.4) == match_boxes(first, np.zeros((0, 4)), 0.4) == {}


def test_what_is_slow_to_load_and_of_no_use_to_a_picture_is_not_loaded():
    program = "import inference.face_tracker, sys; print({'scipy', 'matplotlib', 'pandas', 'onnx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_box_of_the_detector_becomes_a_landmark_box_by_shift_and_size():
    (box,) = to_landmark_boxes([[100, 200, 200, 400]])
    centre, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    np.testing.assert_allclose(centre, [150 + 100 * SHIFT[0], 300 + 200 * SHIFT[1]])
    np.testing.assert_allclose(extent, [100 * SIZE_RATIO[0], 200 * SIZE_RATIO[1]])


@pytest.mark.parametrize("shape", [(480, 640), (640, 360), (97, 61), (1, 1)])
def test_the_detector_takes_frames_of_any_size_and_finds_no_face_on_a_grey_one(shape):
    assert CenterFaceDetector("picture").detect(np.full((*shape, 3), 128, np.uint8)).shape == (0, 5)


@pytest.mark.parametrize("options", [{"mode": "pictures"}, {"min_face": 0.5}, {"threshold": 0.0}, {"threshold": 1.0}])
def test_an_option_of_the_detector_out_of_range_is_an_error_that_names_it(options):
    with pytest.raises(ValueError, match=OPTION_NAMES[next(iter(options))]):
        CenterFaceDetector(**options)


def test_faces_keep_their_numbers_and_are_detected_only_every_few_frames():
    detector = ScriptedDetector([LEFT, RIGHT], [RIGHT, LEFT])
    tracker = face_tracker(detector, detect_every=4)
    for _ in range(6):
        faces = tracker.step(FRAME)
        assert numbers(faces) == [0, 1]
        np.testing.assert_array_equal(faces[0].box, LEFT)
    assert detector.calls == 2


def test_a_new_face_gets_a_new_number_and_one_that_detections_miss_is_dropped():
    detector, stand_in = ScriptedDetector([LEFT], [LEFT, RIGHT], [RIGHT]), StandIn()
    tracker = face_tracker(detector, stand_in, detect_every=2, misses=2)
    seen = [numbers(tracker.step(FRAME)) for _ in range(6)]
    assert seen == [[0], [0], [0, 1], [0, 1], [0, 1], [1]]
    assert stand_in.left == [0]


@pytest.mark.parametrize("uncertainty", [0.06, np.inf])
def test_an_unsure_face_or_one_that_failed_is_dropped_and_looked_for_in_the_same_frame(uncertainty):
    detector, stand_in = ScriptedDetector([LEFT], [RIGHT]), StandIn()
    tracker = face_tracker(detector, stand_in, detect_every=100, uncertainty=0.05)
    assert numbers(tracker.step(FRAME)) == [0]
    stand_in.uncertainty[0] = uncertainty
    (face,) = tracker.step(FRAME)
    assert face.number == 1
    np.testing.assert_array_equal(face.box, RIGHT)
    assert stand_in.left == [0]


def test_a_face_that_leaves_the_frame_is_dropped_and_without_faces_every_frame_is_searched():
    detector = ScriptedDetector([RIGHT], [])
    tracker = face_tracker(detector, StandIn(drift={0: 16}), detect_every=100)
    seen = [len(tracker.step(FRAME)) for _ in range(6)]
    assert seen == [1, 1, 0, 0, 0, 0]
    assert detector.calls == 5


def test_two_faces_that_become_one_are_the_older_one():
    detector, stand_in = ScriptedDetector([LEFT, np.add(LEFT, [25, 0, 25, 0])]), StandIn(drift={1: -25})
    assert numbers(face_tracker(detector, stand_in).step(FRAME)) == [0]
    assert stand_in.left == [1]


def test_all_faces_of_a_frame_are_solved_in_one_batch(monkeypatch):
    model, batches = small_model(), []
    embed = model.embed
    monkeypatch.setattr(model, "embed", lambda images: batches.append(len(images)) or embed(images))
    tracker = FaceTracker(model, TrackingConfig(solve_first_frame=True), detector=ScriptedDetector())
    for boxes in ({0: LEFT}, {0: LEFT, 1: RIGHT}, {1: RIGHT, 0: LEFT}):
        tracker.step(FRAME, boxes)
    assert batches == [1, 2, 2]


def test_given_boxes_are_followed_by_number_and_a_face_that_was_away_starts_anew():
    tracker = FaceTracker(small_model(), TrackingConfig(solve_first_frame=True), detector=ScriptedDetector())
    script = [{1: RIGHT, 0: LEFT}, {0: LEFT}, {0: LEFT, 1: RIGHT}, {}]
    evaluations = [{face.number: face.evaluations for face in tracker.step(FRAME, boxes)} for boxes in script]
    first = evaluations[0]
    assert first[0] > 2 and first[1] > 2
    assert evaluations[1:] == [{0: 2}, {0: 2, 1: first[1]}, {}]
    assert tracker.detector.calls == 0


def test_the_detector_is_given_blue_first_whatever_order_the_frames_have():
    seen = []

    class Recording(ScriptedDetector):
        def detect(self, frame: np.ndarray) -> np.ndarray:
            seen.append(frame)
            return super().detect(frame)

    for colour, frame in (("bgr", FRAME), ("rgb", np.ascontiguousarray(FRAME[..., ::-1]))):
        FaceTracker(small_model(), detector=Recording([LEFT]), colour=colour).step(frame)
    np.testing.assert_array_equal(*seen)


class Answering:
    """A user's own detector that returns one and the same thing."""

    def __init__(self, answer: object):
        self.answer = answer

    def detect(self, frame: np.ndarray) -> object:
        return self.answer


NONSENSE = [
    (None, "not NoneType"),
    ("faces", "not str"),
    ([["a", "b", "c", "d", "e"]], "not list"),
    ([[1, 2, 3, 4, 0.9], [1, 2]], "not list"),
    (torch.nested.nested_tensor([torch.zeros(5)]), "not Tensor"),
    (np.zeros((2, 4)), r"not float64 of shape \(2, 4\)"),
    (np.zeros(5), r"not float64 of shape \(5,\)"),
    (np.array([LEFT_WITH_SCORE, [1, 2, np.nan, 4, 0.9]]), r"returned \[1\.0, 2\.0, nan, 4\.0, 0\.9\], which is not"),
    (np.array([[1, 2, np.inf, 4, 0.9]]), "which is not finite"),
]


@pytest.mark.parametrize(("answer", "reason"), NONSENSE)
def test_a_detector_that_returns_no_boxes_and_scores_is_named(answer, reason):
    with pytest.raises(OptionError, match=f"detect of the detector Answering .*{reason}"):
        face_tracker(Answering(answer)).step(FRAME)
    with pytest.raises(OptionError, match=f"detect of the detector Answering .*{reason}"):
        detect_faces(Answering(answer), FRAME)


@pytest.mark.parametrize("answer", [[], np.array([]), np.empty((0, 5)), [LEFT_WITH_SCORE]], ids=str)
def test_a_detector_may_return_an_empty_array_or_a_list(answer):
    assert len(face_tracker(Answering(answer)).step(FRAME)) == len(answer)
    assert detect_faces(Answering(answer), FRAME).shape == (len(answer), 5)


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ([LEFT], "boxes must be a Mapping, not"),
        (LEFT, "boxes must be a Mapping, not"),
        (5, "boxes must be a Mapping, not 5"),
        ({"a": LEFT, 0: LEFT}, "the number of a face among the boxes must be an integer, not 'a'"),
        ({0: "left"}, "the box of face 0 must be real numbers"),
        ({0: LEFT, 1: [1, 2]}, "the box of face 1 must have shape"),
        ({0: [1, 2, 3]}, "the box of face 0 must have shape"),
        ({0: None}, "the box of face 0 must be real numbers"),
        ({0: np.empty((0, 5))}, "the box of face 0 must have shape"),
    ],
)
def test_boxes_that_are_not_boxes_by_number_are_named(boxes, reason):
    tracker = FaceTracker(small_model(), TrackingConfig(solve_first_frame=True), detector=ScriptedDetector())
    with pytest.raises(ValueError, match=reason):
        tracker.step(FRAME, boxes)
    assert numbers(tracker.step(FRAME, {np.int64(3): LEFT})) == [3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("detect_every", 0),
        ("misses", 0),
        ("overlap", 1.0),
        ("uncertainty", 0.0),
        ("uncertainty", np.ones(2)),
        ("smallest", -1.0),
    ],
)
def test_a_rule_out_of_range_is_an_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=name):
        FollowingRules(**{name: value})
