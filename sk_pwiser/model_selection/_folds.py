"""Splits with the same proportions of funnel depths in every part."""

from sklearn.model_selection import StratifiedKFold

from sk_pwiser._funnel import strata_of_folds


class FunnelStratifiedKFold(StratifiedKFold):
    """Stratified K-fold over the funnel depth of a multi-task ``y``.

    Every fold has the same proportions of the depths (see :func:`funnel_depth`) as the
    whole data, up to whole rows.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.

    shuffle : bool, default=True
        Whether to shuffle the rows of each depth before splitting them into folds.
        Unlike in :class:`~sklearn.model_selection.StratifiedKFold`, the default is
        True, because logs are ordered by time or by user.

    random_state : int, RandomState instance or None, default=None
        Seed of the shuffling; an int gives the same folds at every call. Must be
        None if ``shuffle=False``.

    task_parents : "chain", None or dict, default="chain"
        Which task presupposes which, see
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`; names are those of the columns of
        ``y``, or indices. If the tasks are no funnel, rows are stratified by the last
        of the tasks that they reached.

    See Also
    --------
    sklearn.model_selection.StratifiedKFold : The same over the classes of a 1-D ``y``.

    Notes
    -----
    A depth with fewer rows than folds cannot occur in every fold. It is stratified
    together with the next shallower depth, or the shallowest depth with the next deeper
    one. One ``UserWarning`` lists these depths and their numbers of rows.

    Labels of tasks after the first may be missing. Rows of unknown depth are strata of
    their own, one per number of tasks that are known to be 1, so that every fold has
    the same share of them.

    Examples
    --------
    >>> import numpy as np
    >>> from sk_pwiser.model_selection import FunnelStratifiedKFold
    >>> Y = np.array([[0, 0]] * 6 + [[1, 0]] * 4 + [[1, 1]] * 2)
    >>> X = np.zeros((12, 1))
    >>> cv = FunnelStratifiedKFold(n_splits=2, random_state=0)
    >>> for train, test in cv.split(X, Y):
    ...     print(Y[test].sum(axis=0).tolist())
    [3, 1]
    [3, 1]
    """

    def __init__(
        self, n_splits=5, *, shuffle=True, random_state=None, task_parents="chain"
    ):
        super().__init__(n_splits=n_splits, shuffle=shuffle, random_state=random_state)
        self.task_parents = task_parents

    def split(self, X, y, groups=None):
        """Generate the row indices of the training and test set of each fold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Only its length is used; ``np.zeros(n_samples)`` is sufficient.

        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1; the tasks in funnel order. Labels of tasks after the first
            may be missing. The labels of a single task may have any two values.

        groups : object, default=None
            Ignored; exists for compatibility.

        Returns
        -------
        splits : iterator of (ndarray, ndarray)
            Training and test indices, ``n_splits`` pairs.

        Raises
        ------
        ValueError
            If a label is neither 0 nor 1, if a label of the first task is missing, if
            ``X`` and ``y`` have different lengths, or if there are fewer rows than
            folds.
        """
        # Not a generator itself, so that a bad y raises at the call.
        return super().split(
            X, strata_of_folds(y, self.n_splits, self.task_parents), groups
        )
