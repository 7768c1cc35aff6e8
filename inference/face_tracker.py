"""Finding faces in a stream of frames, following each one with a state of its own, and dropping those that are gone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from inference.detector import CenterFaceDetector, FaceDetector
from inference.engines import Engine, EngineName, Precision
from inference.landmark_tracker import TRACKING, BoxTracker, TrackingConfig
from inference.results import Face
from models.ldeq import LDEQ
from utils.errors import OptionError
from utils.geometry import box_overlap, landmark_box
from utils.images import ColourOrder


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

    def is_unsure(self, face: Face) -> bool:
        """Whether the landmarks are too uncertain to be those of a face, or the solve has failed."""
        return face.relative_uncertainty > self.uncertainty


@dataclass(eq=False)
class _Followed:
    """A face by its number.

    The box is what the next frame is cropped by, the score that of the detection that has seen it last, and `last` what
    was found in the last frame.
    """

    number: int
    box: np.ndarray
    score: float = float("nan")
    last: Face | None = None
    misses: int = 0


class FaceTracker:
    """Follows all the faces of a video.

    A face enters by a detection. From then on it is cropped by the tight box of its own last landmarks, with a state of
    its own, until one of the rules counts it as gone: its landmarks have become unsure or its solve has failed, the
    centre of its box has left the frame, or detections no longer see it. Or you say where the faces are: see `step`.

    Args:
        model: see `models.load_checkpoint`.
        config: how a face is followed.
        detector: where faces are; None for `CenterFaceDetector`, made when it is first needed.
        rules: when they are looked for, and when one is gone.
        precision: see `inference.network.Network`.
        colour: order of the channels of the frames: "bgr", as OpenCV reads them, or "rgb".
        engine: see `inference.network.Network`.
        cuda_graphs: see `inference.streams.Streams`.

    Raises:
        OptionError: RwR is asked of an explicit network, or CUDA graphs where they cannot be.
    """

    def __init__(
        self,
        model: LDEQ,
        config: TrackingConfig = TRACKING["steady"],
        *,
        detector: FaceDetector | None = None,
        rules: FollowingRules | None = None,
        precision: Precision = "fp32",
        colour: ColourOrder = "bgr",
        engine: EngineName | Engine = "auto",
        cuda_graphs: bool = False,
    ):
        self.tracker = BoxTracker(
            model, config, precision=precision, colour=colour, engine=engine, cuda_graphs=cuda_graphs
        )
        self.detector = detector
        self.rules = rules or FollowingRules()
        self.colour: ColourOrder = colour
        self.reset()

    def reset(self) -> None:
        """Forget all faces: the next frame is the first of another video."""
        self.tracker.reset()
        self._faces: list[_Followed] = []
        self._next_number = 0
        self._until_detection = 0

    def step(self, frame: np.ndarray, boxes: Mapping[int, ArrayLike] | None = None) -> list[Face]:
        """The faces of the next frame, in ascending order of their numbers.

        Args:
            frame: (H, W, 3) uint8.
            boxes: where the faces are, (4,) x1, y1, x2, y2 in pixels by the number of the face; then nothing is
                detected, and every box has its face. One that was not in the frame before starts as a new one. Either
                all frames of a video have boxes or none.

        Raises:
            ValueError: The frame or a box has another form, or a box has no area.
            OptionError: The detector is missing.
        """
        if boxes is not None:
            return self._step_in_boxes(frame, boxes)
        detected = self._until_detection <= 0 or not self._faces
        if detected:
            self._detect(frame)
        if not self._track(frame, self._faces) and not detected:
            # The place where a face was lost may be a cut: look at once for those that are there now.
            detected = True
            self._detect(frame)
            self._track(frame, [face for face in self._faces if face.last is None])
        self._drop_doubles()
        if any(face.misses for face in self._faces):
            self._until_detection = 0
        else:
            self._until_detection = self.rules.detect_every - 1 if detected else self._until_detection - 1
        return [replace(face.last, score=face.score) for face in self._faces if face.last is not None]

    def _step_in_boxes(self, frame: np.ndarray, boxes: Mapping[int, ArrayLike]) -> list[Face]:
        found = self.tracker.step(frame, {number: boxes[number] for number in sorted(boxes)})
        for face in self._faces:
            if face.number not in found:
                self.tracker.leave(face.number)
        self._faces = [_Followed(number, face.box, last=face) for number, face in found.items()]
        return list(found.values())

    def _detect(self, frame: np.ndarray) -> None:
        if self.detector is None:
            self.detector = CenterFaceDetector()
        bgr = frame if self.colour == "bgr" else np.ascontiguousarray(frame[..., ::-1])
        found = self.detector.detect(bgr)
        boxes, scores = found[:, :4], found[:, 4].tolist()
        pairs = match_boxes([face.box for face in self._faces], boxes, self.rules.overlap)
        for index, face in enumerate(self._faces):
            face.misses = 0 if index in pairs else face.misses + 1
            face.score = scores[pairs[index]] if index in pairs else face.score
        self._keep([face for face in self._faces if face.misses < self.rules.misses])
        for index in sorted(set(range(len(boxes))) - set(pairs.values())):
            if self._is_inside(boxes[index], frame):
                self._faces.append(_Followed(self._next_number, boxes[index], scores[index]))
                self._next_number += 1

    def _track(self, frame: np.ndarray, faces: list[_Followed]) -> bool:
        """Find the landmarks of some of the faces and drop those that are lost; whether none was."""
        found = self.tracker.step(frame, {face.number: face.box for face in faces})
        for face in faces:
            face.last = found[face.number]
            face.box = landmark_box(face.last.landmarks)
        kept = [face for face in self._faces if face.number not in found or not self._is_lost(face, frame)]
        none_lost = len(kept) == len(self._faces)
        self._keep(kept)
        return none_lost

    def _is_lost(self, face: _Followed, frame: np.ndarray) -> bool:
        if face.last is None or self.rules.is_unsure(face.last):
            return True
        return not self._is_inside(face.box, frame)

    def _keep(self, kept: list[_Followed]) -> None:
        for face in self._faces:
            if face not in kept:
                self.tracker.leave(face.number)
        self._faces = kept

    def _is_inside(self, box: np.ndarray, frame: np.ndarray) -> bool:
        centre, extent = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        within = (centre >= 0).all() and (centre < frame.shape[1::-1]).all()
        return bool(within and extent.min() > 1 and extent.max() >= self.rules.smallest)

    def _drop_doubles(self) -> None:
        kept: list[_Followed] = []
        for face in self._faces:
            if all(box_overlap(face.box, other.box) <= self.rules.overlap for other in kept):
                kept.append(face)
        self._keep(kept)


def match_boxes(first: list[np.ndarray] | np.ndarray, second: np.ndarray, overlap: float) -> dict[int, int]:
    """Pair boxes so that the sum of their overlaps is largest.

    Args:
        first: N boxes (4,) x1, y1, x2, y2.
        second: M boxes.
        overlap: least intersection over union of a pair.

    Returns:
        Index in `second` by index in `first`.
    """
    if not len(first) or not len(second):
        return {}
    # Slow to load, and a single picture has no pairs.
    from scipy.optimize import linear_sum_assignment

    overlaps = np.array([[box_overlap(a, b) for b in second] for a in first]).reshape(len(first), len(second))
    # A pair below the least overlap must not keep others from theirs.
    rows, columns = linear_sum_assignment(np.where(overlaps >= overlap, overlaps, 0), maximize=True)
    return {
        row: column
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if overlaps[row, column] >= overlap
    }
