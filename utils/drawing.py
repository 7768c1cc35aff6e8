"""Points, text and landmarks drawn on pictures."""

import cv2
import numpy as np
from matplotlib.colors import to_rgb

from utils.geometry import landmark_box

SUBPIXEL_BITS = 4


def bgr(colour: str) -> tuple[int, int, int]:
    """A colour of matplotlib as OpenCV takes it."""
    return tuple(round(255 * part) for part in reversed(to_rgb(colour)))


def draw_points(picture: np.ndarray, points: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
    """Draw discs at (K, 2) points, to a fraction of a pixel, into a picture (H, W, 3) uint8 BGR."""
    unit = 2**SUBPIXEL_BITS
    for point in np.round(points * unit).astype(int).tolist():
        cv2.circle(picture, point, round(radius * unit), colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)


def draw_text(
    picture: np.ndarray, text: str, place: tuple[int, int], height: float, colour: tuple[int, int, int]
) -> None:
    """Write a line of a height in pixels, from the left end of its base line, into a picture (H, W, 3) uint8 BGR."""
    scale = cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, round(0.7 * height))
    # A dark outline keeps the text readable on every picture. A thicker font would be a wider one in OpenCV 5.
    steps = (((-1, 0), 0), ((1, 0), 0), ((0, -1), 0), ((0, 1), 0), ((0, 0), 1))
    for (across, down), share in steps:
        shade = tuple(share * part for part in colour)
        shifted = (place[0] + across, place[1] + down)
        cv2.putText(picture, text, shifted, cv2.FONT_HERSHEY_SIMPLEX, scale, shade, 1, cv2.LINE_AA)


COLOURS = ("#ff2d78", "#2ee6ff", "#ffd21f", "#7dff5a", "#ff8a2b", "#c08bff")
"""Of the faces, by their numbers."""


def draw_face(picture: np.ndarray, landmarks: np.ndarray, colour: str, caption: str) -> None:
    """Draw the landmarks of a face into a picture (H, W, 3) uint8 BGR.

    Args:
        picture: Is changed.
        landmarks: (K, 2) x, y in pixels of the picture.
        colour: As matplotlib knows it.
        caption: A line above the face; may be empty.
    """
    box = landmark_box(landmarks)
    side = np.max(box[2:] - box[:2])
    # Far outside the picture, OpenCV's integers would overflow.
    limit = 4 * max(picture.shape)
    draw_points(picture, landmarks.clip(-limit, limit), max(1.0, 0.008 * side), bgr(colour))
    height = max(13, 0.025 * picture.shape[0])
    left, top = np.round([box[0], box[1] - 0.5 * height]).clip(-limit, limit).astype(int).tolist()
    if caption:
        draw_text(picture, caption, (max(0, left), max(round(height), top)), height, bgr(colour))
