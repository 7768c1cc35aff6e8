import gc
import importlib.util
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import random_images, small_model
from torch import Tensor
from torch.nn import functional as F

from models import LDEQ
from models.deq import GradientConfig
from models.heatmaps import exponential_heatmaps, soft_argmax
from solvers import AndersonConfig, BroydenConfig, FixedPointConfig, Status

RULES = ["jfb", "ift", "unroll"]


@contextmanager
def counted_evaluations(model: LDEQ) -> Iterator[list[None]]:
    """A list with one element for each evaluation of the cell."""
    calls: list[None] = []
    hook = model.cell.register_forward_hook(lambda module, args, output: calls.append(None))
    yield calls
    hook.remove()


def living_tensors() -> int:
    return sum(issubclass(type(item), Tensor) for item in gc.get_objects())


def loss_gradients(model: LDEQ, images: Tensor, scale: float = 1.0) -> Tensor:
    """All parameters' gradients of a mean distance, as one vector."""
    loss = scale * (model(images).keypoints - 0.3).square().mean()
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(model.parameters()))])


@torch.no_grad()
@pytest.mark.parametrize("normalisation", ["softargmax", "linear", "none"])
def test_shapes_and_ranges_of_the_output(normalisation):
    output = small_model(latent_channels=3, normalisation=normalisation)(random_images(2))
    assert output.keypoints.shape == (2, 5, 2)
    assert output.uncertainty.shape == (2, 5)
    assert output.heatmaps.shape == (2, 5, 16, 16)
    assert output.z_star.shape == (2, 8, 16, 16)
    assert output.z_star.dtype == torch.float32
    assert output.keypoints.min() >= 0
    assert output.keypoints.max() <= 15 / 16
    assert output.uncertainty.min() > 0
    assert output.heatmaps.min() >= 0
    assert output.heatmaps.max() <= 1


@torch.no_grad()
@pytest.mark.parametrize("normalisation", ["softargmax", "linear"])
def test_the_landmarks_are_the_first_channels_of_the_state(normalisation):
    output = small_model(latent_channels=3, normalisation=normalisation)(random_images(2))
    assert torch.equal(output.heatmaps, output.z_star[:, :5])
    keypoints, uncertainty = soft_argmax(output.z_star[:, :5])
    assert torch.equal(output.keypoints, keypoints)
    assert torch.equal(output.uncertainty, uncertainty)


@torch.no_grad()
def test_a_raw_state_is_normalised_once_at_the_end():
    output = small_model(normalisation="none", softargmax_beta=1.7)(random_images(2))
    assert output.z_star.min() < 0
    torch.testing.assert_close(output.heatmaps, exponential_heatmaps(output.z_star, 1.7))
    torch.testing.assert_close(output.keypoints, soft_argmax(output.heatmaps)[0])


@torch.no_grad()
@pytest.mark.parametrize(
    "solver",
    [
        FixedPointConfig(max_evals=20, tol=1e-3),
        AndersonConfig(max_evals=20, tol=1e-3),
        BroydenConfig(max_evals=20, tol=1e-3),
    ],
    ids=["fixed point", "anderson", "broyden"],
)
def test_a_solve_from_its_own_answer_costs_one_evaluation(solver):
    model = small_model(solver=solver)
    images = random_images(3)
    first = model(images)
    assert first.solution.status.eq(Status.CONVERGED).all()
    assert first.solution.evals.min() > 2
    again = model(images, first.z_star)
    assert again.solution.evals.tolist() == [1, 1, 1]
    torch.testing.assert_close(again.keypoints, first.keypoints, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_start_is_used_and_zeros_are_the_default():
    model = small_model(solver=FixedPointConfig(max_evals=1, tol=0), final_evaluation=False)
    images = random_images(2)
    cold = model(images)
    assert torch.equal(model(images, torch.zeros(2, 5, 16, 16)).z_star, cold.z_star)
    start = torch.rand(2, 5, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images, start).z_star, model.cell(start, model.embed(images)))
    assert not torch.allclose(model(images, start).z_star, cold.z_star)


@pytest.mark.parametrize("mode", ["implicit", "explicit"])
def test_the_final_state_is_detached_and_the_start_is_left_as_it_is(mode):
    model = small_model(mode=mode)
    start = torch.rand(2, 5, 16, 16)
    before = start.clone()
    output = model(random_images(2), start)
    assert output.keypoints.requires_grad
    assert not output.z_star.requires_grad
    assert torch.equal(start, before)


@torch.no_grad()
def test_explicit_mode_applies_the_cell_as_often_as_its_depth_says():
    model = small_model(mode="explicit", explicit_depth=3)
    images = random_images(2)
    with counted_evaluations(model) as calls:
        output = model(images)
    assert len(calls) == 3
    assert output.solution is None
    embedded = model.embed(images)
    z = torch.zeros(2, 5, 16, 16)
    for _ in range(3):
        z = model.cell(z, embedded)
    torch.testing.assert_close(output.z_star, z)


@torch.no_grad()
@pytest.mark.parametrize(
    ("solver", "final_evaluation", "evaluations"),
    [
        (FixedPointConfig(max_evals=4, tol=0), True, 5),
        (FixedPointConfig(max_evals=4, tol=0), False, 4),
        (AndersonConfig(max_evals=4, tol=0), True, 4),
        (AndersonConfig(max_evals=4, tol=0), False, 4),
        (BroydenConfig(max_evals=4, tol=0), True, 4),
    ],
)
def test_the_final_evaluation_is_new_work_only_where_the_solver_has_no_image(solver, final_evaluation, evaluations):
    model = small_model(solver=solver, final_evaluation=final_evaluation)
    with counted_evaluations(model) as calls:
        output = model(random_images(2))
    assert len(calls) == evaluations
    assert output.solution.evals.tolist() == [4, 4]


@torch.no_grad()
@pytest.mark.parametrize("solver", [FixedPointConfig(max_evals=2, tol=0), AndersonConfig(max_evals=4, tol=0)])
def test_the_output_state_is_the_image_of_the_solvers_iterate_or_the_iterate_itself(solver):
    model = small_model(solver=solver)
    images = random_images(2)
    with_image = model(images)
    image = model.cell(with_image.solution.z, model.embed(images))
    torch.testing.assert_close(with_image.z_star, image, rtol=0, atol=1e-6)
    without = small_model(solver=solver, final_evaluation=False)(images)
    assert torch.equal(without.z_star, without.solution.z)
    assert not torch.equal(without.z_star, with_image.z_star)


@torch.no_grad()
def test_with_solver_shares_the_weights_and_leaves_the_first_model_its_own_solver():
    model = small_model()
    solver = AndersonConfig(max_evals=3, tol=0)
    other = model.with_solver(solver)
    assert other.config == replace(model.config, solver=solver)
    assert model.config.solver == FixedPointConfig(max_evals=20, tol=1e-4)
    assert all(a is b for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert other(random_images(1)).solution.evals.tolist() == [3]
    model.cell.head.weight.mul_(2)
    assert torch.equal(other.cell.head.weight, model.cell.head.weight)


@torch.no_grad()
def test_every_solver_finds_the_same_landmarks():
    model = small_model()
    images = random_images(2)
    expected = model.with_solver(FixedPointConfig(max_evals=30, tol=1e-6))(images).keypoints
    for solver in (AndersonConfig(max_evals=30, tol=1e-5), BroydenConfig(max_evals=30, tol=1e-5)):
        torch.testing.assert_close(model.with_solver(solver)(images).keypoints, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 3, 64, 128), (3, 64, 64), (1, 1, 64, 64)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"images must be \(B, 3, 64, 64\), not \(" + ", ".join(map(str, shape))):
        small_model()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 5, 16, 16), (2, 6, 16, 16), (2, 5, 8, 8), (2, 5, 256)])
def test_a_start_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"z0 must be \(2, 5, 16, 16\), not \(" + ", ".join(map(str, shape))):
        small_model()(random_images(2), torch.zeros(shape))


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_channels_last_images_give_the_same_keypoints(dtype, tolerance):
    model = small_model(solver=AndersonConfig(max_evals=8, tol=0)).to(dtype)
    images = random_images(2).to(dtype)
    plain = model(images)
    channels_last = model(images.to(memory_format=torch.channels_last))
    assert channels_last.z_star.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(channels_last.keypoints, plain.keypoints, rtol=0, atol=tolerance)
    mixed = model(images.to(memory_format=torch.channels_last), plain.z_star)
    torch.testing.assert_close(mixed.keypoints, plain.keypoints, rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("solver", [FixedPointConfig(max_evals=20, tol=1e-3), AndersonConfig(max_evals=20, tol=1e-3)])
def test_a_result_does_not_depend_on_what_else_is_in_the_batch(solver):
    model = small_model(solver=solver).double()
    images = random_images(4).double()
    together = model(images)
    assert len(set(together.solution.evals.tolist())) > 1
    for i in range(4):
        alone = model(images[i : i + 1])
        assert alone.solution.evals.item() == together.solution.evals[i]
        torch.testing.assert_close(alone.keypoints[0], together.keypoints[i], rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("solver", [FixedPointConfig, AndersonConfig, BroydenConfig])
def test_no_evaluation_of_the_cell_is_spent_on_a_face_that_has_stopped(solver):
    model = small_model(solver=solver(max_evals=20, tol=1e-4), final_evaluation=False)
    images = random_images(4)
    images[0] *= 0.01
    computed = []
    model.cell.register_forward_pre_hook(lambda module, args: computed.append(len(args[0])))
    with torch.inference_mode():
        output = model(images)
    assert sum(computed) == output.solution.evals.sum() < 4 * len(computed)


def test_an_image_that_is_not_finite_is_a_status_and_spoils_no_other():
    model = small_model()
    images = random_images(3)
    expected = model(images).keypoints
    images[1] = torch.nan
    output = model(images)
    assert output.solution.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    # For another number of samples that still run, the libraries round convolutions otherwise.
    torch.testing.assert_close(output.keypoints[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-5)


@torch.no_grad()
def test_autocast_keeps_the_state_float32_and_nearly_the_keypoints():
    model = small_model(solver=FixedPointConfig(max_evals=5, tol=0))
    images = random_images(2)
    exact = model(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(images)
    assert output.z_star.dtype == output.keypoints.dtype == output.solution.z.dtype == torch.float32
    assert (output.keypoints - exact.keypoints).abs().mean() < 0.01
    assert not torch.equal(output.keypoints, exact.keypoints)


@pytest.mark.parametrize("rule", RULES)
def test_every_parameter_gets_a_finite_gradient(rule):
    model = small_model(gradient=GradientConfig(rule=rule), solver=FixedPointConfig(max_evals=4)).train()
    output = model(random_images(2))
    (output.keypoints.sum() + output.uncertainty.sum()).backward()
    assert (output.solution is None) == (rule == "unroll")
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("gradient", "tracked"),
    [
        (GradientConfig(rule="jfb"), 1),
        (GradientConfig(rule="jfb", phantom_steps=3), 3),
        (GradientConfig(rule="ift"), 1),
        (GradientConfig(rule="unroll"), 5),
    ],
    ids=["jfb", "phantom", "ift", "unroll"],
)
def test_only_the_evaluations_that_the_rule_needs_are_tracked(gradient, tracked):
    model = small_model(gradient=gradient, solver=FixedPointConfig(max_evals=4, tol=0))
    with_graph = []
    model.cell.register_forward_hook(lambda module, args, output: with_graph.append(output.requires_grad))
    model(random_images(1)).keypoints.sum().backward()
    assert sum(with_graph) == tracked
    assert len(with_graph) == (tracked if gradient.rule == "unroll" else 4 + tracked)


def test_ift_gives_the_gradient_of_unrolling_in_the_whole_network():
    solver = FixedPointConfig(max_evals=12, tol=0)
    backward = AndersonConfig(max_evals=20, tol=1e-8)
    images = random_images(1).double()
    implicit, unrolled, jfb = (
        loss_gradients(small_model(gradient=gradient, solver=solver).double(), images)
        for gradient in (
            GradientConfig(rule="ift", backward_solver=backward),
            GradientConfig(rule="unroll"),
            GradientConfig(rule="jfb"),
        )
    )
    error = (implicit - unrolled).norm() / unrolled.norm()
    assert error < 1e-4
    assert error < 0.01 * (jfb - unrolled).norm() / unrolled.norm()


def test_the_scale_of_the_loss_only_scales_the_networks_gradient():
    model = small_model(gradient=GradientConfig(rule="ift"))
    images = random_images(1)
    expected = loss_gradients(model, images)
    for scale in (1e-3, 1e3):
        gradients = loss_gradients(model, images, scale) / scale
        assert (gradients - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("rule", ["jfb", "ift"])
def test_a_head_above_a_frozen_rest_is_trained(rule):
    model = small_model(gradient=GradientConfig(rule=rule)).requires_grad_(False)
    model.cell.head.requires_grad_(True)
    model(random_images(1)).keypoints.sum().backward()
    assert model.cell.head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients_there_is_no_graph(context):
    with context():
        output = small_model(gradient=GradientConfig(rule="unroll"))(random_images(1))
    assert not output.keypoints.requires_grad
    assert output.solution is not None


@pytest.mark.parametrize("rule", RULES)
def test_nothing_of_a_training_step_outlives_it(rule):
    model = small_model(gradient=GradientConfig(rule=rule), solver=FixedPointConfig(max_evals=3)).train()
    alive = []
    for module in (model.backbone, model.cell, model.cell.hourglass.bottleneck):
        module.register_forward_hook(lambda module, args, output: alive.append(weakref.ref(output)))

    def step() -> None:
        output = model(random_images(2))
        alive.append(weakref.ref(output.heatmaps))
        F.mse_loss(output.keypoints, torch.full_like(output.keypoints, 0.5)).backward()
        model.zero_grad()

    gc.collect()
    before = living_tensors()
    gc.disable()
    try:
        step()
    finally:
        gc.enable()
    assert len(alive) > 6
    assert all(reference() is None for reference in alive)
    assert living_tensors() == before


def test_bytes_saved_for_backward_do_not_grow_with_the_evaluations():
    def saved_bytes(rule: str, max_evals: int) -> int:
        model = small_model(gradient=GradientConfig(rule=rule), solver=AndersonConfig(max_evals=max_evals, tol=0))
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.nbytes) or tensor, lambda tensor: tensor
        ):
            model(random_images(1))
        return sum(sizes)

    for rule in ("jfb", "ift"):
        assert saved_bytes(rule, 8) == saved_bytes(rule, 2)
    assert saved_bytes("unroll", 8) > 2 * saved_bytes("unroll", 2)


@pytest.mark.skipif(importlib.util.find_spec("torchinfo") is None, reason="torchinfo is not installed")
def test_the_summary_is_printed_as_a_user_asks_for_it():
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "models.ldeq", "--summary"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "HRNet" in result.stdout
    assert "Cell" in result.stdout
    assert "Total params" in result.stdout
