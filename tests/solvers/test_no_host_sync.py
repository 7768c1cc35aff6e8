"""A fake CUDA device has shapes but no values: whatever would have to wait for the device raises."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from fixed_point_problems import every_solver
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode, unset_fake_temporarily
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from models import LDEQ, preset
from solvers import AndersonConfig, Solution, solve
from solvers.contract import SolverConfig
from solvers.solve import ACCELERATOR_CHECK_INTERVAL

SHAPE = (2, 3, 4, 5)

every_stop_rule = pytest.mark.parametrize("stop_rule", ["sample", "batch"])


def needs_gpu(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test))


@pytest.fixture
def fake_cuda() -> Iterator[None]:
    with FakeTensorMode(), torch.device("cuda"):
        yield


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def precision(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    """Autocast to this type on CUDA; set directly, as `torch.autocast` turns itself off where there is no device."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", request.param != torch.float32)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    yield request.param
    torch.set_autocast_enabled("cuda", before[0])
    torch.set_autocast_dtype("cuda", before[1])


class HostReads(TorchDispatchMode):
    """Counts the values and tensors that are read by the host, and answers in their place."""

    def __init__(self, answers: Iterable[int | list[bool]]) -> None:
        super().__init__()
        self.answers = iter(answers)
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            self.count += 1
            return next(self.answers)
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("device") == torch.device("cpu"):
            self.count += 1
            with unset_fake_temporarily():
                return torch.tensor(next(self.answers), device="cpu")
        return func(*args, **(kwargs or {}))


def halve(z: Tensor) -> Tensor:
    return 0.5 * z + 1


def assert_on_cuda(solution: Solution, evals: int) -> None:
    shapes = {
        "z": SHAPE,
        "f_z": SHAPE,
        "residual": SHAPE[:1],
        "evals": SHAPE[:1],
        "status": SHAPE[:1],
        "trace": (evals, SHAPE[0]),
        "trajectory": (evals, *SHAPE),
    }
    for field in fields(solution):
        tensor = getattr(solution, field.name)
        if tensor is not None:
            assert tensor.device.type == "cuda", field.name
            assert tensor.shape == shapes[field.name], field.name


@every_solver
@every_stop_rule
@pytest.mark.parametrize("changes", [{}, {"criterion": "absolute", "min_evals": 3}, {"max_evals": 1}])
@pytest.mark.usefixtures("fake_cuda")
def test_a_fixed_budget_never_waits_for_the_device(config, stop_rule, changes):
    options = {"max_evals": 9, "tol": 0, "stop_rule": stop_rule, "record_trajectory": True, **changes}
    start = torch.zeros(SHAPE).contiguous(memory_format=torch.channels_last)
    assert_on_cuda(solve(halve, start, config(**options)), evals=options["max_evals"])


@pytest.mark.parametrize("changes", [{"beta": 0.5}, {"ridge": "absolute"}, {"m": 1}])
@pytest.mark.usefixtures("fake_cuda")
def test_no_option_of_anderson_waits_for_the_device(changes):
    assert_on_cuda(solve(halve, torch.zeros(SHAPE), AndersonConfig(max_evals=9, tol=0, **changes)), evals=9)


@every_solver
@every_stop_rule
@pytest.mark.usefixtures("fake_cuda")
def test_with_a_tolerance_the_first_wait_is_at_the_first_check(config, stop_rule):
    calls = []
    with pytest.raises(DataDependentOutputException):
        solve(lambda z: calls.append(1) or halve(z), torch.zeros(SHAPE), config(max_evals=14, stop_rule=stop_rule))
    assert len(calls) == ACCELERATOR_CHECK_INTERVAL > 1


@every_solver
@every_stop_rule
@pytest.mark.usefixtures("fake_cuda")
def test_with_a_tolerance_there_is_one_wait_every_few_evaluations(config, stop_rule):
    checks = 3
    budget = checks * ACCELERATOR_CHECK_INTERVAL
    start = torch.zeros(SHAPE)
    # Some sample still runs at every check; the last answer is how many evaluations were used.
    with HostReads([*[True] * (checks - 1), budget]) as reads:
        solution = solve(halve, start, config(max_evals=budget, stop_rule=stop_rule, record_trajectory=True))
    assert reads.count == checks
    assert_on_cuda(solution, evals=budget)


@every_solver
@pytest.mark.usefixtures("fake_cuda")
def test_a_check_that_finds_no_running_sample_ends_the_loop(config):
    calls = []
    start = torch.zeros(SHAPE)
    with HostReads([False, 2]):
        solution = solve(lambda z: calls.append(1) or halve(z), start, config(max_evals=50, record_trajectory=True))
    assert len(calls) == ACCELERATOR_CHECK_INTERVAL
    assert_on_cuda(solution, evals=2)


@every_solver
@pytest.mark.parametrize("compact", [None, False, True])
@pytest.mark.usefixtures("fake_cuda")
def test_compaction_never_waits_for_the_device_in_a_fixed_budget(config, compact):
    sizes = []
    options = config(max_evals=9, tol=0, compact=compact, record_trajectory=True)
    solution = solve(
        lambda z, shift: sizes.append(len(z)) or 0.5 * z + shift, torch.zeros(SHAPE), options, (torch.ones(SHAPE),)
    )
    assert_on_cuda(solution, evals=9)
    assert sizes == [SHAPE[0]] * 9


@every_solver
@pytest.mark.parametrize("compact", [None, False])
@pytest.mark.usefixtures("fake_cuda")
def test_on_an_accelerator_samples_leave_only_where_that_is_asked_for(config, compact):
    sizes = []
    start, args = torch.zeros(SHAPE), (torch.ones(SHAPE),)
    with HostReads([True, True, 9]) as reads:
        options = config(max_evals=9, compact=compact)
        solve(lambda z, shift: sizes.append(len(z)) or 0.5 * z + shift, start, options, args)
    assert reads.count == 3
    assert sizes == [SHAPE[0]] * 9


@every_solver
@pytest.mark.usefixtures("fake_cuda")
def test_samples_leave_at_the_checks_that_are_waited_for_anyway(config):
    sizes, samples = [], 5
    shape = (samples, *SHAPE[1:])
    start, args = torch.zeros(shape), (torch.ones(shape),)
    interval = ACCELERATOR_CHECK_INTERVAL
    first = [True, False, True, False, True]
    with HostReads([first, [True] * 3, [False, False, True], 4 * interval]) as reads:
        options = config(max_evals=4 * interval, compact=True, record_trajectory=True)
        solution = solve(lambda z, shift: sizes.append(len(z)) or 0.5 * z + shift, start, options, args)
    # As often as without: at every check but the last evaluation, and once for the length of the trace.
    assert reads.count == 4
    assert sizes == [5] * interval + [3] * 2 * interval + [1] * interval
    assert solution.z.shape == shape
    assert solution.evals.shape == solution.status.shape == solution.residual.shape == (samples,)
    assert solution.trace.shape == (4 * interval, samples)
    assert solution.trajectory.shape == (4 * interval, *shape)


@every_solver
@pytest.mark.usefixtures("fake_cuda")
def test_a_check_that_finds_every_sample_stopped_ends_the_loop_without_a_departure(config):
    sizes = []
    start = torch.zeros(SHAPE)
    with HostReads([[False, False], 2]):
        options = config(max_evals=50, compact=True, record_trajectory=True)
        solution = solve(lambda z: sizes.append(len(z)) or halve(z), start, options)
    assert sizes == [SHAPE[0]] * ACCELERATOR_CHECK_INTERVAL
    assert_on_cuda(solution, evals=2)


@every_solver
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.usefixtures("fake_cuda")
def test_looking_for_changes_in_place_does_not_wait_for_the_device(config, inference):
    with torch.inference_mode(inference):
        options = config(max_evals=9, tol=0, record_trajectory=True)
        assert_on_cuda(solve(halve, torch.zeros(SHAPE), options), evals=9)
        with pytest.raises(ValueError, match="in place"):
            solve(lambda z: z.mul_(0.5), torch.zeros(SHAPE), options)


@pytest.mark.usefixtures("fake_cuda")
def test_the_network_with_a_fixed_budget_never_waits_for_the_device(precision):
    solver = AndersonConfig(max_evals=3, tol=0)
    network = LDEQ(preset("mini", backbone="stem", cell_width=16, solver=solver)).eval()
    convolutions = set()
    network.cell.fuse.activation.register_forward_hook(lambda module, args, output: convolutions.add(output.dtype))
    images = torch.zeros(2, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        first = network(images)
        second = network(images, first.z_star)
    for output in (first, second):
        assert output.keypoints.device.type == "cuda"
        assert output.keypoints.shape == (2, 98, 2)
        assert output.z_star.shape == (2, 98, 32, 32)
        assert output.z_star.dtype == output.solution.z.dtype == torch.float32
        assert output.solution.trace.shape == (3, 2)
    assert convolutions == {precision}


# On a real device


def fixed_budget(config: type[SolverConfig]) -> SolverConfig:
    return config(max_evals=12, tol=0)


@needs_gpu
@every_solver
def test_cuda_reports_no_synchronisation_for_a_fixed_budget(config):
    start = torch.zeros(SHAPE, device="cuda")
    solve(halve, start, fixed_budget(config))  # lets the libraries create their handles
    torch.cuda.set_sync_debug_mode("error")
    try:
        solve(halve, start, fixed_budget(config))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
@every_solver
def test_a_fixed_budget_can_be_captured_in_a_cuda_graph(config):
    start = torch.zeros(SHAPE, device="cuda")
    shift = torch.ones(SHAPE, device="cuda")

    def run() -> Solution:
        return solve(lambda z: 0.5 * z + shift, start, fixed_budget(config))

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    shift.copy_(torch.rand(SHAPE))
    graph.replay()
    expected = run()
    assert_close(captured.z, expected.z)
    assert_close(captured.trace, expected.trace, rtol=1e-3, atol=1e-6)


@needs_gpu
@every_solver
@pytest.mark.parametrize("compact", [False, True])
def test_cuda_and_cpu_agree(config, compact):
    start = torch.linspace(0, 1, 120).view(SHAPE)
    options = config(max_evals=30, tol=1e-5, compact=compact)
    on_cpu, on_cuda = solve(halve, start, options), solve(halve, start.cuda(), options)
    assert on_cuda.status.tolist() == on_cpu.status.tolist()
    assert on_cuda.evals.tolist() == on_cpu.evals.tolist()
    assert_close(on_cuda.z.cpu(), on_cpu.z, rtol=1e-4, atol=1e-5)
