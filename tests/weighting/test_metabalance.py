import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from sk_pwiser.weighting import MetaBalance

FIRST = torch.tensor([[3.0, 4.0], [0.0, 1.0]])  # lengths 5 and 1
SECOND = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])  # lengths 1 and 2


def test_a_relaxation_of_0_is_the_sum():
    steps = MetaBalance(2, relax=0.0).combine([FIRST, SECOND])
    assert [s.tolist() for s in steps] == [[3, 5], [1, 2, 0]]


@pytest.mark.parametrize(
    ("target", "expected"),
    [(0, [[3, 4 + 5], [1, 1, 0]]), (-1, [[0.6, 0.8 + 1], [2, 2, 0]])],
)
def test_all_gradients_of_a_tensor_get_the_length_of_the_target(target, expected):
    weighting = MetaBalance(2, relax=1.0, decay=0.0, target=target)
    for step, values in zip(weighting.combine([FIRST, SECOND]), expected, strict=True):
        assert_allclose(step, values, rtol=1e-6)


def test_several_steps_in_numpy():
    rng = np.random.default_rng(0)
    weighting = MetaBalance(3, relax=0.7, decay=0.9)
    lengths, means = np.zeros((2, 3)), []
    for _ in range(5):
        g = [rng.normal(size=(3, n)) * [[1.0], [10.0], [0.1]] for n in (4, 7)]
        now = np.array([np.linalg.norm(m, axis=1) for m in g])
        lengths = lengths if lengths.any() else now
        scales = 0.7 * lengths[:, :1] / lengths + 0.3
        lengths = 0.9 * lengths + 0.1 * now
        steps = weighting.combine([torch.from_numpy(m).float() for m in g])
        for m, scale, step in zip(g, scales, steps, strict=True):
            assert_allclose(step, scale @ m, rtol=1e-4, atol=1e-6)
        means.append(scales.mean(axis=0))
    assert_allclose(weighting.end_epoch(), np.mean(means, axis=0), rtol=1e-5)


def test_gradients_of_0():
    nothing = torch.zeros(2, 3)
    half = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    weighting = MetaBalance(2, relax=1.0)
    steps = weighting.combine([FIRST, nothing, half])
    assert steps[1].tolist() == [0, 0, 0]
    assert steps[2].tolist() == [3, 4]
    # Weights per tensor, without gradients of 0: [1], and 5 and 1.
    assert_allclose(weighting.end_epoch(), [1, 3])


def test_a_new_instance_continues_from_the_state():
    old = MetaBalance(2)
    old.combine([FIRST, SECOND])
    new = MetaBalance(2)
    new.load_state_dict(old.state_dict())
    for ours, theirs in zip(
        new.combine([SECOND, FIRST]), old.combine([SECOND, FIRST]), strict=True
    ):
        assert torch.equal(ours, theirs)
    fresh = MetaBalance(2).combine([SECOND, FIRST])
    assert not torch.equal(fresh[0], MetaBalance.combine(new, [SECOND, FIRST])[0])


def test_lengths_belong_to_their_tensors_if_some_are_not_in_the_graph():
    a, b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    weighting = MetaBalance(2, relax=1.0, decay=0.5)
    scale = torch.tensor([1.0, 3.0])
    for parameters in ([a, b], [b], [a], [a, b]):
        total = sum(p.sum() for p in parameters)
        weighting.backward(total * scale, None, [a, b])
        # The second task's gradient is scaled to the length of the first one.
        for p in parameters:
            torch.testing.assert_close(p.grad, torch.full((2,), 2.0))
    assert weighting.lengths.shape == (2, 2)
