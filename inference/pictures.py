"""The faces of a single picture: detection, landmarks, and which of them to drop; the demo of pictures."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from inference.detector import CenterFaceDetector, FaceDetector, detect_faces
from inference.engines import Engine
from inference.face_tracker import FollowingRules
from inference.jobs import DemoSettings, Job
from inference.landmark_files import LandmarkWriter, read_boxes
from inference.predictor import LandmarkPredictor
from inference.results import Face
from models.ldeq import LDEQ
from utils.crops import CropRule, check_crop, crop_matrix
from utils.drawing import draw_faces
from utils.errors import InputError
from utils.geometry import box_overlap, box_to_crop, landmark_box
from utils.landmark_groups import NUM_LANDMARKS
from utils.progress import progress_bar
from utils.sources import read_picture
from utils.writers import write_picture

END_KEYS = (ord("q"), 27)

SHOWN_NAMES = 3

FACES_TOGETHER = 16
"""Most faces in one batch, so that the memory for a crowd stays bounded."""


def find_faces(
    picture: np.ndarray,
    predictor: LandmarkPredictor,
    detector: FaceDetector,
    rules: FollowingRules | None = None,
) -> list[Face]:
    """Detect the faces of a picture and find their landmarks.

    As in a video, a detection is dropped if its landmarks are unsure or its solve failed. If two detections end on the
    same face, the one with the lower score is dropped.

    Args:
        picture: (H, W, 3) uint8 in the predictor's order of channels.
        predictor: finds the landmarks in a box.
        detector: finds the boxes.
        rules: decide which faces are dropped; None for the rules of `FaceTracker`.

    Returns:
        The faces, numbered from 0, the highest score first.

    Raises:
        ValueError: If the picture has another shape or dtype.
        OptionError: If the detector returns no boxes and scores, see `detect_faces`.
    """
    rules = rules or FollowingRules()
    bgr = picture if predictor.colour == "bgr" else np.ascontiguousarray(picture[..., ::-1])
    found = detect_faces(detector, bgr)
    kept: list[Face] = []
    for face, score in zip(predict_faces(picture, predictor, found[:, :4]), found[:, 4].tolist(), strict=True):
        if rules.is_unsure(face) or any(_overlap(face, other) > rules.overlap for other in kept):
            continue
        kept.append(replace(face, number=len(kept), score=score))
    return kept


def predict_faces(picture: np.ndarray, predictor: LandmarkPredictor, boxes: ArrayLike) -> list[Face]:
    """Landmarks of the faces in boxes (N, 4), see `LandmarkPredictor`, for any number of faces."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    parts = [boxes[start : start + FACES_TOGETHER] for start in range(0, len(boxes), FACES_TOGETHER)]
    found = [face for part in parts for face in predictor(picture, part)]
    return [replace(face, number=number) for number, face in enumerate(found)]


def _overlap(face: Face, other: Face) -> float:
    return box_overlap(landmark_box(face.landmarks), landmark_box(other.landmarks))


def write_faces(writer: LandmarkWriter, number: int, faces: list[Face], extra: dict[str, str]) -> None:
    """Write the faces of a frame."""
    for face in faces:
        writer.write(number, face, **extra)


def draw(picture: np.ndarray, faces: list[Face], rules: FollowingRules | None = None) -> np.ndarray:
    """A copy of a picture with the landmarks of its faces; unsure faces are dashed."""
    rules = rules or FollowingRules()
    return draw_faces(
        picture,
        [face.landmarks for face in faces],
        numbers=[face.number for face in faces],
        unsure=[rules.is_unsure(face) for face in faces],
    )


def show(title: str, picture: np.ndarray, wait: bool = False) -> bool:
    """Show a picture in a window; True if the user wants to end."""
    cv2.imshow(title, picture)
    return cv2.waitKey(0 if wait else 1) & 0xFF in END_KEYS


def whole_picture_box(picture: np.ndarray) -> np.ndarray:
    """The box (4,) whose crop is the whole picture."""
    extent = np.array(picture.shape[1::-1])
    margin = box_to_crop((0, 0, 1, 1), size=1, exact=True)[0, 0]
    half = np.max(extent) * margin / 2
    return np.concatenate([extent / 2 - half, extent / 2 + half])


def run_pictures(job: Job, model: LDEQ, engine: Engine, settings: DemoSettings) -> int:
    """Run the demo on pictures, each on its own. Returns the exit status: 1 if a picture or face failed.

    Raises:
        InputError: If the only picture cannot be decoded, or the boxes do not fit the pictures.
        OutputError: If a result cannot be written.
    """
    paths, several = job.source.paths, job.source.kind == "folder"
    find = _finder(job, model, engine, settings)
    broken, without, count, failed = [], [], 0, 0
    with LandmarkWriter(job.landmarks, NUM_LANDMARKS, ("image",) if several else ()) as writer:
        for number, path in enumerate(progress_bar(len(paths), "picture", shown=several, items=paths)):
            try:
                picture = read_face_picture(path, settings.cropped)
            except InputError as error:
                if not several:
                    raise
                broken.append(str(error))
                continue
            faces = find(number, picture)
            write_faces(writer, number, faces, {"image": job.names[number]} if several else {})
            count, failed = count + len(faces), failed + sum(face.failed for face in faces)
            if not faces:
                without.append(str(path))
            if not (job.overlays or settings.show):
                continue
            overlay = draw(picture, faces)
            if job.overlays:
                write_picture(job.overlays[number], overlay)
            if settings.show and show(job.source.name, overlay, wait=True):
                break
    print(f"{counted(count, 'face')} in {counted(len(paths) - len(broken), 'picture')}")
    report_no_face(without, settings)
    for reason in broken:
        print(f"not read: {reason}", file=sys.stderr)
    return 1 if report_failed(failed) or broken else 0


def read_face_picture(path: Path, cropped: bool) -> np.ndarray:
    """A picture (H, W, 3) uint8 BGR; with `cropped` it must be large enough to be the crop of a face.

    Raises:
        InputError: If it cannot be read or decoded, or is too small.
    """
    picture = read_picture(path)
    if cropped:
        check_crop(path, picture)
    return picture


def _finder(job: Job, model: LDEQ, engine: Engine, settings: DemoSettings) -> Callable[[int, np.ndarray], list[Face]]:
    predictor = LandmarkPredictor(model, engine=engine)
    if settings.boxes or settings.cropped:
        boxes_of = given_boxes(settings, predictor.crop, len(job.source.paths))

        def predict(number: int, picture: np.ndarray) -> list[Face]:
            boxes = boxes_of(number, picture)
            found = predict_faces(picture, predictor, list(boxes.values()))
            return [replace(face, number=name) for name, face in zip(boxes, found, strict=True)]

        return predict
    detector = CenterFaceDetector("picture", settings.detection_threshold, settings.min_face)
    return lambda number, picture: find_faces(picture, predictor, detector)


def given_boxes(
    settings: DemoSettings, rule: CropRule, frames: int | None
) -> Callable[[int, np.ndarray], dict[int, np.ndarray]]:
    """A function that returns the boxes of a frame, by the number of the face, without detection.

    Args:
        settings: with boxes or `cropped`.
        rule: how the faces are cut out.
        frames: number of frames, to check the boxes against; None if it is not known yet.

    Raises:
        InputError: If the boxes cannot be read, or do not fit the frames.
    """
    if not settings.boxes:
        return lambda number, picture: {0: whole_picture_box(picture)}
    path, boxes = settings.boxes, read_boxes(settings.boxes)
    if frames is not None:
        check_box_frames(path, boxes, frames)

    def find(number: int, picture: np.ndarray) -> dict[int, np.ndarray]:
        for face, box in boxes.get(number, {}).items():
            try:
                crop_matrix(picture, box, 1, rule.exact)
            except ValueError as error:
                raise InputError(f"{path}: frame {number}, face {face}: {error}; correct it") from error
        if number not in boxes and path.suffix.lower() == ".npy":
            raise InputError(f"{path}: has {len(boxes)} boxes, but there is a frame {number}; give one for every frame")
        return boxes.get(number, {})

    return find


def check_box_frames(path: Path, boxes: dict[int, dict[int, np.ndarray]], frames: int) -> None:
    """Check that every box has a frame, and that boxes from an array cover every frame.

    Raises:
        InputError: If they do not.
    """
    last = max(boxes, default=-1)
    if last >= frames:
        raise InputError(f"{path}: has a box for frame {last}, but there are {frames} frames, from 0; correct the file")
    if path.suffix.lower() == ".npy" and len(boxes) < frames:
        raise InputError(f"{path}: has {len(boxes)} boxes for {frames} frames; give one for every frame")


def counted(count: int, noun: str) -> str:
    """A number with its noun: 1 face, 2 faces."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def report_no_face(names: Sequence[str], settings: DemoSettings) -> None:
    """Print the inputs without a face, and what to try."""
    if not names:
        return
    shown = ", ".join(names[:SHOWN_NAMES]) + (
        f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    )
    advice = (
        f"try --detection_threshold {max(0.1, settings.detection_threshold - 0.2):.1f}, --min_face 10 for small faces, "
    )
    if settings.boxes or settings.cropped:
        advice = "check --boxes, or leave it out; "
    print(f"no face found in {shown}: {advice}or --cropped for a picture of one face")


def report_failed(failed: int) -> bool:
    """Print how many solves failed; True if any did."""
    if failed:
        print(f"failed: {counted(failed, 'face')}: the solve is not finite; try --precision fp32", file=sys.stderr)
    return failed > 0
