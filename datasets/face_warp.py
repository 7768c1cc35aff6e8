"""Geometric maps of a face: a synthetic turn of the head, and the crop that contains it."""

from dataclasses import dataclass

import cv2
import numpy as np

from utils.errors import InputError
from utils.geometry import transform_points
from utils.landmark_groups import FLIP_PERMUTATION

# Relief of a face, in units of half its height: a Gaussian dome for the head and a Gaussian bump for the nose.
_DOME_HEIGHT = 0.8

_DOME_LENGTH = 1.0

_DOME_WIDTH = 0.75  # in half widths of the face

_NOSE_HEIGHT = 0.3

_NOSE_WIDTH = 0.3

_MAX_SLOPE = 0.85  # below 1 the turn is one-to-one: nothing folds over

_GAUSSIAN_MAX_SLOPE = np.exp(-0.5)  # of exp(-x^2 / 2)

_NEWTON_STEPS = 4

_GRID_STRIDE = 2  # the relief is smooth: solved on every second pixel, interpolated between


@dataclass(frozen=True, eq=False)
class HeadTurn:
    """Smooth one-to-one map of the image plane that makes a face look turned.

    Under orthographic projection, a turn of an object with relief d(x, y) moves a point by d sin(angle) in the
    direction of the turn and foreshortens that direction by cos(angle). The relief of a face is modelled as a Gaussian
    dome for the head plus a Gaussian bump at the nose tip. Lengths are in the face frame (`face_frame`).

    Attributes:
        to_face: (2, 3) matrix from source pixels to the face frame.
        nose: (2,) nose tip in the face frame.
        dome_width: Standard deviation of the dome across the face.
        tangents: (2,) tangents of the angles to the right and downwards.
    """

    to_face: np.ndarray
    nose: np.ndarray
    dome_width: float
    tangents: np.ndarray

    @classmethod
    def from_angles(cls, landmarks: np.ndarray, turn: float, nod: float) -> "HeadTurn":
        """Place the turn on a face, weakened where it would fold the image over.

        Args:
            landmarks: (98, 2) in source pixels.
            turn: Angle towards the image's right for an upright face, degrees; negative to the left.
            nod: Angle downwards, degrees; negative upwards.
        """
        to_face = face_frame(landmarks)
        face = transform_points(landmarks, to_face)
        dome_width = _DOME_WIDTH * np.ptp(face[:, 0]) / 2
        tangents = np.tan(np.radians([turn, nod]))
        slope = _GAUSSIAN_MAX_SLOPE * (_DOME_HEIGHT / min(dome_width, _DOME_LENGTH) + _NOSE_HEIGHT / _NOSE_WIDTH)
        tangents /= max(1.0, np.linalg.norm(tangents) * slope / _MAX_SLOPE)
        return cls(to_face, face[54], float(dome_width), tangents)

    def transform(self, points: np.ndarray) -> np.ndarray:
        """Move points (..., 2) in source pixels with the turn."""
        face = transform_points(points, self.to_face)
        relief, _ = self._relief(face[..., 0], face[..., 1])
        turned = (face + relief[..., None] * self.tangents) * np.cos(np.arctan(self.tangents))
        return transform_points(turned, self.to_face, inverse=True)

    def source_maps(self, to_source: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel of a crop comes from.

        The relief s under a turned point q solves s = d(q - s * tangents); Newton's method on a coarse grid, then cubic
        interpolation.

        Args:
            to_source: (2, 3) matrix from crop pixels to source pixels after the turn.
            size: Crop side in pixels.

        Returns:
            x and y in source pixels before the turn, float32 (size, size) each: the maps of `cv2.remap`.
        """
        to_face = compose(self.to_face, to_source)
        to_face /= np.cos(np.arctan(self.tangents))[:, None]
        cells = -(-size // _GRID_STRIDE)
        stride = size / cells
        # Pixel centres, as cv2.resize sees them: coarse pixel i covers the fine pixels from i * stride.
        x, y = _affine_grid(to_face, (np.arange(cells, dtype=np.float32) + 0.5) * stride - 0.5)
        tx, ty = self.tangents.astype(np.float32)
        relief, _ = self._relief(x, y)
        for _ in range(_NEWTON_STEPS):
            value, slope = self._relief(x - relief * tx, y - relief * ty)
            relief = np.clip(relief - (relief - value) / (1 + slope), 0, _DOME_HEIGHT + _NOSE_HEIGHT)
        relief = cv2.resize(relief, (size, size), interpolation=cv2.INTER_CUBIC)
        x, y = _affine_grid(
            compose(cv2.invertAffineTransform(self.to_face), to_face), np.arange(size, dtype=np.float32)
        )
        shift = (np.linalg.inv(self.to_face[:, :2]) @ self.tangents).astype(np.float32)
        return x - shift[0] * relief, y - shift[1] * relief

    def _relief(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Relief at a place of the face frame, and its derivative along the tangents."""
        tx, ty = (float(tangent) for tangent in self.tangents)
        dome_x, dome_y = x / self.dome_width, y / _DOME_LENGTH
        nose_x, nose_y = (x - float(self.nose[0])) / _NOSE_WIDTH, (y - float(self.nose[1])) / _NOSE_WIDTH
        dome = _DOME_HEIGHT * np.exp(-0.5 * (dome_x * dome_x + dome_y * dome_y))
        nose = _NOSE_HEIGHT * np.exp(-0.5 * (nose_x * nose_x + nose_y * nose_y))
        slope = dome * (dome_x * (tx / self.dome_width) + dome_y * (ty / _DOME_LENGTH))
        slope += nose * (nose_x * (tx / _NOSE_WIDTH) + nose_y * (ty / _NOSE_WIDTH))
        return dome + nose, -slope


@dataclass(frozen=True, eq=False)
class Warp:
    """The whole geometric map from a source image to a crop.

    Attributes:
        matrix: (2, 3) matrix from source pixels (after the turn) to crop pixels.
        size: Crop side in pixels.
        turn: The head turn that comes first, or None.
        mirrored: Whether the matrix mirrors the face, so that left and right landmarks change their names.
        border: OpenCV border mode outside the source image.
    """

    matrix: np.ndarray
    size: int
    turn: HeadTurn | None = None
    mirrored: bool = False
    border: int = cv2.BORDER_CONSTANT

    def image(self, image: np.ndarray) -> np.ndarray:
        """Warp an image (H, W, 3) uint8 to (size, size, 3), bilinear."""
        if self.turn is None:
            return cv2.warpAffine(image, self.matrix, (self.size, self.size), borderMode=self.border)
        maps = self.turn.source_maps(cv2.invertAffineTransform(self.matrix), self.size)
        return cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=self.border)

    def landmarks(self, landmarks: np.ndarray) -> np.ndarray:
        """Map landmarks (98, 2) in source pixels to crop coordinates, float32; [0, 1] is the inside of the crop."""
        points = landmarks if self.turn is None else self.turn.transform(landmarks)
        points = transform_points(points, self.matrix) / self.size
        return (points[FLIP_PERMUTATION] if self.mirrored else points).astype(np.float32)


def face_frame(landmarks: np.ndarray) -> np.ndarray:
    """Upright frame of a face.

    Args:
        landmarks: (98, 2) in pixels.

    Returns:
        (2, 3) matrix from pixels to the frame whose origin is the centre of the face, whose y axis points from the eyes
        to the mouth, and whose unit is half the height of the landmarks along that axis.

    Raises:
        InputError: The eyes and the mouth are at one place, or all landmarks on one line along or across the face.
    """
    down = landmarks[[76, 82]].mean(axis=0) - landmarks[[60, 72]].mean(axis=0)
    length = np.linalg.norm(down)
    if not length > 0:
        raise InputError("landmarks without extent: the eyes and the mouth are at one place")
    down = down / length
    axes = np.array([[down[1], -down[0]], down])
    along = landmarks @ axes.T
    low, high = along.min(axis=0), along.max(axis=0)
    if not (high > low).all():
        raise InputError("landmarks without extent: they all lie on one line")
    return np.column_stack([axes, -(low + high) / 2]) / ((high[1] - low[1]) / 2)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """(2, 3) matrix that applies `inner`, then `outer`."""
    linear = outer[:, :2] @ inner
    linear[:, 2] += outer[:, 2]
    return linear


def _affine_grid(matrix: np.ndarray, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images of all (x, y) with x and y in `positions` (N,) under a (2, 3) matrix: two arrays (N, N), rows along y."""
    (xx, xy, x0), (yx, yy, y0) = matrix.astype(np.float32)
    column = positions[:, None]
    return xx * positions + (xy * column + x0), yx * positions + (yy * column + y0)
