import pickle
import shutil
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets.images import read_image
from datasets.wflw import (
    ATTRIBUTES,
    SPLITS,
    Face,
    WFLWCrops,
    crop_face,
    find_layout,
    load_wflw_test,
    pad_to_landmarks,
    read_faces,
)
from utils.errors import InputError, OptionError
from utils.geometry import box_to_crop, landmark_box, transform_points
from utils.images import IMAGENET_MEAN, IMAGENET_STD, resize_image, to_network_input

RAW_LIST = Path("WFLW_annotations", "list_98pt_rect_attr_train_test", "list_98pt_rect_attr_test.txt")


def edit_line(path: Path, line: int, edit) -> None:
    """Replace the fields of a line, counted from 1, by what `edit` makes of them."""
    lines = path.read_text().splitlines()
    lines[line - 1] = " ".join(edit(lines[line - 1].split()))
    path.write_text("\n".join(lines))


def set_field(index: int, value: str):
    return lambda fields: [value if position == index % len(fields) else f for position, f in enumerate(fields)]


def landmarks_inside() -> np.ndarray:
    return np.random.default_rng(0).uniform(20, 230, (98, 2))


def test_splits_are_test_and_its_subsets_in_the_published_order():
    assert SPLITS == (
        "test",
        "test_largepose",
        "test_expression",
        "test_illumination",
        "test_makeup",
        "test_occlusion",
        "test_blur",
    )


def test_layout_is_recognised(precropped_wflw, raw_wflw):
    assert find_layout(precropped_wflw) == "precropped"
    assert find_layout(str(raw_wflw)) == "raw"


def test_layout_of_a_training_folder_is_recognised(precropped_wflw):
    for split in SPLITS:
        (precropped_wflw / f"{split}.txt").unlink()
        shutil.rmtree(precropped_wflw / split)
    assert find_layout(precropped_wflw) == "precropped"
    assert len(read_faces(precropped_wflw, "train")) == 6


def test_missing_root_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such dataset folder"):
        find_layout(tmp_path / "nowhere")


def test_root_of_neither_or_both_layouts_is_an_error(tmp_path, precropped_wflw):
    with pytest.raises(InputError, match="neither layout"):
        find_layout(tmp_path)
    (precropped_wflw / "WFLW_images").mkdir()
    with pytest.raises(InputError, match="both layouts"):
        find_layout(precropped_wflw)


def test_precropped_landmarks_are_in_pixels_of_the_image(precropped_wflw):
    face = read_faces(precropped_wflw, "test")[2]
    first_line = (precropped_wflw / "test.txt").read_text().splitlines()[2].split()
    assert face.name == first_line[0] == "test_2.png"
    assert face.landmarks.shape == (98, 2)
    assert face.landmarks[0, 1] == 256 * float(first_line[2])
    assert face.box is None
    assert face.read_image().shape == (256, 256, 3)


def test_raw_faces_carry_rectangle_and_attributes(raw_wflw):
    face = read_faces(raw_wflw, "test")[3]
    assert face.name == "1--Event/face_3.png"
    assert face.rectangle.tolist() == [60, 50, 270, 260]
    assert face.attributes == ("illumination", "blur")
    assert face.read_image().shape == (300, 320, 3)


def test_raw_box_chooses_what_the_face_is_cropped_from(raw_wflw):
    by_landmarks, by_rectangle = (read_faces(raw_wflw, "test", raw_box=box)[0] for box in ("landmarks", "rectangle"))
    assert np.array_equal(by_landmarks.box, landmark_box(by_landmarks.landmarks))
    assert np.array_equal(by_rectangle.box, by_rectangle.rectangle)


def test_unknown_raw_box_is_named(raw_wflw):
    with pytest.raises(InputError, match=r"'detector'; choose one of landmarks, rectangle"):
        load_wflw_test(raw_wflw, raw_box="detector")


@pytest.mark.parametrize("box", ["landmarks", "rectangle"])
def test_a_box_is_refused_for_precropped_faces(precropped_wflw, box):
    with pytest.raises(OptionError, match=f"raw_box {box}: the faces of .*precropped are already cropped; leave"):
        load_wflw_test(precropped_wflw, raw_box=box)


def test_raw_faces_are_cropped_by_their_landmarks_by_default(raw_wflw):
    face = read_faces(raw_wflw, "test")[0]
    assert np.array_equal(face.box, landmark_box(face.landmarks))
    assert load_wflw_test(raw_wflw).raw_box == "landmarks"


def test_raw_list_of_any_name_is_read(raw_wflw):
    shutil.copy(raw_wflw / RAW_LIST, raw_wflw / RAW_LIST.with_name("list_98pt_rect_attr_train_hard.txt"))
    assert len(read_faces(raw_wflw, "train_hard")) == 6


def test_image_is_read_as_rgb(tmp_path):
    bgr = np.zeros((4, 4, 3), np.uint8)
    bgr[..., 0] = 255
    cv2.imwrite(str(tmp_path / "blue.png"), bgr)
    assert read_image(tmp_path / "blue.png")[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("layout", ["precropped_wflw", "raw_wflw"])
def test_subsets_are_views_of_test(layout, request, wflw_members):
    wflw = load_wflw_test(request.getfixturevalue(layout))
    assert len(wflw.faces) == 6
    assert list(wflw.subsets) == list(SPLITS)
    assert {split: indices.tolist() for split, indices in wflw.subsets.items()} == wflw_members


def test_the_box_is_reported_with_raw_faces_only(precropped_wflw, raw_wflw):
    assert load_wflw_test(raw_wflw, raw_box="rectangle").raw_box == "rectangle"
    assert load_wflw_test(precropped_wflw).raw_box is None


def test_raw_attribute_that_no_face_has_gives_an_empty_subset(raw_wflw):
    for line in (4, 5):
        edit_line(raw_wflw / RAW_LIST, line, set_field(-2, "0"))
    assert load_wflw_test(raw_wflw).subsets["test_blur"].tolist() == []


def test_face_encoded_differently_in_a_subset_is_recognised(precropped_wflw, wflw_members):
    path = precropped_wflw / "test_blur" / "test_blur_0.png"
    encoded = path.read_bytes()
    cv2.imwrite(str(path), cv2.imread(str(path)), [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert path.read_bytes() != encoded
    assert load_wflw_test(precropped_wflw).subsets["test_blur"].tolist() == wflw_members["test_blur"]


def test_subset_face_with_the_landmarks_but_not_the_image_of_a_test_face_is_another(precropped_wflw):
    path = precropped_wflw / "test_blur" / "test_blur_0.png"
    cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
    wflw = load_wflw_test(precropped_wflw)
    assert len(wflw.faces) == 7
    assert wflw.subsets["test_blur"].tolist() == [6, 4]
    assert wflw.faces[6].image_path == path


def test_subset_face_with_the_image_but_not_the_landmarks_of_a_test_face_is_another(precropped_wflw):
    edit_line(precropped_wflw / "test_makeup.txt", 1, set_field(7, "0.5"))
    wflw = load_wflw_test(precropped_wflw)
    assert wflw.subsets["test_makeup"].tolist() == [6]
    assert all(6 not in indices for split, indices in wflw.subsets.items() if split != "test_makeup")


def test_face_listed_twice_is_inferred_once_and_counted_twice(precropped_wflw):
    text = (precropped_wflw / "test.txt").read_text()
    (precropped_wflw / "test.txt").write_text(text + text.splitlines()[1])
    wflw = load_wflw_test(precropped_wflw)
    assert len(wflw.faces) == 6
    assert wflw.subsets["test"].tolist() == [0, 1, 2, 3, 4, 5, 1]


def test_a_face_listed_twice_is_named_in_one_warning(precropped_wflw, raw_wflw, capsys):
    for root, path, name in ((precropped_wflw, "test.txt", "test_1.png"), (raw_wflw, RAW_LIST, "1--Event/face_1.png")):
        text = (root / path).read_text()
        (root / path).write_text(text + text.splitlines()[1])
        assert len(read_faces(root, "test")) == 7
        messages = capsys.readouterr().err.splitlines()
        assert len(messages) == 1
        assert messages[0].startswith(f"warning: {root / path}: {name} is in the list twice and counts twice")


def test_faces_listed_more_often_are_counted_in_the_warning(precropped_wflw, capsys):
    text = (precropped_wflw / "test.txt").read_text()
    (precropped_wflw / "test.txt").write_text(3 * text)
    read_faces(precropped_wflw, "test")
    assert "test_0.png is in the list 3 times and counts 3 times, and 5 other faces" in capsys.readouterr().err


def test_two_faces_of_one_image_are_no_reason_for_a_warning(raw_wflw, capsys):
    first, second, *others = (raw_wflw / RAW_LIST).read_text().splitlines()
    second = " ".join([*second.split()[:-1], first.split()[-1]])
    (raw_wflw / RAW_LIST).write_text("\n".join([first, second, *others]))
    assert len(read_faces(raw_wflw, "test")) == 6
    assert capsys.readouterr().err == ""


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


@pytest.mark.parametrize("size", [64, 128, 192, 512])
def test_resizing_takes_a_point_to_its_scaled_coordinates(size):
    rows, columns = np.mgrid[:256, :256]
    blob = 200 * np.exp(-((columns - 100) ** 2 + (rows - 60) ** 2) / (2 * 8**2))
    resized = resize_image(np.repeat(blob[..., None], 3, axis=2).round().astype(np.uint8), size)[..., 0].astype(float)
    rows, columns = np.mgrid[:size, :size]
    centre = np.array([(resized * columns).sum(), (resized * rows).sum()]) / resized.sum()
    np.testing.assert_allclose(centre * 256 / size, [100, 60], atol=0.05)


def test_shrinking_smooths_away_what_the_smaller_image_cannot_hold():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 200
    assert np.ptp(resize_image(stripes, 32)[4:-4, 4:-4].astype(int)) <= 4


def test_image_of_the_wanted_size_is_left_alone():
    image = np.zeros((8, 8, 3), np.uint8)
    assert resize_image(image, 8) is image


def test_network_input_is_normalised_by_the_imagenet_statistics():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    images[1, 2, 3] = (51, 102, 255)
    tensor = to_network_input(images)
    assert tensor.shape == (2, 3, 4, 5)
    assert tensor.is_contiguous()
    expected = (torch.tensor([0.2, 0.4, 1.0]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(tensor[1, :, 2, 3], expected)


def test_network_input_takes_a_reversed_channel_view():
    bgr = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    assert torch.equal(to_network_input(bgr[..., ::-1]), to_network_input(bgr[..., ::-1].copy()))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((3, 4, 4), np.uint8), np.zeros(3, np.uint8)])
def test_network_input_refuses_what_is_not_uint8_rgb(image):
    with pytest.raises(ValueError, match="expected uint8 RGB"):
        to_network_input(image)


def test_missing_split_file_is_named(precropped_wflw, raw_wflw):
    (precropped_wflw / "test_blur.txt").unlink()
    with pytest.raises(InputError, match=r"test_blur\.txt: no such file"):
        load_wflw_test(precropped_wflw)
    with pytest.raises(InputError, match=r"list_98pt_rect_attr_val\.txt: no such file"):
        read_faces(raw_wflw, "val")


def test_missing_images_are_counted_and_the_first_is_named(precropped_wflw, raw_wflw):
    for position in (2, 4):
        (precropped_wflw / "test" / f"test_{position}.png").unlink()
    with pytest.raises(InputError, match=r"test\.txt: 2 of its 6 images are missing, the first is .*test_2\.png"):
        load_wflw_test(precropped_wflw)
    shutil.rmtree(raw_wflw / "WFLW_images")
    with pytest.raises(InputError, match=r"6 of its 6 images are missing, the first is .*0--Event/face_0\.png"):
        load_wflw_test(raw_wflw)


def test_line_of_195_numbers_is_named(precropped_wflw, raw_wflw):
    edit_line(precropped_wflw / "test_makeup.txt", 1, lambda fields: fields[:-1])
    with pytest.raises(InputError, match=r"test_makeup\.txt, line 1: expected 196 numbers .* found 195"):
        load_wflw_test(precropped_wflw)
    edit_line(raw_wflw / RAW_LIST, 3, lambda fields: fields[1:])
    with pytest.raises(InputError, match=r"test\.txt, line 3: expected 206 numbers .*196 coordinates.* found 205"):
        load_wflw_test(raw_wflw)


def test_blank_lines_are_skipped_but_counted(precropped_wflw):
    path = precropped_wflw / "test.txt"
    path.write_text("\n\n" + path.read_text() + "\n")
    assert len(read_faces(precropped_wflw, "test")) == 6
    edit_line(path, 4, lambda fields: fields[:-1])
    with pytest.raises(InputError, match=r"test\.txt, line 4"):
        read_faces(precropped_wflw, "test")


@pytest.mark.parametrize(
    ("value", "message"), [("0.5x", "'0.5x' is not a number"), ("nan", "finite"), ("inf", "finite")]
)
def test_field_that_is_no_finite_number_is_named(precropped_wflw, raw_wflw, value, message):
    edit_line(precropped_wflw / "test.txt", 2, set_field(9, value))
    with pytest.raises(InputError, match=rf"test\.txt, line 2: .*{message}"):
        load_wflw_test(precropped_wflw)
    edit_line(raw_wflw / RAW_LIST, 5, set_field(9, value))
    with pytest.raises(InputError, match=rf"test\.txt, line 5: .*{message}"):
        load_wflw_test(raw_wflw)


def test_pixel_coordinates_in_the_precropped_layout_are_an_error(precropped_wflw):
    edit_line(precropped_wflw / "test.txt", 2, set_field(9, "120.5"))
    with pytest.raises(InputError, match=r"line 2: .* not in units of the image"):
        load_wflw_test(precropped_wflw)


def test_attribute_that_is_no_flag_is_an_error(raw_wflw):
    edit_line(raw_wflw / RAW_LIST, 2, set_field(-2, "3"))
    with pytest.raises(InputError, match=r"line 2: .* must be 0 or 1"):
        load_wflw_test(raw_wflw)


def test_empty_list_is_an_error(precropped_wflw, raw_wflw):
    for root, path in ((precropped_wflw, "test.txt"), (raw_wflw, RAW_LIST)):
        (root / path).write_text("\n")
        with pytest.raises(InputError, match=r"test\.txt: lists no face"):
            load_wflw_test(root)


def test_list_that_is_not_text_is_an_error(precropped_wflw):
    (precropped_wflw / "test.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match=r"test\.txt: is not UTF-8 text"):
        read_faces(precropped_wflw, "test")


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_image_that_does_not_decode_is_named(precropped_wflw, content):
    path = precropped_wflw / "test" / "test_1.png"
    encoded = path.read_bytes()
    path.write_bytes(encoded[: len(encoded) // 2] if content is None else content)
    with pytest.raises(InputError, match=r"test_1\.png: cannot be decoded as a picture"):
        WFLWCrops(read_faces(precropped_wflw, "test"))[1]


def test_jpeg_that_is_cut_short_is_an_error(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    encoded = cv2.imencode(".jpg", image)[1].tobytes()
    path = tmp_path / "short.jpg"
    path.write_bytes(encoded[: len(encoded) * 3 // 4])
    with pytest.raises(InputError, match=r"short\.jpg: is damaged"):
        read_image(path)


def test_image_that_vanished_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        Face("gone.png", tmp_path / "gone.png", np.zeros((98, 2))).read_image()


def test_box_without_area_is_named_if_it_is_used(raw_wflw):
    edit_line(raw_wflw / RAW_LIST, 2, set_field(198, "60"))
    assert len(load_wflw_test(raw_wflw).faces) == 6
    with pytest.raises(InputError, match=r"line 2: rectangle: box .* has no area"):
        load_wflw_test(raw_wflw, raw_box="rectangle")


@pytest.mark.parametrize("layout", ["precropped_wflw", "raw_wflw"])
def test_coinciding_eye_corners_are_named(layout, request):
    root = request.getfixturevalue(layout)
    path, offset = (root / "test.txt", 1) if layout == "precropped_wflw" else (root / RAW_LIST, 0)
    for axis in range(2):
        edit_line(path, 1, set_field(offset + 120 + axis, "0.25"))
        edit_line(path, 1, set_field(offset + 144 + axis, "0.25"))
    with pytest.raises(InputError, match=r"line 1: the outer eye corners, landmarks 60 and 72, are under"):
        load_wflw_test(root)


def test_attributes_name_the_subsets():
    assert tuple(f"test_{attribute}" for attribute in ATTRIBUTES) == SPLITS[1:]


@pytest.mark.parametrize("value", ["1e300", "-2000000"])
def test_a_number_outside_every_picture_is_named_with_its_line(raw_wflw, value):
    path = raw_wflw / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_98pt_rect_attr_test.txt"
    lines = path.read_text().splitlines()
    lines[2] = " ".join([value, *lines[2].split()[1:]])
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"line 3: holds .* outside every picture"):
        read_faces(raw_wflw, "test")


def test_a_face_far_outside_its_image_is_named(raw_wflw):
    path = raw_wflw / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_98pt_rect_attr_test.txt"
    first, *others = path.read_text().splitlines()
    fields = first.split()
    moved = [str(float(number) + 9000) for number in fields[:200]]
    path.write_text("\n".join([" ".join([*moved, *fields[200:]]), *others]))
    crops = WFLWCrops(read_faces(raw_wflw, "test"), 64)
    with pytest.raises(InputError, match=r"face_0\.png: its labelled face: .* far outside the picture"):
        crops[0]


@pytest.mark.parametrize("split", ["test", "train"])
def test_a_raw_face_left_of_its_picture_is_named_with_its_line(raw_wflw, split):
    path = raw_wflw / RAW_LIST.with_name(f"list_98pt_rect_attr_{split}.txt")
    edit_line(path, 3, lambda fields: [*(f"-{number}" for number in fields[:196]), *fields[196:]])
    with pytest.raises(InputError, match=r"line 3: every landmark lies outside the picture"):
        read_faces(raw_wflw, split)


def test_a_raw_face_right_of_its_picture_is_named(raw_wflw):
    edit_line(
        raw_wflw / RAW_LIST, 1, lambda fields: [*(str(float(number) + 320) for number in fields[:196]), *fields[196:]]
    )
    with pytest.raises(InputError, match=r"face_0\.png: its labelled face: every landmark lies outside the picture of"):
        crop_face(read_faces(raw_wflw, "test")[0])


def test_a_picture_too_small_for_a_crop_is_named(precropped_wflw):
    face = load_wflw_test(precropped_wflw).faces[0]
    cv2.imwrite(str(face.image_path), np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(InputError, match="1 x 1 pixels are too few for the crop of a face"):
        face.read_image()
