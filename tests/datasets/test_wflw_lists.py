"""The two layouts of WFLW, their lists, and the subsets of the test faces."""

import shutil

import cv2
import numpy as np
import pytest
from wflw_lists import RAW_LIST, edit_line, set_field

from datasets.wflw import ATTRIBUTES, SPLITS, find_layout, load_wflw_test, read_faces
from utils.errors import InputError, OptionError
from utils.geometry import landmark_box


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


def test_blank_lines_are_skipped_but_counted(precropped_wflw):
    path = precropped_wflw / "test.txt"
    path.write_text("\n\n" + path.read_text() + "\n")
    assert len(read_faces(precropped_wflw, "test")) == 6
    edit_line(path, 4, lambda fields: fields[:-1])
    with pytest.raises(InputError, match=r"test\.txt, line 4"):
        read_faces(precropped_wflw, "test")


def test_attributes_name_the_subsets():
    assert tuple(f"test_{attribute}" for attribute in ATTRIBUTES) == SPLITS[1:]
