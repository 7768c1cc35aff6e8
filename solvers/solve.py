"""The loop around every solver: evaluate, measure, choose, stop, step."""

import torch
from torch import Tensor

from solvers.contract import Map, Solution, SolverConfig, Status

# Asking whether all samples have stopped waits for an accelerator; a stopped sample no longer changes meanwhile.
ACCELERATOR_CHECK_INTERVAL = 4


class StateLayout:
    """Flattens a state (B, ...) to (B, N) and back, without copying one that is contiguous or channels-last."""

    def __init__(self, z0: Tensor):
        self.shape = z0.shape
        self.channels_last = (
            z0.dim() == 4 and not z0.is_contiguous() and z0.is_contiguous(memory_format=torch.channels_last)
        )

    def flatten(self, state: Tensor) -> Tensor:
        """(B, ...) -> (B, N)."""
        if self.channels_last:
            state = state.permute(0, 2, 3, 1)
        return state.reshape(self.shape[0], -1)

    def restore(self, flat: Tensor) -> Tensor:
        """(..., B, N) -> (..., B, ...), the inverse of `flatten`."""
        lead = flat.shape[:-2]
        if not self.channels_last:
            return flat.reshape(*lead, *self.shape)
        batch, channels, height, width = self.shape
        return flat.reshape(*lead, batch, height, width, channels).movedim(-1, -3)


class LastImage:
    """Chooses the last finite value of f, as plain iteration does."""

    def __init__(self, z0: Tensor):
        self.z = z0
        self.f_z = None
        self.residual = z0.new_full((z0.shape[0],), torch.nan)

    def offer(
        self, z: Tensor, f_z: Tensor, residual: Tensor, measure: Tensor, running: Tensor, candidate: bool
    ) -> None:
        """Take f(z) for the samples that still run and whose residual is finite."""
        self.z = torch.where((running & residual.isfinite()).unsqueeze(1), f_z, self.z)
        self.residual = torch.where(running, residual, self.residual)


class BestIterate:
    """Chooses the iterate of lowest measure, and keeps its image; the last finite value of f where there is none."""

    def __init__(self, z0: Tensor):
        self.iterate = z0
        self.f_z = z0
        self.residual = z0.new_full((z0.shape[0],), torch.nan)
        self.measure = z0.new_full((z0.shape[0],), torch.inf)

    @property
    def z(self) -> Tensor:
        """The chosen iterate, (B, N)."""
        return torch.where(self.measure.isposinf().unsqueeze(1), self.f_z, self.iterate)

    def offer(
        self, z: Tensor, f_z: Tensor, residual: Tensor, measure: Tensor, running: Tensor, candidate: bool
    ) -> None:
        """Take z where it is better than all before, and the finite f(z) of a sample that has no candidate yet."""
        undecided = running & self.measure.isposinf()
        known = undecided & residual.isfinite()
        if candidate:
            better = running & (measure < self.measure)
            known = known | better
            self.iterate = torch.where(better.unsqueeze(1), z, self.iterate)
            self.measure = torch.where(better, measure, self.measure)
        self.f_z = torch.where(known.unsqueeze(1), f_z, self.f_z)
        self.residual = torch.where(known | undecided, residual, self.residual)


def residual_norm(difference: Tensor, f_z: Tensor, relative: bool) -> Tensor:
    """||f(z) - z||, over ||f(z)|| if relative; (B, N) each -> (B,). Zero over zero is zero."""
    absolute = torch.linalg.vector_norm(difference, dim=1)
    if not relative:
        return absolute
    precision = torch.finfo(f_z.dtype)
    # A constant floor would depend on the scale of the problem; this one keeps f(z) = 0 finite and is below rounding.
    floor = precision.eps * absolute + precision.tiny
    return absolute / (torch.linalg.vector_norm(f_z, dim=1) + floor)


@torch.no_grad()
def solve(f: Map, z0: Tensor, config: SolverConfig) -> Solution:
    """Find a fixed point z = f(z) of every sample of a batch.

    Failures are values: see `Solution.status`. Nothing here carries a gradient: how to differentiate is separate.

    Args:
        f: maps (B, ...) to the same shape, each sample on its own. It runs under the autocast state of the caller.
        z0: (B, ...) floating point; half precision is raised to float32, as are all values of f.
        config: one of the solvers' configurations.

    Returns:
        The solution, with z, f_z and trajectory in the memory format of z0.

    Raises:
        ValueError: z0 is not a floating-point batch, or f changes the shape.
    """
    if not z0.is_floating_point() or z0.dim() < 1 or z0.numel() == 0:
        raise ValueError(f"z0 must be a non-empty floating-point batch, not {z0.dtype} of shape {tuple(z0.shape)}")
    layout = StateLayout(z0)
    dtype = torch.promote_types(z0.dtype, torch.float32)
    z = layout.flatten(z0).to(dtype)
    samples = z.shape[0]
    method = config.start(z)
    choice = BestIterate(z) if method.returns_best else LastImage(z)
    running = torch.ones(samples, dtype=torch.bool, device=z.device)
    evals = torch.zeros(samples, dtype=torch.int64, device=z.device)
    status = torch.full_like(evals, Status.BUDGET_SPENT)
    trace: list[Tensor] = []
    trajectory: list[Tensor] = []

    for evaluation in range(1, config.max_evals + 1):
        image = f(layout.restore(z))
        if image.shape != z0.shape:
            raise ValueError(f"f must keep the shape {tuple(z0.shape)}, but returned {tuple(image.shape)}")
        f_z = layout.flatten(image).to(dtype)
        with torch.autocast(z.device.type, enabled=False):
            difference = torch.sub(f_z, z, out=method.residual_buffer())
            residual = residual_norm(difference, f_z, config.criterion == "relative")
            measure = residual.mean().expand(samples) if config.stop_rule == "batch" else residual
            candidate = evaluation >= config.min_evals

            evals += running
            trace.append(torch.where(running, residual, torch.nan))
            if config.record_trajectory:
                trajectory.append(torch.where(running.unsqueeze(1), z, torch.nan))
            choice.offer(z, f_z, residual, measure, running, candidate)

            non_finite = running & ~residual.isfinite()
            status = torch.where(non_finite, Status.NON_FINITE, status)
            if config.stop_rule == "sample":
                running = running & ~non_finite
            if candidate:
                converged = running & (measure < config.tol)
                status = torch.where(converged, Status.CONVERGED, status)
                running = running & ~converged
            if evaluation == config.max_evals or _all_stopped(running, evaluation, config):
                break
            z = method.next_iterate(z, f_z, difference)

    used = _most_evals(evals, len(trace), config)
    return Solution(
        z=layout.restore(choice.z),
        f_z=layout.restore(choice.f_z) if choice.f_z is not None and config.max_evals >= config.min_evals else None,
        residual=choice.residual,
        evals=evals,
        status=status,
        trace=torch.stack(trace[:used]),
        trajectory=layout.restore(torch.stack(trajectory[:used])) if trajectory else None,
    )


def _all_stopped(running: Tensor, evaluation: int, config: SolverConfig) -> bool:
    if running.device.type == "cpu":
        return not bool(running.any())
    due = config.tol > 0 and evaluation % ACCELERATOR_CHECK_INTERVAL == 0
    return due and not bool(running.any())


def _most_evals(evals: Tensor, loops: int, config: SolverConfig) -> int:
    """How many evaluations the busiest sample used; without a tolerance nothing is asked of an accelerator."""
    return loops if evals.device.type != "cpu" and config.tol == 0 else int(evals.max())
