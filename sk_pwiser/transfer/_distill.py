"""Distillation: a network learns the predictions of others, also interpolated ones."""

import numpy as np
from sklearn.base import clone

from sk_pwiser._table import SoftTargets, n_rows
from sk_pwiser._training import GivenRows, InputMixup, fit
from sk_pwiser._utils import check_number, read_task_parents
from sk_pwiser.transfer._compatible import (
    check_markets,
    check_pool,
    check_same_tasks,
    check_table,
    check_type,
    check_weights,
    predict_each,
)
from sk_pwiser.transfer._fine_tune import fine_tune


def distill(estimators, X, *, weights=None, student):
    r"""Train an estimator on the predictions of others, without their data.

    The student minimises the weighted sum of its cross-entropies with the estimators'
    probabilities p on unlabelled impressions, averaged over the rows and summed over
    the tasks,

    .. math:: \sum_m w_m \mathrm{BCE}(q, p_m) = \mathrm{BCE}(q, \sum_m w_m p_m),

    with its own probabilities q. It is least where q is the weighted mean of the
    estimators' probabilities.

    Parameters
    ----------
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators with equal tasks. Their networks and encoders may differ.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions. Labels are not needed.
    weights : array-like of shape (n_estimators,), default=None
        Weights of the estimators, >= 0, scaled to a sum of 1; the weights returned by
        :func:`select_estimators`, for example. None for equal weights.
    student : MultiTaskCTRCVRClassifier
        An unfitted estimator, which learns its encoding on `X`; or a fitted one, whose
        encoding is kept, and from whose weights training starts. Its parameters apply,
        except `loss`, `loss_params` and `stratified_batches`.

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
    pool = check_pool(estimators)
    check_student(student, pool[0])
    X = check_table(X)
    values = check_weights(weights, len(pool))
    used = np.flatnonzero(values)
    each = predict_each([pool[index] for index in used], X)
    targets = np.tensordot(values[used], each, axes=1)
    return train_on_probabilities(student, pool[0], X, targets)


def market_mixup(
    estimators,
    X,
    *,
    weights=None,
    markets=None,
    concentration=0.5,
    share=0.5,
    student,
):
    """Distil a pool with interpolated rows, without the meta-learning of the paper.

    The function takes only the interpolation of tasks from task-robust data-free
    meta-learning: it has no episodes, inner steps, query loss or generated inputs. It
    trains a student like :func:`distill`, but in a share of the batches each row is
    mixed with another one, drawn at random: the student predicts
    `(1 - lam) * p_1 + lam * p_2` from the input `(1 - lam) * x_1 + lam * x_2`, where p
    are the probabilities predicted by the estimators, and x the embeddings and numeric
    inputs. If the two rows belong to different markets, the mixed row lies between the
    markets. The result is meant to be fine-tuned with few rows of a new market.

    Parameters
    ----------
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators with equal tasks. Their networks and encoders may differ.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions. Labels are not needed.
    weights : array-like of shape (n_estimators,), default=None
        Weights of the estimators, >= 0, scaled to a sum of 1. The weights returned by
        :func:`select_estimators` protect against corrupted estimators. None for equal
        weights.
    markets : array-like of int of shape (n_samples,) or str, default=None
        For each row, the index of the estimator of its market, as an array or as the
        name of a column of `X`. The prediction of this estimator alone is the target of
        the row. None for the weighted mean of all predictions.
    concentration : float, default=0.5
        Both parameters of the Beta distribution of lam, > 0. Below 1, one of the two
        rows dominates in most batches.
    share : float, default=0.5
        Share in [0, 1] of the batches that are mixed.
    student : MultiTaskCTRCVRClassifier
        An unfitted or fitted estimator with `compile=False`; see :func:`distill`.

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
    The paper's choice of models by a policy is in :func:`select_estimators`. The paper
    generates inputs by inverting the models, and trains a meta-learner on mixtures of
    rows with equal labels; here impressions without labels are available, whose
    predicted probabilities are mixed with them, and training is ordinary distillation.

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
            "student must have compile=False, since market_mixup changes the inputs of "
            f"the network during training; got compile={student.compile!r}."
        )
    X = check_table(X)
    n_samples = n_rows(X)
    values = check_weights(weights, len(pool))
    indices = check_markets(markets, X, len(pool))
    mixup = InputMixup(
        check_number("concentration", concentration, above=0),
        check_number("share", share, at_least=0, at_most=1),
    )
    each = predict_each(pool, X)
    if indices is None:
        targets, row_weights = np.tensordot(values, each, axes=1), None
    else:
        targets, row_weights = each[indices, np.arange(n_samples)], values[indices]
        if not row_weights.any():
            raise ValueError("weights must be > 0 for an estimator in markets.")
    return train_on_probabilities(
        student, pool[0], X, targets, row_weights, callbacks=[mixup]
    )


def check_student(student, teacher):
    """Raise unless a student can learn the tasks of a teacher."""
    check_type("student", student)
    student._validate_params()
    if hasattr(student, "_result"):
        check_same_tasks("student", student, "estimators[0]", teacher)
    given = student.task_names
    if given is not None and list(given) != list(teacher.task_names_):
        raise ValueError(
            f"student must have task_names={teacher.task_names_}, the tasks of the "
            f"estimators, or None; got {given!r}."
        )


def train_on_probabilities(
    student, teacher, X, targets, sample_weight=None, callbacks=()
):
    """Train a copy of a student, with probabilities of a teacher's tasks as labels."""
    changed = {
        "loss": "bce",
        "loss_params": None,
        "stratified_batches": False,
        "callbacks": [*(student.callbacks or ()), *callbacks],
    }
    # A network is trained with the probabilities of the sampled log, not the full one.
    first = targets[:, :1]
    targets = targets / (first + student.negative_sampling_rate * (1 - first))
    labels = SoftTargets(
        targets.astype(np.float32),
        teacher.classes_,
        tuple(teacher.task_names_),
        parents=read_task_parents(student.task_parents, teacher.task_names_),
    )
    if hasattr(student, "_result"):
        trained = fine_tune(student, X, labels, sample_weight, extend=False, **changed)
        return trained.set_params(**{name: getattr(student, name) for name in changed})
    result = fit(
        {**vars(student), **changed},
        GivenRows(X, labels, sample_weight),
        estimator_name=type(student).__name__,
    )
    return clone(student)._set_result(result)
