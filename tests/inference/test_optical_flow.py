import cv2
import numpy as np
import pytest
import torch

from inference.optical_flow import FLOW_SIZE, CropFlow, to_grey
from models.rwr import follow_flow
from utils.images import to_network_input


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    """(160, 160, 3) uint8 RGB, smooth and without repetition."""
    noise = np.random.default_rng(0).random((160, 160, 3), dtype=np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return (255 * (smooth - smooth.min()) / (smooth.max() - smooth.min())).astype(np.uint8)


def view(texture: np.ndarray, x: int, y: int) -> np.ndarray:
    return texture[y : y + 128, x : x + 128]


def grey(*images: np.ndarray) -> np.ndarray:
    return to_grey(to_network_input(np.stack(images)))


STILL = np.eye(2, 3)


def flow_in_the_middle(before: np.ndarray, after: np.ndarray, moved: np.ndarray = STILL) -> tuple[np.ndarray, float]:
    """The mean motion in pixels at points in the middle, and the largest mismatch in pixels."""
    flow = torch.from_numpy(CropFlow()(before, after, moved))[None]
    points = torch.rand(1, 50, 2, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.25
    steps, mismatch = follow_flow(flow, points)
    return FLOW_SIZE * steps.mean(dim=(0, 1)).numpy(), FLOW_SIZE * float(mismatch.max())


@pytest.mark.parametrize("size", [64, 128, 256])
def test_grey_pictures_have_the_luminance_of_the_crops_at_one_size(texture, size):
    images = np.stack([cv2.resize(view(texture, x, 8), (size, size), interpolation=cv2.INTER_AREA) for x in (0, 20)])
    expected = [
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (FLOW_SIZE, FLOW_SIZE), interpolation=cv2.INTER_AREA)
        for image in images
    ]
    found = grey(*images)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.stack(expected)).max() <= 1


def test_the_flow_between_shifted_pictures_is_the_shift(texture):
    motion, mismatch = flow_in_the_middle(*grey(view(texture, 16, 16), view(texture, 13, 18)))
    np.testing.assert_allclose(motion, [3, -2], atol=0.1)
    assert mismatch < 0.2


def test_a_change_of_the_light_is_no_motion(texture):
    before = view(texture, 16, 16)
    after = np.clip(0.9 * before + 12.0, 0, 255).astype(np.uint8)
    motion, mismatch = flow_in_the_middle(*grey(before, after))
    np.testing.assert_allclose(motion, 0, atol=0.1)
    assert mismatch < 0.2


def test_the_motion_of_the_crop_is_no_motion_of_the_face(texture):
    # The crop has moved by (5, -4) pixels over a picture that stands still.
    moved = STILL - np.array([[0, 0, 5], [0, 0, -4]]) / FLOW_SIZE
    motion, mismatch = flow_in_the_middle(*grey(view(texture, 16, 16), view(texture, 21, 12)), moved)
    np.testing.assert_allclose(motion, 0, atol=0.1)
    assert mismatch < 0.2
