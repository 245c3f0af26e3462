"""A missing label has the gradient of a row that is removed for its task."""

import pytest
import torch

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.losses import BCE, LOSSES, PWiseR
from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting import Equal

N = 40
TASKS = ["click", "cart", "buy"]


@pytest.fixture(scope="module")
def batch():
    """Inputs, labels that respect the funnel, which are known, weights and groups."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.rand(*shape, generator=generator)

    inputs = torch.randint(5, (N, 2), generator=generator), draw(N, 3)
    y = (draw(N, 3) < 0.6).float().cumprod(dim=1)
    known = draw(N, 3) < 0.6
    known[:, 0] = True
    return inputs, y, known, 0.5 + draw(N), torch.randint(4, (N,), generator=generator)


def make(network, task_space):
    torch.manual_seed(0)
    spec = NetworkSpec([5, 5], 3, 4, [0.5, 0.3, 0.2], task_space=task_space)
    # Monotonicity compares probabilities of one row, without labels.
    return NETWORKS[network](spec).double().eval()


def task_losses(network, loss, inputs, y, weights, groups, rows=slice(None)):
    """Return the loss of each task on some rows, in float64."""
    output = network(inputs[0][rows], inputs[1][rows].double())
    weights = None if weights is None else weights[rows].double()
    criterion = MultiTaskCriterion(loss, Equal(len(TASKS)))
    losses, *_ = criterion._terms(output, y[rows].double(), weights, groups[rows])
    return losses


def gradient(network, loss_of_task):
    return torch.autograd.grad(
        loss_of_task,
        list(network.parameters()),
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )


def check(network, loss, batch, weighted):
    inputs, y, known, row_weights, groups = batch
    row_weights = row_weights if weighted else torch.ones(N)
    weights = row_weights.unsqueeze(1) * known
    losses = task_losses(network, loss, inputs, y * known, weights, groups)
    for k in range(len(TASKS)):
        rows = known[:, k].nonzero().squeeze(1)
        # The same rows with the other tasks' labels: only task k is compared.
        removed = task_losses(network, loss, inputs, y * known, weights, groups, rows)
        share = len(rows) / N
        torch.testing.assert_close(losses[k], share * removed[k], rtol=1e-5, atol=1e-9)
        found, expected = (gradient(network, part[k]) for part in (losses, removed))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, share * other, rtol=1e-4, atol=2e-6)


# Networks with extra losses to which the test does not apply: "ctcl", "dcmt" and "ddpo"
# do not read the label of the task, but include rows without the task before, or
# compare predictions, with the weight of another task, and "escm2" divides by the sum
# of the weights in the batch, which a removed row changes.
OTHERS = {"ctcl", "dcmt", "ddpo", "escm2"}
SPACES = pytest.mark.parametrize("task_space", ["entire", "conditional"])


@SPACES
@pytest.mark.parametrize("name", sorted({*NETWORKS} - OTHERS))
def test_every_network(name, task_space, batch):
    check(make(name, task_space), BCE(TASKS), batch, weighted=True)


@SPACES
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_missing_label_after_an_event_is_not_read(name, task_space, batch):
    inputs, y, known, weights, groups = batch
    network, weights = make(name, task_space), weights.unsqueeze(1) * known
    is_open = known[:, 1] & (y[:, 1] == 1) & ~known[:, 2]
    assert is_open.any()
    found = []
    for value in (0.0, 1.0):
        filled = y * known
        filled[is_open, 2] = value
        losses = task_losses(network, BCE(TASKS), inputs, filled, weights, groups)
        found.append((losses, *gradient(network, losses.sum())))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_loss(name, task_space, weighted, batch):
    check(make("shared_bottom", task_space), LOSSES[name](TASKS), batch, weighted)


@pytest.mark.parametrize("name", sorted({*LOSSES} - {"pwiser"}))
def test_pwiser_with_every_base(name, batch):
    loss = PWiseR(TASKS, base=name, tasks="all", pairs="funnel")
    check(make("shared_bottom", "entire"), loss, batch, weighted=True)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_the_value_in_place_of_a_missing_label_does_not_matter(name, batch):
    (codes, numeric), y, known, _, groups = batch
    network, loss = make("shared_bottom", "entire"), LOSSES[name](TASKS)
    inputs, weights = (codes, numeric), known.float()
    zeros = task_losses(network, loss, inputs, y * known, weights, groups)
    # Of the last task only: a 1 in the middle of the funnel could break it.
    other = torch.where(known, y, y * known + (~known & (torch.arange(3) == 2)))
    ones = task_losses(network, loss, inputs, other, weights, groups)
    torch.testing.assert_close(zeros[2], ones[2])


def test_pairs_of_rows_of_unknown_depth():
    """A click without a label of the conversion is in no pair, of any head."""
    y = torch.tensor([[1.0, 1], [1, 0], [1, 0], [0, 0], [0, 0]])
    known = torch.tensor([[1.0, 1], [1, 1], [1, 0], [1, 1], [1, 0]])
    logits = torch.randn(5, 2)
    names = ["click", "conversion"]
    loss = PWiseR(names, tasks="all", pwiser_weight=2.0)
    term = loss(logits, y, known) - BCE(names)(logits, y, known)
    converted, clicked = 0, 1

    def hinge(head, lower):
        return (1 - (logits[converted, head] - logits[lower, head])).clamp(min=0)

    # The last row is known to be at depth 0, and has no label of the conversion.
    of_click = hinge(0, clicked) + (hinge(0, 3) + hinge(0, 4)) / 2
    of_conversion = hinge(1, clicked) + hinge(1, 3)
    expected = 2.0 / 5 * torch.stack([of_click, of_conversion])
    torch.testing.assert_close(term, expected)
    loss.observe(y, known)
    assert loss.pop_epoch_record() == {"batches_without_pairs": 0}
    loss.observe(y[2:], known[2:])
    assert loss.pop_epoch_record() == {"batches_without_pairs": 1}
