"""Pools of estimators: which predict best together, and a student of their mean."""

from collections.abc import Callable, Iterable
from functools import cache
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.base import clone
from sklearn.utils import Bunch, check_random_state

from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._fit import fit_further, refuse_refit
from sk_pwiser._rows._checked_rows import GivenRows
from sk_pwiser._settings import Settings
from sk_pwiser._tasks._labels import SoftTargets
from sk_pwiser._tasks._tree import read_task_parents
from sk_pwiser._training._validation_figures import KnownProbabilities
from sk_pwiser._utils._checks import accept_any_case_of_y, check_choice, check_integer
from sk_pwiser.metrics import mean_log_loss_scorer
from sk_pwiser.transfer import _compatible
from sk_pwiser.transfer._fine_tune import fine_tune

LEARNING_RATE = 0.1
EPSILON = 1e-12  # a parameter of Adam, the optimiser of the paper
MAX_SUBSETS = 100_000


@accept_any_case_of_y
def select_estimators(
    estimators: Iterable[MultiTaskCTRCVRClassifier],
    X: Any,
    Y: Any,
    *,
    n_select: int,
    scoring: Callable[[Any, Any, Any], float] | None = None,
    method: str = "policy",
    n_iter: int = 300,
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
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
        Their labels. If the first estimator has `missing_labels="ignore"`, labels may
        be missing; scorers leave them out.
    n_select : int
        Number of estimators to select.
    scoring : callable, default=None
        ``scoring(estimator, X, Y)`` returns a number, higher is better: a scorer of
        :mod:`sk_pwiser.metrics`, for example. The estimator passed has `predict_proba`
        for these rows. None means minus the mean log loss over the tasks.
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
    >>> best = select_estimators(pool, X[800:], Y[800:], n_select=1, random_state=0)
    >>> best.indices.tolist(), bool(best.weights[1] < 0.05)
    ([0], True)
    """
    pool = _compatible.check_pool(estimators)
    n_select = check_integer("n_select", n_select, at_least=1)
    if n_select > len(pool):
        raise ValueError(
            f"n_select must be at most {len(pool)} estimators; got {n_select}."
        )
    method = check_choice("method", method, METHODS)
    n_iter = check_integer("n_iter", n_iter, at_least=1)
    if scoring is not None and not callable(scoring):
        raise TypeError(f"scoring must be callable or None; got {scoring!r}.")
    X = _compatible.check_table(X)
    y = _compatible.check_labels(pool[0], X, Y)
    y = y[:, 0] if pool[0].classes_.ndim == 1 else y
    y = y if np.isnan(y).any() else y.astype(int)
    # Each estimator predicts once; a set is scored by a mean of these arrays.
    probabilities = _compatible.predict_each(pool, X)
    scoring = mean_log_loss_scorer if scoring is None else scoring

    @cache
    def score(members: tuple[int, ...]) -> float:
        mean = probabilities[list(members)].mean(axis=0)
        value = float(scoring(KnownProbabilities(mean, pool[0].task_parents_), X, y))
        if not np.isfinite(value):
            raise ValueError(
                f"scoring must return a finite number; it returned {value} for "
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
    gradient = np.zeros(len(p))
    remaining = p.astype(float)
    for member in drawn:
        total = remaining.sum()
        if total > 0:
            # d log softmax of the members that are left, for each draw in turn.
            gradient -= remaining / total
        gradient[member] += 1.0
        remaining[member] = 0.0
    return gradient


def learn_policy(reward, n_members, size, n_iter, random_state):
    """Learn the probabilities of members from rewards of subsets, by Adam."""
    scores = torch.zeros(n_members, dtype=torch.float64)
    optimizer = torch.optim.Adam([scores], lr=LEARNING_RATE, eps=EPSILON, maximize=True)
    baseline = 0.0  # the mean of the rewards, which reduces the variance of the steps
    for step in range(1, n_iter + 1):
        p = softmax(scores.numpy())
        drawn = draw(p, size, random_state)
        reward_of_draw = reward(tuple(sorted(drawn.tolist())))
        # REINFORCE: the gradient of the expected reward, with the mean reward as a
        # baseline.
        baseline += (reward_of_draw - baseline) / step
        advantage = reward_of_draw - baseline
        gradient = advantage * log_probability_gradient(p, drawn)
        scores.grad = torch.from_numpy(gradient)
        optimizer.step()
    return softmax(scores.numpy())


def _policy(score, n_members, size, n_iter, random_state):
    weights = learn_policy(score, n_members, size, n_iter, random_state)
    return tuple(sorted(np.argsort(-weights, kind="stable")[:size].tolist())), weights


def _greedy(score, n_members, size, *_):
    chosen = ()
    for _step in range(size):
        not_chosen = [member for member in range(n_members) if member not in chosen]
        larger = [tuple(sorted((*chosen, member))) for member in not_chosen]
        # The score is cached, so that a set costs one evaluation in all methods.
        chosen = max(larger, key=score)
    return chosen, np.isin(np.arange(n_members), chosen) / size


def _exhaustive(score, n_members, size, *_):
    n_subsets = comb(n_members, size)
    if n_subsets > MAX_SUBSETS:
        raise ValueError(
            f"method='exhaustive' scores at most {MAX_SUBSETS:,} sets; there are "
            f"{n_subsets:,} of n_select={size} among {n_members} estimators."
        )
    chosen = max(combinations(range(n_members), size), key=score)
    return chosen, np.isin(np.arange(n_members), chosen) / size


METHODS = {"policy": _policy, "greedy": _greedy, "exhaustive": _exhaustive}


def distill(
    estimators: Iterable[MultiTaskCTRCVRClassifier],
    X: Any,
    *,
    weights: npt.ArrayLike | None = None,
    markets: npt.ArrayLike | str | None = None,
    student: MultiTaskCTRCVRClassifier,
) -> MultiTaskCTRCVRClassifier:
    r"""Train an estimator on the predictions of others, without their data.

    The student minimises the weighted sum of its cross-entropies with the estimators'
    probabilities p on unlabelled impressions, averaged over the rows and summed over
    the tasks,

    .. math:: \sum_m w_m \mathrm{BCE}(q, p_m) = \mathrm{BCE}(q, \sum_m w_m p_m),

    with its own probabilities q. The minimum is at the weighted mean of the estimators'
    probabilities.

    Parameters
    ----------
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators with equal tasks. Their networks and encoders may differ.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions. Labels are not needed.
    weights : array-like of shape (n_estimators,), default=None
        Weights of the estimators, >= 0, scaled to a sum of 1; the weights returned by
        :func:`select_estimators`, for example. None for equal weights.
    markets : array-like of int of shape (n_samples,) or str, default=None
        For each row, the index of the estimator of its market, as an array or as the
        name of a column of `X`. The student then learns only the prediction of this
        estimator in the row, with its weight. None for the weighted mean.
    student : MultiTaskCTRCVRClassifier
        An unfitted estimator learns its encoding on `X`. A fitted one keeps its
        encoding, and training starts from its weights. Its parameters apply, except
        `loss`, `loss_params` and `stratified_batches`. Amounts are not passed on: its
        `value_tasks` must be None.

    Returns
    -------
    MultiTaskCTRCVRClassifier
        A new fitted estimator with the parameters of the student.

    Raises
    ------
    ValueError, TypeError
        If the pool is empty, if the estimators or the student differ in their tasks, if
        `X` has no rows, or if another argument is invalid.

    Notes
    -----
    Early stopping monitors the cross-entropy with the estimators' probabilities, or the
    expected AUC of labels drawn from them. Target statistics are means of these
    probabilities.

    References
    ----------
    Hinton, Vinyals and Dean (2015). "Distilling the Knowledge in a Neural Network."
    :arxiv:`1503.02531`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import distill
    >>> data = make_ctr_cvr(900, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> networks = ("mmoe", "aitm")
    >>> models = [MultiTaskCTRCVRClassifier(network=n, max_epochs=3) for n in networks]
    >>> teachers = [model.fit(X[:600], Y[:600]) for model in models]
    >>> student = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    >>> distill(teachers, X[600:], student=student).predict_proba(X).shape
    (900, 2)
    """
    pool = _compatible.check_pool(estimators)
    _compatible.check_type("student", student)
    student._validate_params()
    if student.value_tasks:
        raise ValueError(
            "student must have value_tasks=None: it learns the probabilities of the "
            f"estimators, which have no amounts; got {student.value_tasks!r}."
        )
    refuse_refit(Settings.of(vars(student)), "training on probabilities of models")
    if hasattr(student, "_result"):
        _compatible.check_same_tasks("student", student, "estimators[0]", pool[0])
    task_names = student.task_names
    if task_names is not None and list(task_names) != list(pool[0].task_names_):
        raise ValueError(
            f"student must have task_names={pool[0].task_names_}, as the estimators, "
            f"or None; got {task_names!r}."
        )
    X = _compatible.check_table(X)
    values = _compatible.check_weights(weights, len(pool))
    indices = _compatible.check_markets(markets, X, len(pool))
    if indices is None:
        # The weighted mean needs no prediction of weight 0.
        used = np.flatnonzero(values)
        probabilities = _compatible.predict_each([pool[index] for index in used], X)
        targets = np.tensordot(values[used], probabilities, axes=1)
        return train_on_probabilities(student, pool[0], X, targets)
    # Each row has one teacher here, so that the teacher's weight becomes that of the
    # row.
    row_weights = values[indices]
    if not row_weights.any():
        raise ValueError("weights must be > 0 for an estimator in markets.")
    targets = _compatible.predict_each(pool, X)[indices, np.arange(len(indices))]
    return train_on_probabilities(student, pool[0], X, targets, row_weights)


def train_on_probabilities(student, teacher, X, targets, sample_weight=None):
    """Train a copy of a student, with probabilities of a teacher's tasks as labels."""
    changed = {"loss": "bce", "loss_params": None, "stratified_batches": False}
    # A network is trained with the probabilities of the sampled log, not the full one.
    first = targets[:, :1]
    targets = targets / (first + student.negative_sampling_rate * (1 - first))
    labels = SoftTargets(
        targets.astype(np.float32),
        teacher.classes_,
        tuple(teacher.task_names_),
        parents=read_task_parents(student.task_parents, teacher.task_names_),
        counts=np.broadcast_to(1, len(targets)),
    )
    if hasattr(student, "_result"):
        # The loss of this training is not a parameter of the result.
        trained = fine_tune(student, X, labels, sample_weight, extend=False, **changed)
        return trained.set_params(**{name: getattr(student, name) for name in changed})
    result = fit_further(
        Settings.of({**vars(student), **changed}),
        GivenRows(X, labels, sample_weight),
        estimator_name=type(student).__name__,
    )
    return clone(student)._set_result(result)
