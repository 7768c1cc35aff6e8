from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import random_images, small_model

from inference.network import Network
from inference.results import count_evaluations, to_results
from inference.streams import RestartRule, Streams
from models.ldeq import LDEQOutput
from models.rwr import VARIANTS, RwRConfig
from solvers import AndersonConfig, FixedPointConfig, Solution, Status
from utils.errors import OptionError

WHOLE_FRAME = np.eye(2, 3)[None]
FAITHFUL = VARIANTS["faithful"]
NAN_IMAGE = torch.full((1, 3, 64, 64), torch.nan)


def crops(count: int) -> np.ndarray:
    """(count, 2, 3) matrices of crops that differ."""
    return np.array([[[1 + 0.05 * n, 0, 0.01 * n], [0, 1 + 0.05 * n, -0.02 * n]] for n in range(count)])


@pytest.mark.parametrize("max_iters", [1, 3])
@pytest.mark.parametrize("final_evaluation", [True, False])
def test_faithful_rwr_is_a_loop_of_the_network_from_the_last_state(max_iters, final_evaluation):
    model = small_model(solver=FixedPointConfig(max_evals=max_iters, tol=0), final_evaluation=final_evaluation)
    streams = Streams(small_model(), RwRConfig(max_iters=max_iters, final_evaluation=final_evaluation))
    state = None
    for seed in range(3):
        images = random_images(1, seed).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = model(images, state)
        state = expected.z_star
        results = streams.step(images, WHOLE_FRAME, [0])
        np.testing.assert_array_equal(results.keypoints, expected.keypoints.double())
        assert results.evaluations == max_iters + final_evaluation
        assert torch.equal(streams.state(0), state)


def test_the_originals_settings_take_two_evaluations_a_frame(monkeypatch):
    model = small_model()
    calls = []
    forward = model.cell.forward
    monkeypatch.setattr(model.cell, "forward", lambda *args: calls.append(1) or forward(*args))
    streams = Streams(model, FAITHFUL)
    for seed in range(4):
        calls.clear()
        streams.step(random_images(1, seed), WHOLE_FRAME, [0])
        assert len(calls) == 2


def test_without_rwr_every_frame_is_that_of_the_network():
    model = small_model()
    streams = Streams(model, None)
    for seed in range(2):
        images = random_images(3, seed).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = model(images)
        np.testing.assert_allclose(streams.step(images, crops(3), [4, 2, 9]).keypoints, expected.keypoints, atol=1e-6)
        assert streams.state(4) is None


def test_the_first_frame_can_have_a_full_solve():
    model = small_model()
    streams = Streams(model, FAITHFUL, solve_first_frame=True)
    first = streams.step(random_images(1, 0), WHOLE_FRAME, [0])
    with torch.inference_mode():
        expected = model(random_images(1, 0))
    np.testing.assert_allclose(first.keypoints, expected.keypoints, atol=1e-6)
    assert first.evaluations == count_evaluations(expected, model.config) > 2
    assert streams.step(random_images(1, 1), WHOLE_FRAME, [0]).evaluations == 2


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("way", ["leave", "first", "reset"])
def test_the_next_frame_of_a_slot_that_was_left_is_a_first_frame(variant, way):
    expected = Streams(small_model(), VARIANTS[variant]).step(random_images(1, 5), WHOLE_FRAME, [0])
    streams = Streams(small_model(), VARIANTS[variant])
    streams.step(random_images(1, 4), WHOLE_FRAME, [0])
    if way == "leave":
        streams.leave(0)
    elif way == "reset":
        streams.reset()
    again = streams.step(random_images(1, 5), WHOLE_FRAME, [0], np.array([way == "first"]))
    np.testing.assert_array_equal(again.keypoints, expected.keypoints)


@pytest.mark.parametrize("batch_size", [32, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_slots_side_by_side_do_not_affect_each_other(variant, batch_size):
    model = small_model()
    together = Streams(model, VARIANTS[variant], batch_size=batch_size, solve_first_frame=True)
    alone = [Streams(model, VARIANTS[variant], solve_first_frame=True) for _ in range(5)]
    # Slots enter, rest, and leave; they come in any order.
    script = [[0, 1, 2], [2, 0, 3], [3, 4, 1, 0], [4, 0, 2, 1, 3]]
    for seed, slots in enumerate(script):
        if seed == 2:
            together.leave(3)
            alone[3].leave(3)
        images, matrices = random_images(5, seed), crops(5)
        results = together.step(images[slots], matrices[slots], slots)
        for row, slot in enumerate(slots):
            expected = alone[slot].step(images[slot : slot + 1], matrices[slot : slot + 1], [slot])
            np.testing.assert_allclose(results.keypoints[row], expected.keypoints[0], atol=1e-5)
            np.testing.assert_allclose(results.uncertainty[row], expected.uncertainty[0], atol=1e-5)
            # Rounding may carry a residual over the tolerance.
            assert abs(results.evaluations[row] - expected.evaluations[0]) <= 1


def test_slots_whose_warm_start_is_above_the_rule_restart_and_the_others_go_on():
    model = small_model()
    free = Streams(model, FAITHFUL, solve_first_frame=True)
    frames = [random_images(3, 0), torch.cat([random_images(3, 0)[:2], random_images(1, 7)])]
    residuals = [free.step(images, crops(3), [0, 1, 2]).residual for images in frames][1]
    limit = float(residuals[2] + max(residuals[:2])) / 2
    streams = Streams(model, FAITHFUL, solve_first_frame=True, restart=RestartRule(residual=limit))
    evaluations = [streams.step(images, crops(3), [0, 1, 2]).evaluations for images in frames][1]
    assert evaluations[:2].tolist() == [2, 2] and evaluations[2] > 2


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("solve_first_frame", [True, False])
def test_a_frame_that_is_not_finite_fails_alone_and_the_next_one_is_a_first_frame(variant, solve_first_frame):
    model = small_model()
    spoilt, calm = (Streams(model, VARIANTS[variant], solve_first_frame=solve_first_frame) for _ in range(2))
    frames = [random_images(2, seed) for seed in range(4)]
    frames[1] = torch.cat([NAN_IMAGE, frames[1][1:]])
    for number, images in enumerate(frames):
        results = spoilt.step(images, crops(2), [0, 1])
        assert results.failed.tolist() == [number == 1, False]
        if number == 1:
            assert np.isnan(results.keypoints[0]).all() and np.isposinf(results.uncertainty[0]).all()
            assert spoilt.state(0) is None
            calm.leave(0)
            images = images[1:]
        slots = [0, 1] if number != 1 else [1]
        expected = calm.step(images, crops(2)[slots], slots)
        np.testing.assert_allclose(results.keypoints[slots], expected.keypoints, atol=1e-5)


def test_a_state_that_is_not_finite_is_a_restart_in_the_same_frame():
    model = small_model()
    spoilt, fresh = (Streams(model, VARIANTS["steady"], solve_first_frame=True) for _ in range(2))
    spoilt.step(random_images(1, 0), WHOLE_FRAME, [0])
    with torch.inference_mode():
        spoilt.state(0).fill_(torch.nan)
    found, expected = (streams.step(random_images(1, 1), WHOLE_FRAME, [0]) for streams in (spoilt, fresh))
    np.testing.assert_array_equal(found.keypoints, expected.keypoints)
    assert not found.failed.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_callers_autocast_and_the_layout_of_the_matrices_change_nothing(variant):
    plain, wrapped = (Streams(small_model(), VARIANTS[variant]) for _ in range(2))
    for seed in range(3):
        matrices = crops(2) + 0.01 * seed
        backwards = np.ascontiguousarray(matrices[:, ::-1, ::-1])[:, ::-1, ::-1]
        expected = plain.step(random_images(2, seed), matrices, [0, 1])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = wrapped.step(random_images(2, seed), backwards, [0, 1])
        np.testing.assert_array_equal(found.keypoints, expected.keypoints)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_start_of_a_frame_is_that_from_which_it_is_solved(variant):
    streams = Streams(small_model(), VARIANTS[variant])
    there, moved = WHOLE_FRAME, WHOLE_FRAME.copy()
    moved[:, 0, 2] += 0.1
    assert streams.start(random_images(1, 1), moved, 0) is None
    streams.step(random_images(1, 0), there, [0])
    start = streams.start(random_images(1, 1), moved, 0)
    one = streams.network.with_solver(FixedPointConfig(max_evals=1, tol=0), final_evaluation=False)
    expected = one.solve(one.embed(random_images(1, 1)), start).solved.trace[0]
    found = streams.step(random_images(1, 1), moved, [0])
    np.testing.assert_allclose(found.start_residual, expected, rtol=1e-5)


def test_the_pull_mixes_the_carried_state_and_the_found_one():
    model = small_model(latent_channels=2)
    plain, pulled = Streams(model, FAITHFUL), Streams(model, replace(FAITHFUL, pull=0.3))
    for streams in (plain, pulled):
        streams.step(random_images(1, 0), WHOLE_FRAME, [0])
    carried = plain.state(0).clone()
    for streams in (plain, pulled):
        streams.step(random_images(1, 1), WHOLE_FRAME, [0])
    torch.testing.assert_close(pulled.state(0), 0.3 * carried + 0.7 * plain.state(0))


def test_the_steady_variant_moves_less_than_the_faithful_one_between_noisy_copies_of_a_picture():
    generator = torch.Generator().manual_seed(0)
    picture = random_images(1, 0)
    frames = [picture + 0.3 * torch.randn(picture.shape, generator=generator) for _ in range(12)]

    def movement(config: RwRConfig) -> float:
        streams = Streams(small_model(), config)
        keypoints = np.concatenate([streams.step(frame, WHOLE_FRAME, [0]).keypoints for frame in frames])
        return float(np.linalg.norm(np.diff(keypoints, axis=0), axis=2).mean())

    assert movement(VARIANTS["steady"]) < 0.8 * movement(FAITHFUL)


def test_two_crops_of_one_slot_are_an_error():
    with pytest.raises(ValueError, match="every slot has one next frame"):
        Streams(small_model(), FAITHFUL).step(random_images(2), crops(2), [1, 1])


@pytest.mark.parametrize(
    ("images", "matrices", "slots", "named"),
    [
        (None, crops(2), [0, 1], "images"),
        (random_images(2).to("meta"), crops(2), [0, 1], "images"),
        (random_images(2).to(torch.uint8), crops(2), [0, 1], "images"),
        (random_images(2)[:, :2], crops(2), [0, 1], "images"),
        (random_images(2)[0], crops(2), [0, 1], "matrices"),
        (random_images(2), crops(1), [0, 1], "matrices"),
        (random_images(2), "here", [0, 1], "matrices"),
        (random_images(2), crops(2), [0], "slots"),
        (random_images(2)[:0], crops(2)[:0], [], "images"),
        (random_images(2), crops(2), ["first", "second"], "slots"),
        (random_images(2), crops(2), [0, 1.5], "slots"),
    ],
)
def test_crops_of_another_kind_are_named(images, matrices, slots, named):
    with pytest.raises(OptionError, match=f"^{named} "):
        Streams(small_model(), FAITHFUL).step(images, matrices, slots)


def test_an_explicit_network_cannot_be_warm_started():
    with pytest.raises(ValueError, match="this one is explicit"):
        Streams(small_model(mode="explicit"), FAITHFUL)


@pytest.mark.parametrize(("name", "value"), [("overlap", 1.5), ("overlap", -0.1), ("residual", 0.0)])
def test_a_rule_out_of_range_is_an_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=name):
        RestartRule(**{name: value})


@pytest.mark.parametrize(
    ("solver", "final_evaluation", "extra"),
    [
        (FixedPointConfig(max_evals=3, tol=0), True, 1),
        (FixedPointConfig(max_evals=3, tol=0), False, 0),
        (AndersonConfig(max_evals=3, tol=0), True, 0),
    ],
)
def test_the_final_evaluation_counts_where_it_was_computed(solver, final_evaluation, extra, monkeypatch):
    model = small_model(solver=solver, final_evaluation=final_evaluation)
    calls = []
    forward = model.cell.forward
    monkeypatch.setattr(model.cell, "forward", lambda *args: calls.append(1) or forward(*args))
    assert count_evaluations(Network(model)(random_images(1)), model.config) == len(calls) == 3 + extra


def test_an_explicit_network_counts_its_depth_and_has_no_residual():
    model = small_model(mode="explicit", explicit_depth=3)
    results = to_results(Network(model)(random_images(2)), model.config)
    assert results.evaluations.tolist() == [3, 3]
    assert np.isnan(results.residual).all()


def test_a_solve_that_ended_not_finite_has_no_landmarks_although_the_solver_returned_a_value():
    zeros = torch.zeros(2, 5, 16, 16)
    status = torch.tensor([Status.CONVERGED, Status.NON_FINITE])
    solution = Solution(zeros, None, torch.zeros(2), torch.ones(2, dtype=torch.int64), status, torch.zeros(1, 2), None)
    output = LDEQOutput(torch.zeros(2, 5, 2), torch.zeros(2, 5), zeros, zeros, solution)
    results = to_results(output, small_model().config)
    assert results.failed.tolist() == [False, True]
    assert np.isnan(results.keypoints[1]).all() and (results.keypoints[0] == 0).all()
