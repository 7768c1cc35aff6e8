"""What is told of a solve."""

import numpy as np
from small_networks import random_images, small_model

from inference.network import Network
from inference.results import to_results
from solvers import AndersonConfig, FixedPointConfig


def test_the_residual_of_the_answer_is_not_known_after_a_final_evaluation():
    network = Network(small_model(), engine="torch").with_solver(FixedPointConfig(max_evals=1, tol=0), True)
    output = network(random_images(2))
    results = to_results(output, network.config)
    np.testing.assert_array_equal(results.start_residual, output.solution.trace[0].numpy())
    assert np.isnan(results.answer_residual).all()
    without = network.with_solver(FixedPointConfig(max_evals=1, tol=0), False)
    results = to_results(without(random_images(2)), without.config)
    np.testing.assert_array_equal(results.answer_residual, results.start_residual)


def test_the_residual_of_the_answer_is_that_of_the_iterate_it_is_the_image_of():
    network = Network(small_model(), engine="torch").with_solver(AndersonConfig(max_evals=12, tol=1e-4), True)
    output = network(random_images(2))
    results = to_results(output, network.config)
    np.testing.assert_array_equal(results.answer_residual, output.solution.residual.numpy())
    assert (results.answer_residual < results.start_residual).all()
