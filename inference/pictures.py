"""The faces of a single picture: detection, landmarks, and what of it can be relied on."""

import numpy as np
from numpy.typing import ArrayLike

from inference.detector import FaceDetector
from inference.faces import Face, FollowingRules
from inference.predictor import LandmarkPredictor
from inference.results import FaceLandmarks
from utils.geometry import box_overlap, landmark_box

FACES_TOGETHER = 16
"""Faces that are solved in one batch, so that the memory for a crowd stays bounded."""


def find_faces(
    picture: np.ndarray,
    predictor: LandmarkPredictor,
    detector: FaceDetector,
    rules: FollowingRules | None = None,
) -> list[Face]:
    """Detect the faces of a picture and find their landmarks.

    As in a video, a detection is dropped whose landmarks are unsure or whose solve failed, and of two that have moved
    onto the same face the one with the lower score.

    Args:
        picture: (H, W, 3) uint8 in the predictor's order of channels.
        predictor: finds the landmarks in a box.
        detector: finds the boxes.
        rules: what is dropped; None for those of `FaceTracker`.

    Returns:
        The faces, numbered from 0, the highest score first.

    Raises:
        ValueError: The picture has another form.
    """
    rules = rules or FollowingRules()
    bgr = picture if predictor.colour == "bgr" else np.ascontiguousarray(picture[..., ::-1])
    found = detector.detect(bgr)
    kept: list[tuple[FaceLandmarks, float]] = []
    for face, score in zip(predict_faces(picture, predictor, found[:, :4]), found[:, 4].tolist(), strict=True):
        if rules.is_unsure(face) or any(_overlap(face, other) > rules.overlap for other, _ in kept):
            continue
        kept.append((face, score))
    return [Face(number, face, score) for number, (face, score) in enumerate(kept)]


def predict_faces(picture: np.ndarray, predictor: LandmarkPredictor, boxes: ArrayLike) -> list[FaceLandmarks]:
    """Landmarks of the faces in boxes (N, 4), see `LandmarkPredictor`, however many there are."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    parts = [boxes[start : start + FACES_TOGETHER] for start in range(0, len(boxes), FACES_TOGETHER)]
    return [face for part in parts for face in predictor(picture, part)]


def _overlap(face: FaceLandmarks, other: FaceLandmarks) -> float:
    return box_overlap(landmark_box(face.landmarks), landmark_box(other.landmarks))
