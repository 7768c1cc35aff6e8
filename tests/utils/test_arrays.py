"""What a caller gives where numbers are wanted is numbers, or one error that names the argument."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import small_model

from inference.landmark_tracker import BoxTracker
from inference.network import Network
from inference.predictor import LandmarkPredictor
from inference.results import Face
from models import LDEQ, load_checkpoint, save_checkpoint
from solvers import AndersonConfig, FixedPointConfig, solve
from utils.arrays import to_numbers
from utils.errors import OptionError, OutputError
from utils.geometry import box_overlap, box_to_crop, check_in_reach, landmark_box, steady_box, transform_points
from utils.metrics import nme
from utils.pictures import to_bgr
from utils.reading import check_file
from utils.sources import open_source
from utils.values import check_integer


class Unwilling:
    """An object that refuses to be an array."""

    def __array__(self, *_: object) -> np.ndarray:
        raise RuntimeError("no array\nat all")


NO_NUMBERS = {
    "nothing": None,
    "text": "box",
    "truth values": [True, False, True, False],
    "complex": np.ones(4, complex),
    "dates": np.array(["2020-01-01"] * 4, "datetime64[D]"),
    "objects": np.array([1, None, "x", {}], object),
    "bytes": bytearray(b"1234"),
    "ragged": [[1, 2, 3, 4], [1, 2]],
    "masked": np.ma.masked_array([1.0, 2, 3, 4], [1, 0, 0, 1]),
    "a list of masked": [np.ma.masked_array([1.0, 2, 3, 4], [1, 0, 0, 1])],
    "unwilling": Unwilling(),
    "bf16": torch.ones(4, dtype=torch.bfloat16),
    "meta": torch.ones(4, device="meta"),
    "sparse": torch.ones(4).to_sparse(),
    "quantised": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.quint8),
    "differentiated": torch.ones(4, requires_grad=True),
}

MODEL = small_model(landmarks=98, solver=FixedPointConfig(max_evals=2, tol=0))
PICTURE = np.zeros((120, 160, 3), np.uint8)
BOX = [20.0, 20, 100, 100]

TAKES_NUMBERS = {
    "the box of face 3": lambda value: BoxTracker(MODEL).step(PICTURE, {3: value}),
    "boxes": lambda value: LandmarkPredictor(MODEL)(PICTURE, value),
    "box, x1 y1 x2 y2": box_to_crop,
    "a box": lambda value: box_overlap(BOX, value),
    "box": lambda value: steady_box(value, BOX),
    "landmarks": landmark_box,
    "points": lambda value: check_in_reach(value, 160, 120),
    "affine matrix": lambda value: transform_points([[1, 2]], value),
    "predicted landmarks": lambda value: nme(value, np.zeros((1, 98, 2))),
}


@pytest.mark.parametrize("kind", NO_NUMBERS)
@pytest.mark.parametrize("name", TAKES_NUMBERS)
def test_what_is_no_number_is_one_line_that_names_the_argument(name: str, kind: str):
    with pytest.raises(OptionError, match=name) as refusal:
        TAKES_NUMBERS[name](NO_NUMBERS[kind])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("values", [[1, 2], (1.0, 2.0), np.array([1, 2], np.uint8), torch.tensor([1.0, 2.0])])
def test_lists_arrays_and_tensors_of_numbers_are_float64(values):
    numbers = to_numbers("values", values, (None,))
    np.testing.assert_array_equal(numbers, [1.0, 2.0])
    assert numbers.dtype == np.float64


def test_another_shape_is_named_with_the_wanted_one():
    with pytest.raises(OptionError, match=r"values must have shape \(any, 2\), got \(3, 4\)"):
        to_numbers("values", np.zeros((3, 4)), (None, 2))


FIELDS = {
    "landmarks": np.zeros((98, 2)), "uncertainty": np.ones(98), "box": BOX, "evaluations": 3, "residual": 0.1,
    "number": 0, "score": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [*NO_NUMBERS.values(), np.zeros((2, 3))], ids=[*NO_NUMBERS, "another shape"])
def test_a_field_of_a_face_of_another_kind_or_shape_is_refused_by_name(name: str, value: object):
    Face(**FIELDS)
    with pytest.raises(OptionError, match=f"{name} of a face"):
        Face(**{**FIELDS, name: value})


def test_an_error_stays_one_line_whatever_was_given():
    for value in (np.zeros((4, 4)), torch.zeros(4, 4), MODEL, Unwilling()):
        with pytest.raises(OptionError) as refusal:
            check_integer("max_iters", value, 1)
        assert "\n" not in str(refusal.value)
    with pytest.raises(ValueError, match="criterion must be 'relative' or 'absolute', not array") as refusal:
        AndersonConfig(criterion=np.zeros((4, 4)))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "images",
    [
        None,
        np.zeros((1, 3, 64, 64)),
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        torch.zeros(1, 3, 64, 64).to_sparse(),
        torch.nested.nested_tensor([torch.zeros(3), torch.zeros(2)]),
    ],
    ids=["nothing", "array", "uint8", "sparse", "nested"],
)
def test_images_and_states_of_a_network_are_dense_floating_point_tensors(images: object):
    with pytest.raises(OptionError, match="images must be a"):
        MODEL(images)
    if images is not None:
        with pytest.raises(OptionError, match="z0 must be a"):
            MODEL(torch.zeros(1, 3, MODEL.config.image_size, MODEL.config.image_size), images)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int64])
def test_a_solve_starts_from_an_ordinary_floating_point_tensor(dtype: torch.dtype):
    with pytest.raises(ValueError, match="z0 must be"):
        solve(lambda z: z / 2, torch.ones(2, 3).to(dtype), FixedPointConfig())


def test_a_network_without_values_is_neither_saved_nor_used(tmp_path: Path):
    with torch.device("meta"):
        empty = LDEQ(MODEL.config)
    with pytest.raises(OptionError, match=r"model must hold values, but its weight .* is on device meta"):
        save_checkpoint(empty, tmp_path / "weights.safetensors")
    for model in (empty, LDEQ(MODEL.config).half()):
        with pytest.raises(OptionError, match="model must have float32 weights with values"):
            Network(model)
        with pytest.raises(OptionError, match=r"images are torch.float32 on cpu, but the weights are torch"):
            model(torch.zeros(1, 3, MODEL.config.image_size, MODEL.config.image_size))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "reason"), [("\ud800", "a lone surrogate"), ("a\0b", "a null character")])
def test_a_path_that_no_file_can_have_is_refused(name: str, reason: str, tmp_path: Path):
    with pytest.raises(OutputError, match=reason):
        save_checkpoint(MODEL, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_path_is_refused_by_the_readers():
    for read in (check_file, open_source):
        with pytest.raises(OptionError, match="must be a"):
            read(None)
    for read in (load_checkpoint, to_bgr, lambda path: save_checkpoint(MODEL, path)):
        with pytest.raises(OptionError, match=r"must be a path, but .* gives none"):
            read(NumberedPath())


class NumberedPath(os.PathLike):
    """A path that is a number."""

    def __fspath__(self) -> int:
        return 3


@pytest.mark.parametrize("number", [[1], "1", None, 1.5])
def test_a_face_that_leaves_has_a_number(number: object):
    with pytest.raises(OptionError, match="number of a face must be an integer"):
        BoxTracker(MODEL).leave(number)


def test_the_dtype_of_a_checkpoint_is_a_dtype(tmp_path: Path):
    with pytest.raises(OptionError, match="dtype of a checkpoint must be a dtype or None"):
        save_checkpoint(MODEL, tmp_path / "weights.safetensors", np.zeros(3))
