"""Selection of the estimators of a pool that predict best together."""

from functools import cache
from itertools import combinations
from math import comb

import numpy as np
import torch
from scipy.special import softmax
from sklearn.utils import Bunch, check_random_state

from sk_pwiser._training import KnownProbabilities
from sk_pwiser._utils import accept_any_case_of_y, check_choice, check_integer
from sk_pwiser.metrics import mean_log_loss_scorer
from sk_pwiser.transfer._compatible import (
    check_labels,
    check_pool,
    check_table,
    predict_each,
)

LEARNING_RATE = 0.1
EPSILON = 1e-12  # a parameter of Adam, the optimiser of the paper
MAX_SUBSETS = 100_000


@accept_any_case_of_y
def select_estimators(
    estimators,
    X,
    Y,
    *,
    n_select,
    scoring=None,
    method="policy",
    n_iter=300,
    random_state=None,
):
    """Select the estimators of a pool whose mean prediction scores best.

    A set of estimators is scored by the mean of their probabilities on labelled rows.
    Estimators that were trained on corrupted data, or for traffic that differs too
    much, are left out.

    Parameters
    ----------
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators with equal tasks. Their networks and encoders may differ.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions that no estimator was trained on.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Their labels. If the first estimator has `missing_labels="ignore"`, labels of
        tasks after the first may be missing; scorers leave them out.
    n_select : int
        Number of estimators to select.
    scoring : callable, default=None
        ``scoring(estimator, X, Y)`` returns a number, higher is better: a scorer of
        :mod:`sk_pwiser.metrics`, for example. The estimator passed has `predict_proba`
        for these rows. None for minus the mean log loss over the tasks.
    method : {"policy", "greedy", "exhaustive"}, default="policy"
        How sets are found:

        - "policy" learns a probability per estimator from the scores of drawn sets;
        - "greedy" adds the estimator that improves the score most, one after the other;
        - "exhaustive" scores all sets, at most 100,000.
    n_iter : int, default=300
        Number of sets that "policy" draws.
    random_state : int, RandomState instance or None, default=None
        Seed of the draws of "policy".

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with the following attributes.

        indices : ndarray of int of shape (n_select,)
            The selected estimators, in ascending order.
        weights : ndarray of shape (n_estimators,)
            Weights that sum to 1: the probabilities of "policy"; otherwise equal
            weights of the selected estimators, and 0. :func:`distill` takes them.
        score : float
            Score of the mean prediction of the selected estimators.

    Raises
    ------
    ValueError, TypeError
        If the pool is empty or smaller than `n_select`, if the tasks of the estimators
        or labels differ, if there are too many sets for "exhaustive", if a score is not
        finite, or if another parameter is invalid.

    Notes
    -----
    In the paper the reward of a set of models is the validation accuracy of a
    meta-learner that was trained with them. Here it is the score of their mean
    prediction, which needs no training. The policy follows the gradient of the
    log-probability of a draw without replacement; the paper sums the logarithms of the
    models' own probabilities. For sets of one estimator the two are equal.

    References
    ----------
    Hu, Shen, Wang, Liu, Yuan and Tao. "Task-Distributionally Robust Data-Free
    Meta-Learning." :arxiv:`2311.14756`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import select_estimators
    >>> data = make_ctr_cvr(1_200, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target.to_numpy()
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> good = model.fit(X[:800], Y[:800])
    >>> corrupted = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> pool = [good, corrupted.fit(X[:800], Y[799::-1])]
    >>> found = select_estimators(pool, X[800:], Y[800:], n_select=1, random_state=0)
    >>> found.indices.tolist(), bool(found.weights[1] < 0.05)
    ([0], True)
    """
    pool = check_pool(estimators)
    n_select = check_integer("n_select", n_select, at_least=1)
    if n_select > len(pool):
        raise ValueError(
            f"n_select must be at most the number of estimators, {len(pool)}; got "
            f"{n_select}."
        )
    method = check_choice("method", method, METHODS)
    n_iter = check_integer("n_iter", n_iter, at_least=1)
    if scoring is not None and not callable(scoring):
        raise TypeError(f"scoring must be callable or None; got {scoring!r}.")
    X = check_table(X)
    y = check_labels(pool[0], X, Y)
    y = y[:, 0] if pool[0].classes_.ndim == 1 else y
    y = y if np.isnan(y).any() else y.astype(int)
    # Each estimator predicts once; a set is scored by a mean of these arrays.
    probabilities, task_parents = predict_each(pool, X), pool[0].task_parents_
    scoring = mean_log_loss_scorer if scoring is None else scoring

    @cache
    def score(members):
        mean = probabilities[list(members)].mean(axis=0)
        value = float(scoring(KnownProbabilities(mean, task_parents), X, y))
        if not np.isfinite(value):
            raise ValueError(
                f"scoring must return a finite number; it returned {value} for the "
                f"estimators {list(members)}."
            )
        return value

    indices, weights = METHODS[method](
        score, len(pool), n_select, n_iter, check_random_state(random_state)
    )
    return Bunch(indices=np.array(indices), weights=weights, score=score(indices))


def draw(p, size, random_state):
    """Draw members one after the other without replacement, in proportion to `p`."""
    # The largest of log p plus Gumbel noise have this distribution, also if the
    # probabilities of some members have vanished.
    with np.errstate(divide="ignore"):
        keys = np.log(p) + random_state.gumbel(size=len(p))
    return np.argsort(-keys)[:size]


def log_probability_gradient(p, drawn):
    """Differentiate the log-probability of a draw with respect to the scores."""
    gradient, left = np.zeros(len(p)), p.astype(float)
    for member in drawn:
        total = left.sum()
        if total > 0:
            # d log softmax of the members that are left, for each draw in turn.
            gradient -= left / total
        gradient[member] += 1.0
        left[member] = 0.0
    return gradient


def learn_policy(reward, n_members, size, n_iter, random_state):
    """Learn the probabilities of members from rewards of subsets, by Adam."""
    scores = torch.zeros(n_members, dtype=torch.float64)
    optimizer = torch.optim.Adam([scores], lr=LEARNING_RATE, eps=EPSILON, maximize=True)
    baseline = 0.0  # the mean of the rewards, which reduces the variance of the steps
    for step in range(1, n_iter + 1):
        p = softmax(scores.numpy())
        drawn = draw(p, size, random_state)
        found = reward(tuple(sorted(drawn.tolist())))
        # REINFORCE: the gradient of the expected reward, with the mean reward as a
        # baseline.
        baseline += (found - baseline) / step
        gradient = (found - baseline) * log_probability_gradient(p, drawn)
        scores.grad = torch.from_numpy(gradient)
        optimizer.step()
    return softmax(scores.numpy())


def _equal_weights(indices, n_members):
    weights = np.zeros(n_members)
    weights[list(indices)] = 1 / len(indices)
    return weights


def _policy(score, n_members, size, n_iter, random_state):
    weights = learn_policy(score, n_members, size, n_iter, random_state)
    best = np.argsort(-weights, kind="stable")[:size]
    return tuple(sorted(best.tolist())), weights


def _greedy(score, n_members, size, *_):
    chosen = ()
    for _step in range(size):
        larger = [
            tuple(sorted((*chosen, each)))
            for each in range(n_members)
            if each not in chosen
        ]
        # The score is cached, so that a set costs one evaluation in all methods.
        chosen = max(larger, key=score)
    return chosen, _equal_weights(chosen, n_members)


def _exhaustive(score, n_members, size, *_):
    n_subsets = comb(n_members, size)
    if n_subsets > MAX_SUBSETS:
        raise ValueError(
            f"method='exhaustive' scores at most {MAX_SUBSETS:,} sets; there are "
            f"{n_subsets:,} of n_select={size} among {n_members} estimators."
        )
    chosen = max(combinations(range(n_members), size), key=score)
    return chosen, _equal_weights(chosen, n_members)


METHODS = {"policy": _policy, "greedy": _greedy, "exhaustive": _exhaustive}
