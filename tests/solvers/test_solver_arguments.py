"""Starts, maps and options that no solver takes, and how the error names them."""

import re
from dataclasses import FrozenInstanceError

import pytest
import torch
from fixed_point_problems import every_solver

from solvers import AndersonConfig, FixedPointConfig, Status, solve, solver_config


@every_solver
def test_a_map_that_changes_the_shape_is_refused(config):
    with pytest.raises(ValueError, match=r"keep the shape \(2, 9\), but returned \(2, 8\)"):
        solve(lambda z: z[:, 1:], torch.zeros(2, 9), config())


@pytest.mark.parametrize("start", [torch.zeros(2, 9, dtype=torch.int64), torch.tensor(1.0), torch.zeros(0, 9)])
def test_a_start_that_is_no_batch_of_numbers_is_refused(start):
    with pytest.raises(ValueError, match="z0 must be a non-empty floating-point batch"):
        solve(lambda z: z, start, FixedPointConfig())


@every_solver
def test_an_unknown_option_is_named(config):
    with pytest.raises(TypeError, match="max_eval"):
        config(max_eval=3)


@every_solver
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_evals", 0),
        ("tol", -1e-3),
        ("tol", float("nan")),
        ("tol", 10**400),
        ("tol", True),
        ("criterion", "rel"),
        ("stop_rule", "mean"),
        ("min_evals", 0),
    ],
)
def test_an_option_out_of_range_is_named(config, option, value):
    with pytest.raises(ValueError, match=f"{option} must be .*, not {re.escape(repr(value))}"):
        config(**{option: value})


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("anderson", "m", 0),
        ("anderson", "lam", -1.0),
        ("anderson", "lam", 1e308),
        ("anderson", "beta", None),
        ("anderson", "beta", "1"),
        ("anderson", "ridge", "none"),
        ("anderson", "beta", 0.0),
        ("anderson", "beta", 1.5),
        ("broyden", "memory", 0),
    ],
)
def test_a_solvers_own_option_out_of_range_is_named(name, option, value):
    with pytest.raises(ValueError, match=f"{option} must be .*, not {re.escape(repr(value))}"):
        solver_config(name, **{option: value})


def test_a_solver_by_name():
    assert solver_config("anderson", m=3, tol=0.1) == AndersonConfig(m=3, tol=0.1)


def test_an_unknown_solver_or_option_by_name_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown solver \['anderson'\]"):
        solver_config(["anderson"])
    with pytest.raises(ValueError, match=r"unknown solver 'newton'; known: fixed_point, anderson, broyden"):
        solver_config("newton")
    with pytest.raises(ValueError, match=r"unknown option 'memory' of solver 'anderson'; known: .*m, lam"):
        solver_config("anderson", memory=3)


@every_solver
def test_a_configuration_is_frozen(config):
    with pytest.raises(FrozenInstanceError):
        config().tol = 0


def test_every_status_has_a_text_of_its_own():
    assert len({status.text for status in Status}) == len(Status) == 3


@pytest.mark.parametrize("option", ["max_evals", "min_evals", "m"])
@pytest.mark.parametrize("value", [2.5, torch.inf, "3", True, 0])
def test_counts_are_integers_of_at_least_one(option, value):
    with pytest.raises(ValueError, match=f"{option} must be an integer"):
        AndersonConfig(**{option: value})


@pytest.mark.parametrize("option", ["tol", "lam"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan, -1, "1"])
def test_strengths_are_numbers_in_their_range(option, value):
    with pytest.raises(ValueError, match=f"{option} must be a number from 0 to"):
        AndersonConfig(**{option: value})


@pytest.mark.parametrize("start", [None, [1.0], torch.ones(2, 3).to_sparse(), torch.ones(2, 3, device="meta")])
def test_a_start_that_is_no_dense_tensor_is_refused(start):
    with pytest.raises(ValueError, match="z0 must be a"):
        solve(lambda z: z, start, FixedPointConfig())


@pytest.mark.parametrize("config", [None, {}, "anderson", 3])
def test_a_configuration_that_is_none_is_refused(config):
    with pytest.raises(ValueError, match="config must be that of a solver"):
        solve(lambda z: z, torch.ones(2, 3), config)


def test_a_map_to_a_sparse_tensor_is_refused():
    with pytest.raises(ValueError, match="dense"):
        solve(lambda z: z.to_sparse(), torch.ones(2, 3), FixedPointConfig())


@pytest.mark.parametrize(
    ("f", "args", "reason"),
    [
        (None, (), "f must be a function"),
        ("f", (), "f must be a function"),
        (torch.sin, None, "args must be a list or tuple"),
        (torch.sin, 1.0, "args must be a list or tuple"),
        (torch.sin, torch.zeros(1, 1), "args must be a list or tuple"),
    ],
)
def test_a_map_that_is_none_and_args_that_are_no_list_are_named(f, args, reason):
    with pytest.raises(ValueError, match=reason):
        solve(f, torch.zeros(1, 3), FixedPointConfig(), args)
