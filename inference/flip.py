"""The mean of the landmarks of a picture and of its mirror image."""

import numpy as np

from utils.arrays import to_numbers
from utils.errors import OptionError
from utils.landmark_groups import FLIP_PERMUTATION


def mirror_landmarks(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Landmarks of the mirrored picture, each at the index of its mirror partner.

    Args:
        landmarks: (..., 98, 2) x, y in [0, 1]: pixel (column, row) is at (column / size, row / size).
        size: side of the picture in pixels.

    Raises:
        OptionError: If they are not the 98 landmarks of WFLW, whose mirror partners are known.
    """
    landmarks = to_numbers("landmarks", landmarks)
    if landmarks.ndim < 2 or landmarks.shape[-2] != len(FLIP_PERMUTATION):
        raise OptionError(
            f"the mean with the mirrored face needs the {len(FLIP_PERMUTATION)} landmarks of WFLW; these have the "
            f"shape {landmarks.shape}"
        )
    mirrored = landmarks[..., FLIP_PERMUTATION, :].copy()
    mirrored[..., 0] = (size - 1) / size - mirrored[..., 0]
    return mirrored


def mean_with_mirrored(landmarks: np.ndarray, of_mirrored: np.ndarray, size: int) -> np.ndarray:
    """Mean of the landmarks of a picture and of the landmarks found in its mirror image, mirrored back.

    Args:
        landmarks: (..., 98, 2) in the picture, in the unit of `mirror_landmarks`.
        of_mirrored: (..., 98, 2) in the mirrored picture.
        size: side of the picture in pixels.
    """
    return (to_numbers("landmarks", landmarks) + mirror_landmarks(of_mirrored, size)) / 2
