"""A picture given as a path, a PIL image or an array becomes the same pixels; anything else is one clear error."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from utils.errors import InputError
from utils.pictures import to_bgr

RGB = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def test_a_path_an_image_and_an_array_are_the_same_pixels(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "picture.png")
    given = [tmp_path / "picture.png", str(tmp_path / "picture.png"), Image.fromarray(RGB), RGB[..., ::-1]]
    for picture in given:
        np.testing.assert_array_equal(to_bgr(picture), RGB[..., ::-1])
    np.testing.assert_array_equal(to_bgr(RGB, "rgb"), RGB[..., ::-1])


def test_an_image_is_turned_as_its_metadata_say_and_white_where_transparent():
    turned = Image.fromarray(RGB)
    turned.getexif()[0x0112] = 6  # a quarter turn clockwise
    np.testing.assert_array_equal(to_bgr(turned)[..., ::-1], np.rot90(RGB, axes=(1, 0)))
    clear = Image.new("RGBA", (4, 3), (10, 20, 30, 0))
    assert (to_bgr(clear) == 255).all()


@pytest.mark.parametrize(
    ("mode", "value"), [("L", 128), ("I;16", 128 << 8), ("1", 1), ("P", 0), ("CMYK", (0, 0, 0, 0))]
)
def test_an_image_of_any_mode_is_taken(mode, value):
    picture = to_bgr(Image.new(mode, (4, 3), value))
    assert picture.shape == (3, 4, 3) and picture.dtype == np.uint8
    if mode in ("L", "I;16"):
        assert (picture == 128).all()


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (None, "not NoneType"),
        (7, "not int"),
        (RGB.astype(float), r"\(12, 16, 3\) float64"),
        (RGB[..., 0], r"\(12, 16\) uint8"),
        (RGB[None], r"\(1, 12, 16, 3\) uint8"),
        (RGB[:0], r"\(0, 16, 3\) uint8"),
        (np.broadcast_to(RGB[:1, :1], (40_000, 40_000, 3)), r"\(40000, 40000, 3\) uint8"),
        (np.ma.masked_array(RGB, RGB > 0), "without masked values"),
        (Image.new("I", (4, 3)), "the range of its numbers is unknown"),
        (Image.new("F", (4, 3)), "the range of its numbers is unknown"),
        (Path("missing.jpg"), "missing.jpg"),
    ],
)
def test_what_is_no_picture_is_named(picture, words):
    with pytest.raises(InputError, match=words):
        to_bgr(picture)
