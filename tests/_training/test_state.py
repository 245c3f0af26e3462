"""What a fit has learnt, and what continued training keeps of it."""

import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns import _target_statistics
from sk_pwiser._columns._target_statistics import TargetStatistics
from sk_pwiser._estimator import _classifier
from sk_pwiser._fit import _further_rows, _train, _train_once, _update
from sk_pwiser._training import _grown_tables, _undo

N_IDS = 400


def make_rows(ids, seed=0, ctr=0.3, cvr=0.3):
    """Return rows with these ids, whose labels depend on them."""
    rng = np.random.default_rng(seed)
    ids = np.asarray(ids)
    p = np.clip(ctr + 0.2 * np.sin(ids), 0.01, 0.99)
    click = (rng.random(len(ids)) < p).astype(int)
    Y = pd.DataFrame({"click": click, "buy": click * (rng.random(len(ids)) < cvr)})
    X = pd.DataFrame({"id": pd.Categorical(ids), "x": rng.normal(size=len(ids))})
    return X, Y


def make_model(**params):
    return MultiTaskCTRCVRClassifier(
        **{"max_epochs": 2, "random_state": 0, "early_stopping": False, **params}
    )


IDS = np.arange(4_000) % N_IDS


def test_a_warm_start_keeps_the_statistics_of_values_that_its_rows_lack():
    X, Y = make_rows(IDS)
    model = make_model(warm_start=True).fit(X, Y)
    before = model.predict_proba(X)
    is_old = IDS >= N_IDS // 2
    model.set_params(lr=1e-9, optimizer_params={"average_decay": 0}, weight_decay=0.0)
    model.fit(*make_rows(np.arange(1_000) % (N_IDS // 2), seed=1, ctr=0.7))
    after = model.predict_proba(X)
    assert abs(after - before)[is_old].max() < 1e-5
    # The values of its rows have the statistics of its rows.
    assert (after - before)[~is_old, 0].mean() > 0.01


def test_a_warm_start_on_the_same_rows_has_the_same_inputs():
    X, Y = make_rows(IDS)
    model = make_model(warm_start=True).fit(X, Y)
    before = model._result.schema.statistics
    model.fit(X, Y)
    after = model._result.schema.statistics
    for name in ("counts_", "strengths_", "means_", "scales_", "tables_"):
        for now, then in zip(getattr(after, name), getattr(before, name), strict=True):
            assert_array_equal(now, then)


class Watch:
    """Records the training and the validation rows of each fit."""

    def __init__(self, monkeypatch):
        self.parts, train = [], _train.train_epochs

        def watched(plan, data, *args, **kwargs):
            found = [data.train.rows, data.valid.rows]
            self.parts.append([set(rows.tolist()) for rows in found])
            return train(plan, data, *args, **kwargs)

        monkeypatch.setattr(_train, "train_epochs", watched)


@pytest.mark.parametrize("seed", [None, 0, "instance"])
def test_a_warm_start_validates_on_the_same_rows(monkeypatch, seed, tmp_path):
    watch = Watch(monkeypatch)
    if seed == "instance":
        seed = np.random.RandomState(3)
    X, Y = make_rows(IDS)
    model = make_model(early_stopping=True, warm_start=True, random_state=seed)
    model.fit(X, Y).fit(X, Y)
    assert watch.parts[0] == watch.parts[1]
    if not isinstance(seed, np.random.RandomState):  # which a file does not hold
        pytest.importorskip("safetensors")
        model.save(tmp_path / "model")
        MultiTaskCTRCVRClassifier.load(tmp_path / "model").fit(X, Y)
        assert watch.parts[2] == watch.parts[0]
    # A new fit draws anew.
    model.set_params(warm_start=False, random_state=7).fit(X, Y)
    assert watch.parts[-1] != watch.parts[0]


@pytest.mark.parametrize("seed", [None, 0])
def test_a_call_without_a_split_keeps_the_validation_rows(monkeypatch, seed):
    """Otherwise a later fit would validate on rows that the first was trained on."""
    X, Y = make_rows(IDS)
    model = make_model(early_stopping=True, warm_start=True, random_state=seed)
    with monkeypatch.context() as patch:
        first = Watch(patch)
        model.fit(X, Y)
    some = X[:300], Y[:300]
    model.partial_fit(*some).fit(*some, eval_set=some)
    later = Watch(monkeypatch)
    with pytest.warns(UserWarning, match="since it held out no rows"):
        model.fit(X, Y)
    model.fit(X, Y)
    assert later.parts == [*first.parts] * 2


@pytest.mark.parametrize("has_groups", [False, True])
def test_appended_rows_leave_the_earlier_validation_rows_apart(
    monkeypatch, has_groups, tmp_path
):
    """Also twice, after an interruption, and for groups that continue."""
    watch = Watch(monkeypatch)
    X, Y = make_rows(IDS)
    # As text, later groups are not the last ones in order.
    groups = (np.arange(len(X)) // 30).astype(str) if has_groups else None
    params = {"early_stopping": True, "warm_start": True, "checkpoint_dir": tmp_path}
    model = make_model(**params)
    for n in (2_000, 3_010, 3_011, 3_013, 4_000):
        model.fit(X[:n], Y[:n], groups=None if groups is None else groups[:n])
    for before, after in pairwise(watch.parts):
        assert before[0] <= after[0]
        assert before[1] <= after[1]
    train, valid = watch.parts[-1]
    assert len(valid) == pytest.approx(400, abs=60)
    if has_groups:
        assert not {groups[i] for i in train} & {groups[i] for i in valid}
    else:  # two rows are enough to divide, one is not
        assert [len(valid) for _, valid in watch.parts[1:4]] == [301, 301, 302]
    make_model(**params).fit(X, Y, groups=groups)
    assert watch.parts[-1] == [train, valid]


@pytest.mark.parametrize(
    ("first", "then", "change", "message"),
    [
        (1_000, 4_000, {}, "its 3000 rows, .* to be the first of these 4000"),
        (0, 3_999, {}, "its 4000 rows, .* to be the first of these 3999"),
        (0, 4_000, {"validation_fraction": 0.2}, "labels, groups and validation_fr"),
        (0, 4_000, {"early_stopping": True}, "since it held out no rows. Pass new row"),
    ],
)
def test_validation_rows_that_may_have_been_trained_on_are_named(
    first, then, change, message
):
    X, Y = make_rows(IDS)
    params = {"early_stopping": "early_stopping" not in change, "warm_start": True}
    model = make_model(max_epochs=1, **params).fit(X[first:], Y[first:])
    model.set_params(**change)
    with pytest.warns(UserWarning, match=message):
        model.fit(X[:then], Y[:then])
    model.fit(X[:then], Y[:then])  # again, or on rows of the user's own
    model.fit(X, Y, eval_set=(X, Y))


@pytest.mark.parametrize("change", [{}, {"early_stopping": False}])
def test_rows_that_a_call_without_a_split_was_trained_on_are_named(change, tmp_path):
    X, Y = make_rows(IDS)
    params = {"early_stopping": True, "warm_start": True, "max_epochs": 1}
    model = make_model(**params).fit(X, Y).set_params(**change)
    model = model.fit(X, Y) if change else model.partial_fit(X, Y)
    model.save(tmp_path / "model")
    model = MultiTaskCTRCVRClassifier.load(tmp_path / "model").set_params(**params)
    with pytest.warns(UserWarning, match="since it held out no rows"):
        model.fit(X, Y)


@pytest.mark.parametrize("ctr", [0.02, 0.3])
def test_groups_are_held_out_as_a_whole(monkeypatch, ctr):
    watch = Watch(monkeypatch)
    X, Y = make_rows(IDS, ctr=ctr)
    groups = np.random.default_rng(0).integers(0, 400, len(X))
    make_model(early_stopping=True).fit(X, Y, groups=groups)
    train, valid = ({groups[i] for i in part} for part in watch.parts[0])
    assert train & valid == set()
    assert 20 <= len(valid) <= 60
    assert Y.iloc[list(watch.parts[0][1])].sum().min() > 0


def test_weights_of_later_updates_are_relative_to_the_first():
    X, Y = make_rows(IDS)
    rng = np.random.default_rng(0)
    weights = rng.uniform(1, 3, len(X))

    def updated(*scales):
        model = make_model()
        for scale in scales:
            model.partial_fit(X, Y, sample_weight=scale * weights)
        return model.predict_proba(X)

    assert_array_equal(updated(1, 1), updated(4, 4))  # a power of 2 is exact
    assert abs(updated(1, 1) - updated(1, 8)).max() > 1e-3
    # Rows without weights weigh as much as the mean row of the first call.
    first = make_model().partial_fit(X, Y, sample_weight=weights)
    other = make_model().partial_fit(X, Y, sample_weight=weights)
    first.partial_fit(X, Y)
    other.partial_fit(X, Y, sample_weight=np.full(len(X), weights.mean()))
    np.testing.assert_allclose(
        first.predict_proba(X), other.predict_proba(X), rtol=1e-4
    )


NEW = make_rows(np.r_[np.arange(400), N_IDS + np.arange(300) % 60], seed=1)


def updating(n=1, **params):
    """Return a model with some updates, each of which adds category values."""
    X, Y = make_rows(IDS)
    model = make_model(encoding_params={"grow_vocabulary": True}, **params)
    for _ in range(n + 1):
        model.partial_fit(X, Y)
    return model


def sizes(model):
    """Return the numbers of rows of the tables and of codes of the encoder."""
    layer = model.net_.module_.input_layer
    encoder = model._result.schema.encoder
    return {len(layer.tables[0]), sum(layer.cardinalities), sum(encoder.cardinalities_)}


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line of some files of the package."""

    MODULES = (
        _classifier,
        _further_rows,
        _grown_tables,
        _target_statistics,
        _train,
        _train_once,
        _undo,
        _update,
    )
    FILES = frozenset(module.__file__ for module in MODULES)

    def __init__(self, n=None):
        self.n, self.n_lines = n, 0

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename in self.FILES:
            if frame.f_code.co_name in ("take_back", "restore", "_set", "_set_tables"):
                return None  # the second interrupt has a test of its own
            if event == "line":
                self.n_lines += 1
                if self.n_lines == self.n:
                    raise KeyboardInterrupt
            return self
        return None


def update_traced(model, interrupt):
    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        model.partial_fit(*NEW)
    finally:
        sys.settrace(before)


@pytest.mark.slow
@pytest.mark.parametrize("lazy", [False, True])
def test_an_interrupt_at_any_line_leaves_an_update_undone_or_complete(lazy):
    def model():
        return updating(optimizer_params={"lazy_embeddings": lazy})

    counted, expected = model(), model()
    counter = Interrupt()
    update_traced(counted, counter)
    interrupted = model()
    before = interrupted.predict_proba(NEW[0])
    after = expected.partial_fit(*NEW).predict_proba(NEW[0])
    # All of the last lines, which set the result, and some before.
    last = counter.n_lines
    for n in [*range(5, last - 40, last // 12), *range(last - 40, last + 1)]:
        with pytest.raises(KeyboardInterrupt):
            update_traced(interrupted, Interrupt(n))
        assert len(sizes(interrupted)) == 1
        found = interrupted.predict_proba(NEW[0])
        if np.array_equal(found, after):
            interrupted = model()
        else:
            assert_array_equal(found, before)
    assert_array_equal(interrupted.partial_fit(*NEW).predict_proba(NEW[0]), after)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_second_interrupt_does_not_stop_the_undoing(monkeypatch, lazy):
    model = updating(optimizer_params={"lazy_embeddings": lazy})
    before = model.predict_proba(NEW[0])
    update, n_calls = TargetStatistics.update, []

    def interrupted():
        n_calls.append(1)
        if len(n_calls) == 1:
            raise KeyboardInterrupt

    def fail(self, codes, y, weight, undo, *args):
        update(self, codes, y, weight, undo, *args)
        undo.append(interrupted)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TargetStatistics, "update", fail)
        with pytest.raises(KeyboardInterrupt):
            model.partial_fit(*NEW)
    assert len(n_calls) == 2
    assert len(sizes(model)) == 1
    assert_array_equal(model.predict_proba(NEW[0]), before)
    other = updating(optimizer_params={"lazy_embeddings": lazy})
    for each in (model, other):
        each.partial_fit(*NEW)
    assert_array_equal(model.predict_proba(NEW[0]), other.predict_proba(NEW[0]))


def test_no_log_and_no_table_is_kept_after_a_fit():
    model = updating(optimizer_params={"lazy_embeddings": True})
    assert model.net_.optimizer_.logs is None
    assert model.net_.lowest_ == ()


class Spoil(Callback):
    """Makes the predictions of an epoch, by its number, useless."""

    def __init__(self, epoch):
        self.epoch = epoch

    def spoil(self, net, **kwargs):
        if len(net.history) == self.epoch:
            with torch.no_grad():
                for tower in net.module_.towers:
                    tower.output.linear.bias.fill_(-1e3)


@pytest.mark.parametrize("event", ["on_epoch_begin", "on_batch_end"])
def test_the_epoch_of_the_lowest_loss_is_restored_after_a_divergence(
    event, monkeypatch
):
    # At the end of the only batch, the loss of the epoch has already been measured.
    monkeypatch.setattr(Spoil, event, Spoil.spoil)
    X, Y = make_rows(IDS[:500])
    params = {"lr": 1e-4, "lr_schedule": None, "optimizer_params": {"average_decay": 0}}
    params["encoding_params"] = {"category_dropout": 0.0}
    model = make_model(max_epochs=4, callbacks=[Spoil(4)], **params)
    with pytest.warns(ConvergenceWarning, match="weights of epoch 3 are kept"):
        model.fit(X, Y)
    assert model.best_epoch_ == 3
    expected = make_model(max_epochs=3, **params).fit(X, Y)
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


def test_a_warm_start_that_diverges_keeps_an_epoch_of_its_own(monkeypatch):
    """The losses of the earlier fit, to fewer positives, are lower than all of it."""
    monkeypatch.setattr(Spoil, "on_epoch_begin", Spoil.spoil)
    X, Y = make_rows(IDS[:500])
    params = {"lr": 1e-4, "lr_schedule": None, "optimizer_params": {"average_decay": 0}}
    params["warm_start"] = True
    rare = Y.mul(np.arange(len(X)) % 10 == 0, axis=0)
    model, expected = (make_model(max_epochs=2, **params).fit(X, rare) for _ in "ab")
    model.set_params(max_epochs=3, callbacks=[Spoil(5)])
    with pytest.warns(ConvergenceWarning, match="weights of epoch 4 are kept"):
        model.fit(X, Y)
    assert model.history_[:, "train_loss_best"] == [True, True, False, False, False]
    expected.fit(X, Y)
    assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


def test_a_spike_that_training_recovers_from_is_no_divergence():
    X, Y = make_rows(np.arange(30))
    model = make_model(network="ple", lr=0.03, max_epochs=60, batch_size=1_000)
    assert np.isfinite(model.fit(X, Y).predict_proba(X)).all()


@pytest.mark.parametrize("lazy", [False, True])
def test_weights_that_are_not_finite_are_refused(lazy):
    X, Y = make_rows(IDS)
    model = make_model(optimizer_params={"lazy_embeddings": lazy}).fit(X, Y)
    before = model.predict_proba(X)
    model.set_params(lr=1e30)
    with pytest.raises(ValueError, match=r"diverged in epoch .*lr; it is 1e\+30"):
        model.fit(X, Y)
    assert_array_equal(model.predict_proba(X), before)
