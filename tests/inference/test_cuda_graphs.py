"""A capture freezes addresses, shapes and all that Python decides; what must not depend on them is held here."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recorded_graph import StandInRecorder
from small_networks import random_images, small_model
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from inference import streams as streams_module
from inference.cuda_graphs import CapturedFunction, GraphedNetwork
from inference.network import Network
from inference.streams import RestartRule, Streams
from models import LDEQ, LDEQOutput, preset
from models.rwr import VARIANTS, RwRConfig
from solvers import AndersonConfig, BroydenConfig, FixedPointConfig
from utils.errors import OptionError

FIXED_BUDGETS = [config(max_evals=3, tol=0) for config in (FixedPointConfig, AndersonConfig, BroydenConfig)]
every_variant = pytest.mark.parametrize("variant", VARIANTS)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def fixed_budget_model(**changes: Any) -> LDEQ:
    return small_model(solver=FixedPointConfig(max_evals=4, tol=0), **changes)


def crops(count: int, frame: int = 0) -> np.ndarray:
    """(count, 2, 3) matrices of crops that differ, from face to face and from frame to frame."""
    scale = 1 + 0.05 * np.arange(count) + 0.01 * frame
    return np.array([[[s, 0, 0.01 * frame], [0, s, -0.02 * frame]] for s in scale])


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> StandInRecorder:
    """What `Streams` captures with, on the CPU."""
    stand_in = StandInRecorder()
    monkeypatch.setattr(streams_module, "CudaRecorder", lambda device: stand_in)
    return stand_in


# The replay, by a stand-in for torch.cuda.CUDAGraph


def test_a_replay_computes_what_the_function_does_from_inputs_that_it_has_not_seen():
    captured = CapturedFunction(lambda a, b: torch.where(a > 0, a, 0).cumsum(1) + b, StandInRecorder())
    for seed in range(3):
        a, b = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(captured(a, b), torch.where(a > 0, a, 0).cumsum(1) + b)


def test_buffers_stay_where_they_are_and_results_are_the_callers_own():
    places = []
    captured = CapturedFunction(lambda a: places.append(a.data_ptr()) or 2 * a, StandInRecorder())
    first = captured(torch.ones(3))
    second = captured(torch.full((3,), 5.0))
    assert first.tolist() == [2.0] * 3 and second.tolist() == [10.0] * 3
    # Once to warm up and once for the record: the function itself is not run again.
    assert len(places) == 2 and len(set(places)) == 1


def test_another_batch_size_or_order_in_memory_is_captured_on_its_own_and_once():
    recorder = StandInRecorder()
    captured = CapturedFunction(lambda images: images.sum(dim=1), recorder)
    plain = torch.rand(2, 3, 4, 4)
    for images in (plain, plain[:1], plain.to(memory_format=torch.channels_last), plain[:1], plain):
        assert_close(captured(images), images.sum(dim=1))
    assert len(recorder.graphs) == 3


def test_an_input_that_is_none_is_not_one_that_is_given():
    captured = CapturedFunction(lambda a, b: a if b is None else a + b, StandInRecorder())
    ones = torch.ones(2)
    assert [captured(ones, None).tolist(), captured(ones, ones).tolist()] == [[1.0, 1.0], [2.0, 2.0]]


@pytest.mark.parametrize(
    "options",
    [
        *[{"solver": solver} for solver in FIXED_BUDGETS],
        *[{"solver": solver, "final_evaluation": False} for solver in FIXED_BUDGETS],
        {"solver": FIXED_BUDGETS[0], "normalisation": "none"},
        {"mode": "explicit"},
    ],
    ids=str,
)
def test_a_captured_solve_gives_the_outputs_of_the_plain_one(options):
    model = small_model(**options)
    plain = Network(model, engine="torch")
    graphed = GraphedNetwork(plain, StandInRecorder())
    with torch.inference_mode():
        kept = []
        for seed in range(3):
            images = random_images(2, seed)
            expected, found = plain(images), graphed(images)
            assert_same(found, expected)
            kept.append((found, expected))
            start = torch.rand(expected.z_star.shape, generator=torch.Generator().manual_seed(seed))
            assert_same(graphed.solve(graphed.embed(images), start), plain.solve(plain.embed(images), start))
        for found, expected in kept:
            assert_same(found, expected)


def assert_same(found: LDEQOutput, expected: LDEQOutput) -> None:
    for name in ("keypoints", "uncertainty", "heatmaps", "z_star"):
        assert_close(getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-6)
        assert getattr(found, name).stride() == getattr(expected, name).stride(), name
    if expected.solution is None:
        assert found.solution is None
    else:
        assert torch.equal(found.solution.evals, expected.solution.evals)
        assert_close(found.solution.trace, expected.solution.trace, rtol=1e-4, atol=1e-6)
        # Unlike on CUDA, solvers that choose the best iterate look at their residuals here: the choice is the same only
        # while these fall.
        assert expected.solution.f_z is None or (expected.solution.trace.diff(dim=0) < 0).all()


@every_variant
@pytest.mark.parametrize("solve_first_frame", [False, True])
def test_captured_streams_follow_faces_that_enter_and_leave_as_plain_ones_do(recorder, variant, solve_first_frame):
    model = fixed_budget_model()
    options = {"solve_first_frame": solve_first_frame, "restart": RestartRule(residual=1e9)}
    plain = Streams(model, VARIANTS[variant], **options)
    graphed = Streams(model, VARIANTS[variant], **options, cuda_graphs=True)
    for frame, slots in enumerate([[0, 1], [0, 1], [1], [2, 1, 0], [0], [1, 0, 2]]):
        images, matrices = random_images(len(slots), frame), crops(len(slots), frame)
        expected, found = plain.step(images, matrices, slots), graphed.step(images, matrices, slots)
        np.testing.assert_allclose(found.keypoints, expected.keypoints, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found.evaluations, expected.evaluations)
        for slot in slots:
            assert_close(graphed.state(slot), plain.state(slot), rtol=0, atol=1e-6)


def test_a_step_of_the_same_form_runs_no_python_of_the_network(recorder, monkeypatch):
    model = fixed_budget_model()
    streams = Streams(model, VARIANTS["steady"], cuda_graphs=True)
    for frame in range(3):
        streams.step(random_images(2, frame), crops(2, frame), [0, 1])
    graphs = len(recorder.graphs)
    monkeypatch.setattr(model.cell, "forward", lambda *args: pytest.fail("the cell was run outside a graph"))
    monkeypatch.setattr(model.backbone, "forward", lambda *args: pytest.fail("the backbone was run outside a graph"))
    for frame in range(3, 6):
        streams.step(random_images(2, frame), crops(2, frame), [0, 1])
    assert len(recorder.graphs) == graphs == 3  # embed, the first frames, and those after


def test_a_slot_that_is_not_finite_leaves_its_neighbour_as_it_is(recorder):
    streams = Streams(fixed_budget_model(), VARIANTS["steady"], cuda_graphs=True)
    images = random_images(2)
    streams.step(images, crops(2), [0, 1])
    images[0] = torch.nan
    results = streams.step(images, crops(2), [0, 1])
    assert results.failed.tolist() == [True, False]
    assert streams.state(0) is None and streams.state(1).isfinite().all()


# What cannot be captured


def test_graphs_on_a_cpu_are_an_error_that_says_what_to_do():
    with pytest.raises(OptionError, match="need a CUDA device, but the network is on 'cpu'; leave out cuda_graphs"):
        Streams(small_model(), RwRConfig(), cuda_graphs=True)


@pytest.mark.parametrize("rwr", [None, RwRConfig()])
def test_a_full_solve_with_a_tolerance_is_an_error_that_says_what_to_do(recorder, rwr):
    with pytest.raises(OptionError, match=r"tolerance 0\.0001.*max_evals=N, tol=0"):
        Streams(small_model(), rwr, solve_first_frame=True, cuda_graphs=True)


def test_without_a_full_solve_the_tolerance_of_the_network_is_of_no_use(recorder):
    streams = Streams(small_model(), RwRConfig(), cuda_graphs=True)
    assert streams.step(random_images(1), crops(1), [0]).evaluations == 2


def test_another_solver_of_a_graphed_network_needs_a_fixed_budget_too():
    graphed = GraphedNetwork(Network(fixed_budget_model(), engine="torch"), StandInRecorder())
    with pytest.raises(OptionError, match="tolerance"):
        graphed.with_solver(AndersonConfig(max_evals=4), True)
    assert graphed.with_solver(AndersonConfig(max_evals=4, tol=0), True).config.solver.max_evals == 4


# On a fake CUDA device, which has shapes but no values: what would wait for it raises


class Transfers(TorchDispatchMode):
    """Counts what brings values from the host to the device, which a capture refuses from ordinary memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            devices = {leaf.device.type for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)}
            self.count += len(devices) > 1
        return result


@pytest.fixture
def fake_network() -> Iterator[Network]:
    with FakeTensorMode(), torch.device("cuda"):
        model = LDEQ(preset("mini", backbone="stem", cell_width=16)).eval()
        # `TorchEngine` copies the backbone, which fake tensors do not allow; it computes by these two.
        engine = SimpleNamespace(embed=model.embed, cell=model.cell)
        with torch.no_grad():
            yield Network(model.with_solver(FixedPointConfig(max_evals=3, tol=0)), engine=engine)


@every_variant
def test_a_step_of_rwr_neither_waits_for_the_device_nor_copies_to_it(fake_network, variant):
    network = fake_network.with_solver(FixedPointConfig(max_evals=1, tol=0), True)
    images = torch.zeros(2, 3, 128, 128).contiguous(memory_format=torch.channels_last)
    moved, flow = torch.zeros(2, 2, 3), torch.zeros(2, 4, 32, 32)
    with Transfers() as transfers:
        embedded = network.embed(images)
        first = network.solve(embedded)
        second = network.advance(VARIANTS[variant], embedded, first.z_star, first.keypoints, moved, flow)
    assert transfers.count == 0
    assert second.keypoints.device.type == "cuda"
    # Nothing of the shapes depends on values: the next step has inputs of the same form.
    for name in ("keypoints", "uncertainty", "z_star"):
        assert getattr(first, name).shape == getattr(second, name).shape
        assert getattr(first, name).dtype == getattr(second, name).dtype == torch.float32


@pytest.mark.parametrize("solver", FIXED_BUDGETS, ids=lambda solver: type(solver).__name__)
def test_a_fixed_budget_copies_nothing_to_the_device(fake_network, solver):
    network = fake_network.with_solver(solver, True)
    images = torch.zeros(2, 3, 128, 128)
    with Transfers() as transfers:
        output = network.solve(network.embed(images))
    assert transfers.count == 0
    assert output.solution.trace.shape == (3, 2)


def test_the_counter_of_transfers_sees_one():
    with FakeTensorMode(), Transfers() as transfers:
        torch.tensor([1.0, 2.0], device="cuda")
        torch.zeros(2, device="cuda").copy_(torch.zeros(2))
    assert transfers.count == 2


# On a real device


@needs_gpu
@pytest.mark.gpu
@every_variant
@pytest.mark.parametrize("batch", [1, 3])
def test_graphs_on_cuda_give_the_landmarks_of_plain_calls(variant, batch):
    model = fixed_budget_model().cuda().to(memory_format=torch.channels_last)
    plain = Streams(model, VARIANTS[variant], solve_first_frame=True)
    graphed = Streams(model, VARIANTS[variant], solve_first_frame=True, cuda_graphs=True)
    for frame in range(4):
        images, matrices = random_images(batch, frame), crops(batch, frame)
        expected, found = (streams.step(images, matrices, range(batch)) for streams in (plain, graphed))
        np.testing.assert_allclose(found.keypoints, expected.keypoints, rtol=0, atol=1e-6)


@needs_gpu
@pytest.mark.gpu
@pytest.mark.parametrize("solver", FIXED_BUDGETS, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("batch", [1, 3])
def test_full_solves_in_graphs_on_cuda_give_the_landmarks_of_plain_calls(solver, batch):
    model = small_model(solver=solver).cuda().to(memory_format=torch.channels_last)
    plain, graphed = Streams(model, None), Streams(model, None, cuda_graphs=True)
    for seed in range(3):
        images = random_images(batch, seed)
        expected, found = (streams.step(images, crops(batch), range(batch)) for streams in (plain, graphed))
        np.testing.assert_allclose(found.keypoints, expected.keypoints, rtol=0, atol=1e-6)
