"""Updates by partial_fit: in place, and without effect if they fail."""

import copy
import re
from itertools import chain, product

import numpy as np
import pandas as pd
import pytest
import torch
from checkpointed import Orders
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback
from small_model import X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.weighting import WEIGHTINGS


class Groups(Callback):
    """Records the groups of each batch."""

    def __init__(self):
        self.seen = []

    def on_batch_begin(self, net, batch=None, **kwargs):
        self.seen.append(set(batch[0].get("groups", torch.empty(0)).tolist()))


def test_an_update_with_groups_keeps_them_together():
    groups = np.random.default_rng(0).permutation(np.arange(len(X)) // 4)
    params = {"loss": "jrc", "batch_size": 40}
    record = Groups()
    model = small(callbacks=[record], **params).partial_fit(X, Y)
    model.partial_fit(X, Y, groups=groups)
    assert sum(map(len, record.seen)) == len(set(groups))


def updated(**params):
    return small(**params).partial_fit(X, Y)


def state(model):
    """Return copies of all that an update changes."""
    net = model.net_
    return copy.deepcopy(
        {
            "network": net.module_.state_dict(),
            "criterion": net.criterion_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            # "dur" is the time that an epoch took.
            "history": [
                {k: v for k, v in row.items() if k != "dur"} for row in net.history
            ],
            "generators": model._result.generators.__getstate__(),
            "n_iter": model.n_iter_,
        }
    )


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
    elif isinstance(one, float | np.ndarray):
        assert_array_equal(one, other)
    else:
        assert one == other


def test_an_update_keeps_the_objects():
    model = updated()

    def objects():
        net = model.net_
        parts = net, net.module_, net.optimizer_, model.history_
        return [*parts, *net.module_.parameters()]

    kept, rows = objects(), list(model.history_)
    model.partial_fit(X, Y)
    assert all(a is b for a, b in zip(kept, objects(), strict=True))
    # Rows of earlier calls are not copied.
    assert model.history_[0] is rows[0]
    assert len(model.history_) == model.n_iter_ == 2


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_the_history_has_no_rows_per_batch(method):
    model = small(early_stopping=method == "fit")
    getattr(model, method)(X, Y)
    getattr(model, method)(X, Y)
    assert [row["batches"] for row in model.history_] == [[{}]] * model.n_iter_


def test_an_update_builds_no_network(monkeypatch):
    model = updated()

    def fail(*args, **kwargs):
        raise AssertionError("a network was built")

    monkeypatch.setattr("sk_pwiser._training._build_net.build_network", fail)
    monkeypatch.setattr("sk_pwiser._fit._fit_plan.check_components", fail)
    for name in ("build_net", "continue_from"):
        monkeypatch.setattr(f"sk_pwiser._fit._update.{name}", fail)
    assert model.partial_fit(X, Y).n_iter_ == 2
    with pytest.raises(AssertionError, match="a network was built"):
        model.set_params(lr=0.1).partial_fit(X, Y)


def test_changed_parameters_take_effect():
    model = updated()
    net, before = model.net_, model.net_.optimizer_.state_dict()["state"]
    model.set_params(lr=0.1).partial_fit(X, Y)
    assert model.net_ is not net
    assert {group["lr"] for group in model.net_.optimizer_.param_groups} == {0.1}
    steps = [state["step"] for state in model.net_.optimizer_.state.values()]
    # 3 batches per call: the optimiser's state is kept.
    assert {int(step) for step in steps} == {6}
    assert {int(state["step"]) for state in before.values()} == {3}
    assert model.n_iter_ == 2
    net = model.net_
    assert model.partial_fit(X, Y).net_ is net


def test_equal_names_of_numpy_do_not_build_the_net_anew():
    names = np.array(["click", "conversion"])
    model = updated(task_names=list(names))
    net = model.net_
    model.set_params(task_names=list(names)).partial_fit(X, Y)
    assert model.net_ is net


def test_an_update_after_fit_has_a_new_net():
    model = small(early_stopping=True).fit(X, Y)
    net, p = model.net_, model.predict_proba(X)
    model.partial_fit(X, Y)
    assert model.net_ is not net
    assert model.n_iter_ == 3
    assert (model.predict_proba(X) != p).any()
    # The net of fit is unchanged, whoever still holds it.
    assert len(net.history) == 2
    net = model.net_
    assert model.partial_fit(X, Y).net_ is net


def test_consecutive_updates_have_different_orders_of_the_rows():
    orders = []
    model = small(callbacks=[Orders(orders)])
    for _ in range(3):
        model.partial_fit(X, Y)
    passes = [list(chain(*orders[start : start + 3])) for start in (0, 3, 6)]
    assert sorted(passes[0]) == sorted(passes[1]) == sorted(passes[2])
    assert passes[0] != passes[1] != passes[2] != passes[0]


class Fails(Callback):
    """Raises an error at some event of a later call."""

    def __init__(self, event, error):
        self.event, self.error, self.armed = event, error, False

    def _maybe_raise(self, event):
        if self.armed and event == self.event:
            raise self.error

    def on_epoch_begin(self, net, **kwargs):
        self._maybe_raise("on_epoch_begin")

    def on_batch_end(self, net, **kwargs):
        self._maybe_raise("on_batch_end")

    def on_epoch_end(self, net, **kwargs):
        self._maybe_raise("on_epoch_end")

    def on_train_end(self, net, **kwargs):
        self._maybe_raise("on_train_end")


EVENTS = ["on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end"]
FAILURES = [
    *product(["equal", "ema"], EVENTS, [RuntimeError, KeyboardInterrupt]),
    *product(
        sorted(WEIGHTINGS.keys() - {"equal", "ema"}),
        ["on_batch_end"],
        [RuntimeError],
    ),
]
FAST_FAILURES = [
    *(("ema", event, KeyboardInterrupt) for event in EVENTS),
    *(("equal", event, RuntimeError) for event in EVENTS),
]


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(value, marks=() if value in FAST_FAILURES else pytest.mark.slow)
        for value in FAILURES
    ],
    ids=str,
)
def test_a_failing_update_changes_nothing(failure):
    weighting, event, error = failure
    if weighting == "torchjd":
        pytest.importorskip("torchjd")
    fails = Fails(event, error)
    params = {"weights": [1, 2]} if weighting == "fixed" else None
    params = {"weighting": weighting, "weighting_params": params, "callbacks": [fails]}
    if weighting == "equal":
        params["optimizer_params"] = {"lazy_embeddings": True}
    model = updated(**params).partial_fit(X, Y)
    before, p = state(model), model.predict_proba(X)
    fails.armed = True
    with pytest.raises(error):
        model.partial_fit(X, Y)
    assert_same(state(model), before)
    assert_array_equal(model.predict_proba(X), p)
    # The next update gives the same as without the failure.
    fails.armed = False
    model.partial_fit(X, Y)
    assert model.net_.criterion is model.net_.criterion_
    expected = updated(**params).partial_fit(X, Y).partial_fit(X, Y)
    assert_same(state(model)["history"], state(expected)["history"])
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


class Spoils(Callback):
    """Sets a weight to NaN in one batch of the second call."""

    def __init__(self, batch):
        self.batch, self.n_seen = batch, 0

    def on_batch_end(self, net, **kwargs):
        self.n_seen += 1
        if self.n_seen == self.batch:
            with torch.no_grad():
                next(net.module_.parameters())[:] = np.nan


@pytest.mark.parametrize(
    ("batch", "message"),
    [(4, "the train loss is nan"), (6, "last step left non-finite weights or logits")],
)
def test_an_update_that_diverges_changes_nothing(batch, message):
    model = updated(callbacks=[Spoils(batch)])
    before, p = state(model), model.predict_proba(X)
    with pytest.raises(ValueError, match=f"diverged in epoch 2: .*{message}"):
        model.partial_fit(X, Y)
    assert_same(state(model), before)
    assert_array_equal(model.predict_proba(X), p)


def test_an_invalid_update_changes_nothing():
    model = updated()
    before = state(model)
    for kwargs in (
        {"Y": Y * 2},
        {"X": X.assign(numeric_0=np.inf)},
        {"sample_weight": -np.ones(len(X))},
    ):
        with pytest.raises(ValueError, match=r"0 or 1|infinity|>= 0"):
            model.partial_fit(**{"X": X, "Y": Y, **kwargs})
    assert_same(state(model), before)


@pytest.mark.parametrize("first", ["fit", "partial_fit"])
@pytest.mark.parametrize("missing", [False, True])
def test_weights_after_a_call_without_weights_are_not_scaled(first, missing):
    """Rows without weights weigh 1, so that a weight of 1 changes nothing."""
    labels, weights = Y.astype(float), np.linspace(0.5, 1.5, len(Y))
    if missing:
        labels.iloc[::3, 1] = np.nan
    model = small(missing_labels="ignore", optimizer="sgd", lr=0.1, loss="bce")
    getattr(model, first)(X, labels)
    states = [
        copy.deepcopy(model).partial_fit(X, Y, sample_weight=w).predict_logits(X)
        for w in (None, np.ones(len(Y)), weights, 3 * weights)
    ]
    assert_array_equal(states[0], states[1])
    before = model.predict_logits(X)
    moved, moved_more = (np.abs(after - before).mean() for after in states[2:])
    assert moved_more > 1.5 * moved


def test_classes_of_later_calls_are_those_of_the_first():
    y = Y.iloc[:, 0]
    model = small().partial_fit(X, y, classes=[0, 1])
    before = state(model)
    with pytest.raises(ValueError, match=r"classes must be \[0, 1\].*\['a', 'b'\]"):
        model.partial_fit(X, y, classes=["a", "b"])
    assert_same(state(model), before)
    assert_array_equal(model.partial_fit(X, y, classes=[1, 0]).classes_, [0, 1])


def test_several_tasks_have_the_classes_0_and_1():
    with pytest.raises(ValueError, match=r"classes must be 0 and 1.*\['a', 'b'\]"):
        small().partial_fit(X, Y, classes=["a", "b"])
    small().partial_fit(X, Y, classes=[[0, 1], [0, 1]])


def test_parameters_changed_in_place_have_an_effect():
    class Counter(Callback):
        n_calls = 0

        def on_train_begin(self, *args, **kwargs):
            self.n_calls += 1

    counter = Counter()
    params = {"callbacks": [], "loss_params": {"base_params": {}}}
    model = small(**params).partial_fit(X, Y)
    model.callbacks.append(counter)
    model.partial_fit(X, Y)
    assert counter.n_calls == 1
    model.loss_params["base_params"]["unknown"] = 1
    with pytest.raises(ValueError, match="base_params holds 'unknown'"):
        model.partial_fit(X, Y)


VARIES = X["numeric_0"]
CONSTANT = X.assign(numeric_0=1.0)


@pytest.mark.filterwarnings(r"ignore:The columns \['numeric_0'\] have the same")
@pytest.mark.parametrize("encoding", NUMERIC_ENCODINGS)
@pytest.mark.parametrize("method", ["partial_fit", "fit"])
def test_a_column_that_was_constant_is_learnt_once_it_varies(encoding, method):
    model = small(numeric_encoding=encoding, warm_start=True)
    getattr(model, method)(CONSTANT, Y)
    changed = X.assign(numeric_0=VARIES + 1)
    assert_array_equal(model.predict_proba(changed), model.predict_proba(CONSTANT))
    getattr(model, method)(X, Y)
    assert np.ptp(model.encode(X).numeric[:, 0]) > 0.5
    assert (model.predict_proba(changed) != model.predict_proba(X)).any()


def test_a_refused_update_leaves_a_constant_column_as_it_was():
    model = small().partial_fit(CONSTANT, Y)
    before = model.encode(X).numeric
    with pytest.raises(ValueError, match="diverged"):
        model.set_params(lr=1e20).partial_fit(X, Y)
    assert_array_equal(model.encode(X).numeric, before)


@pytest.mark.parametrize("encoding", NUMERIC_ENCODINGS)
def test_columns_that_few_values_determine_are_named(encoding):
    """Of 20 values, a tenth of later ones lies outside of their range."""
    table = X.select_dtypes("number").assign(
        device=np.where(np.arange(len(X)) % 2, "phone", "tablet"),
        some=np.where(np.arange(len(X)) < 50, VARIES, np.nan),
        vector=[[0.0, float(row)] for row in range(len(X))],
        constant=1.0,
    )
    later = table.assign(constant=VARIES)
    model = small(numeric_encoding=encoding, target_encoding=["device"])
    names = [*table.columns.drop(["device", "constant"]), "device"]
    message = re.escape(f"The encoding of the columns {names} is learnt from fewer")
    with pytest.warns(UserWarning, match=message) as found:
        model.partial_fit(table[:20], Y[:20])
    assert len(found) == 1
    model.partial_fit(table, Y)
    # A column that was constant so far is learnt from these rows.
    with pytest.warns(UserWarning, match=r"the columns \['constant'\] is learnt"):
        model.partial_fit(later[:20], Y[:20])
    model.partial_fit(later[:20], Y[:20])
    with pytest.warns(UserWarning, match=r"the columns \['some'\] is learnt"):
        small(numeric_encoding=encoding).partial_fit(table, Y)
    # Whoever fits few rows has no others.
    small(numeric_encoding=encoding).fit(table[:20].drop(columns="constant"), Y[:20])


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(None, marks=pytest.mark.slow),
        pytest.param(1.0, marks=pytest.mark.slow),
        100.0,
    ],
)
def test_weights_of_another_size_than_those_of_the_first_call_are_named(first):
    def weights(mean):
        return None if mean is None else np.linspace(0.5, 1.5, len(Y)) * mean

    before = first or 1.0
    for ratio in (0.2, 1.0, 5.0, None):
        mean = None if ratio is None else ratio * before
        small().partial_fit(X, Y, sample_weight=weights(first)).partial_fit(
            X, Y, sample_weight=weights(mean)
        )
    for ratio in (0.05, 50.0):
        model = small().partial_fit(X, Y, sample_weight=weights(first))
        message = (
            rf"mean of sample_weight is {ratio * before:g}, but {before:g} in the first"
            rf".* count {ratio:g} times as much"
        )
        with pytest.warns(UserWarning, match=message):
            model.partial_fit(X, Y, sample_weight=weights(ratio * before))


@pytest.mark.parametrize("changes", [False, True])
def test_a_copy_keeps_its_statistics_if_the_update_has_a_new_net(changes):
    model = small(target_encoding=["category_0"], early_stopping=False)
    if changes:
        model.partial_fit(X, Y)
    else:
        model.fit(X, Y)
    old = copy.copy(model)
    before = old.predict_proba(X)
    if changes:
        model.set_params(lr=0.01)
    model.partial_fit(X, Y)
    assert_array_equal(old.predict_proba(X), before)
    assert (model.predict_proba(X) != before).any()


def test_updates_count_the_events_of_all_calls_before_them():
    """The labels of a task with few events lean towards those of its parent."""
    schedule = {"lr_schedule": "warmup_stable_decay", "warm_start": True}
    model = small(**schedule).fit(X, Y).partial_fit(X, Y).partial_fit(X, Y)
    model.fit(X, Y).partial_fit(X, Y)
    criterion = model.net_.criterion_
    assert criterion.leans_on_parents
    np.testing.assert_allclose(criterion.n_events.cpu(), 5 * Y.sum(), rtol=0.02)
    click, _ = Y.sum()
    np.testing.assert_allclose(criterion.sums.cpu()[1, 1], 5 * click, rtol=0.02)
    assert not small().partial_fit(X, Y).net_.criterion_.leans_on_parents
    independent = small(**schedule, task_parents=None).partial_fit(X, Y)
    assert not independent.net_.criterion_.leans_on_parents


@pytest.mark.parametrize(
    "form",
    [
        "weights",
        pytest.param("stratified", marks=pytest.mark.slow),
        pytest.param("missing", marks=pytest.mark.slow),
    ],
)
def test_updates_with_few_conversions_keep_their_rate(form):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(20_000, 2))
    clicks = rng.random(20_000) < 0.3
    labels = np.stack([clicks, clicks & (rng.random(20_000) < 0.02)], axis=1).astype(
        float
    )
    rate, weights, params = labels[:, 1].mean(), np.ones(20_000), {}
    if (
        form == "weights"
    ):  # a tenth of the rows without a conversion, and ten times theirs
        kept = (labels[:, 1] == 1) | (rng.random(20_000) < 0.1)
        weights = np.where(labels[kept, 1] == 1, 1.0, 10.0)
        table, labels = table[kept], labels[kept]
    elif form == "stratified":
        params = {"stratified_batches": True, "batch_size": 200}
    else:
        labels[(clicks) & (rng.random(20_000) < 0.7), 1] = np.nan
        params = {"missing_labels": "ignore"}
        params["network_params"] = {"task_space": "conditional"}
    model = small(lr_schedule="warmup_stable_decay", lr=0.01, **params)
    model.set_params(**params)
    size = len(labels) // 10
    for start in range(0, 10 * size, size):
        rows = slice(start, start + size)
        model.partial_fit(table[rows], labels[rows], sample_weight=weights[rows])
    predicted = model.predict_proba(table)[:, 1].mean()
    assert 0.5 < predicted / rate < 1.7


@pytest.mark.parametrize(("n_first", "size"), [(100, 250), (300, 250), (300, 1_500)])
def test_rates_follow_a_first_call_without_events(n_first, size):
    log = make_ctr_cvr(6_000, ctr=0.2, cvr=0.4, n_categories=5, random_state=0)
    table, labels = log.data, log.target
    model = MultiTaskCTRCVRClassifier(random_state=0)
    model.partial_fit(table[:n_first], labels[:n_first] * 0)
    before = model.predict_proba(table[3_000:]).mean(axis=0)
    for start in range(300, 1_800, size):
        rows = slice(start, start + size)
        model.partial_fit(table[rows], labels[rows])
    ratio = model.predict_proba(table[3_000:]).mean(axis=0) / labels[3_000:].mean()
    assert ((ratio > 0.4) & (ratio < 2.5)).all()
    # Without this, they would be far from it.
    assert (before < 0.05).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # about a constant task
@pytest.mark.parametrize("first", [0, np.nan])
def test_the_rate_of_a_task_follows_after_another_one_is_known(first):
    """Its prior is 1e6 times as wide as that of the other task."""
    log = make_ctr_cvr(9_000, ctr=0.15, cvr=0.08, random_state=0)
    X, Y = log.data, log.target.astype(float)
    rate = Y["conversion"].mean()
    Y.loc[:1_999, "conversion"] = first
    model = MultiTaskCTRCVRClassifier(random_state=0, missing_labels="ignore")
    for start in range(0, 8_000, 2_000):
        rows = slice(start, start + 2_000)
        model.partial_fit(X[rows], Y[rows])
    assert 0.5 < model.predict_proba(X)[:, 1].mean() / rate < 2


def test_the_first_task_may_have_no_weight_so_far():
    model, weight = small(), np.tile([0.0, 1.0], (len(Y), 1))
    for _ in range(3):
        model.partial_fit(X, Y, sample_weight=weight)
    assert np.isfinite(model.predict_proba(X)).all()


@pytest.mark.filterwarnings("ignore::UserWarning")  # about new values, few rows
def test_rates_of_weighted_rows_follow_a_first_call_without_events():
    log = make_ctr_cvr(4_000, ctr=0.3, cvr=0.3, random_state=0)
    X, Y = log.data, log.target
    weight = np.where(Y["click"] == 1, 20, 1)
    first = np.flatnonzero(Y["click"][:2_000] == 0)[:60]
    model = MultiTaskCTRCVRClassifier(random_state=0)
    for rows in (first, *np.split(np.arange(2_000, 3_000), 4)):
        weights = weight[rows]
        model.partial_fit(X.iloc[rows], Y.iloc[rows], sample_weight=weights)
    assert 0.75 < model.predict_proba(X)[:, 0].mean() < 0.95  # .89 of the weights


@pytest.mark.filterwarnings("ignore::UserWarning")  # about new values, few events
def test_a_segment_of_many_events_does_not_decide_on_the_level():
    """Rows sorted by a key: nine segments of 1 % clicks, and the second one of 30 %."""
    rng = np.random.default_rng(0)
    segment = np.repeat(np.arange(10), 300)
    click = rng.random(3_000) < np.where(segment == 1, 0.3, 0.01)
    labels = np.column_stack([click, click & (rng.random(3_000) < 0.2)]).astype(int)
    table = pd.DataFrame({"x": rng.normal(size=3_000), "segment": segment})
    table["segment"] = table["segment"].astype("category")
    model = MultiTaskCTRCVRClassifier(random_state=0)
    for start in range(0, 900, 300):
        rows = slice(start, start + 300)
        model.partial_fit(table[rows], labels[rows])
    # Later segments are unseen values, as the second one was.
    assert model.predict_proba(table[segment > 2])[:, 0].mean() < 0.12


def test_a_failing_update_takes_the_level_back():
    class Failing(Callback):
        fails = False

        def on_batch_end(self, net, **kwargs):
            if self.fails:
                raise RuntimeError("stop")

    failing = Failing()
    grows = {"grow_vocabulary": True}
    model = small(callbacks=[failing], encoding_params=grows)
    model.partial_fit(X[:100], Y[:100] * 0)
    for _ in range(2):  # before there is a level, and with one
        before = model.predict_proba(X)
        failing.fails = True
        # The error keeps the graph of a step with larger tables.
        with pytest.raises(RuntimeError, match="stop") as kept:
            model.partial_fit(X[100:150], Y[100:150])
        failing.fails = False
        assert_array_equal(model.predict_proba(X), before)
        model.partial_fit(X[100:120], Y[100:120])
        del kept
