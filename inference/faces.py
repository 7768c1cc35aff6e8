"""Finding faces in a stream of frames and following each one with a state of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from inference.detector import FaceDetector
from inference.predictor import FaceLandmarks
from inference.tracker import LandmarkTracker
from utils.errors import OptionError
from utils.geometry import box_overlap, landmark_box


@dataclass(frozen=True, kw_only=True)
class FollowingRules:
    """When faces are looked for, and when one counts as gone.

    Attributes:
        detect_every: frames from one detection to the next. While no face is known, or one was missed by the last
            detection, every frame is searched, and a frame in which one is lost as well.
        overlap: a detection belongs to the face whose landmark box it overlaps by at least this (intersection over
            union); two faces that overlap by more than this are one, and the younger is dropped.
        uncertainty: a face is lost when the mean uncertainty of its landmarks exceeds this share of the longer side of
            their box. With the shipped weights it is 0.024 to 0.030 on 720 frames of 16 real clips, half of them
            degraded, up to 0.034 on 110 photos, and 0.038 to 0.13 (5th percentile 0.041) on 62 places without a face.
        misses: a face is lost when so many detections in a row have not seen it.
        smallest: a face is lost when the longer side of its box falls below so many pixels.

    Raises:
        OptionError: a rule is out of range.
    """

    detect_every: int = 15
    overlap: float = 0.4
    uncertainty: float = 0.04
    misses: int = 5
    smallest: float = 8.0

    def __post_init__(self) -> None:
        for name in ("detect_every", "misses"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} of the following rules must be at least 1, not {getattr(self, name)}")
        if not 0 < self.overlap < 1:
            raise OptionError(f"overlap of the following rules must be between 0 and 1, not {self.overlap}")
        for name in ("uncertainty", "smallest"):
            if not getattr(self, name) > 0:
                raise OptionError(f"{name} of the following rules must be positive, not {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a frame.

    Attributes:
        number: from 0 in the order of appearance. A face that comes back is a new one.
        landmarks: what is known of it.
    """

    number: int
    landmarks: FaceLandmarks


@dataclass(eq=False)
class _Followed:
    number: int
    tracker: LandmarkTracker
    box: np.ndarray
    misses: int = 0


class FaceFollower:
    """Follows all the faces of a video.

    A face enters by a detection. From then on it is cropped by the tight box of its own last landmarks, with a tracker
    of its own, until one of the rules counts it as gone: its landmarks have become unsure, the centre of its box has
    left the frame, or detections no longer see it.

    Args:
        new_tracker: makes the tracker of a new face.
        detector: where faces are.
        rules: when they are looked for, and when one is gone.
    """

    def __init__(
        self, new_tracker: Callable[[], LandmarkTracker], detector: FaceDetector, rules: FollowingRules | None = None
    ):
        self.new_tracker = new_tracker
        self.detector = detector
        self.rules = rules or FollowingRules()
        self.reset()

    def reset(self) -> None:
        """Forget all faces: the next frame is the first of another video."""
        self._faces: list[_Followed] = []
        self._next_number = 0
        self._until_detection = 0

    def step(self, frame: np.ndarray) -> list[Face]:
        """The faces of the next frame, in ascending order of their numbers.

        Args:
            frame: (H, W, 3) uint8, channels in the order of the tracker and the detector.
        """
        detected = self._until_detection <= 0 or not self._faces
        if detected:
            self._detect(frame)
        if not self._track(frame) and not detected:
            # The place where a face was lost may be a cut: look at once for those that are there now.
            detected = True
            self._detect(frame)
            self._track(frame, only_new=True)
        self._drop_doubles()
        if any(face.misses for face in self._faces):
            self._until_detection = 0
        else:
            self._until_detection = self.rules.detect_every - 1 if detected else self._until_detection - 1
        return [Face(face.number, face.tracker.last) for face in self._faces]

    def _detect(self, frame: np.ndarray) -> None:
        boxes = self.detector.detect(frame)[:, :4]
        pairs = match_boxes([face.box for face in self._faces], boxes, self.rules.overlap)
        for index, face in enumerate(self._faces):
            face.misses = 0 if index in pairs else face.misses + 1
        self._faces = [face for face in self._faces if face.misses < self.rules.misses]
        for index in sorted(set(range(len(boxes))) - set(pairs.values())):
            if self._is_inside(boxes[index], frame):
                self._faces.append(_Followed(self._next_number, self.new_tracker(), boxes[index]))
                self._next_number += 1

    def _track(self, frame: np.ndarray, only_new: bool = False) -> bool:
        """Find the landmarks and drop the faces that are lost; whether none was."""
        kept = []
        for face in self._faces:
            if only_new and face.tracker.last is not None:
                kept.append(face)
                continue
            face.tracker.step(frame, face.box)
            found = face.tracker.last
            face.box = landmark_box(found.landmarks)
            side = np.max(face.box[2:] - face.box[:2])
            if self._is_inside(face.box, frame) and found.uncertainty.mean() <= self.rules.uncertainty * side:
                kept.append(face)
        none_lost = len(kept) == len(self._faces)
        self._faces = kept
        return none_lost

    def _is_inside(self, box: np.ndarray, frame: np.ndarray) -> bool:
        centre, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        within = (centre >= 0).all() and (centre < frame.shape[1::-1]).all()
        return bool(within and extent.min() > 1 and extent.max() >= self.rules.smallest)

    def _drop_doubles(self) -> None:
        kept: list[_Followed] = []
        for face in self._faces:
            if all(box_overlap(face.box, other.box) <= self.rules.overlap for other in kept):
                kept.append(face)
        self._faces = kept


class BoxFollower:
    """Follows faces whose boxes somebody else knows, each by its number.

    Args:
        new_tracker: makes the tracker of a new face.
    """

    def __init__(self, new_tracker: Callable[[], LandmarkTracker]):
        self.new_tracker = new_tracker
        self._trackers: dict[int, LandmarkTracker] = {}

    def step(self, frame: np.ndarray, boxes: Mapping[int, ArrayLike]) -> list[Face]:
        """The faces of the next frame, in ascending order of their numbers.

        Args:
            frame: (H, W, 3) uint8, channels in the order of the tracker.
            boxes: (4,) x1, y1, x2, y2 in pixels by the number of the face. One that was not in the frame before starts
                anew.

        Raises:
            ValueError: A box has no area.
        """
        self._trackers = {number: self._trackers.get(number) or self.new_tracker() for number in sorted(boxes)}
        for number, tracker in self._trackers.items():
            tracker.step(frame, boxes[number])
        return [Face(number, tracker.last) for number, tracker in self._trackers.items()]


def match_boxes(first: list[np.ndarray] | np.ndarray, second: np.ndarray, overlap: float) -> dict[int, int]:
    """Pair boxes so that the sum of their overlaps is largest.

    Args:
        first: N boxes (4,) x1, y1, x2, y2.
        second: M boxes.
        overlap: least intersection over union of a pair.

    Returns:
        Index in `second` by index in `first`.
    """
    overlaps = np.array([[box_overlap(a, b) for b in second] for a in first]).reshape(len(first), len(second))
    # A pair below the least overlap must not keep others from theirs.
    rows, columns = linear_sum_assignment(np.where(overlaps >= overlap, overlaps, 0), maximize=True)
    return {
        row: column
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if overlaps[row, column] >= overlap
    }
