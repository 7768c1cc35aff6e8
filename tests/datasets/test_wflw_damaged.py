"""Lists and images of WFLW that are damaged: one error that names file and line."""

import shutil

import cv2
import numpy as np
import pytest
from wflw_lists import RAW_LIST, edit_line, set_field

from datasets.wflw import Face, WFLWCrops, crop_face, load_wflw_test, read_faces
from utils.errors import InputError


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


@pytest.mark.parametrize("value", ["1e300", "-2000000"])
def test_a_number_outside_every_picture_is_named_with_its_line(raw_wflw, value):
    path = raw_wflw / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_98pt_rect_attr_test.txt"
    lines = path.read_text().splitlines()
    lines[2] = " ".join([value, *lines[2].split()[1:]])
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"line 3: holds .* outside every picture"):
        read_faces(raw_wflw, "test")


@pytest.mark.parametrize("number", ["0_1", "\u0660.\u0665", "0x1", "1e"])
def test_a_number_that_only_some_programs_read_is_refused(precropped_wflw, number):
    edit_line(precropped_wflw / "test.txt", 1, set_field(5, number))
    with pytest.raises(InputError, match=f"line 1: '{number}' is not a number"):
        read_faces(precropped_wflw, "test")


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
