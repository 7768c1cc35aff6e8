"""The contract of all solvers: the options, the ways in which a solve can end, and the result."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol, TypeGuard, get_args

from torch import Tensor

from solvers.compaction import Departure

Criterion = Literal["relative", "absolute"]
StopRule = Literal["sample", "batch"]
Map = Callable[..., Tensor]

LARGEST = 1e30
"""Largest tolerance or ridge; single precision can hold it."""


class Status(IntEnum):
    """How the solve of one sample ended."""

    BUDGET_SPENT = 0
    CONVERGED = 1
    NON_FINITE = 2

    @property
    def text(self) -> str:
        """A sentence for the user."""
        return {
            Status.BUDGET_SPENT: "the budget of evaluations was spent before the residual fell below the tolerance",
            Status.CONVERGED: "the residual fell below the tolerance",
            Status.NON_FINITE: "the map returned a value that is not finite",
        }[self]


@dataclass(frozen=True)
class Solution:
    """The outcome of a solve, per sample.

    Attributes:
        z: (B, ...) the chosen iterate: the last value of f for the fixed-point solver, the iterate with the lowest
            residual for the others. Without a candidate it is the last finite value of f, or else z0.
        f_z: (B, ...) the image of `z`, or None if it was not computed. Without a candidate it repeats `z`.
        residual: (B,) residual of the chosen iterate; for the fixed-point solver that of the last evaluation.
        evals: (B,) int64, evaluations of f that the sample used.
        status: (B,) int64, values of `Status`.
        trace: (T, B) residual of every evaluation, NaN after a sample has stopped; T is the largest number of
            evaluations of any sample.
        trajectory: (T, B, ...) the iterate of every evaluation, NaN after a sample has stopped; None unless requested.
    """

    z: Tensor
    f_z: Tensor | None
    residual: Tensor
    evals: Tensor
    status: Tensor
    trace: Tensor
    trajectory: Tensor | None = None


class Method(Protocol):
    """The state of one solver during one solve, on flattened samples (B, N).

    `returns_best` chooses the answer: the iterate with the lowest residual (True) or the last value of f (False).
    """

    returns_best: bool

    def residual_buffer(self) -> Tensor | None:
        """The memory for the next f(z) - z, (B, N); None for a new tensor."""
        ...

    def next_iterate(self, z: Tensor, f_z: Tensor, difference: Tensor) -> Tensor:
        """The iterate after `z`, given f(z) and f(z) - z, each (B, N)."""
        ...

    def drop(self, departure: Departure) -> None:
        """Samples have left: keep the rows that stay of all stored values.

        Called after `next_iterate`, only if samples leave the batch. Use `departure.select` for tensors that f or the
        caller may also hold, such as z, f(z) and z0, and `departure.shrink` for the method's own tensors.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """Options of all solvers.

    Attributes:
        max_evals: budget, in evaluations of f.
        tol: a sample has converged when its residual is below this; 0 uses the whole budget and never waits for a
            device.
        criterion: "relative", ||f(z) - z|| / ||f(z)||, or "absolute", ||f(z) - z||.
        stop_rule: "sample": each sample stops on its own residual, so that a result never depends on the rest of the
            batch. "batch", the rule of the original release: all stop when the mean of their residuals is below `tol`,
            and the iterate is chosen for the whole batch.
        min_evals: first evaluation with a convergence test and a candidate for the best iterate.
        record_trajectory: keep every iterate (`Solution.trajectory`); memory grows with the evaluations.
        compact: whether samples that have stopped leave f's batch. None: only on a CPU and if `solve` has `args`. True:
            always, except that an accelerator does it only at convergence tests, so never if `tol` is 0; without `args`
            f must then not close over a tensor (B, ...). False: never, f always gets the whole batch. It has no effect
            with the "batch" rule, because all samples stop at once.

    Raises:
        ValueError: If an option is out of range.
    """

    max_evals: int = 12
    tol: float = 1e-3
    criterion: Criterion = "relative"
    stop_rule: StopRule = "sample"
    min_evals: int = 1
    record_trajectory: bool = False
    compact: bool | None = None

    def __post_init__(self) -> None:
        require_count("max_evals", self.max_evals)
        require_size("tol", self.tol)
        require_choice("criterion", self.criterion, get_args(Criterion))
        require_choice("stop_rule", self.stop_rule, get_args(StopRule))
        require_count("min_evals", self.min_evals)
        require(isinstance(self.record_trajectory, bool), "record_trajectory", self.record_trajectory, "True or False")
        require(self.compact is None or isinstance(self.compact, bool), "compact", self.compact, "True, False or None")

    def start(self, z0: Tensor) -> Method:
        """A new `Method` for a solve from `z0` (B, N)."""
        raise NotImplementedError(f"{type(self).__name__} has no method start(z0); define one")


def require(holds: bool, option: str, value: object, expected: str) -> None:
    """Raise a ValueError that names the option, unless the condition holds."""
    if not holds:
        # One line: arrays and tensors are shown in several.
        raise ValueError(f"{option} must be {expected}, not {' '.join(repr(value).split())}")


def require_choice(option: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise a ValueError that names the option, unless the value is one of the words."""
    require(isinstance(value, str) and value in choices, option, value, " or ".join(map(repr, choices)))


def require_count(option: str, value: object) -> None:
    """Raise a ValueError that names the option, unless the value is an integer of at least 1."""
    require(
        isinstance(value, int) and not isinstance(value, bool) and value >= 1, option, value, "an integer, at least 1"
    )


def require_size(option: str, value: object) -> None:
    """Raise a ValueError that names the option, unless the value is a number from 0 to `LARGEST`."""
    require(is_number(value) and 0 <= value <= LARGEST, option, value, f"a number from 0 to {LARGEST:g}")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number, and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)
