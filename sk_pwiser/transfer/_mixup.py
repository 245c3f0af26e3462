"""Warm starts from a pool: distillation with interpolation between markets."""

import numpy as np

from sk_pwiser._table import n_rows
from sk_pwiser._training import InputMixup
from sk_pwiser._utils import check_number
from sk_pwiser.transfer._distill import check_student, train_on_probabilities
from sk_pwiser.transfer._pool import (
    check_markets,
    check_pool,
    check_table,
    check_weights,
    predict_each,
)


def market_mixup(
    estimators, X, *, weights=None, markets=None, alpha=0.5, share=0.5, student
):
    """Train a warm start for new markets on interpolated predictions of a pool.

    Like :func:`distill`, but in a share of the batches each row is mixed with a random
    other one: the student predicts `(1 - lam) * p_1 + lam * p_2` from the input
    `(1 - lam) * x_1 + lam * x_2`, with the probabilities p of the rows' estimators and
    the rows' embeddings and numeric inputs x. If the rows are of different markets,
    such a batch is a market between those of the pool. The result is meant to be
    fine-tuned with few rows of a new market.

    Parameters
    ----------
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators with equal tasks. Their networks and encoders may differ.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions, labels are not needed.
    weights : array-like of shape (n_estimators,), default=None
        Weights of the estimators, >= 0, scaled to a sum of 1. Those of
        :func:`select_estimators` protect against corrupted estimators. None for equal
        weights.
    markets : array-like of int of shape (n_samples,), default=None
        For each row, the index of the estimator of its market, whose prediction alone
        is its target. None for the weighted mean of all predictions.
    alpha : float, default=0.5
        Parameter of the distribution of lam, Beta(alpha, alpha): below 1 one of the two
        rows dominates mostly.
    share : float, default=0.5
        Share in [0, 1] of the batches that are mixed.
    student : MultiTaskCTRCVRClassifier
        An unfitted or fitted estimator; see :func:`distill`. With `compile=False`.

    Returns
    -------
    MultiTaskCTRCVRClassifier
        A new fitted estimator with the parameters of the student.

    Raises
    ------
    ValueError, TypeError
        If the pool is empty, if the tasks of estimators or student differ, if there is
        no row, or if another argument is invalid.

    Notes
    -----
    Of the paper's three parts, this is the interpolation of tasks; the choice of models
    by a policy is :func:`select_estimators`. The generation of inputs by inversion of
    the models is left out: category values have no gradient, and impressions without
    labels are at hand. The paper mixes features of rows with equal labels and trains a
    meta-learner; here probabilities are mixed like the inputs, and training is plain.

    References
    ----------
    Hu, Shen, Wang, Liu, Yuan and Tao. "Task-Distributionally Robust Data-Free
    Meta-Learning." :arxiv:`2311.14756`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import market_mixup
    >>> data = make_ctr_cvr(900, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> markets = [slice(0, 300), slice(300, 600)]
    >>> models = [MultiTaskCTRCVRClassifier(max_epochs=2) for _ in range(3)]
    >>> pool = [
    ...     model.fit(X[m], Y[m]) for model, m in zip(models, markets, strict=False)
    ... ]
    >>> start = market_mixup(pool, X[600:], student=models[2])
    >>> start.predict_proba(X).shape
    (900, 2)
    """
    pool = check_pool(estimators)
    check_student(student, pool[0])
    if student.compile:
        raise ValueError(
            "market_mixup changes the inputs of the network while it trains, which a "
            f"compiled network does not support; set compile=False, not "
            f"{student.compile!r}, in student."
        )
    X = check_table(X)
    n_samples = n_rows(X)
    values = check_weights(weights, len(pool))
    indices = check_markets(markets, n_samples, len(pool))
    mixup = InputMixup(
        check_number("alpha", alpha, above=0),
        check_number("share", share, at_least=0, at_most=1),
    )
    each = predict_each(pool, X)
    if indices is None:
        targets, row_weights = np.tensordot(values, each, axes=1), None
    else:
        targets, row_weights = each[indices, np.arange(n_samples)], values[indices]
        if not row_weights.any():
            raise ValueError("markets must hold a market of weight > 0; none has one.")
    return train_on_probabilities(
        student, pool[0], X, targets, row_weights, callbacks=[mixup]
    )
