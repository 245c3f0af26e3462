"""Distillation, and the training with probabilities in the place of labels."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from pools import assert_same_weights, with_noise
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from small_model import X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.networks import NETWORKS
from sk_pwiser.transfer import distill

DATA = make_ctr_cvr(3_000, ctr=0.4, cvr=0.4, random_state=0)


def divergence(p, q):
    """Return the mean Kullback-Leibler divergence of two sets of probabilities."""
    p, q = p.astype(float), q.astype(float)
    return np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))


@pytest.fixture(scope="module")
def teacher():
    model = MultiTaskCTRCVRClassifier(max_epochs=5, random_state=0)
    return model.fit(DATA.data[:2_000], DATA.target[:2_000])


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"network_params": {"task_space": "conditional"}},
        {"network": "escm2"},
        {"negative_sampling_rate": 0.2},
        {"early_stopping": "auc", "target_encoding": True},
    ],
    ids=["entire", "conditional", "escm2", "sampled", "auc"],
)
def test_a_student_of_one_teacher_learns_its_predictions(teacher, params):
    p = teacher.predict_proba(DATA.data)
    student = MultiTaskCTRCVRClassifier(max_epochs=15, random_state=1, **params)
    model = distill([teacher], DATA.data[:2_000], student=student)
    constant = np.broadcast_to(p.mean(axis=0), p.shape)
    held_out = slice(2_000, None)
    q = model.predict_proba(DATA.data)
    unlearnt = divergence(p[held_out], constant[held_out])
    assert divergence(p[held_out], q[held_out]) < 0.05 * unlearnt
    assert model.get_params() == student.get_params()
    assert not hasattr(student, "net_")


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(value, marks=() if value in {"escm2"} else pytest.mark.slow)
        for value in NETWORKS
    ],
)
def test_a_student_of_any_network_has_the_rates_of_its_teacher(network):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 1))
    click = rng.random(600) < expit(rows[:, 0] - 0.8)
    labels = np.stack([click, click & (rng.random(600) < 0.2)], axis=1).astype(int)
    params = {"network_params": {"tower_units": [8]}, "early_stopping": False}
    params |= {"random_state": 0, "batch_size": 32}
    teacher = MultiTaskCTRCVRClassifier(network="esmm", max_epochs=4, **params)
    teacher.fit(rows, labels)
    student = MultiTaskCTRCVRClassifier(network=network, max_epochs=10, **params)
    model = distill([teacher], rows, student=student)
    for predict in ("predict_proba", "predict_cvr"):
        p, q = (getattr(each, predict)(rows).mean(axis=0) for each in (teacher, model))
        assert_allclose(q, p, rtol=0.05)


def test_a_student_with_the_weights_of_its_teacher_stays_there(teacher):
    student = with_noise(teacher, 0.0, 0).set_params(max_epochs=1, lr=1e-5)
    model = distill([teacher], DATA.data, student=student)
    p, q = (each.predict_proba(DATA.data) for each in (teacher, model))
    assert divergence(p, q) < 1e-6


def test_a_weighted_pool_is_the_weighted_mean(teacher):
    other = with_noise(teacher, 0.1, 1)
    student = MultiTaskCTRCVRClassifier(max_epochs=20, random_state=1)
    rows = DATA.data
    model = distill([teacher, other], rows, weights=[1, 3], student=student)
    p, p_other = (each.predict_proba(rows) for each in (teacher, other))
    q = model.predict_proba(rows)
    assert divergence(0.25 * p + 0.75 * p_other, q) < 2e-3
    assert divergence(p, q) > divergence(0.25 * p + 0.75 * p_other, q)
    assert_allclose(
        model._result.schema.base_rates,
        (0.25 * p + 0.75 * p_other).mean(axis=0),
        rtol=1e-2,
    )


@pytest.fixture(scope="module")
def pool():
    first = small(max_epochs=20).fit(X, Y)
    return [first, with_noise(first, 0.2, 0)]


@pytest.mark.parametrize("index", [0, 1])
def test_the_target_of_a_row_is_the_prediction_of_its_market(pool, index):
    markets, student = np.full(len(X), index), small(random_state=2)
    found = distill(pool, X, markets=markets, student=student)
    expected = distill(pool[index : index + 1], X, student=student)
    assert_allclose(found.predict_proba(X), expected.predict_proba(X), rtol=1e-4)


def test_the_market_may_be_a_column(pool):
    markets, student = np.arange(len(X)) % 2, small(random_state=2)
    table = X.assign(tab=markets)
    teachers = [small(max_epochs=1, random_state=s).fit(table, Y) for s in (0, 1)]
    assert_same_weights(
        distill(teachers, table, markets="tab", student=student),
        distill(teachers, table, markets=markets, student=student),
    )
    with pytest.raises(ValueError, match="markets is 'city', which is not a column"):
        distill(pool, X, markets="city", student=student)


def test_rows_of_a_market_of_weight_0_are_left_out(pool):
    markets = (np.arange(len(X)) >= 200).astype(int)
    student = small(random_state=2)
    models = (
        distill(pool, X, markets=markets, weights=[1, 0], student=student),
        distill(pool[:1], X[:200], student=student),
    )
    assert_allclose(*(model.predict_proba(X) for model in models), rtol=1e-4)
    with pytest.raises(ValueError, match="weights must be > 0 for an estimator in m"):
        distill(pool, X, markets=0 * markets, weights=[0, 1], student=student)


def test_a_fitted_student_keeps_its_encoding():
    student = small().fit(X[:200], Y[:200])
    model = distill([small(random_state=1).fit(X, Y)], X[200:], student=student)
    old, new = (each._result.schema.encoder for each in (student, model))
    for a, b in zip(old.columns_, new.columns_, strict=True):
        assert a is b or repr(vars(a)) == repr(vars(b))
    assert model.n_iter_ == student.max_epochs


def test_the_validation_auc_is_that_of_drawn_labels(teacher):
    student = small(early_stopping="auc", max_epochs=1, random_state=0)
    model = distill([teacher], DATA.data, student=student)
    # 200 labels of each row, drawn from the probabilities.
    rng, p = np.random.default_rng(0), teacher.predict_proba(DATA.data)
    q = model.predict_proba(DATA.data)
    drawn = (rng.random((200, *p.shape)) < p).reshape(-1, 2)
    found = [model.history_[-1, f"valid_auc_{task}"] for task in model.task_names_]
    expected = [roc_auc_score(drawn[:, k], np.tile(q[:, k], 200)) for k in range(2)]
    assert_allclose(found, expected, atol=0.05)  # of 300 of the 3,000 rows


def test_a_single_task():
    target = np.where(Y["click"] == 1, "yes", "no")
    teacher = small(max_epochs=5).fit(X, target)
    model = distill([teacher], X, student=small(max_epochs=30))
    assert model.classes_.tolist() == ["no", "yes"]
    p, q = (each.predict_proba(X)[:, 1] for each in (teacher, model))
    assert np.corrcoef(p, q)[0, 1] > 0.9


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimators": []}, ValueError, "at least one estimator; it is empty"),
        ({"estimators": 3}, TypeError, "sequence of fitted estimators; got 3"),
        ({"student": "mmoe"}, TypeError, "student must be a MultiTask.*'mmoe'"),
        ({"student": small(lr=-1)}, ValueError, "'lr' parameter"),
        (
            {"student": small(task_names=["a", "b"])},
            ValueError,
            r"task_names=\['click', 'conversion'\].*\['a', 'b'\]",
        ),
        ({"X": X[:0]}, ValueError, "X must have at least one row"),
        ({"weights": [1, 1]}, ValueError, r"weights .* or 1 of them; got \[1"),
        ({"weights": [-1.0]}, ValueError, r">= 0 and not all 0; got \[-1.0\]"),
        ({"weights": [0]}, ValueError, r"not all 0; got \[0\]"),
        ({"weights": [np.nan]}, ValueError, "finite"),
        ({"markets": np.arange(len(X))}, ValueError, "0 to 0, for each of 300 rows"),
    ],
)
def test_invalid_arguments_are_refused(teacher, change, error, message):
    arguments = {"estimators": [teacher], "X": X, "student": small(), **change}
    with pytest.raises(error, match=message):
        distill(**arguments)


def test_other_tasks_are_named(teacher):
    other = small(task_names=["open", "buy"]).fit(X, Y.to_numpy())
    message = (
        r"estimators\[1\] differs from estimators\[0\] in the tasks: .*open.*click"
    )
    with pytest.raises(ValueError, match=message):
        distill([teacher, other], X, student=small())
    message = r"student differs from estimators\[0\] in the tasks"
    with pytest.raises(ValueError, match=message):
        distill([teacher], X, student=other)
