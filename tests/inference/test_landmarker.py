import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from inference import FaceLandmarker
from utils.errors import CheckpointError, InputError, OptionError

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "datasets" / "sample"
HOPPER = SAMPLE / "test" / "hopper.jpg"


@pytest.fixture(scope="module")
def landmarker() -> FaceLandmarker:
    return FaceLandmarker(device="cpu", engine="torch")


def test_a_path_an_image_of_pil_and_an_array_give_the_same_landmarks(landmarker):
    array = cv2.imread(str(HOPPER))
    with Image.open(HOPPER) as opened:
        image = opened.convert("RGB")
    found = landmarker([str(HOPPER), HOPPER, image, array])
    assert [len(faces) for faces in found] == [1] * 4
    for (face,) in found[1:]:
        np.testing.assert_allclose(face.landmarks, found[0][0].landmarks, atol=0.5)
    np.testing.assert_array_equal(landmarker(array)[0].landmarks, found[3][0].landmarks)


def test_the_channels_of_an_array_may_be_in_either_order(landmarker):
    array = cv2.imread(str(HOPPER))
    landmarker.colour = "rgb"
    try:
        (face,) = landmarker(np.ascontiguousarray(array[..., ::-1]))
    finally:
        landmarker.colour = "bgr"
    np.testing.assert_array_equal(face.landmarks, landmarker(array)[0].landmarks)


def test_the_landmarks_of_a_sample_face_are_near_the_labels(landmarker):
    line = next(line for line in (SAMPLE / "test.txt").read_text().splitlines() if line.startswith("hopper.jpg "))
    true = 256 * np.array(line.split()[1:], float).reshape(98, 2)
    error = np.linalg.norm(landmarker(HOPPER)[0].landmarks - true, axis=1).mean()
    assert error < 0.06 * np.linalg.norm(true[60] - true[72])


def test_a_face_of_a_video_keeps_its_number_from_a_path_and_from_frames(landmarker):
    clip = SAMPLE / "videos" / "collins_easy.mp4"
    capture, frames = cv2.VideoCapture(str(clip)), []
    for _ in range(4):
        frames.append(capture.read()[1])
    from_frames = list(landmarker.track(frames))
    from_path = [faces for faces, _ in zip(landmarker.track(clip), range(4), strict=False)]
    for one, two in zip(from_frames, from_path, strict=True):
        assert [face.number for face in one] == [face.number for face in two] == [0]
        np.testing.assert_array_equal(one[0].landmarks, two[0].landmarks)


def test_no_face_is_an_empty_list(landmarker):
    assert landmarker(np.full((80, 90, 3), 128, np.uint8)) == []


@pytest.mark.parametrize(
    "wrong",
    [None, 3.5, "missing.jpg", np.zeros((4, 4)), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_no_picture_is_one_clear_error(landmarker, wrong):
    with pytest.raises(InputError):
        landmarker(wrong)


@pytest.mark.parametrize(
    "wrong", [None, 3.5, "missing.mp4", "a" * 5000, "a\0b", np.zeros((4, 4, 3), np.uint8), torch.tensor(1.0), True]
)
def test_what_is_no_video_is_told_before_the_first_frame_is_asked_for(landmarker, wrong):
    with pytest.raises(InputError):
        landmarker.track(wrong)


def test_wrong_options_and_weights_are_clear_errors(tmp_path):
    with pytest.raises(OptionError, match="threshold"):
        FaceLandmarker(detection_threshold=2.0, device="cpu")
    with pytest.raises(CheckpointError, match=r"none\.safetensors"):
        FaceLandmarker(tmp_path / "none.safetensors", device="cpu")


def test_the_hub_loads_network_and_landmarker_from_another_folder(tmp_path):
    script = (
        "import torch\n"
        f"model = torch.hub.load({str(ROOT)!r}, 'ldeq_mini', source='local')\n"
        "assert model(torch.zeros(1, 3, 128, 128)).keypoints.shape == (1, 98, 2)\n"
        f"landmarker = torch.hub.load({str(ROOT)!r}, 'face_landmarker', source='local', device='cpu', engine='torch')\n"
        f"assert len(landmarker({str(HOPPER)!r})) == 1\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr


def test_the_package_loads_no_torch_before_the_landmarker_is_asked_for():
    script = "import sys, inference; assert 'torch' not in sys.modules; inference.FaceLandmarker"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        import inference

        _ = inference.Nothing
