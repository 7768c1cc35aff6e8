"""What a step of training keeps in memory, and for how long."""

import gc
import weakref

import pytest
import torch
from implicit_problems import Problem
from torch import Tensor

from models.deq import GradientConfig, deq
from solvers import AndersonConfig, FixedPointConfig


@pytest.mark.parametrize("rule", ["jfb", "ift", "unroll"])
def test_nothing_of_a_step_outlives_it(problem, rule):
    solver = FixedPointConfig(max_evals=4)

    def step() -> list[weakref.ref]:
        alive = []

        def f(z: Tensor) -> Tensor:
            activation = z @ problem.weight.T
            image = torch.tanh(activation + problem.shift)
            alive.extend(map(weakref.ref, (z, activation, image)))
            return image

        state, _ = deq(f, torch.zeros_like(problem.shift), solver, GradientConfig(rule=rule), True, track=True)
        alive.append(weakref.ref(state))
        (state * problem.cotangent).sum().backward()
        return alive

    gc.disable()
    try:
        alive = step()
    finally:
        gc.enable()
    assert len(alive) > 4
    assert [reference() for reference in alive] == [None] * len(alive)


def bytes_saved_for_backward(problem: Problem, gradient: GradientConfig, max_evals: int) -> int:
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        problem.solve(gradient, AndersonConfig(max_evals=max_evals, tol=0))
    return total


def test_memory_of_implicit_rules_does_not_grow_with_the_evaluations_that_of_unrolling_does(problem):
    for gradient in (
        GradientConfig(rule="jfb"),
        GradientConfig(rule="jfb", phantom_steps=3),
        GradientConfig(rule="ift"),
    ):
        assert 0 < bytes_saved_for_backward(problem, gradient, 4) == bytes_saved_for_backward(problem, gradient, 32)
    few, many = (bytes_saved_for_backward(problem, GradientConfig(rule="unroll"), evals) for evals in (4, 32))
    assert many > 5 * few
