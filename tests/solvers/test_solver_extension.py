"""A solver of one's own, and the examples of the documentation."""

import doctest
import importlib
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from solvers import SolverConfig, Status, solve
from solvers.compaction import Departure


@dataclass(frozen=True, kw_only=True)
class DampedConfig(SolverConfig):
    damping: float = 0.5

    def start(self, z0: Tensor) -> "DampedMethod":
        return DampedMethod(self.damping)


@dataclass
class DampedMethod:
    damping: float
    returns_best = True

    def residual_buffer(self) -> None:
        return None

    def next_iterate(self, z: Tensor, f_z: Tensor, difference: Tensor) -> Tensor:
        return z + self.damping * difference

    def drop(self, departure: Departure) -> None:
        pass


def test_a_solver_of_ones_own_works_under_the_same_contract():
    slope = torch.tensor([[-1.5], [-0.9]])
    solution = solve(lambda z, a: 2 + a * z, torch.zeros(2, 3), DampedConfig(max_evals=30, tol=1e-6), (slope,))
    assert solution.status.tolist() == [Status.CONVERGED] * 2
    assert solution.evals[0] != solution.evals[1]
    assert_close(solution.z, (2 / (1 - slope)).expand(2, 3))


def test_a_solver_without_a_method_says_what_is_missing():
    with pytest.raises(NotImplementedError, match=r"SolverConfig has no method start"):
        solve(lambda z: z, torch.zeros(1, 3), replace(SolverConfig(), tol=0))


@pytest.mark.parametrize("module", ["fixed_point", "anderson", "broyden"])
def test_the_examples_of_the_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(f"solvers.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
