"""Reading image files."""

from pathlib import Path

import cv2
import numpy as np

from datasets.errors import DatasetError


def read_image(path: Path) -> np.ndarray:
    """Read an image file.

    Args:
        path: Any format that OpenCV decodes.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DatasetError: If the file cannot be read or does not decode, for example because it is cut short.
    """
    try:
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); check that the dataset is complete") from error
    # Unlike imread, imdecode refuses a file that is cut short instead of filling up with grey.
    bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    if bgr is None:
        raise DatasetError(f"{path}: is not an image that decodes; replace the file, it is damaged")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
