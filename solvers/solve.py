"""The loop of all solvers: evaluate, measure, choose, stop, step, and drop samples that have stopped."""

from collections.abc import Sequence

import torch
from torch import Tensor

from solvers.checked_map import CheckedMap
from solvers.compaction import Departure, Roster
from solvers.contract import Map, Solution, SolverConfig, Status

# A check for stopped samples waits for an accelerator, so it is rare; a stopped sample does not change meanwhile.
ACCELERATOR_CHECK_INTERVAL = 4


class Rows:
    """Values (B, N) that are overwritten sample by sample; the initial tensor is not changed."""

    def __init__(self, start: Tensor):
        self.values = start
        self._owned = False

    def overwrite(self, chosen: Tensor, values: Tensor) -> None:
        """Write `values` (n, N) into the first n rows where `chosen` (n,) is true."""
        if chosen.device.type == "cpu":
            # A check is cheap here. All or none (always the case with one sample) is several times cheaper.
            taken = int(chosen.sum())
            if taken == 0 and self._owned:
                return
            if taken == len(values):
                if self._owned:
                    first_rows(self.values, taken).copy_(values)
                else:
                    self._own(values.clone())
                return
        rows = first_rows(self.values, len(values))
        if self._owned:
            torch.where(chosen.unsqueeze(1), values, rows, out=rows)
        else:
            self._own(torch.where(chosen.unsqueeze(1), values, rows))

    def drop(self, departure: Departure) -> None:
        """Move the rows of samples that leave behind the others."""
        if not self._owned:
            self._own(self.values.clone())
        departure.swap(self.values)

    def _own(self, values: Tensor) -> None:
        self.values = values
        self._owned = True


class LastImage:
    """Chooses the last finite value of f, as plain iteration does."""

    f_z = None

    def __init__(self, z0: Tensor):
        self.image = Rows(z0)
        self.residual = z0.new_full((z0.shape[0],), torch.nan)

    @property
    def z(self) -> Tensor:
        """The chosen iterate, (B, N), by row."""
        return self.image.values

    def offer(
        self, z: Tensor, f_z: Tensor, residual: Tensor, measure: Tensor, running: Tensor, candidate: bool
    ) -> None:
        """Store f(z) for the running samples with a finite residual."""
        self.image.overwrite(running & residual.isfinite(), f_z)
        overwrite(self.residual, running, residual)

    def drop(self, departure: Departure) -> None:
        """Samples leave: their rows go behind the others."""
        self.image.drop(departure)
        departure.swap(self.residual)


class BestIterate:
    """Chooses the iterate with the lowest measure, and keeps its image; without one, the last finite value of f."""

    def __init__(self, z0: Tensor):
        self.iterate = Rows(z0)
        self.image = Rows(z0)
        self.residual = z0.new_full((z0.shape[0],), torch.nan)
        self.measure = z0.new_full((z0.shape[0],), torch.inf)

    @property
    def z(self) -> Tensor:
        """The chosen iterate, (B, N), by row."""
        return torch.where(self.measure.isposinf().unsqueeze(1), self.f_z, self.iterate.values)

    @property
    def f_z(self) -> Tensor:
        """Its image, (B, N), by row."""
        return self.image.values

    def offer(
        self, z: Tensor, f_z: Tensor, residual: Tensor, measure: Tensor, running: Tensor, candidate: bool
    ) -> None:
        """Store z if it is better than all before, or a finite f(z) for a sample without a candidate."""
        lowest = first_rows(self.measure, len(z))
        undecided = running & lowest.isposinf()
        known = undecided & residual.isfinite()
        if candidate:
            better = running & (measure < lowest)
            known = known | better
            self.iterate.overwrite(better, z)
            overwrite(self.measure, better, measure)
        self.image.overwrite(known, f_z)
        overwrite(self.residual, known | undecided, residual)

    def drop(self, departure: Departure) -> None:
        """Samples leave: their rows go behind the others."""
        self.iterate.drop(departure)
        self.image.drop(departure)
        departure.swap(self.residual)
        departure.swap(self.measure)


class Record:
    """The progress of every sample: running or how it ended, its evaluations, residuals and iterates.

    `running` (n,) covers the samples in the batch; the rest covers all B, samples that have left behind the others.
    """

    def __init__(self, z0: Tensor, config: SolverConfig):
        samples, device = z0.shape[0], z0.device
        self.config = config
        self.roster = Roster(samples, device)
        self.running = torch.ones(samples, dtype=torch.bool, device=device)
        self.evals = torch.zeros(samples, dtype=torch.int64, device=device)
        self.status = torch.full_like(self.evals, Status.BUDGET_SPENT)
        self.trace: list[Tensor] = []
        self.trajectory: list[Tensor] = []

    def add(self, z: Tensor, residual: Tensor, measure: Tensor, candidate: bool) -> None:
        """Record one evaluation at z (n, N), and which samples it stopped."""
        running = self.running
        evals = first_rows(self.evals, len(running))
        evals += running
        self.trace.append(self.roster.spread(torch.where(running, residual, torch.nan)))
        if self.config.record_trajectory:
            self.trajectory.append(self.roster.spread(torch.where(running.unsqueeze(1), z, torch.nan)))

        status = first_rows(self.status, len(running))
        non_finite = running & ~residual.isfinite()
        status.masked_fill_(non_finite, Status.NON_FINITE)
        if self.config.stop_rule == "sample":
            running = running & ~non_finite
        if candidate:
            converged = running & (measure < self.config.tol)
            status.masked_fill_(converged, Status.CONVERGED)
            running = running & ~converged
        self.running = running

    def drop(self, departure: Departure) -> None:
        """Samples leave: all remaining samples are running."""
        self.roster.drop(departure)
        departure.swap(self.evals)
        departure.swap(self.status)
        self.running = torch.ones_like(self.running[: departure.remaining])

    def most_evals(self) -> int:
        """The largest number of evaluations of a sample; without a tolerance this does not wait for an accelerator."""
        fixed = self.evals.device.type != "cpu" and self.config.tol == 0
        return len(self.trace) if fixed else int(self.evals.max())


def first_rows(rows: Tensor, count: int) -> Tensor:
    """`rows[:count]`, without the cost of a view if that is all rows."""
    return rows if rows.shape[0] == count else rows[:count]


def overwrite(rows: Tensor, chosen: Tensor, values: Tensor) -> None:
    """Write `values` (n,) into the first n of `rows` (B,) where `chosen` (n,) is true, in place."""
    rows = first_rows(rows, len(values))
    torch.where(chosen, values, rows, out=rows)


def residual_norm(difference: Tensor, f_z: Tensor, relative: bool) -> Tensor:
    """||f(z) - z||, divided by ||f(z)|| if relative; (B, N) each -> (B,). Zero divided by zero is zero."""
    absolute = torch.linalg.vector_norm(difference, dim=1)
    if not relative:
        return absolute
    precision = torch.finfo(f_z.dtype)
    # A constant floor would depend on the scale of the problem. This one only makes f(z) = 0 finite.
    floor = precision.eps * absolute + precision.tiny
    return absolute / (torch.linalg.vector_norm(f_z, dim=1) + floor)


@torch.no_grad()
def solve(f: Map, z0: Tensor, config: SolverConfig, args: Sequence[Tensor] = ()) -> Solution:
    """Find a fixed point z = f(z, *args) of every sample of a batch.

    Failures are values: see `Solution.status`. The result has no gradient: differentiation is separate.

    Compaction: under the "sample" rule, samples that have stopped leave the batch. Then f gets (n, ...) of z and of
    each of `args`, n <= B, in another order. So tensors with a row per sample must be passed in `args`: a tensor
    (B, ...) that f closes over would no longer fit. Therefore a solve without `args` compacts only if `config.compact`
    is True. A solve with `args` compacts on a CPU, and on an accelerator if it is True.

    Args:
        f: maps (n, ...) to the same shape, each sample separately, and does not change its arguments. It runs under the
            autocast state of the caller. PyTorch's counter of in-place changes detects a change; a change through
            `.data` or NumPy is not detected.
        z0: (B, ...) floating point; half precision is converted to float32, and so are all values of f.
        config: configuration of a solver.
        args: tensors (B, ...), further arguments of f, for example the injection.

    Returns:
        The solution, with z, f_z and trajectory in the memory format of z0.

    Raises:
        ValueError: If config is not that of a solver, f is no function, z0 is not a dense floating-point batch, args
            are not tensors with the same number of samples, or f returns another shape, a wider or no floating-point
            type or another device, or changes an argument in place.
    """
    if not isinstance(config, SolverConfig):
        raise ValueError(f"config must be that of a solver, for example AndersonConfig(), not {type(config).__name__}")
    evaluate = CheckedMap(f, z0, args)
    z = evaluate.start
    method = config.start(z)
    choice = BestIterate(z) if method.returns_best else LastImage(z)
    record = Record(z, config)
    compact = _compacts(config, evaluate)

    for evaluation in range(1, config.max_evals + 1):
        f_z = evaluate(z)
        with torch.autocast(z.device.type, enabled=False):
            difference = torch.sub(f_z, z, out=method.residual_buffer())
            residual = residual_norm(difference, f_z, config.criterion == "relative")
            measure = residual.mean().expand_as(residual) if config.stop_rule == "batch" else residual
            candidate = evaluation >= config.min_evals
            choice.offer(z, f_z, residual, measure, record.running, candidate)
            record.add(z, residual, measure, candidate)
            if evaluation == config.max_evals:
                break
            running = _ask(record.running, evaluation, config.tol, compact)
            if not any(running):
                break
            z = method.next_iterate(z, f_z, difference)
            # f needs this memory next.
            del f_z, difference
            if compact and not all(running):
                departure = Departure(running)
                z = departure.select(z)
                for part in (evaluate, method, choice, record):
                    part.drop(departure)

    used = record.most_evals()
    by_sample, restore = record.roster.by_sample, evaluate.layout.restore
    image = choice.f_z if config.max_evals >= config.min_evals else None
    return Solution(
        z=restore(by_sample(choice.z)),
        f_z=None if image is None else restore(by_sample(image)),
        residual=by_sample(choice.residual),
        evals=by_sample(record.evals),
        status=by_sample(record.status),
        trace=torch.stack(record.trace[:used]),
        trajectory=restore(torch.stack(record.trajectory[:used])) if record.trajectory else None,
    )


def _compacts(config: SolverConfig, evaluate: CheckedMap) -> bool:
    if config.stop_rule == "batch":
        return False
    if config.compact is None:
        return bool(evaluate.args) and evaluate.start.device.type == "cpu"
    return config.compact


def _ask(running: Tensor, evaluation: int, tol: float, of_each: bool) -> list[bool]:
    """Whether samples still run, each or the whole batch at once; True if this is not the time for a check."""
    if running.device.type != "cpu" and (tol == 0 or evaluation % ACCELERATOR_CHECK_INTERVAL):
        return [True]
    return running.cpu().tolist() if of_each else [bool(running.any())]
