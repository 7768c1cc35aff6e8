"""What every solver shares: its options, how a solve can end, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol, get_args

from torch import Tensor

from solvers.compaction import Departure

Criterion = Literal["relative", "absolute"]
StopRule = Literal["sample", "batch"]
Map = Callable[..., Tensor]


class Status(IntEnum):
    """How the solve of one sample ended."""

    BUDGET_SPENT = 0
    CONVERGED = 1
    NON_FINITE = 2

    @property
    def text(self) -> str:
        """A sentence for people."""
        return {
            Status.BUDGET_SPENT: "the budget of evaluations was spent before the residual fell below the tolerance",
            Status.CONVERGED: "the residual fell below the tolerance",
            Status.NON_FINITE: "the map returned a value that is not finite",
        }[self]


@dataclass(frozen=True)
class Solution:
    """The outcome of a solve, per sample.

    Attributes:
        z: (B, ...) the chosen iterate: the last value of f for the fixed-point solver, the iterate of lowest residual
            for the others. Where there is no candidate, the last finite value of f, else z0.
        f_z: (B, ...) the image of `z`, or None where nobody has computed it. Without a candidate it repeats `z`.
        residual: (B,) residual of the chosen iterate; for the fixed-point solver that of the last evaluation.
        evals: (B,) int64, evaluations of f that the sample has used.
        status: (B,) int64, values of `Status`.
        trace: (T, B) residual of every evaluation, NaN after a sample has stopped; T is the most that any sample used.
        trajectory: (T, B, ...) the iterate of every evaluation, NaN after a sample has stopped; None unless asked for.
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

    `returns_best` says which iterate is the answer: the one of lowest residual (True) or the last value of f (False).
    """

    returns_best: bool

    def residual_buffer(self) -> Tensor | None:
        """Where the next f(z) - z is to be written, (B, N); None for a fresh tensor."""
        ...

    def next_iterate(self, z: Tensor, f_z: Tensor, difference: Tensor) -> Tensor:
        """The iterate after `z`, given f(z) and f(z) - z, each (B, N)."""
        ...

    def drop(self, departure: Departure) -> None:
        """Samples have left: keep of all that is remembered, per sample, the rows that stay.

        Called after `next_iterate`, only where samples leave the batch. What f or the caller may hold, as z, f(z) and
        z0, is taken by `departure.select`; what is the method's own by `departure.shrink`.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """Options that all solvers have.

    Attributes:
        max_evals: budget, in evaluations of f.
        tol: a sample has converged when its residual is below; 0 spends the whole budget and never waits for a device.
        criterion: "relative", ||f(z) - z|| / ||f(z)||, or "absolute", ||f(z) - z||.
        stop_rule: "sample", each stops on its own residual, so that a result never depends on the rest of the batch; or
            "batch", the rule of the original release: all stop when the mean of their residuals is below `tol`, and the
            iterate is chosen for the batch as a whole.
        min_evals: no convergence test and no candidate for the best iterate before this evaluation.
        record_trajectory: keep every iterate (`Solution.trajectory`); memory grows with the evaluations.
        compact: whether samples that have stopped leave the batch that f is given. None: on a CPU, where `solve` is
            given `args`. True: everywhere; on an accelerator at the checks that it waits for anyway, so never where
            `tol` is 0. Without `args` that is a promise that f closes over no tensor (B, ...). False: nowhere, f always
            sees the whole batch. The "batch" rule, by which all stop at once, has no use for it.

    Raises:
        ValueError: an option is out of range.
    """

    max_evals: int = 12
    tol: float = 1e-3
    criterion: Criterion = "relative"
    stop_rule: StopRule = "sample"
    min_evals: int = 1
    record_trajectory: bool = False
    compact: bool | None = None

    def __post_init__(self) -> None:
        require(self.max_evals >= 1, "max_evals", self.max_evals, "at least 1")
        require(self.tol >= 0, "tol", self.tol, "0 or more")
        require(self.criterion in get_args(Criterion), "criterion", self.criterion, "'relative' or 'absolute'")
        require(self.stop_rule in get_args(StopRule), "stop_rule", self.stop_rule, "'sample' or 'batch'")
        require(self.min_evals >= 1, "min_evals", self.min_evals, "at least 1")
        require(self.compact is None or isinstance(self.compact, bool), "compact", self.compact, "True, False or None")

    def start(self, z0: Tensor) -> Method:
        """A fresh `Method` for a solve from `z0` (B, N)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it iterates: give it a method start(z0)")


def require(holds: bool, option: str, value: object, expected: str) -> None:
    """Raise a ValueError that names the option, unless the condition holds."""
    if not holds:
        raise ValueError(f"{option} must be {expected}, not {value!r}")
