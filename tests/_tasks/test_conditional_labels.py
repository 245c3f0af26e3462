"""Labels given those of the tasks that a task presupposes."""

import torch
from numpy.testing import assert_allclose

from sk_pwiser._tasks._conditional_labels import conditional_labels
from sk_pwiser._tasks._tree import chain_parents


def test_probabilities_are_divided_by_those_of_the_task_before():
    y = torch.tensor([[0.5, 0.1, 0.02], [0.2, 0.3, 0.0], [0, 0, 0], [0, 1, 0]])
    expected = [[0.5, 0.2, 0.2], [0.2, 1.0, 0.0], [0, 0, 0], [0, 1, 0]]
    found = conditional_labels(y, chain_parents(y.shape[1]))
    assert_allclose(found, expected, rtol=1e-6)


def test_tasks_of_a_tree_are_divided_by_their_parent():
    y = torch.tensor([[0.5, 0.1, 0.2, 0.1]])
    found = conditional_labels(y, (-1, 0, 0, 2))
    assert_allclose(found, [[0.5, 0.2, 0.4, 0.5]], rtol=1e-6)
