"""Reading image files."""

from pathlib import Path

import numpy as np

from utils.errors import InputError
from utils.images import decode_image, to_rgb


def read_image(path: Path) -> np.ndarray:
    """Read an image file.

    Args:
        path: Any format that OpenCV decodes.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: If the file cannot be read or does not decode, for example because it is cut short.
    """
    try:
        bgr = decode_image(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check that the dataset is complete") from error
    if bgr is None:
        raise InputError(f"{path}: is not an image that decodes; replace the file, it is damaged")
    return to_rgb(bgr, "bgr")
