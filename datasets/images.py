"""Reading image files."""

from pathlib import Path

import numpy as np

from utils.images import read_bgr, to_rgb


def read_image(path: Path) -> np.ndarray:
    """Read an image file.

    Args:
        path: Any format that OpenCV decodes.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: If the file cannot be read or decoded, for example because it is truncated.
    """
    return to_rgb(read_bgr(path)[0], "bgr")
