"""Checkpoints in the original's format: the same network, and the field or weight that keeps it from being that."""

import argparse
from dataclasses import replace

import pytest
import torch
from checkpoint_files import ORIGINAL_ARGS, assert_refused, assert_same_network, original_args, original_weights
from small_networks import small_config, small_model

from models import load_checkpoint
from models.checkpoints import config_from_original
from models.deq import GradientConfig
from solvers import AndersonConfig, BroydenConfig, FixedPointConfig


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
        ({"cell_gn_groups": 3}, "cell_groups 3 must divide every one"),
        ({"max_iters": 0}, "max_evals must be an integer, at least 1, not 0"),
        ({"im_size": 96, "heatmap_size": 24}, "image_size must be a multiple of 64, not 96"),
        ({"n_keypoints": None}, "n_keypoints must be an integer, not None"),
    ],
)
def test_a_field_that_holds_something_unknown_is_named(changes, message, original_file):
    assert_refused(original_file(original_args(**changes)), message)


def test_extra_weights_are_named_in_one_warning_and_left_out(original_file):
    model = small_model()
    weights = {**original_weights(model), "ema\n": torch.ones(1), "deq_layer.cell.hourglass.same9.x": torch.ones(1)}
    with pytest.warns(UserWarning, match=r"unknown weights 'ema\\n', deq_layer\.cell\.hourglass\.same9\.x") as caught:
        loaded = load_checkpoint(original_file(weights=weights))
    assert len(caught) == 1
    assert torch.equal(loaded.cell.head.weight, model.cell.head.weight)


def test_a_weight_with_and_without_the_prefix_is_refused(original_file):
    weights = original_weights(small_model())
    weights["module.deq_layer.cell.head.conv.bias"] = torch.zeros_like(weights["deq_layer.cell.head.conv.bias"])
    assert_refused(original_file(weights=weights), r"deq_layer\.cell\.head\.conv\.bias is there twice")


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
    ("name", "value"),
    [("n_keypoints", 98.0), ("cell_softargmax_beta", "1"), ("JFB", "false"), ("max_iters", 10**9), ("anderson_m", "5")],
)
def test_a_field_of_the_original_of_another_kind_is_named(name, value, original_file):
    path = original_file()
    content = torch.load(path, weights_only=False)
    setattr(content["args"], name, value)
    torch.save(content, path)
    assert_refused(path, "max_evals" if name == "max_iters" else name)
