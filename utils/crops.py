"""How a face is cut out of a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from utils.errors import InputError
from utils.geometry import box_to_crop, check_crop_size, check_in_reach, crop_image
from utils.images import check_picture, resize_image
from utils.values import check_flag


@dataclass(frozen=True, kw_only=True, order=True)
class CropRule:
    """How the face in a box is cut out; the default is the rule of WFLW-V.

    Attributes:
        exact: Whether the crop follows the box in fractions of a pixel. With corners rounded, every frame's crop is off
            by up to a pixel, and the landmarks jitter with it. See `utils.geometry.box_to_crop`.
        steady: Whether the boxes of a video are smoothed first, see `utils.geometry.steady_box`.

    Raises:
        OptionError: If an option is not true or false.
    """

    exact: bool = False
    steady: bool = False

    def __post_init__(self) -> None:
        for name in ("exact", "steady"):
            check_flag(f"{name} of the crop rule", getattr(self, name))


CROP_RULES: dict[str, CropRule] = {
    "original": CropRule(),
    "exact": CropRule(exact=True),
    "steady": CropRule(exact=True, steady=True),
}
"""The crop rules by their names on the command line."""

SMALLEST_CROP = 8
"""Pixels that a side of a picture needs to be the crop of a face."""

FULL_CROP_SIZE = 256
"""Side in pixels of the crop from which smaller network images are made."""


def check_crop(path: Path, picture: np.ndarray) -> None:
    """Check that a picture is large enough to be the crop of a face.

    Raises:
        InputError: If it is not.
    """
    height, width = picture.shape[:2]
    if min(height, width) < SMALLEST_CROP:
        raise InputError(f"{path}: {width} x {height} pixels are too few for the crop of a face; give a larger picture")


def crop_matrix(image: np.ndarray, box: ArrayLike, size: int, exact: bool = False) -> np.ndarray:
    """The map of `box_to_crop` for a box that must lie in or near the picture.

    Args:
        image: (H, W, 3).
        box: (4,) x1, y1, x2, y2 in pixels.
        size: Side of the crop in pixels.
        exact: See `box_to_crop`.

    Returns:
        (2, 3) float64 matrix from pixels of the image to pixels of the crop.

    Raises:
        ValueError: If the box is not finite, has no area, or lies far outside the picture.
    """
    matrix = box_to_crop(box, size, exact=exact)
    check_in_reach(np.asarray(box, dtype=np.float64).reshape(2, 2), image.shape[1], image.shape[0])
    return matrix


def crop_box(image: np.ndarray, box: ArrayLike, size: int, exact: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Cut the face in a box out of an image, by the rule of `box_to_crop`.

    Args:
        image: (H, W, 3) uint8.
        box: (4,) x1, y1, x2, y2 in pixels.
        size: Side of the crop in pixels.
        exact: See `box_to_crop`.

    Returns:
        The crop, (size, size, 3) uint8, and the matrix, (2, 3) float64, from pixels of the image to fractions of the
        crop's side.

    Raises:
        ValueError: If the picture is refused by `check_picture`, or the box is not finite, has no area, or
            lies far outside the picture.
    """
    check_picture(image)
    check_crop_size(size)
    # A small crop is made from a large one: bilinear sampling alone would skip pixels of the frame.
    crop_size = max(size, FULL_CROP_SIZE)
    matrix = crop_matrix(image, box, crop_size, exact)
    return resize_image(crop_image(image, matrix, crop_size), size), matrix / crop_size
