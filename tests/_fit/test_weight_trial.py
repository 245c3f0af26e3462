"""The weight of the pairwise term that halves of the training rows choose."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._fit import _weight_trial
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._gathered_rows import gather_rows
from sk_pwiser._training._paired_gain import PairedGain, scores_of
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.networks import Bags

N_ROWS = 13_000
N_CONVERSIONS = 120


@pytest.fixture(scope="module")
def log():
    """Return rows of which 0.9 % convert, more often where x is large."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(N_ROWS, 2)).astype(np.float32)
    Y = np.zeros((N_ROWS, 2), dtype=int)
    order = np.argsort(-x[:, 0] - 2 * generator.normal(size=N_ROWS))
    Y[order[:3_000], 0] = 1
    Y[order[:N_CONVERSIONS], 1] = 1
    return pd.DataFrame(x, columns=["a", "b"]), Y


def model_of(**params):
    params = {"max_epochs": 6, "early_stopping": False, "random_state": 0} | params
    params = {"network_params": {"bottom_units": (4,), "tower_units": ()}} | params
    return MultiTaskCTRCVRClassifier(**params)


@pytest.fixture
def decide(monkeypatch):
    """Let trials find a gain in standard errors."""

    def set_score(score):
        monkeypatch.setattr(_weight_trial, "scores_of", lambda gains: (score, score))

    return set_score


def test_the_figures_are_those_of_scikit_learn():
    generator = np.random.default_rng(0)
    y = (generator.random(200) < 0.2).astype(float)
    weights = generator.integers(0, 4, 200).astype(float)
    first, second = generator.normal(size=(2, 200)).round(1)
    gain = PairedGain.of(first, second, y, weights)
    aucs = [roc_auc_score(y, f, sample_weight=weights) for f in (first, second)]
    assert gain.auc == pytest.approx(aucs[1] - aucs[0])
    losses = [
        log_loss(y, 1 / (1 + np.exp(-f)), sample_weight=weights)
        for f in (first, second)
    ]
    mean = np.average(gain.log_loss, weights=gain.weights)
    assert mean == pytest.approx(losses[0] - losses[1])


def test_gains_are_in_multiples_of_their_standard_error():
    """Of the mean over the rows of both halves, as the t test of paired rows."""
    generator = np.random.default_rng(1)
    halves = []
    differences = []
    for _ in range(2):
        y = np.repeat([1.0, 0.0], [20, 80])
        first, second = generator.normal(size=(2, 100))
        halves.append(PairedGain.of(first, second, y, np.ones(100)))
        losses = [np.log1p(np.exp(f)) - f * y for f in (first, second)]
        differences.append(losses[0] - losses[1])
    d = np.concatenate(differences)
    score, _ = scores_of(halves)
    assert score == pytest.approx(d.mean() / (d.std() / np.sqrt(len(d))))


@pytest.mark.parametrize(("score", "weight"), [(9.0, 1.0), (-9.0, 0.0), (0.0, None)])
def test_the_fit_is_that_of_the_chosen_weight(log, decide, score, weight):
    """The trial takes nothing from the random state."""
    decide(score)
    model = model_of().fit(*log)
    expected = model_of(pwiser_weight=weight).fit(*log)
    assert model.pwiser_weight_ == expected.pwiser_weight_
    assert model.pwiser_weight_reason_.startswith("pwiser_weight=")
    assert "standard errors" in model.pwiser_weight_reason_
    X, _ = log
    np.testing.assert_array_equal(model.predict_proba(X), expected.predict_proba(X))


def test_it_survives_files_updates_and_warm_starts(log, decide, tmp_path):
    decide(9.0)
    X, Y = log
    model = model_of(warm_start=True).fit(X, Y)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    assert loaded.pwiser_weight_reason_ == model.pwiser_weight_reason_
    decide(-9.0)  # later calls do not choose again
    for fitted in (loaded, model):
        fitted.partial_fit(X[:500], Y[:500])
        assert fitted.pwiser_weight_ == 1.0
    model.fit(X, Y)
    assert model.pwiser_weight_ == model.net_.criterion_.loss.pwiser_weight == 1.0
    assert clone(model).fit(X, Y).pwiser_weight_ == 0.0


def test_the_second_stage_has_the_weight_of_the_first(log, decide):
    decide(9.0)
    model = model_of(early_stopping=True, refit=True).fit(*log)
    assert model.net_.criterion_.loss.pwiser_weight == 1.0


def never(*args, **kwargs):
    raise AssertionError("a trial")


@pytest.mark.parametrize(
    "params",
    [
        {"pwiser_weight": None},
        {"pwiser_weight": 0.2},
        {"loss": "bce"},
        {"max_epochs": 1},  # a trial would take longer
        {"loss_params": {"tasks": ["click"]}},  # frequent
    ],
)
def test_there_is_none(log, monkeypatch, params):
    monkeypatch.setattr(_weight_trial._Trial, "_logits", never)
    model = model_of(**{"max_epochs": 3, **params}).fit(*log)
    assert model.pwiser_weight_reason_


def test_few_or_many_conversions_choose_no_weight(log, monkeypatch):
    monkeypatch.setattr(_weight_trial._Trial, "_logits", never)
    X, Y = log
    few = np.cumsum(Y[:, 1]) <= 50
    model = model_of(max_epochs=2).fit(X, Y * [[1, 0]] + Y * [[0, 1]] * few[:, None])
    assert "50 rows with 'conversion' are too few" in model.pwiser_weight_reason_
    monkeypatch.setattr(_weight_trial, "MOST_CONVERSIONS", 110)
    model = model_of(max_epochs=2).fit(X, Y)
    assert "are enough" in model.pwiser_weight_reason_


def halves_of(monkeypatch):
    """Let trials note their halves, and return where."""
    noted = []
    halves = _weight_trial._Trial._halves

    def note(self, rows, is_early, generator):
        result = halves(self, rows, is_early, generator)
        noted.append((rows, result))
        return []

    monkeypatch.setattr(_weight_trial._Trial, "_halves", note)
    return noted


def test_groups_are_on_one_side(log, monkeypatch):
    noted = halves_of(monkeypatch)
    groups = np.arange(N_ROWS) // 5
    model = model_of().fit(*log, groups=groups)
    assert "cannot be halved" in model.pwiser_weight_reason_
    [(rows, [(first, second), swapped])] = noted
    assert swapped == (second, first)
    groups_of_rows = rows.column("groups").numpy()
    assert not set(groups_of_rows[first]) & set(groups_of_rows[second])
    y = rows.column("y")[:, 1].numpy()
    assert y.sum() == N_CONVERSIONS
    assert y[first].sum() == pytest.approx(60, abs=10)


def test_equal_rows_are_on_one_side(log, monkeypatch):
    noted = halves_of(monkeypatch)
    X, Y = log
    X = X.iloc[np.arange(N_ROWS) // 4]
    model_of().fit(X, Y)
    [(rows, [(first, second), _])] = noted
    values = rows.column("numeric").numpy()[:, 0]
    assert not set(values[first]) & set(values[second])


@pytest.mark.parametrize("share_of_others", [100, 30])
def test_earlier_rows_predict_later_ones(log, monkeypatch, share_of_others):
    monkeypatch.setattr(_weight_trial, "OTHERS_PER_CONVERSION", share_of_others)
    noted = halves_of(monkeypatch)
    X, Y = log
    time = np.random.default_rng(0).permutation(N_ROWS)  # in no order of rows
    params = {"time_column": "t", "time_feature": True}
    model_of(encoding_params=params).fit(X.assign(t=time), Y)
    [(rows, [(first, second)])] = noted
    times = time[rows.rows.numpy()] if rows.rows is not None else time
    assert times[first].max() < times[second].min()
    if share_of_others == 30:
        weights = rows.column("sample_weight").numpy()
        y = rows.column("y")[:, 1].numpy()
        assert len(weights) < N_ROWS / 2
        assert weights.mean() == pytest.approx(1.0, rel=1e-5)
        ratio = weights[y == 0].mean() / weights[y == 1].mean()
        share = 30 * N_CONVERSIONS / (N_ROWS - N_CONVERSIONS)
        assert ratio == pytest.approx(1 / share, rel=1e-5)


def test_rows_of_several_parts_are_joined():
    offsets = torch.tensor([0, 2, 3, 3, 5])
    table = Impressions(
        codes=torch.arange(8).view(4, 2),
        numeric=torch.arange(4.0).view(4, 1),
        y=torch.ones(4, 2),
        bags=Bags(offsets, torch.arange(5)),
    )

    class Parts:
        def parts(self, shuffled):
            yield table
            yield table

    joined = gather_rows(Parts(), lambda part: torch.tensor([0, 3]))
    assert joined.codes[:, 0].tolist() == [0, 6, 0, 6]
    assert joined.bags.offsets.tolist() == [0, 2, 4, 6, 8]
    assert joined.bags.indices.tolist() == [0, 1, 3, 4] * 2


def test_a_failing_trial_leaves_the_default(log, monkeypatch):
    def fail(*args, **kwargs):
        raise ValueError("not finite")

    monkeypatch.setattr(_weight_trial._Trial, "_logits", fail)
    model = model_of().fit(*log)
    assert "a trial has failed: not finite" in model.pwiser_weight_reason_


def test_the_report_has_one_line(log, decide, capsys):
    decide(9.0)
    model = model_of(verbose=1).fit(*log)
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(model.pwiser_weight_reason_) == 1


@pytest.mark.parametrize("is_by_time", [False, True])
def test_rows_of_files_are_halved(log, decide, monkeypatch, tmp_path, is_by_time):
    """All conversions of all parts, with their own labels and times."""
    monkeypatch.setattr("sk_pwiser._rows._stored_rows.FILE_ROWS", 1_000)
    monkeypatch.setattr("sk_pwiser.datasets._parquet.CHUNK_ROWS", 1_000)
    decide(9.0)
    noted = halves_of(monkeypatch) if is_by_time else None
    X, Y = log
    time = np.random.default_rng(0).permutation(N_ROWS)
    table = X.assign(t=time.astype(float), click=Y[:, 0], conversion=Y[:, 1])
    table.to_parquet(tmp_path / "log.parquet", row_group_size=1_000)
    features = ["a", "b", "t"] if is_by_time else ["a", "b"]
    rows = ParquetImpressions(tmp_path, features, ["click", "conversion"])
    params = {"time_column": "t", "time_feature": True} if is_by_time else {}
    model = model_of(encoding_params=params, numeric_encoding="standard")
    model.fit(rows, None)
    if not is_by_time:
        assert model.pwiser_weight_ == 1.0
        return
    [(encoded, [(first, second)])] = noted
    # The encoding of the times rises with them.
    encoded_times = encoded.column("numeric").numpy()[:, 2]
    assert encoded_times[first].max() <= encoded_times[second].min()
    y = encoded.column("y").numpy()[:, 1]
    assert y.sum() == N_CONVERSIONS
    assert len(first) == pytest.approx(len(y) / 2, rel=0.05)
