"""Boxes, crops and the affine maps between frame pixels and crop pixels."""

import cv2
import numpy as np
from numpy.typing import ArrayLike

from utils.arrays import to_numbers
from utils.values import check_instance, check_integer, check_number, plain

FARTHEST = 1e6
"""Larger coordinates in pixels lie in no picture."""

LARGEST_CROP = 10_000

WARPED_TYPES = (np.uint8, np.uint16, np.int16, np.float32, np.float64)
"""Types of pixels that OpenCV warps."""

REACH = 4
"""How far a box or a landmark may lie outside a picture, in sides of the picture."""


def check_in_reach(points: ArrayLike, width: int, height: int) -> None:
    """Check that points lie in a picture or near it: a face far outside means that its file is wrong.

    Args:
        points: (..., 2) x, y in pixels.
        width: Of the picture.
        height: Of the picture.

    Raises:
        ValueError: If a point is not finite, or lies outside by more than `REACH` sides of the picture.
    """
    points = to_numbers("points", points)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"points must have shape (..., 2), got {points.shape}")
    farthest = REACH * max(width, height)
    # Written so that NaN is refused too.
    inside = (points >= -farthest) & (points <= np.array([width, height]) + farthest)
    if not inside.all():
        x, y = points[~inside.all(axis=-1)][0]
        raise ValueError(f"({x:g}, {y:g}) is far outside the picture of {width} x {height} pixels")


def check_face_in_picture(landmarks: ArrayLike, width: int, height: int) -> None:
    """Check that the landmarks of a labelled face can be those of a picture: near it, and not all outside.

    Args:
        landmarks: (K, 2) x, y in pixels.
        width: Of the picture.
        height: Of the picture.

    Raises:
        ValueError: As `check_in_reach`, or if no landmark lies in the picture.
    """
    check_in_reach(landmarks, width, height)
    points = to_numbers("landmarks", landmarks)
    if not ((points >= 0) & (points <= (width, height))).all(axis=-1).any():
        raise ValueError(f"every landmark lies outside the picture of {width} x {height} pixels")


def check_box_in_picture(box: ArrayLike, width: int, height: int) -> None:
    """Check that some part of a box lies in the picture.

    Args:
        box: (4,) x1, y1, x2, y2 in pixels.
        width: Of the picture.
        height: Of the picture.

    Raises:
        ValueError: If it lies outside.
    """
    x1, y1, x2, y2 = _to_box(box)
    if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
        raise ValueError(f"the box lies outside the picture of {width} x {height} pixels")


def check_labelled_face(landmarks: ArrayLike, box: ArrayLike, width: int, height: int) -> None:
    """Check a labelled face and its box by `check_face_in_picture` and `check_box_in_picture`."""
    check_face_in_picture(landmarks, width, height)
    check_box_in_picture(box, width, height)


def landmark_box(points: ArrayLike) -> np.ndarray:
    """Tight box around landmarks.

    Args:
        points: (..., K, 2) x, y.

    Returns:
        (..., 4) float64 x1, y1, x2, y2 in the unit of the points.

    Raises:
        ValueError: If the shape is not (..., K, 2) with K > 0.
    """
    points = to_numbers("landmarks", points)
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] == 0:
        raise ValueError(f"landmarks must have shape (..., K, 2) with K > 0, got {points.shape}")
    return np.concatenate([points.min(axis=-2), points.max(axis=-2)], axis=-1)


def _to_box(box: ArrayLike) -> np.ndarray:
    """A box (4,) float64, else OptionError."""
    return to_numbers("a box, x1 y1 x2 y2,", box, (4,))


def check_crop_size(size: int) -> None:
    """Check that the side of a crop is an integer from 1 to `LARGEST_CROP` pixels.

    Raises:
        OptionError: If it is not.
    """
    check_integer("crop size", plain(size), 1, LARGEST_CROP)


def box_to_crop(box: ArrayLike, size: int = 256, scale: float = 1.2, exact: bool = False) -> np.ndarray:
    """Affine matrix that cuts an upright square around a box, as for the frames of WFLW-V.

    The corners are rounded first (x + 0.5, truncated towards zero). The rest is computed from the rounded corners: with
    w = x2 - x1 + 1 and h = y2 - y1 + 1, the centre (x1 + w // 2, y1 + h // 2) goes to (size / 2, size / 2), and the
    square has the side scale * max(x2 - x1, y2 - y1).

    Args:
        box: (4,) x1, y1, x2, y2 in frame pixels.
        size: Side of the crop in pixels.
        scale: Side of the square over the longer side of the box.
        exact: Do not round: the square follows the box in fractions of a pixel, and its centre is halfway between the
            corners. This is not the protocol of WFLW-V, but it lowers the jitter.

    Returns:
        (2, 3) float64 matrix from frame pixels to crop pixels.

    Raises:
        ValueError: If the box is not four finite numbers, is less than a pixel wide or high (after rounding, unless
            `exact`) or lies outside every picture, or if size or scale is not positive.
    """
    box = _to_box(box)
    if not np.isfinite(box).all():
        raise ValueError(f"box {box.tolist()} is not finite")
    check_crop_size(size)
    check_number("crop scale", plain(scale), 0, open_below=True)
    if np.abs(box).max() > FARTHEST:
        raise ValueError(f"box {box.tolist()} lies outside every picture: its corners are pixels")
    x1, y1, x2, y2 = box if exact else np.trunc(box + 0.5)
    if x2 - x1 < 1 or y2 - y1 < 1:
        raise ValueError(f"box {box.tolist()} has no area: x2 must exceed x1 and y2 exceed y1 by a pixel")
    extent = np.array([x2 - x1, y2 - y1])
    centre = np.array([x1, y1]) + (extent / 2 if exact else (extent + 1) // 2)
    zoom = size / (scale * extent.max())
    return np.column_stack([zoom * np.eye(2), size / 2 - zoom * centre])


def box_overlap(first: ArrayLike, second: ArrayLike) -> float:
    """Intersection over union of two boxes.

    Args:
        first: (4,) x1, y1, x2, y2.
        second: (4,) likewise.

    Returns:
        In [0, 1]; 0 if neither box has an area.
    """
    first, second = _to_box(first), _to_box(second)
    corners = np.concatenate([np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])])
    areas = [np.prod(np.maximum(box[2:] - box[:2], 0)) for box in (first, second, corners)]
    union = areas[0] + areas[1] - areas[2]
    return float(areas[2] / union) if union > 0 else 0.0


def steady_box(before: ArrayLike, box: ArrayLike, least: float = 0.2, jitter: float = 0.02) -> np.ndarray:
    """Smooth the boxes of a video.

    The result lies between the previous box and the new box. The share of the way to the new box is
    least + (1 - least) d^2 / (d^2 + jitter^2), where d is the distance between the two (centre, longer side), divided
    by the longer side. So a change the size of a detector's jitter is mostly ignored, and a real motion is followed.

    Args:
        before: (4,) x1, y1, x2, y2, the result of this function for the previous frame.
        box: (4,) box of this frame.
        least: Smallest share, in (0, 1].
        jitter: d at which the share is halfway between `least` and 1, positive.

    Returns:
        (4,) float64.

    Raises:
        ValueError: If the new box has no area, or an option is out of its range.
    """
    check_number("least", plain(least), 0, 1, open_below=True)
    check_number("jitter", plain(jitter), 0, open_below=True)
    before, box = _to_box(before), _to_box(box)
    if not (box[2:] > box[:2]).all():
        raise ValueError(f"box {box.tolist()} has no area: x2 must exceed x1 and y2 exceed y1")

    def place(corners: np.ndarray) -> np.ndarray:
        return np.append((corners[:2] + corners[2:]) / 2, (corners[2:] - corners[:2]).max())

    longer = place(box)[2]
    squared = np.sum((place(box) - place(before)) ** 2)
    share = least + (1 - least) * squared / (squared + (jitter * longer) ** 2)
    return before + share * (box - before)


def transform_points(points: ArrayLike, matrix: ArrayLike, inverse: bool = False) -> np.ndarray:
    """Apply an affine matrix, or its inverse, to points.

    Args:
        points: (..., 2) x, y.
        matrix: (2, 3) affine matrix.
        inverse: Apply the inverse of the matrix.

    Returns:
        (..., 2) float64 points.

    Raises:
        ValueError: On other shapes, or if `inverse` is set and the matrix is singular.
    """
    points, matrix = to_numbers("points", points), to_numbers("an affine matrix", matrix, (2, 3))
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(f"points must have shape (..., 2), got {points.shape}")
    linear, shift = matrix[:, :2], matrix[:, 2]
    if not inverse:
        return points @ linear.T + shift
    try:
        return (points - shift) @ np.linalg.inv(linear).T
    except np.linalg.LinAlgError:
        raise ValueError(f"affine matrix {matrix.tolist()} is singular and has no inverse") from None


def crop_image(image: np.ndarray, matrix: np.ndarray, size: int = 256) -> np.ndarray:
    """Cut a square out of an image, with bilinear sampling, black outside the image.

    Args:
        image: (H, W) or (H, W, C).
        matrix: (2, 3) matrix from image pixels to crop pixels, for example of `box_to_crop`.
        size: Side of the crop in pixels.

    Returns:
        (size, size) or (size, size, C) crop of the same dtype, in the machine's byte order.

    Raises:
        ValueError: If the image is no array of one to four channels of a type that OpenCV warps, or the matrix or the
            size has another form.
    """
    check_crop_size(size)
    matrix = to_numbers("an affine matrix", matrix, (2, 3))
    check_instance("image", image, np.ndarray)
    # OpenCV would read the bytes of the other order as they stand.
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype not in WARPED_TYPES or image.ndim not in (2, 3) or not image.size or channels > 4:
        raise ValueError(f"image must be (H, W) or (H, W, 1 to 4), not {image.shape} {image.dtype}")
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
