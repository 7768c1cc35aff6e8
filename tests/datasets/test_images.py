"""Images of a dataset as they are read."""

import cv2
import numpy as np
import pytest

from datasets.images import read_image
from utils.errors import InputError


def test_image_is_read_as_rgb(tmp_path):
    bgr = np.zeros((4, 4, 3), np.uint8)
    bgr[..., 0] = 255
    cv2.imwrite(str(tmp_path / "blue.png"), bgr)
    assert read_image(tmp_path / "blue.png")[0, 0].tolist() == [0, 0, 255]


def test_jpeg_that_is_cut_short_is_an_error(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", image)[1].tobytes()
    path = tmp_path / "short.jpg"
    path.write_bytes(encoded[: len(encoded) * 3 // 4])
    with pytest.raises(InputError, match=r"short\.jpg: is damaged"):
        read_image(path)
