"""Distillation: a network learns the predictions of others."""

import numpy as np
from sklearn.base import clone

from sk_pwiser._fit import fit
from sk_pwiser._table import SoftTargets
from sk_pwiser._training import GivenRows
from sk_pwiser._utils import read_task_parents
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


def distill(estimators, X, *, weights=None, markets=None, student):
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
        `loss`, `loss_params` and `stratified_batches`.

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
    indices = check_markets(markets, X, len(pool))
    if indices is None:
        # The weighted mean needs no prediction of weight 0.
        used = np.flatnonzero(values)
        each = predict_each([pool[index] for index in used], X)
        targets = np.tensordot(values[used], each, axes=1)
        return train_on_probabilities(student, pool[0], X, targets)
    # Each row has one teacher here, so that the teacher's weight becomes that of the
    # row.
    row_weights = values[indices]
    if not row_weights.any():
        raise ValueError("weights must be > 0 for an estimator in markets.")
    targets = predict_each(pool, X)[indices, np.arange(len(indices))]
    return train_on_probabilities(student, pool[0], X, targets, row_weights)


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
    )
    if hasattr(student, "_result"):
        # The loss of this training is not a parameter of the result.
        trained = fine_tune(student, X, labels, sample_weight, extend=False, **changed)
        return trained.set_params(**{name: getattr(student, name) for name in changed})
    result = fit(
        {**vars(student), **changed},
        GivenRows(X, labels, sample_weight),
        estimator_name=type(student).__name__,
    )
    return clone(student)._set_result(result)
