"""The crop of a face: an item of the data, its landmarks, and what lies outside of its picture."""

import pickle
import warnings

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from wflw_lists import RAW_LIST, edit_line, set_field

from datasets.images import read_image
from datasets.wflw import WFLWCrops, crop_face, pad_to_landmarks, read_faces
from utils.errors import InputError
from utils.geometry import box_to_crop, transform_points
from utils.images import to_network_input


def landmarks_inside() -> np.ndarray:
    return np.random.default_rng(0).uniform(20, 230, (98, 2))


@pytest.mark.parametrize("size", [256, 64])
def test_item_is_a_normalised_image_with_normalised_landmarks(precropped_wflw, size):
    faces = read_faces(precropped_wflw, "test")
    image, landmarks = WFLWCrops(faces, size=size)[1]
    assert image.shape == (3, size, size)
    assert image.dtype == torch.float32
    np.testing.assert_allclose(landmarks, faces[1].landmarks / 256, atol=1e-12)


def test_crop_is_the_item_before_normalisation(raw_wflw):
    crops = WFLWCrops(read_faces(raw_wflw, "test"), size=128)
    image, landmarks = crops.crop(4)
    assert image.dtype == np.uint8
    assert torch.equal(to_network_input(image), crops[4][0])
    assert np.array_equal(landmarks, crops[4][1])


def test_items_do_not_depend_on_workers(precropped_wflw):
    crops = WFLWCrops(read_faces(precropped_wflw, "test"), size=64)
    images, landmarks = next(iter(DataLoader(crops, batch_size=6, num_workers=1)))
    assert torch.equal(images, torch.stack([crops[i][0] for i in range(6)]))
    assert torch.equal(landmarks, torch.stack([crops[i][1] for i in range(6)]))
    assert torch.equal(pickle.loads(pickle.dumps(crops))[3][0], crops[3][0])


def test_iteration_over_the_items_ends(precropped_wflw):
    assert len(list(WFLWCrops(read_faces(precropped_wflw, "test_makeup"), size=32))) == 1


def test_image_size_must_be_positive(precropped_wflw):
    with pytest.raises(ValueError, match="image size must be positive"):
        WFLWCrops(read_faces(precropped_wflw, "test"), size=0)


def test_raw_face_is_cropped_from_its_box(raw_wflw):
    face = read_faces(raw_wflw, "test", raw_box="rectangle")[0]
    matrix = box_to_crop([60, 50, 270, 260], size=128)
    image, landmarks = crop_face(face, size=128)
    np.testing.assert_allclose(landmarks, transform_points(face.landmarks, matrix) / 128, atol=1e-12)
    # The pixel at the centre of the box is the centre of the crop.
    assert np.abs(image[64, 64].astype(int) - face.read_image()[155, 165]).max() <= 1


@pytest.mark.parametrize("rectangle", [(-400, 50, -100, 260), (60, 9000, 270, 9200)])
def test_a_rectangle_outside_the_picture_is_an_error_of_its_line(rectangle, raw_wflw):
    for place, value in enumerate(rectangle):
        edit_line(raw_wflw / RAW_LIST, 1, set_field(196 + place, str(value)))
    with pytest.raises(InputError, match="its labelled face: the box lies outside the picture"):
        crop_face(read_faces(raw_wflw, "test", raw_box="rectangle")[0])


def test_raw_landmarks_outside_the_crop_are_not_clipped(raw_wflw):
    edit_line(raw_wflw / RAW_LIST, 1, set_field(0, "0"))
    _, landmarks = crop_face(read_faces(raw_wflw, "test", raw_box="rectangle")[0])
    assert landmarks[0, 0] == pytest.approx((0 - 165) / (1.2 * 210) + 0.5)
    assert landmarks[0, 0] < 0


@pytest.mark.parametrize("landmark", [(-0.5, 100), (100, 256.5), (256.25, 100)])
def test_up_to_half_a_pixel_outside_nothing_is_padded(landmark):
    image, landmarks = np.full((256, 256, 3), 9, np.uint8), landmarks_inside()
    landmarks[5] = landmark
    padded_image, padded_landmarks = pad_to_landmarks(image, landmarks)
    assert padded_image is image
    assert padded_landmarks is landmarks


def test_padding_by_hand():
    # 2.3 px outside on the left: 3 + 8 px there. 0.2 px outside at the bottom: 1 + 8 px there. None above and right.
    image, landmarks = np.full((256, 256, 3), 200, np.uint8), landmarks_inside()
    landmarks[5], landmarks[6] = (-2.3, 100), (100, 256.2)
    padded_image, padded_landmarks = pad_to_landmarks(image, landmarks)
    assert padded_image.shape == (256, 256, 3)
    np.testing.assert_allclose(padded_landmarks, (landmarks + np.array([11, 0])) * (256 / 267, 256 / 265), atol=1e-9)
    assert not padded_image[100, :9].any()
    assert not padded_image[250:, 100].any()
    assert (padded_image[:240, 16:] > 190).all()


def test_padding_on_the_top_and_right():
    landmarks = landmarks_inside()
    landmarks[5], landmarks[6] = (100, -4), (257, 100)
    _, padded_landmarks = pad_to_landmarks(np.zeros((256, 256, 3), np.uint8), landmarks)
    np.testing.assert_allclose(padded_landmarks, (landmarks + np.array([0, 12])) * (256 / 265, 256 / 268), atol=1e-9)


def test_padded_image_moves_with_its_landmarks():
    image, landmarks = np.zeros((256, 256, 3), np.uint8), landmarks_inside()
    landmarks[0], landmarks[5] = (120.5, 80.5), (-30, 100)
    image[78:83, 118:123] = 255
    padded_image, padded_landmarks = pad_to_landmarks(image, landmarks)
    rows, columns = np.nonzero(padded_image[..., 0] > 128)
    np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], padded_landmarks[0], atol=0.5)


def test_padded_image_is_resized_bicubically():
    image, landmarks = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8), landmarks_inside()
    landmarks[5] = (-30, 100)
    padded = np.concatenate([np.zeros((256, 38, 3), np.uint8), image], axis=1)
    expected = Image.fromarray(padded).resize((256, 256), Image.Resampling.BICUBIC)
    assert np.array_equal(pad_to_landmarks(image, landmarks)[0], expected)


def test_precropped_landmarks_are_clipped(precropped_wflw):
    edit_line(precropped_wflw / "test.txt", 1, set_field(1, "-0.001"))
    edit_line(precropped_wflw / "test.txt", 1, set_field(2, "1.001"))
    face = read_faces(precropped_wflw, "test")[0]
    assert face.landmarks[0].tolist() == pytest.approx([-0.256, 256.256])
    assert crop_face(face)[1][0].tolist() == [0, 1]


def test_padded_face_gives_a_tensor_without_a_warning(precropped_wflw):
    edit_line(precropped_wflw / "test.txt", 1, set_field(1, "-0.1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, landmarks = WFLWCrops(read_faces(precropped_wflw, "test"))[0]
    assert image.shape == (3, 256, 256)
    # 25.6 px outside: padded by 26 + 8 px.
    assert landmarks[0, 0] == pytest.approx((-25.6 + 34) / 290)


def test_precropped_image_of_another_size_is_resized(precropped_wflw):
    path = precropped_wflw / "test" / "test_0.png"
    original = read_image(path)
    cv2.imwrite(str(path), cv2.resize(original, (512, 512), interpolation=cv2.INTER_NEAREST)[..., ::-1])
    image, _ = crop_face(read_faces(precropped_wflw, "test")[0])
    assert image.shape == (256, 256, 3)
