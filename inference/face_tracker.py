"""Finding the faces in a stream of frames, following each with its own RwR state, and dropping lost faces."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from inference.detector import CenterFaceDetector, FaceDetector, detect_faces
from inference.engines import Engine, EngineName, Precision
from inference.landmark_tracker import TRACKING, BoxTracker, TrackingConfig, check_numbered
from inference.results import UNSURE, Face
from models.ldeq import LDEQ
from utils.errors import OptionError
from utils.geometry import box_overlap, landmark_box
from utils.images import ColourOrder, check_picture
from utils.values import check_instance, check_integer, check_number


@dataclass(frozen=True, kw_only=True)
class FollowingRules:
    """When the detector runs, and when a face is dropped.

    Attributes:
        detect_every: frames from one detection to the next. The detector also runs on every frame while no face is
            known or the last detection missed a face, and on a frame in which a face is lost.
        overlap: a detection belongs to the face whose landmark box it overlaps by at least this (intersection over
            union); two faces that overlap by more than this are one face, and the younger is dropped.
        uncertainty: a face is lost when the mean uncertainty of its landmarks exceeds this share of the longer side of
            their box. With the shipped weights it is 0.024 to 0.028 on 98 % of 720 frames of 16 real clips, half of
            them degraded, and above 0.056 in 24 boxes beside these faces (benchmarks/tracking_rules.py).
        misses: a face is lost when so many detections in a row miss it.
        smallest: a face is lost when the longer side of its box has fewer pixels.

    Raises:
        OptionError: If a rule is out of range.
    """

    detect_every: int = 15
    overlap: float = 0.4
    uncertainty: float = UNSURE
    misses: int = 5
    smallest: float = 8.0

    def __post_init__(self) -> None:
        for name in ("detect_every", "misses"):
            check_integer(f"{name} of the following rules", getattr(self, name), 1)
        check_number("overlap of the following rules", self.overlap, 0, 1, open_below=True, open_above=True)
        for name in ("uncertainty", "smallest"):
            check_number(f"{name} of the following rules", getattr(self, name), 0, open_below=True, infinite=True)

    def is_unsure(self, face: Face) -> bool:
        """Whether the landmarks are too uncertain to be those of a face, or the solve failed."""
        return face.relative_uncertainty > self.uncertainty


@dataclass(eq=False)
class _Followed:
    """A face and its number.

    `box` crops the next frame, `score` is that of its last detection, and `last` is the result in the last frame.
    """

    number: int
    box: np.ndarray
    score: float = float("nan")
    last: Face | None = None
    misses: int = 0


class FaceTracker:
    """Follows all the faces of a video.

    A face enters by a detection. From then on it is cropped by the tight box of its own last landmarks, and has its own
    RwR state. It is dropped when its landmarks become unsure, its solve fails, the centre of its box leaves the frame,
    or detections no longer find it. `step` also accepts boxes instead of detections.

    Args:
        model: see `models.load_checkpoint`.
        config: how a face is followed.
        detector: finds the faces; None for `CenterFaceDetector`, made when it is first needed.
        rules: when the detector runs, and when a face is dropped.
        precision: see `inference.network.Network`.
        colour: order of the channels of the frames: "bgr", as OpenCV reads them, or "rgb".
        engine: see `inference.network.Network`.
        cuda_graphs: see `inference.streams.Streams`.

    Raises:
        OptionError: If RwR is asked of an explicit network, or CUDA graphs are asked for and not possible.
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
        check_instance("rules", rules, FollowingRules, optional=True)
        if detector is not None and not hasattr(detector, "detect"):
            raise OptionError(f"detector must have a method detect, not be {type(detector).__name__}")
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
            boxes: the boxes of the faces, (4,) x1, y1, x2, y2 in pixels by the number of the face. The detector then
                does not run, and every box gives a face. A number that was not in the previous frame is a new face.
                Give boxes for all frames of a video or for none.

        Raises:
            ValueError: If the frame or a box has another shape, or a box has no area.
            OptionError: If the detector is missing or returns no boxes and scores (see `detect_faces`), or the boxes
                are not a mapping from integers.
        """
        check_picture(frame)
        if boxes is not None:
            return self._step_in_boxes(frame, boxes)
        detected = self._until_detection <= 0 or not self._faces
        if detected:
            self._detect(frame)
        if not self._track(frame, self._faces) and not detected:
            # A lost face may mean a cut: detect the faces of the new scene at once.
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
        check_numbered(boxes)
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
        found = detect_faces(self.detector, bgr)
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
        """Find the landmarks of some of the faces and drop lost faces; True if none was lost."""
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
        overlap: smallest intersection over union of a pair.

    Returns:
        Index in `second` by index in `first`.
    """
    if not len(first) or not len(second):
        return {}
    # SciPy is slow to load, and a single picture has no pairs.
    from scipy.optimize import linear_sum_assignment

    overlaps = np.array([[box_overlap(a, b) for b in second] for a in first]).reshape(len(first), len(second))
    # A pair below the smallest overlap must not prevent other pairs.
    rows, columns = linear_sum_assignment(np.where(overlaps >= overlap, overlaps, 0), maximize=True)
    return {
        row: column
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
        if overlaps[row, column] >= overlap
    }
