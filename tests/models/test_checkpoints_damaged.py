"""Checkpoints that are damaged, of another kind, or made to run something: one error that names the file."""

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import assert_refused, original_args
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_networks import small_model
from torch import Tensor

from models import load_checkpoint, save_checkpoint
from models.checkpoints import CHECKSUM_KEY, CONFIG_KEY
from utils.errors import CheckpointError


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    """Change the weights and the configuration in one of our files."""
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()[CONFIG_KEY])
    weights = load_file(path)
    change(weights, config)
    save_file(weights, path, metadata={CONFIG_KEY: json.dumps(config)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights, config: weights.pop("cell.head.bias"), r"1 weights are missing, the first: cell\.head\.bias"),
        (lambda weights, config: weights.update(more=torch.ones(1)), "weight more is not part"),
        (lambda weights, config: config.update(landmarks=6), r"weight cell\.\S+ is \("),
        (lambda weights, config: config.update(latent_channels=1), r"weight cell\.\S+ is \("),
        (lambda weights, config: config.update(width=6), "unknown option 'width' of the network"),
        (
            lambda weights, config: config["solver"].update(depth=6),
            "unknown option 'depth' of the solver",
        ),
        (lambda weights, config: config.update(cell_groups=3), "cell_groups 3 must divide"),
        (lambda weights, config: config.update(landmarks="5"), "configuration cannot be read"),
        (lambda weights, config: weights["cell.head.bias"].fill_(torch.nan), r"cell\.head\.bias has values"),
    ],
)
def test_one_of_our_files_that_does_not_fit_together_is_refused(change, message, own_file):
    rewrite(own_file, change)
    assert_refused(own_file, message)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["own", "original"])
def test_a_truncated_file_is_refused(kind, share, own_file, original_file):
    path = own_file if kind == "own" else original_file()
    complete = path.read_bytes()
    path.write_bytes(complete[: int(share * len(complete))])
    assert_refused(path, "truncated")


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"hello, this is no checkpoint\n", b"import os\n{", b"\x89PNG\r\n\x1a\n" + bytes(100), bytes(100)],
    ids=["empty", "one byte", "text", "text with a brace", "image", "zeros"],
)
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert_refused(path, "truncated, or not a checkpoint|truncated or not a safetensors file")


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    assert_refused(tmp_path / "nothing.safetensors", "no such file")
    assert_refused(tmp_path, "is not a file")


class CreatesAFile:
    """Unpickling it without care would create the file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("place", ["args", "state_dict", "beside"])
def test_a_pickle_with_other_classes_is_refused_and_runs_nothing(place, original_file, tmp_path):
    trap = CreatesAFile(tmp_path / "created")
    parts = {"args": {"args": trap}, "state_dict": {"weights": {"x": trap}}, "beside": {"optimiser": trap}}
    assert_refused(original_file(**parts[place]), "refused, because it names io.open")
    assert not trap.path.exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_refused_and_runs_nothing(protocol, tmp_path):
    trap = CreatesAFile(tmp_path / "created")
    path = tmp_path / "final.pth.tar"
    path.write_bytes(pickle.dumps({"args": trap, "state_dict": {}}, protocol=protocol))
    assert_refused(path, "refused|not a checkpoint")
    assert not trap.path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds 'args' and 'state_dict'"),
        ({"state_dict": {}}, "holds 'args' and 'state_dict'"),
        ({"args": {}, "state_dict": {}}, r"'args' is dict, not argparse\.Namespace"),
        ({"args": original_args(), "state_dict": [1]}, "'state_dict' is not a dictionary of tensors"),
        (
            {"args": original_args(), "state_dict": {"tail.0.conv.bias": 1}},
            "'state_dict' is not a dictionary of tensors",
        ),
        ({"args": original_args(), "state_dict": {}}, "weights are missing"),
    ],
)
def test_a_foreign_checkpoint_is_refused(content, message, tmp_path):
    torch.save(content, tmp_path / "final.pth.tar")
    assert_refused(tmp_path / "final.pth.tar", message)


def test_foreign_safetensors_are_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    assert_refused(tmp_path / "other.safetensors", f"without '{CONFIG_KEY}' in its metadata is not one of ours")
    save_file({"weight": torch.zeros(3)}, tmp_path / "bad.safetensors", metadata={CONFIG_KEY: "{"})
    assert_refused(tmp_path / "bad.safetensors", "configuration cannot be read")
    save_file({"weight": torch.zeros(3)}, tmp_path / "list.safetensors", metadata={CONFIG_KEY: "[1]"})
    assert_refused(tmp_path / "list.safetensors", "configuration cannot be read")


def test_reading_allows_no_class_for_anyone_else(original_file):
    before = set(torch.serialization.get_safe_globals())
    path = original_file()
    load_checkpoint(path)
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("landmarks", 5.0),
        ("landmarks", True),
        ("landmarks", None),
        ("cell_width", 10**9),
        ("image_size", 2**40),
        ("softargmax_beta", "1"),
        ("softplus_beta", "false"),
        ("final_evaluation", 1),
        ("backbone", ["stem"]),
        ("mode", 3),
        ("explicit_depth", 10**9),
        ("solver", [1]),
        ("solver", {"name": "anderson", "tol": "0.1"}),
        ("solver", {"name": "anderson", "max_evals": 10**9}),
        ("solver", {"name": "anderson", "m": 10**9}),
        ("gradient", 3),
    ],
)
def test_a_field_of_another_kind_or_beyond_reason_is_named(name, value, own_file):
    with safe_open(own_file, "pt") as file:
        config = json.loads(file.metadata()[CONFIG_KEY])
    config[name] = value
    save_file(load_file(own_file), own_file, metadata={CONFIG_KEY: json.dumps(config)})
    named = next(iter(set(value) & {"tol", "max_evals", "m"}), name) if isinstance(value, dict) else name
    assert_refused(own_file, named)


def test_a_network_larger_than_any_machine_is_refused_before_memory_is_taken(own_file):
    with safe_open(own_file, "pt") as file:
        config = json.loads(file.metadata()[CONFIG_KEY])
    config |= {"cell_width": 16_384, "injection_channels": 16_384}
    save_file(load_file(own_file), own_file, metadata={CONFIG_KEY: json.dumps(config)})
    assert_refused(own_file, "the network needs")


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.to(torch.float8_e4m3fn),
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor[:1].expand(10**9, *tensor.shape[1:]),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: torch.nested.nested_tensor([tensor, tensor]),
    ],
    ids=["fp8", "sparse", "meta", "complex", "expanded", "quantised", "nested"],
)
def test_a_tensor_of_an_odd_kind_is_refused_with_its_name(change, original_file):
    path = original_file()
    content = torch.load(path, weights_only=False)
    content["state_dict"]["deq_layer.cell.head.conv.bias"] = change(
        content["state_dict"]["deq_layer.cell.head.conv.bias"]
    )
    torch.save(content, path)
    assert_refused(path, "head.*bias|truncated, or not a checkpoint|refused, because it names")


def test_a_weight_that_is_finite_only_in_double_precision_is_refused(original_file):
    path = original_file()
    content = torch.load(path, weights_only=False)
    weight = content["state_dict"]["deq_layer.cell.head.conv.bias"].double()
    weight[0] = 1e300
    content["state_dict"]["deq_layer.cell.head.conv.bias"] = weight
    torch.save(content, path)
    assert_refused(path, "not finite")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "weights.safetensors")
    assert_refused(tmp_path / "weights.safetensors", "is not a file")


@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
def test_a_changed_byte_of_the_weights_is_found(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(small_model(), path, dtype)
    load_checkpoint(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not match its checksum"):
        load_checkpoint(path)


def test_an_empty_checksum_does_not_match(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(small_model(), path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, {**metadata, CHECKSUM_KEY: ""})
    assert_refused(path, "does not match its checksum")


def test_a_changed_byte_of_a_checkpoint_in_the_original_format_is_found(tmp_path):
    source = Path(__file__).parents[1] / "data" / "parity"
    original = min(source.glob("*.pth.tar"), key=lambda path: path.stat().st_size)
    content = bytearray(original.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / original.name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_checkpoint(path)
