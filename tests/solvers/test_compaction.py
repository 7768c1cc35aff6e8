"""Samples that have stopped leave the batch: the same solution, and no evaluation that nobody needs."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
from fixed_point_problems import every_solver
from torch import Tensor
from torch.testing import assert_close

from solvers import AndersonConfig, BroydenConfig, FixedPointConfig, Solution, SolverConfig, Status, solve
from solvers.anderson import AndersonMethod
from solvers.broyden import BroydenMethod
from solvers.compaction import Departure

SAMPLES = 7
# Samples of very different difficulty, out of order, so that rows move; the third never converges.
RATES = torch.tensor([0.9, 0.1, 1.0, 0.5, 0.0, 0.95, 0.3])


@dataclass
class Problem:
    """f(z, rates, shift) = rates * tanh(z) + shift, with `rates` and `shift` of every sample as arguments."""

    rates: Tensor
    shift: Tensor

    @property
    def args(self) -> tuple[Tensor, Tensor]:
        return self.rates, self.shift

    @staticmethod
    def f(z: Tensor, rates: Tensor, shift: Tensor) -> Tensor:
        return rates * torch.tanh(z) + shift

    def start(self) -> Tensor:
        return torch.zeros_like(self.shift)


def make_problem(*shape: int) -> Problem:
    generator = torch.Generator().manual_seed(0)
    signs = torch.randn(SAMPLES, *shape, generator=generator).sign()
    rates = RATES.view(-1, *[1] * len(shape)) * (0.5 + 0.5 * torch.rand(SAMPLES, *shape, generator=generator)) * signs
    shift = torch.randn(SAMPLES, *shape, generator=generator)
    rates[2] = -50 * torch.rand(shape, generator=generator)
    return Problem(rates, shift)


class Counter:
    """Passes calls on to f, and notes how many samples each had and which, told by the first element of an argument."""

    def __init__(self, f: Callable[..., Tensor], identities: Tensor):
        self.f = f
        self.identities = identities.flatten(1)[:, 0].tolist()
        self.calls: list[list[int]] = []

    def __call__(self, z: Tensor, *args: Tensor) -> Tensor:
        assert all(len(arg) == len(z) for arg in args)
        self.calls.append([self.identities.index(value) for value in args[-1].flatten(1)[:, 0].tolist()])
        return self.f(z, *args)


def assert_same(compact: Solution, whole: Solution) -> None:
    for field in fields(Solution):
        a, b = getattr(compact, field.name), getattr(whole, field.name)
        if a is None or b is None:
            assert a is b, field.name
        else:
            assert a.shape == b.shape, field.name
            assert a.dtype == b.dtype, field.name
            # The residual of a converged sample is a difference of nearly equal numbers.
            tolerance = 1e-3 if field.name in ("trace", "residual") else 1e-5
            assert_close(a, b, rtol=tolerance, atol=1e-5, equal_nan=True, msg=lambda text: f"{field.name}: {text}")  # noqa: B023


def both(problem: Problem, options: SolverConfig, z0: Tensor | None = None) -> tuple[Solution, Solution]:
    z0 = problem.start() if z0 is None else z0
    return tuple(solve(problem.f, z0, replace(options, compact=compact), problem.args) for compact in (None, False))


# The same solution


@every_solver
@pytest.mark.parametrize("shape", [(5,), (3, 4, 4)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"record_trajectory": True},
        {"criterion": "absolute"},
        {"min_evals": 3},
        {"min_evals": 5, "max_evals": 4},
        {"max_evals": 1},
        {"max_evals": 2},
        {"stop_rule": "batch"},
        {"tol": 0.0},
    ],
)
def test_the_solution_is_that_of_the_whole_batch(config, shape, changes):
    options = config(**{"max_evals": 15, "tol": 1e-3, **changes})
    compact, whole = both(make_problem(*shape), options)
    assert_same(compact, whole)


@pytest.mark.parametrize(
    "options",
    [
        AndersonConfig(m=2, max_evals=15),
        AndersonConfig(m=3, beta=0.5, max_evals=15),
        AndersonConfig(ridge="absolute", lam=1e-4, max_evals=15),
        BroydenConfig(memory=2, max_evals=15),
    ],
)
def test_a_history_that_is_full_follows_its_samples(options):
    assert_same(*both(make_problem(5), options))


@every_solver
def test_a_warm_start_is_followed(config):
    problem = make_problem(3, 4, 4)
    options = config(max_evals=15, tol=1e-3)
    first = solve(problem.f, problem.start(), options, problem.args)
    compact, whole = both(problem, options, first.z)
    assert_same(compact, whole)
    assert compact.evals.min() == 1


@every_solver
def test_the_memory_format_is_kept(config):
    problem = make_problem(3, 4, 4)
    problem = Problem(*(arg.contiguous(memory_format=torch.channels_last) for arg in problem.args))
    formats = []

    def f(z: Tensor, rates: Tensor, shift: Tensor) -> Tensor:
        formats.extend(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in (z, rates, shift))
        return problem.f(z, rates, shift)

    solution = solve(f, problem.start(), config(max_evals=15, record_trajectory=True), problem.args)
    assert all(formats)
    assert solution.z.is_contiguous(memory_format=torch.channels_last)
    assert_same(solution, both(problem, config(max_evals=15, record_trajectory=True))[1])


@every_solver
@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_sample_that_is_not_finite_leaves_and_disturbs_no_other(config, call):
    problem = make_problem(5)
    calls = []

    def spoilt(z: Tensor, rates: Tensor, shift: Tensor) -> Tensor:
        calls.append(len(z))
        image = problem.f(z, rates, shift)
        return image.masked_fill(shift[:, :1] == problem.shift[0, 0], torch.nan) if len(calls) >= call else image

    options = config(max_evals=12, tol=1e-3)
    solution = solve(spoilt, problem.start(), options, problem.args)
    clean = solve(problem.f, problem.start(), replace(options, compact=False), problem.args)
    assert solution.status[0] == Status.NON_FINITE
    assert solution.evals[0] == call
    assert solution.z.isfinite().all()
    assert sum(calls) == solution.evals.sum()
    assert solution.evals[1:].tolist() == clean.evals[1:].tolist()
    assert_close(solution.z[1:], clean.z[1:], rtol=1e-5, atol=1e-6)


@every_solver
def test_in_a_fixed_budget_too_a_sample_that_is_not_finite_leaves(config):
    problem = make_problem(5)
    problem.rates[3] = torch.nan
    counter = Counter(problem.f, problem.shift)
    solution = solve(counter, problem.start(), config(max_evals=4, tol=0), problem.args)
    assert solution.evals.tolist() == [4, 4, 4, 1, 4, 4, 4]
    assert [len(samples) for samples in counter.calls] == [7, 6, 6, 6]


# What f is given


@every_solver
@pytest.mark.parametrize("min_evals", [1, 3])
def test_f_never_sees_a_sample_that_has_stopped(config, min_evals):
    problem = make_problem(5)
    counter = Counter(problem.f, problem.shift)
    solution = solve(counter, problem.start(), config(max_evals=15, min_evals=min_evals), problem.args)
    for evaluation, samples in enumerate(counter.calls, start=1):
        assert sorted(samples) == [sample for sample in range(SAMPLES) if solution.evals[sample] >= evaluation]
    assert len(set(solution.evals.tolist())) > 3


@every_solver
def test_without_args_f_sees_the_whole_batch_as_it_may_close_over_one(config):
    problem = make_problem(5)
    sizes = []
    solve(lambda z: sizes.append(len(z)) or problem.f(z, *problem.args), problem.start(), config(max_evals=15))
    assert set(sizes) == {SAMPLES}


@every_solver
def test_without_args_samples_leave_where_the_caller_promises_that_they_can(config):
    sizes = []

    def f(z: Tensor) -> Tensor:
        sizes.append(len(z))
        return 0.5 * torch.cos(z)

    start = torch.randn(SAMPLES, 5, generator=torch.Generator().manual_seed(0)) * RATES.view(-1, 1) * 1e3
    solution = solve(f, start, config(max_evals=20, tol=1e-4, compact=True))
    assert sum(sizes) == solution.evals.sum() < SAMPLES * len(sizes)


@every_solver
@pytest.mark.parametrize("options", [{"compact": False}, {"stop_rule": "batch", "compact": True}])
def test_samples_stay_where_they_are_told_to_and_under_the_batch_rule(config, options):
    problem = make_problem(5)
    counter = Counter(problem.f, problem.shift)
    solve(counter, problem.start(), config(max_evals=9, **options), problem.args)
    assert counter.calls == [list(range(SAMPLES))] * len(counter.calls)


@every_solver
def test_what_the_caller_owns_is_not_changed(config):
    problem = make_problem(5)
    start, given, images = torch.ones_like(problem.shift), [], []

    def f(z: Tensor, rates: Tensor, shift: Tensor) -> Tensor:
        image = problem.f(z, rates, shift)
        given.append((z, z.clone()))
        images.append((image, image.clone()))
        return image

    before = [tensor.clone() for tensor in (start, *problem.args)]
    # Nothing is a candidate before the third evaluation, but samples that are not finite leave.
    problem.shift[4] = before[2][4] = torch.nan
    solve(f, start, config(max_evals=15, min_evals=3), problem.args)
    for tensor, expected in [*zip((start, *problem.args), before, strict=True), *given, *images]:
        assert_close(tensor, expected, rtol=0, atol=0, equal_nan=True)


@every_solver
def test_nothing_is_copied_while_no_sample_stops(config):
    problem = make_problem(5)
    given = []

    def f(z: Tensor, rates: Tensor, shift: Tensor) -> Tensor:
        given.append((rates.data_ptr(), shift.data_ptr(), len(z)))
        return problem.f(z, rates, shift)

    solve(f, problem.start(), config(max_evals=6, tol=0), problem.args)
    assert given == [(problem.rates.data_ptr(), problem.shift.data_ptr(), SAMPLES)] * 6


# Rows


@pytest.mark.parametrize(
    ("running", "kept"),
    [
        ([True, True, False, False], [0, 1]),
        ([False, True, True, True], [3, 1, 2]),
        ([False, False, True, False, True], [2, 4]),
        ([True], [0]),
    ],
)
def test_a_row_moves_only_into_a_place_that_became_free(running, kept):
    rows = torch.arange(2 * len(running)).view(-1, 2)
    departure = Departure(running)
    assert departure.remaining == len(kept)
    assert torch.equal(departure.select(rows), rows[kept])
    swapped = rows.clone()
    departure.swap(swapped)
    assert torch.equal(swapped[: len(kept)], rows[kept])
    assert torch.equal(swapped.sort(dim=0).values, rows)
    own = rows.clone()
    shrunk = departure.shrink(own)
    assert torch.equal(shrunk, rows[kept])
    assert shrunk.data_ptr() == own.data_ptr()


def test_the_histories_lose_the_samples_that_left():
    z0 = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    departure = Departure([False, True, False, True])
    anderson = AndersonMethod(AndersonConfig(m=3), z0)
    broyden = BroydenMethod(BroydenConfig(memory=3, max_evals=5), z0)
    for method in (anderson, broyden):
        z = z0
        for _ in range(3):
            image = 0.5 * torch.tanh(z) + 1
            z = method.next_iterate(z, image, torch.sub(image, z, out=method.residual_buffer()))
    expected = {
        (method, name): getattr(method, name)[[3, 1]].clone()
        for method, names in ((anderson, ("differences", "damped_images", "gram")), (broyden, ("u", "v")))
        for name in names
    }
    expected_previous = [tensor[[3, 1]].clone() for tensor in broyden.previous]
    anderson.drop(departure)
    broyden.drop(departure)
    for (method, name), rows in expected.items():
        assert_close(getattr(method, name), rows, rtol=0, atol=0, equal_nan=True)
    assert all(torch.equal(a, b) for a, b in zip(broyden.previous, expected_previous, strict=True))


@pytest.mark.parametrize("value", ["no", 1, 0.0])
def test_compact_takes_yes_no_and_none_alone(value):
    with pytest.raises(ValueError, match=r"compact must be True, False or None, not"):
        FixedPointConfig(compact=value)
