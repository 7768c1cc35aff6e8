import argparse
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_disk import small_disk
from small_networks import random_images, small_config, small_model
from torch import Tensor

from models import LDEQ, load_checkpoint, save_checkpoint
from models.checkpoints import CONFIG_KEY, config_from_original, weights_digest
from models.deq import GradientConfig
from solvers import AndersonConfig, BroydenConfig, FixedPointConfig
from utils.errors import CheckpointError, OptionError, OutputError

# The original's name of each of our modules, as its checkpoints have them.
ORIGINAL_MODULES = {
    "backbone.block1": "tail.0",
    "backbone.block2": "tail.1",
    "backbone.block3": "tail.3",
    "cell.fuse": "deq_layer.cell.tail",
    "cell.head": "deq_layer.cell.head.conv",
    "cell.hourglass.down.0.same": "deq_layer.cell.hourglass.same1",
    "cell.hourglass.down.1.same": "deq_layer.cell.hourglass.same2",
    "cell.hourglass.down.2.same": "deq_layer.cell.hourglass.same3",
    "cell.hourglass.down.3.same": "deq_layer.cell.hourglass.same4",
    "cell.hourglass.down.0.widen": "deq_layer.cell.hourglass.upchan1",
    "cell.hourglass.down.1.widen": "deq_layer.cell.hourglass.upchan2",
    "cell.hourglass.down.2.widen": "deq_layer.cell.hourglass.upchan3",
    "cell.hourglass.down.3.widen": "deq_layer.cell.hourglass.upchan4",
    "cell.hourglass.bottleneck": "deq_layer.cell.hourglass.bottlneck",
    "cell.hourglass.up.0.narrow": "deq_layer.cell.hourglass.downchan1",
    "cell.hourglass.up.0.merge": "deq_layer.cell.hourglass.downchan2",
    "cell.hourglass.up.1.narrow": "deq_layer.cell.hourglass.downchan3",
    "cell.hourglass.up.1.merge": "deq_layer.cell.hourglass.downchan4",
    "cell.hourglass.up.2.narrow": "deq_layer.cell.hourglass.downchan5",
    "cell.hourglass.up.2.merge": "deq_layer.cell.hourglass.downchan6",
    "cell.hourglass.up.3.narrow": "deq_layer.cell.hourglass.downchan7",
    "cell.hourglass.up.3.merge": "deq_layer.cell.hourglass.downchan8",
    "cell.hourglass.up.0.refine": "deq_layer.cell.hourglass.same5",
    "cell.hourglass.up.1.refine": "deq_layer.cell.hourglass.same6",
    "cell.hourglass.up.2.refine": "deq_layer.cell.hourglass.same7",
    "cell.hourglass.up.3.refine": "deq_layer.cell.hourglass.same8",
}

ORIGINAL_ARGS = {
    "n_keypoints": 5,
    "cell_extra_latent_width": 0,
    "z_width": 5,
    "im_size": 64,
    "heatmap_size": 16,
    "injection_width": 8,
    "cell_base_width": 8,
    "cell_width_increment": 4,
    "cell_gn_groups": 4,
    "cell_norm": "softargmax",
    "cell_softargmax_beta": 1.0,
    "cell_learn_softargmax_beta": False,
    "model_mode": "implicit",
    "explicit_depth": 2,
    "cell_use_bn_for_explicit": True,
    "solver": "fpi",
    "max_iters": 6,
    "stop_mode": "rel",
    "rel_diff_target": 0.01,
    "abs_diff_target": 0.5,
    "anderson_m": 4,
    "anderson_lam": 1e-4,
    "anderson_beta": 0.9,
    "take_one_less_inference_step": False,
    "stochastic_max_iters": False,
    "z0_mode": "zeros",
    "cell_name": "Cell0",
    "JFB": True,
}


def original_args(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**ORIGINAL_ARGS, "optimiser": "adam", **changes})


def original_weights(model: LDEQ, prefix: str = "") -> dict[str, Tensor]:
    """The weights under the original's names."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        module = next(module for module in ORIGINAL_MODULES if name.startswith(f"{module}."))
        renamed[prefix + ORIGINAL_MODULES[module] + name.removeprefix(module)] = tensor.clone()
    return renamed


@pytest.fixture
def original_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint in the original's format, by default that of `small_model`."""

    def write(args: Any = None, weights: Any = None, **extra: Any) -> Path:
        path = tmp_path / "final.pth.tar"
        content = {
            "args": original_args() if args is None else args,
            "state_dict": original_weights(small_model()) if weights is None else weights,
        }
        torch.save({**content, **extra}, path)
        return path

    return write


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "ldeq.safetensors"
    save_checkpoint(small_model(), path)
    return path


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> None:
    """Change the weights and the configuration in one of our files."""
    with safe_open(path, framework="pt") as file:
        config = json.loads(file.metadata()[CONFIG_KEY])
    weights = load_file(path)
    change(weights, config)
    save_file(weights, path, metadata={CONFIG_KEY: json.dumps(config)})


def assert_refused(path: Path, message: str) -> None:
    """One error of one line that starts with the file, and no warning."""
    with warnings.catch_warnings(record=True) as caught, pytest.raises(CheckpointError, match=message) as error:
        warnings.simplefilter("always")
        load_checkpoint(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 250
    assert caught == []


@torch.no_grad()
def assert_same_network(first: LDEQ, second: LDEQ) -> None:
    expected = second.state_dict()
    weights = first.state_dict()
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name
    images = random_images(1, size=first.config.image_size)
    assert torch.equal(first(images).keypoints, second(images).keypoints)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"latent_channels": 2, "solver": AndersonConfig(max_evals=5, m=3), "final_evaluation": False},
        {"mode": "explicit", "normalisation": "linear"},
        {"backbone": "hrnet_mini", "gradient": GradientConfig(rule="ift", backward_solver=BroydenConfig())},
    ],
    ids=["defaults", "anderson", "explicit", "hrnet"],
)
def test_what_is_saved_is_what_is_loaded(changes, tmp_path):
    model = small_model(**changes)
    save_checkpoint(model, tmp_path / "ldeq.safetensors")
    loaded = load_checkpoint(tmp_path / "ldeq.safetensors")
    assert loaded.config == model.config
    assert not loaded.training
    assert_same_network(loaded, model)


def test_half_precision_on_disk_is_single_precision_at_work(tmp_path, own_file):
    model = small_model()
    path = tmp_path / "half.safetensors"
    save_checkpoint(model, path, dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16, torch.int64}
    assert path.stat().st_size < 0.7 * own_file.stat().st_size
    original = model.state_dict()
    for name, tensor in load_checkpoint(path).state_dict().items():
        assert tensor.dtype == original[name].dtype
        torch.testing.assert_close(tensor, original[name], rtol=1e-3, atol=1e-6)


def test_a_state_other_than_the_fresh_one_is_loaded(tmp_path):
    model = small_model(seed=1)
    save_checkpoint(model, tmp_path / "ldeq.safetensors")
    assert not torch.equal(small_model().cell.head.weight, model.cell.head.weight)
    assert_same_network(load_checkpoint(tmp_path / "ldeq.safetensors"), model)


def test_the_format_is_told_by_the_content_and_not_by_the_name(tmp_path, original_file, own_file):
    original = original_file().rename(tmp_path / "a.safetensors")
    own = own_file.rename(tmp_path / "b.pth.tar")
    loaded = load_checkpoint(own)
    assert_same_network(load_checkpoint(original).with_solver(loaded.config.solver), loaded)


def test_a_save_onto_a_full_disk_leaves_the_older_file_and_no_part(own_file):
    before = own_file.read_bytes()
    with pytest.raises(OutputError, match=re.escape(f"{own_file}: cannot be written")), small_disk():
        save_checkpoint(small_model(seed=1), own_file)
    assert own_file.read_bytes() == before
    assert list(own_file.parent.iterdir()) == [own_file]


def test_a_folder_that_does_not_exist_is_made_when_saving(tmp_path):
    save_checkpoint(small_model(), tmp_path / "made" / "ldeq.safetensors")
    load_checkpoint(tmp_path / "made" / "ldeq.safetensors")


@pytest.mark.parametrize(("value", "dtype"), [(torch.nan, None), (1e5, torch.float16)])
def test_weights_that_could_not_be_read_back_are_not_written(value, dtype, own_file):
    before = own_file.read_bytes()
    model = small_model()
    model.cell.head.bias.data[0] = value
    with pytest.raises(ValueError, match=re.escape(f"{own_file}: not written") + r".*cell\.head\.bias.*not finite"):
        save_checkpoint(model, own_file, dtype)
    assert own_file.read_bytes() == before


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("changes", "args"),
    [
        ({}, {}),
        ({"latent_channels": 3}, {"cell_extra_latent_width": 3, "z_width": 8}),
        ({"mode": "explicit"}, {"model_mode": "explicit"}),
        (
            {"mode": "explicit", "explicit_batch_norm": False},
            {"model_mode": "explicit", "cell_use_bn_for_explicit": False},
        ),
    ],
    ids=["implicit", "latent", "explicit", "explicit with group norm"],
)
def test_a_network_in_the_originals_format_is_the_same_network(prefix, changes, args, original_file):
    model = small_model(**changes, solver=FixedPointConfig(max_evals=6, tol=0.01))
    loaded = load_checkpoint(original_file(original_args(**args), original_weights(model, prefix), epoch=7))
    assert not loaded.training
    assert loaded.config == model.config
    assert_same_network(loaded, model)


def test_the_fields_of_the_original_are_all_read():
    args = original_args(
        n_keypoints=6,
        cell_extra_latent_width=2,
        z_width=8,
        im_size=128,
        heatmap_size=32,
        injection_width=12,
        cell_base_width=16,
        cell_width_increment=2,
        cell_gn_groups=2,
        cell_norm="linear",
        cell_softargmax_beta=1.5,
        cell_learn_softargmax_beta=True,
        model_mode="explicit",
        explicit_depth=4,
        cell_use_bn_for_explicit=False,
        take_one_less_inference_step=True,
        JFB=False,
    )
    assert config_from_original(args) == small_config(
        landmarks=6,
        latent_channels=2,
        image_size=128,
        backbone="stem",
        injection_channels=12,
        cell_width=16,
        cell_width_increment=2,
        cell_groups=2,
        normalisation="linear",
        softargmax_beta=1.5,
        softplus_beta=True,
        mode="explicit",
        explicit_depth=4,
        explicit_batch_norm=False,
        final_evaluation=False,
        gradient=GradientConfig(rule="ift"),
        solver=FixedPointConfig(max_evals=6, tol=0.01),
    )


@pytest.mark.parametrize(
    ("changes", "solver"),
    [
        ({"solver": "fpi"}, FixedPointConfig(max_evals=6, tol=0.01, min_evals=1)),
        ({"solver": "fpi", "max_iters": 1}, FixedPointConfig(max_evals=1, tol=0.01, min_evals=1)),
        (
            {"solver": "anderson"},
            AndersonConfig(max_evals=8, tol=0.01, min_evals=3, m=4, lam=1e-4, ridge="absolute", beta=0.9),
        ),
        ({"solver": "broyden"}, BroydenConfig(max_evals=7, tol=0.01, min_evals=2, memory=7)),
    ],
)
@pytest.mark.parametrize("stop_mode", ["rel", "abs"])
def test_budgets_and_stops_of_the_originals_solvers(changes, solver, stop_mode):
    if stop_mode == "abs":
        solver = replace(solver, tol=0.5, criterion="absolute")
    assert solver.stop_rule == "sample"
    assert config_from_original(original_args(stop_mode=stop_mode, **changes)).solver == solver


def test_the_originals_flag_for_a_random_budget_is_left_out_of_account():
    assert config_from_original(original_args(stochastic_max_iters=True)) == config_from_original(original_args())


@pytest.mark.parametrize("value", ["None", None])
def test_no_normalisation_is_written_in_two_ways(value):
    assert config_from_original(original_args(cell_norm=value)).normalisation == "none"


@pytest.mark.parametrize("field", ORIGINAL_ARGS)
def test_a_missing_field_is_named(field):
    args = original_args()
    delattr(args, field)
    with pytest.raises(ValueError, match=f"'args' lacks {field}$"):
        config_from_original(args)


def test_missing_fields_are_named_together_with_their_file(original_file):
    assert_refused(
        original_file(argparse.Namespace(**dict(list(ORIGINAL_ARGS.items())[:-3]))),
        "'args' lacks z0_mode, cell_name, JFB$",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_width": 6}, "z_width 6 is not n_keypoints"),
        ({"heatmap_size": 32}, "heatmap_size 32 is not a quarter of im_size 64"),
        ({"solver": "newton"}, "unknown solver 'newton': 'anderson', 'fpi' and 'broyden' are known"),
        ({"stop_mode": "both"}, "unknown stop_mode 'both'"),
        ({"cell_name": "Cell1"}, "cell_name 'Cell1'"),
        ({"z0_mode": "learned"}, "z0_mode 'learned'"),
        ({"cell_norm": "softmax"}, "'softmax'"),
        ({"model_mode": "recurrent"}, "'recurrent'"),
        ({"cell_gn_groups": 3}, "cell_groups must divide every width"),
        ({"max_iters": 0}, "max_evals must be an integer, at least 1, not 0"),
        ({"im_size": 96, "heatmap_size": 24}, "image_size must be a multiple of 64, not 96"),
        ({"n_keypoints": None}, "n_keypoints must be an integer, not None"),
    ],
)
def test_a_field_that_holds_something_unknown_is_named(changes, message, original_file):
    assert_refused(original_file(original_args(**changes)), message)


def test_extra_weights_are_named_in_one_warning_and_left_out(original_file):
    model = small_model()
    weights = {**original_weights(model), "ema.decay": torch.ones(1), "deq_layer.cell.hourglass.same9.x": torch.ones(1)}
    with pytest.warns(UserWarning, match=r"unknown weights ema\.decay, deq_layer\.cell\.hourglass\.same9\.x") as caught:
        loaded = load_checkpoint(original_file(weights=weights))
    assert len(caught) == 1
    assert torch.equal(loaded.cell.head.weight, model.cell.head.weight)


@pytest.mark.parametrize(
    "name", ["tail.3.norm.running_var", "deq_layer.cell.head.conv.bias", "deq_layer.cell.hourglass.same7.conv.weight"]
)
def test_a_missing_weight_of_the_original_is_an_error(name, original_file):
    weights = original_weights(small_model())
    del weights[name]
    assert_refused(original_file(weights=weights), "1 weights are missing, the first: ")


def test_a_weight_of_another_shape_is_named_with_both_shapes(original_file):
    weights = original_weights(small_model())
    weights["deq_layer.cell.head.conv.bias"] = torch.zeros(6)
    assert_refused(original_file(weights=weights), r"weight cell\.head\.bias is \(6,\), the network needs \(5,\)")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_not_finite_is_named(value, original_file):
    weights = original_weights(small_model())
    weights["tail.0.conv.bias"][0] = value
    assert_refused(
        original_file(weights=weights), r"weight backbone\.block1\.conv\.bias has values that are not finite"
    )


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
        (lambda weights, config: config.update(cell_groups=3), "cell_groups must divide"),
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


def test_a_file_whose_path_is_not_utf8_is_loaded(own_file):
    path = Path(os.fsdecode(os.fsencode(own_file.parent) + b"/n\xe4me.safetensors"))
    shutil.copy(own_file, path)
    assert weights_digest(load_checkpoint(path)) == weights_digest(load_checkpoint(own_file))


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


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_keypoints", 98.0), ("cell_softargmax_beta", "1"), ("JFB", "false"), ("max_iters", 10**9), ("anderson_m", "5")],
)
def test_a_field_of_the_original_of_another_kind_is_named(name, value, original_file):
    path = original_file()
    content = torch.load(path, weights_only=False)
    setattr(content["args"], name, value)
    torch.save(content, path)
    assert_refused(path, "max_evals" if name == "max_iters" else name)


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
    ],
    ids=["fp8", "sparse", "meta", "complex", "expanded", "quantised"],
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


def test_a_large_softplus_does_not_overflow():
    assert small_config(softargmax_beta=800.0, softplus_beta=True).effective_beta == 800


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.complex64, "float16", torch.float8_e4m3fn])
def test_weights_of_a_type_that_cannot_be_read_are_not_written(tmp_path, dtype):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(small_model(), path)
    before = path.read_bytes()
    with pytest.raises(OptionError, match="dtype of a checkpoint"):
        save_checkpoint(small_model(), path, dtype)
    assert path.read_bytes() == before


def test_opening_a_checkpoint_does_not_load_the_compiler():
    code = "import sys, models; models.load_checkpoint(sys.argv[1]); print('torch._dynamo' in sys.modules)"
    command = [sys.executable, "-c", code, "weights/ldeq_mini.safetensors"]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_named(tmp_path, device):
    path = tmp_path / "weights.safetensors"
    save_checkpoint(small_model(), path)
    with pytest.raises(OptionError, match=f"device {device} cannot be used"):
        load_checkpoint(path, device)
    with pytest.raises(OptionError, match="device must be a str or device"):
        load_checkpoint(path, [device])


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


def test_the_same_network_makes_the_same_file(tmp_path):
    model = small_model()
    for name in ("first", "second", "third"):
        save_checkpoint(model, tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in ("first", "second", "third")}) == 1


def test_arguments_of_the_wrong_kind_are_named(tmp_path):
    with pytest.raises(OptionError, match="path must be a str or PathLike, not None"):
        load_checkpoint(None)
    with pytest.raises(OptionError, match="path must be a str or PathLike, not 3"):
        save_checkpoint(small_model(), 3)
    with pytest.raises(OptionError, match="model must be a LDEQ"):
        save_checkpoint(torch.nn.Linear(1, 1), tmp_path / "weights")


def test_a_changed_byte_of_a_checkpoint_in_the_original_format_is_found(tmp_path):
    source = Path(__file__).parents[1] / "data" / "parity"
    original = min(source.glob("*.pth.tar"), key=lambda path: path.stat().st_size)
    content = bytearray(original.read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / original.name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_checkpoint(path)
