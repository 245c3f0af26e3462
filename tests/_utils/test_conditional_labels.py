"""Labels among the rows where the task that they presuppose happened."""

import torch
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._utils import chain_parents, conditional_labels


def test_labels_of_0_and_1_are_not_changed():
    y = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)
    assert_array_equal(conditional_labels(y, chain_parents(y.shape[1])), y)


def test_probabilities_are_divided_by_those_of_the_task_before():
    y = torch.tensor([[0.5, 0.1, 0.02], [0.2, 0.3, 0.0], [0.0, 0.0, 0.0]])
    expected = [[0.5, 0.2, 0.2], [0.2, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert_allclose(
        conditional_labels(y, chain_parents(y.shape[1])), expected, rtol=1e-6
    )


def test_a_single_task():
    y = torch.tensor([[0.5], [1.0]])
    assert_array_equal(conditional_labels(y, chain_parents(y.shape[1])), y)


def test_tasks_of_a_tree_are_divided_by_their_parent():
    y = torch.tensor([[0.5, 0.1, 0.2, 0.1]])
    found = conditional_labels(y, (-1, 0, 0, 2))
    assert_allclose(found, [[0.5, 0.2, 0.4, 0.5]], rtol=1e-6)
