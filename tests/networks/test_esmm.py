import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from refusals import X, small
from rewrites import batch, dense_input, make, tower, weights_of
from scipy.special import expit, log_expit, logit

from sk_pwiser.networks import ESMM, NetworkSpec
from sk_pwiser.networks._chain import chain_logits

HEADS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    elements=st.floats(-1000, 1000, width=32),
)


def funnel(n, n_tasks, rate=0.7):
    """Return labels of a funnel; a share `rate` of the rows passes each step."""
    steps = np.random.default_rng(0).random((n, n_tasks)) < rate
    return np.logical_and.accumulate(steps, axis=1).astype(int)


def log_odds(conditional):
    """Return log P - log(1 - P) of the product, in float64 by log1p and expm1."""
    log_p = np.cumsum(log_expit(conditional.astype(np.float64)), axis=1)
    return log_p - np.log(-np.expm1(log_p))


def test_chain_is_the_product_of_probabilities():
    conditional = torch.randn(200, 4, dtype=torch.float64) * 3
    expected = logit(np.cumprod(expit(conditional.numpy()), axis=1))
    assert_allclose(chain_logits(conditional), expected, rtol=1e-9, atol=1e-9)


@given(HEADS.filter(lambda heads: abs(heads).max() < 700))
def test_chain_equals_the_log1p_form_over_wide_ranges(conditional):
    expected = log_odds(conditional)
    chain = chain_logits(torch.from_numpy(conditional.astype(np.float64)))
    assert_allclose(chain, expected, rtol=1e-9, atol=1e-9)
    chain = chain_logits(torch.from_numpy(conditional))
    assert_allclose(chain, expected, rtol=1e-5, atol=1e-5)


@given(HEADS)
def test_no_column_of_the_chain_rises(conditional):
    chain = chain_logits(torch.from_numpy(conditional))
    assert (chain.diff(dim=1) <= 0).all()
    assert (chain.sigmoid().diff(dim=1) <= 0).all()


@given(HEADS.map(lambda heads: np.sign(heads) * 1000), st.sampled_from([0.0, 1.0]))
def test_value_and_gradient_are_finite_at_a_thousand(conditional, label):
    heads = torch.from_numpy(conditional).float().requires_grad_()
    chain = chain_logits(heads)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        chain, torch.full_like(chain, label), reduction="sum"
    )
    loss.backward()
    assert chain.isfinite().all()
    assert loss.isfinite()
    assert heads.grad.isfinite().all()


def test_gradient_of_the_chain():
    heads = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(chain_logits, heads)


@pytest.mark.parametrize(
    ("head", "label", "loss", "gradient"), [(20, 0, 19.3068528, 0.5), (-20, 1, 40, -1)]
)
def test_loss_of_a_product_is_not_capped(head, label, loss, gradient):
    # Computed from probabilities in float32, the first loss would be 100, without a
    # gradient, instead of -log(1 - (1 - 2e-9)^2); the second would have almost none.
    heads = torch.full((1, 2), float(head), requires_grad=True)
    product = chain_logits(heads)[:, 1]
    value = torch.nn.functional.binary_cross_entropy_with_logits(
        product, torch.tensor([float(label)])
    )
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-6)
    assert heads.grad.tolist()[0] == pytest.approx([gradient] * 2, rel=1e-5)


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
def test_equals_the_formula_written_out_in_numpy(n_tasks):
    network = make(ESMM, n_tasks, task_space="conditional", tower_units=(8, 7))
    codes, numeric = batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    heads = np.stack([tower(x, p, k) for k in range(n_tasks)], 1)
    output = network(codes, numeric)
    found = output.conditional_logits.detach()
    assert_allclose(found, heads, rtol=1e-4, atol=1e-5)
    probabilities = output.logits.sigmoid().detach()
    assert_allclose(probabilities, np.cumprod(expit(heads), axis=1), rtol=1e-4)


@pytest.mark.parametrize(
    "rates", [[0.3, 0.1, 0.02], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.1, 0.2, 0.2]]
)
def test_heads_start_at_the_rates_of_rows_with_the_previous_task(rates):
    start = ESMM(NetworkSpec([], 1, 1, rates)).conditional_base_logits
    assert start.isfinite().all()
    # A chain cannot represent a rate above that of the previous task. An equal rate
    # would need a head near 1, which has almost no gradient: it starts at 0.99.
    previous = np.array([1.0, *rates[:-1]])
    ratios = np.divide(rates, previous, out=np.full(3, 0.5), where=previous > 0)
    ratios[1:] = np.minimum(ratios[1:], 0.99)
    reachable = np.cumprod(ratios)
    started = chain_logits(start.unsqueeze(0)).sigmoid()[0]
    assert_allclose(started, reachable, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("n_tasks", [2, 3])
def test_estimator_predicts_the_conditional_heads(n_tasks):
    Y = funnel(len(X), n_tasks)
    names = ["click", "cart", "purchase"][:n_tasks]
    params = {"tower_units": (8,)}
    model = small(network="esmm", network_params=params, task_names=names).fit(X, Y)
    assert (np.diff(model.predict_proba(X), axis=1) <= 0).all()
    network = model.net_.module_.eval()
    seen = []
    hook = network.towers.register_forward_hook(lambda *args: seen.append(args[2]))
    model.predict_proba(X)
    hook.remove()
    heads = torch.cat(seen).detach().cpu().double().sigmoid().numpy()
    assert_allclose(model.predict_cvr(X), heads[:, 1:].prod(axis=1), rtol=1e-5)
    assert_allclose(model.predict_proba(X), np.cumprod(heads, axis=1), rtol=1e-5)
    assert heads[:, 1:].std() > 1e-3
