"""A face as people use it: its parts by name, its drawing, its JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from inference.results import UNSURE, Face

POINTS = np.column_stack([np.linspace(20, 180, 98), np.linspace(180, 20, 98)])
FACE = Face(POINTS, np.full(98, 1.25), np.array([20.0, 20.0, 180.0, 180.0]), 3, 0.0123456, number=4, score=0.98765)


def test_a_group_of_landmarks_is_had_by_its_name():
    np.testing.assert_array_equal(FACE["left_eye"], POINTS[68:76])
    np.testing.assert_array_equal(FACE["eyes"], POINTS[60:76])
    np.testing.assert_array_equal(FACE["right_pupil"], POINTS[96:97])
    with pytest.raises(KeyError, match="left_eye"):
        FACE["third_eye"]


@pytest.mark.parametrize("key", [np.arange(3), [1, 2], 0, slice(2), {}, None], ids=repr)
def test_what_is_no_name_of_a_group_is_an_error_that_lists_the_names(key):
    with pytest.raises(KeyError, match=r"no group of landmarks is called .*; the groups are .*left_eye"):
        FACE[key]


def test_the_dictionary_goes_through_json_and_says_null_where_a_solve_failed():
    known = json.loads(json.dumps(FACE.to_dict(), allow_nan=False))
    assert list(known) == ["face", "box", "score", "landmarks", "evaluations", "residual"]
    assert (known["face"], known["score"], known["evaluations"]) == (4, 0.988, 3)
    assert known["landmarks"][0] == [20, 180, 1.25]
    failed = Face(np.full((98, 2), np.nan), np.full(98, np.inf), FACE.box, 3, np.nan)
    unknown = json.loads(json.dumps(failed.to_dict(), allow_nan=False))
    assert unknown["landmarks"] == [[None, None, None]] * 98
    assert unknown["score"] is None and unknown["residual"] is None


def test_the_short_form_says_number_place_score_and_uncertainty():
    assert repr(FACE) == "Face(number=4, box=[20, 20, 180, 180], score=0.99, uncertainty=1.2 px)"


def test_a_plot_is_a_picture_of_the_same_size_that_another_face_can_be_drawn_on():
    grey = np.full((200, 200, 3), 128, np.uint8)
    drawn = FACE.plot(grey)
    assert isinstance(drawn, Image.Image) and drawn.size == (200, 200)
    assert (grey == 128).all()
    changed = (np.asarray(drawn) != 128).any(axis=2)
    assert changed[180, 20] and not changed[20, 20]
    np.testing.assert_array_equal(np.asarray(FACE.plot(drawn)) != 128, np.asarray(drawn) != 128)


def test_a_plot_keeps_the_colours_of_the_picture():
    red = np.zeros((200, 200, 3), np.uint8)
    red[..., 0] = 255
    for plotted in (FACE.plot(Image.fromarray(red)), FACE.plot(red, colour="rgb"), FACE.plot(red[..., ::-1])):
        assert plotted.getpixel((5, 5)) == (255, 0, 0)


def test_a_plot_dashes_the_contours_of_an_unsure_face():
    sure = replace(FACE, uncertainty=np.full(98, 0.9 * UNSURE * 160))
    unsure = replace(FACE, uncertainty=np.full(98, 1.1 * UNSURE * 160))
    grey = np.full((200, 200, 3), 128, np.uint8)
    ink = [(np.asarray(face.plot(grey)) != 128).any(axis=2).sum() for face in (sure, unsure)]
    assert 0 < ink[1] < 0.8 * ink[0]


def test_a_face_has_arrays_of_its_own():
    given = {"landmarks": np.zeros((98, 2)), "uncertainty": np.zeros(98), "box": np.array([0.0, 0, 9, 9])}
    face = Face(**given, evaluations=1, residual=0.0)
    for name, values in given.items():
        getattr(face, name)[:] = 7
        assert not (values == 7).any()
