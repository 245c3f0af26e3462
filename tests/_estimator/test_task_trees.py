"""Tasks that are no funnel: siblings, and trees, from `fit` to a server."""

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from small_model import small
from torch.nn.functional import logsigmoid

from sk_pwiser._tasks._stratify import funnel_strata
from sk_pwiser._tasks._tree import path_to, read_task_parents, task_paths
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.inspection import FunnelScoreDisplay
from sk_pwiser.losses import PWiseR, funnel_monotonicity_penalty
from sk_pwiser.metrics import cvr_auc_scorer
from sk_pwiser.model_selection import (
    FunnelStratifiedKFold,
    FunnelTimeSplit,
    compare_models,
    funnel_holdout,
)
from sk_pwiser.networks import NETWORKS, chain_logits

N = 1_200
NAMES = ["click", "like", "conversion", "return"]
TREE = {"like": "click", "conversion": "click", "return": "conversion"}
CORRECTED = ("dcmt", "ddpo", "escm2")


def log(seed=0, click=0.5, n=N):
    """Return impressions with likes and conversions that both presuppose a click."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({"x": rng.normal(size=n), "slot": rng.integers(0, 5, n)})
    X["slot"] = X["slot"].astype("category")
    clicked = rng.random(n) < click
    like = clicked & (rng.random(n) < 0.3 + 0.3 * (X["x"] > 0))
    conversion = clicked & (rng.random(n) < 0.3 + 0.3 * (X["x"] < 0))
    Y = np.column_stack([clicked, like, conversion, conversion & (rng.random(n) < 0.5)])
    return X, pd.DataFrame(Y, columns=NAMES).astype(int)


X, Y = log()


def tree(**params):
    return small(task_parents=TREE, max_epochs=2, network_params=None, **params)


def test_training_of_siblings_with_labels_in_different_rows_starts_at_their_rates():
    """Likes were logged in the first half only, conversions in the second."""
    labels = Y[NAMES[:3]].astype(float)
    labels["conversion"] *= np.arange(N) % 40 == 0  # 0.6 % of the rows
    labels.loc[N // 2 :, "like"] = labels.loc[: N // 2 - 1, "conversion"] = np.nan
    structure = {"like": "click", "conversion": "click"}
    model = small(task_parents=structure, missing_labels="ignore", lr=1e-6)
    means = model.fit(X, labels).predict_proba(X).mean(axis=0)
    assert_allclose(means, labels.mean(), rtol=0.3)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(value, marks=() if value in {"mmoe", "esmm"} else pytest.mark.slow)
        for value in sorted(set(NETWORKS) - set(CORRECTED))
    ],
)
@pytest.mark.parametrize("parents", [TREE, None], ids=["tree", "siblings"])
def test_every_network_without_corrections_takes_every_structure(network, parents):
    params = {"network_params": {"task_space": "conditional"}} if parents else {}
    defaults = {"network_params": None, "max_epochs": 1, "random_state": 0}
    model = small(network=network, task_parents=parents, **{**defaults, **params})
    p = model.fit(X, Y).predict_proba(X)
    expected = TREE if parents else {}
    assert model.task_parents_ == {name: expected.get(name) for name in NAMES}
    for task, parent in expected.items():
        assert (p[:, NAMES.index(task)] <= p[:, NAMES.index(parent)] + 1e-7).all()


@pytest.mark.parametrize("network", CORRECTED)
def test_corrections_of_a_funnel_refuse_a_tree(network):
    with pytest.raises(
        ValueError, match=r"task_parents must be .chain. for the network"
    ):
        tree(network=network).fit(X, Y)


@pytest.mark.parametrize("loss", ["bce", "pwiser"])
def test_a_mapping_of_a_funnel_is_the_funnel_to_the_bit(loss):
    params = {"network_params": {"task_space": "conditional"}, "random_state": 0}
    two = Y[["click", "conversion"]]
    chain = small(loss=loss, **params).fit(X, two)
    mapped = small(loss=loss, task_parents={"conversion": "click"}, **params)
    assert_array_equal(mapped.fit(X, two).predict_proba(X), chain.predict_proba(X))


def test_conditional_heads_multiply_along_each_path():
    heads = torch.randn(50, 4, dtype=torch.float64)
    parents = read_task_parents(TREE, NAMES)
    logits = chain_logits(heads, parents)
    for k in range(4):
        product = heads[:, list(path_to(k, parents))].sigmoid().prod(dim=1)
        assert_allclose(logits[:, k].sigmoid(), product, rtol=1e-12)


@pytest.mark.slow
def test_conditional_heads_learn_the_rates_among_rows_with_their_parent():
    model = small(
        network="single_task",
        network_params={"task_space": "conditional"},
        task_parents=TREE,
        max_epochs=20,
        random_state=0,
    ).fit(X, Y)
    assert_allclose(model.predict_proba(X).mean(axis=0), Y.mean(), atol=0.04)
    clicked = Y["click"] == 1
    rate = model.predict_cvr(X, "like")[clicked].mean()
    assert rate == pytest.approx(Y["like"][clicked].mean(), abs=0.06)


@pytest.mark.parametrize("weights", [None, "rows", "tasks"])
def test_the_pairwise_term_is_that_of_each_path(weights):
    rng = np.random.default_rng(1)
    y = torch.tensor(Y[:200].to_numpy(), dtype=torch.float64)
    logits = torch.tensor(rng.normal(size=(200, 4)))
    weight = None
    if weights is not None:
        shape = 200 if weights == "rows" else (200, 4)
        weight = torch.tensor(rng.integers(0, 3, shape).astype(float))
        if weights == "tasks":
            weight[:, 0] = 1.0
    losses = PWiseR(NAMES, pwiser_weight=0.7, task_parents=TREE)(logits, y, weight)
    for path in task_paths(read_task_parents(TREE, NAMES)):
        columns = list(path)
        loss = PWiseR([NAMES[k] for k in path], pwiser_weight=0.7)
        part = weight if weights != "tasks" else weight[:, columns]
        expected = loss(logits[:, columns], y[:, columns], part)
        assert losses[path[-1]].item() == pytest.approx(expected[-1].item(), abs=1e-12)


def test_a_head_of_several_paths_takes_the_mean_of_their_terms():
    y = torch.tensor(Y[:200].to_numpy(), dtype=torch.float64)
    logits = torch.randn(200, 4, dtype=torch.float64)
    params = {"pwiser_weight": 0.7, "tasks": ["click"]}
    loss = PWiseR(NAMES, task_parents=TREE, **params)(logits, y)[0]
    of_paths = [
        PWiseR([NAMES[k] for k in path], **params)(logits[:, path], y[:, path])[0]
        for path in ([0, 1], [0, 2, 3])
    ]
    assert loss.item() == pytest.approx(np.mean([each.item() for each in of_paths]))


def test_margins_of_short_paths_are_those_of_the_lowest_depths():
    y = torch.tensor(Y[:200].to_numpy(), dtype=torch.float64)
    logits = torch.randn(200, 4, dtype=torch.float64)
    loss = PWiseR(NAMES, task_parents=TREE, margins=[1.0, 2.0, 3.0])(logits, y)
    short = PWiseR(["click", "like"], margins=[2.0, 3.0])(logits[:, :2], y[:, :2])
    assert loss[1].item() == pytest.approx(short[1].item())
    with pytest.raises(ValueError, match=r"margins must be .* 3 here"):
        PWiseR(NAMES, task_parents=TREE, margins=[1.0, 2.0])


def test_batches_lack_pairs_if_no_path_has_any():
    loss = PWiseR(["a", "b"], task_parents=None)
    loss.observe(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    loss.observe(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    assert loss.pop_epoch_record() == {"batches_without_pairs": 1}


def test_the_penalty_compares_tasks_with_their_parents():
    p = torch.tensor([[0.4, 0.5, 0.3, 0.6]], dtype=torch.float64)
    parents = read_task_parents(TREE, NAMES)
    found = funnel_monotonicity_penalty(torch.logit(p), parents=parents)
    assert found.item() == pytest.approx(0.1 + 0.3)
    assert funnel_monotonicity_penalty(torch.logit(p), parents=[-1] * 4).item() == 0


def test_labels_are_judged_by_the_tasks_that_they_presuppose(recwarn):
    rng = np.random.default_rng(0)
    independent = pd.DataFrame(rng.integers(0, 2, (N, 2)), columns=["like", "comment"])
    small(task_parents=None).fit(X, independent)
    assert not [w for w in recwarn if "break the funnel" in str(w.message)]
    with pytest.warns(UserWarning, match="rows break the funnel"):
        small().fit(X, independent)
    broken = Y.assign(**{"return": 1})
    with pytest.warns(UserWarning, match=f"{(Y['conversion'] == 0).sum()} of {N} rows"):
        tree().fit(X, broken)


@pytest.mark.slow
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_reactions_that_presuppose_another_task_are_named_once(task_space):
    rows = np.tile(np.arange(N), 40)
    liked = Y["click"] * (np.arange(N) % 2)
    siblings = Y[["click", "conversion"]].assign(like=liked, share=1 - Y["click"])
    params = {"network_params": {"task_space": task_space}, "max_epochs": 1}
    siblings = siblings.iloc[rows].reset_index(drop=True)
    with pytest.warns(UserWarning, match="rows break the funnel") as caught:
        small(**params).fit(X.iloc[rows].reset_index(drop=True), siblings)
    [message] = [str(each.message) for each in caught]
    of_entire = "contribute to the loss of each task but not to the pairwise term"
    assert (of_entire in message) == (task_space == "entire")
    assert ("left out of the later task" in message) == (task_space == "conditional")
    assert "100% of the events of 'share' come without 'like'" in message
    assert message.endswith(": if that is right, set task_parents.")


def test_rows_are_stratified_by_the_last_task_that_they_reached():
    reached = funnel_strata(Y, TREE) // 2
    steps = Y.to_numpy() * [1, 2, 3, 4]
    assert_array_equal(reached, steps.max(axis=1))
    _, test = funnel_holdout(Y, test_size=0.5, random_state=0, task_parents=TREE)
    assert_allclose(Y.iloc[test].sum(), Y.sum() / 2, atol=N * 0.03)
    for _, test in FunnelStratifiedKFold(4, random_state=0, task_parents=TREE).split(
        X, Y
    ):
        counts = np.bincount(reached[test], minlength=5)
        assert_allclose(counts, np.bincount(reached, minlength=5) / 4, atol=1)
    splits = FunnelTimeSplit(3, time=np.arange(N), min_conversions=5, task_parents=TREE)
    assert all((Y["return"].iloc[test].sum() >= 5) for _, test in splits.split(X, Y))


def test_training_continues_with_the_same_structure_only():
    model = tree(warm_start=True, random_state=0).partial_fit(X, Y).partial_fit(X, Y)
    assert model.task_parents_ == {"click": None, **TREE}
    with pytest.raises(ValueError, match="cannot continue with task_parents=None"):
        model.set_params(task_parents=None).fit(X, Y)


def test_predict_cvr_of_each_task():
    model = tree(random_state=0).fit(X, Y)
    log_p = logsigmoid(torch.as_tensor(model.predict_logits(X)))
    for task in ("like", 1, "return"):
        k = NAMES.index(task) if isinstance(task, str) else task
        expected = (log_p[:, k] - log_p[:, 0]).clamp(max=0).exp()
        assert_allclose(model.predict_cvr(X, task), expected, rtol=1e-6)
    assert_array_equal(model.predict_cvr(X), model.predict_cvr(X, "return"))
    with pytest.raises(ValueError, match="'click' does not"):
        model.predict_cvr(X, "click")
    assert 0 <= cvr_auc_scorer(model, X, Y) <= 1
    siblings = small(task_parents=None).fit(X, Y)
    for call in (siblings.predict_cvr, siblings.task("cvr").predict_proba):
        with pytest.raises(ValueError, match=r"presupposes? another one"):
            call(X)
    with pytest.raises(ValueError, match="must presuppose another one"):
        cvr_auc_scorer(siblings, X, Y)


@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
@pytest.mark.parametrize("parents", [TREE, None], ids=["tree", "siblings"])
def test_calibration_follows_the_structure(parents):
    model = small(task_parents=parents, random_state=0).fit(X, Y)
    later, labels = log(seed=1)
    p, expected = (
        FunnelCalibrator(model, method="sigmoid", ordered=ordered)
        .fit(later, labels)
        .predict_proba(later)
        for ordered in (True, False)
    )
    for k, parent in enumerate(read_task_parents(parents, NAMES)):
        if parent >= 0:
            expected[:, k] = np.minimum(expected[:, k], expected[:, parent])
    assert_allclose(p, expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
def test_a_calibrator_with_folds_fits_clones_of_the_structure():
    calibrated = FunnelCalibrator(tree(random_state=0), method="sigmoid", cv=2)
    assert calibrated.fit(X, Y).task_parents_ == {"click": None, **TREE}


@pytest.mark.slow
def test_comparisons_follow_the_structure():
    losses = ["bce", "pwiser"]
    found = compare_models(X, Y, models=losses, estimator=tree(random_state=0), cv=2)
    assert "CVR AUC" in found.scores
    without_parents = small(task_parents=None)
    siblings = compare_models(X, Y, models=losses, estimator=without_parents, cv=2)
    assert "CVR AUC" not in siblings.scores


def test_densities_are_drawn_along_a_path():
    pytest.importorskip("matplotlib").use("Agg")
    model = tree(random_state=0).fit(X, Y)
    display = FunnelScoreDisplay.from_estimator(model, X, Y, task="like")
    assert display.task_names == ["click", "like"]
    assert_array_equal(display.depth, Y["click"] + Y["like"])


def test_a_sampled_log_needs_one_first_task():
    sampled = {"negative_sampling_rate": 0.5}
    assert tree(random_state=0).set_params(**sampled).fit(X, Y).n_tasks_ == 4
    with pytest.raises(ValueError, match=r"the first one; .* indices \[1, 2, 3\]"):
        small(task_parents=None, **sampled).fit(X, Y)


def test_stratified_batches_have_rows_at_the_end_of_a_path():
    few, labels = log(seed=2, click=0.02)
    model = tree(random_state=0).set_params(stratified_batches=True, batch_size=64)
    model.fit(few, labels)
    assert model.history_[-1]["train_batches_without_pairs"] == 0


def test_missing_labels_of_siblings_leave_the_other_tasks():
    some = Y.astype(float)
    some.loc[::2, "like"] = np.nan
    model = tree(random_state=0, missing_labels="ignore").fit(X, some)
    assert np.isfinite(model.predict_proba(X)).all()
    assert model.history_[-1]["train_missing_like"] == N // 2
