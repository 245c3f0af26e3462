"""What a user writes with the folders beside the estimator; nothing here runs.

`test_typed_face.py` has mypy check it. Types of results are written out where they
matter, so that a result without a type is an error, and so is a wrong one.
"""

import numpy as np
import numpy.typing as npt
import torch

from sk_pwiser.datasets import (
    ParquetImpressions,
    load_ali_ccp,
    load_aliexpress,
    load_hillstrom,
    load_kuairand,
    make_ctr_cvr,
)
from sk_pwiser.delayed_feedback import delay_distribution, delayed_feedback_weights
from sk_pwiser.history import HistoryFeatures, StoredHistory
from sk_pwiser.linear_model import (
    CPMultiTaskLogistic,
    MultiTaskSparseLinear,
    MultiTaskSparseLinearCV,
    multi_task_sparse_path,
)
from sk_pwiser.losses import pwiser_loss
from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    expected_calibration_error,
    grouped_auc,
    make_grouped_auc_scorer,
    make_task_scorer,
    normalized_entropy,
    normalized_gini,
    predicted_over_observed,
    reliability_curve,
    value_deciles,
)
from sk_pwiser.weighting import SessionCriticWeights


def use_data_sets() -> None:
    generated = make_ctr_cvr(1_000, n_categories=[3, 4, 5, 6], random_state=0)
    logs = [
        load_ali_ccp("folder", subset="train"),
        load_aliexpress("folder", "NL"),
        load_hillstrom("folder"),
        load_kuairand("folder", "long"),
    ]
    print(generated.data, [log.target for log in logs])
    files = ParquetImpressions("folder", ["user"], "click", groups="user")
    for table, place in files.iter_tables(["user"]):
        print(table, place)


def use_histories(X: object, Y: object) -> None:
    history = HistoryFeatures(
        ["user", ("user", "item")],
        time="time",
        label_delay={"click": "1h"},
        windows=["7d", 3.0, np.timedelta64(1, "h")],
        lists=[{"column": "item", "n": 5}],
    )
    features = history.fit(X, Y).transform(X)
    history.update(X, overlap="merge").complete(X, Y)
    print(features, history.replay(X, Y, update=True), history.end_)
    names: list[str] = history.task_names_
    history.save("file")
    loaded: HistoryFeatures = HistoryFeatures.load("file")
    store: dict[str, bytes] = {}
    stored: StoredHistory = StoredHistory.write(loaded, store).refresh()
    stored.update(X, Y, change_id="1").complete(X, Y)
    row: dict[str, object] = stored.transform_row({"user": "a", "time": 6})
    print(names, row | history.transform_row({"user": "a", "time": 6}))


def use_metrics(model: object, X: object, Y: object) -> list[float]:
    scorer = make_task_scorer(
        expected_calibration_error, "cvr", greater_is_better=False, n_bins=5
    )
    labels = [0, 1]
    predicted = np.array([0.1, 0.2])
    auc, share = grouped_auc(labels, predicted, ["a", "a"], return_share=True)
    curve = reliability_curve(labels, predicted)
    print(curve.observed)
    return [
        ctcvr_auc_scorer(model, X, Y),
        scorer(model, X, Y, sample_weight=None),
        make_grouped_auc_scorer(0, groups="user")(model, X, Y),
        grouped_auc(labels, predicted, ["a", "a"]) + auc + share,
        normalized_entropy(labels, predicted),
        predicted_over_observed(labels, predicted),
        normalized_gini(labels, predicted),
        value_deciles(labels, predicted).observed,
    ]


def use_linear_models(X: object, Y: object) -> None:
    sparse = MultiTaskSparseLinear(alpha=0.3, task_types=["binary", "regression"])
    print(sparse.fit(X, Y).coef_, sparse.predict(X))
    chosen = MultiTaskSparseLinearCV(alphas=[0.1, 0.2], cv=3, random_state=0)
    print(chosen.fit(X, Y).alpha_, chosen.score(X, Y))
    grid = CPMultiTaskLogistic(group_modes=["market"], missing_labels="ignore")
    print(grid.fit(X, Y, sample_weight=[1.0]).predict_proba(X), grid.intercept_)
    alphas, coefs, intercepts = multi_task_sparse_path(X, Y, alphas=3, l2=0.1)
    print(alphas.shape, coefs.shape, intercepts.shape)


def use_weights(model: object, X: object, Y: object) -> npt.NDArray[np.float64]:
    delays, probabilities = delay_distribution([1, 1, 2], elapsed=[1, 3, 3])
    print(delays.shape, probabilities.shape)
    critic = SessionCriticWeights(model, gamma=0.5).fit(X, Y, groups=[1, 1])
    weights = delayed_feedback_weights(Y, delay=[1.0], elapsed=[2.0], cvr=None)
    return weights * critic.weights(X)


def use_losses(y: torch.Tensor) -> torch.Tensor:
    scores = torch.zeros(len(y))
    return pwiser_loss(scores, y, margins=[1.0, 0.5], surrogate="logistic")
