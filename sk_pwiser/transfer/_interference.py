"""How much the members of a merge disturb each other."""

import numpy as np
import torch
from torch.func import functional_call

from sk_pwiser._table import n_rows
from sk_pwiser.transfer._pool import check_markets, check_members, check_table, encode
from sk_pwiser.transfer._task_vectors import combine, read_state


def merge_interference(base, estimators, X, *, coefficients=1.0, markets=None):
    r"""Measure how much the estimators of a merge disturb each other's predictions.

    .. math:: \xi(\lambda) = \sum_m \mathrm{E} \, |p(x; \theta_0 + \lambda_m \tau_m)
        - p(x; \theta_0 + \sum_j \lambda_j \tau_j)|

    with the weights :math:`\theta_0` of the base, the task vectors
    :math:`\tau_m = \theta_m - \theta_0` and the probabilities p: the mean absolute
    difference between the predictions with one task vector and those with all of them.
    It is 0 if each task vector changes the predictions in its own market only.

    Parameters
    ----------
    base : MultiTaskCTRCVRClassifier
        The fitted common start.
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators with the network, tasks and encoder of the base.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions.
    coefficients : float or array-like of shape (n_estimators,), default=1.0
        Coefficients of the task vectors.
    markets : array-like of int of shape (n_samples,), default=None
        For each row, the index of the estimator of its market: the mean of an estimator
        is over the rows of its market. None takes all rows for each estimator.

    Returns
    -------
    float
        The sum over the estimators of mean differences of probabilities, over rows and
        tasks.

    Raises
    ------
    ValueError, TypeError
        If an estimator differs from the base, in which case the first difference is
        named, or if another argument is invalid.

    Notes
    -----
    The measure is the disentanglement error of Ortiz-Jimenez et al., with the absolute
    difference of probabilities as the distance. An estimator whose market has no row
    contributes 0.

    References
    ----------
    Ortiz-Jimenez, Favero and Frossard (2023). "Task Arithmetic in the Tangent Space:
    Improved Editing of Pre-Trained Models." NeurIPS. :arxiv:`2305.12827`

    Djuhera et al. (2024). "R-MTLLMF: Resilient Multi-Task Large Language Model Fusion
    at the Wireless Edge." :arxiv:`2411.18220`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import fine_tune, merge_interference
    >>> data = make_ctr_cvr(900, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> base = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0)
    >>> base.fit(X[:300], Y[:300]).n_iter_
    2
    >>> markets = [slice(300, 600), slice(600, 900)]
    >>> params = {"max_epochs": 1, "extend": False}
    >>> models = [fine_tune(base, X[m], Y[m], **params) for m in markets]
    >>> merge_interference(base, models[:1], X)
    0.0
    >>> merge_interference(base, models, X) > 0
    True
    """
    members = check_members(base, estimators)
    X = check_table(X)
    values = np.asarray(coefficients, dtype=float)
    if values.shape not in ((), (len(members),)) or not np.isfinite(values).all():
        raise ValueError(
            "coefficients must be a finite number, or one per estimator, "
            f"{len(members)}; got {coefficients!r}."
        )
    values = np.broadcast_to(values, (len(members),))
    markets = check_markets(markets, n_rows(X), len(members))
    rows = encode(base, X)
    first = read_state(base)
    states = [read_state(member, base.net_.device) for member in members]

    def predict(used):
        """Predict with the task vectors of some members."""
        by_name = dict.fromkeys(first, np.where(used, values, 0.0))
        return probabilities(base.net_, combine(first, states, by_name), rows)

    together = predict(np.ones(len(members), dtype=bool))
    total = 0.0
    for index in range(len(members)):
        alone = predict(np.arange(len(members)) == index)
        kept = slice(None) if markets is None else markets == index
        differences = np.abs(alone - together)[kept]
        total += float(differences.mean()) if differences.size else 0.0
    return total


def probabilities(net, state, rows):
    """Predict with other weights: float64 array of shape (n_samples, n_tasks)."""

    def run(*inputs):
        return functional_call(net.module_, state, inputs)

    net._set_training(False)
    with torch.no_grad():
        logits = [
            net.infer(inputs, network=run).logits.double()
            for inputs, _ in net.get_iterator(rows)
        ]
    return torch.cat(logits).sigmoid().cpu().numpy()
