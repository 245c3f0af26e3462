"""`fit` and `partial_fit`, and the attributes that they set."""

from sklearn.base import _fit_context

from sk_pwiser._table import reads_in_parts
from sk_pwiser._training import TrainingResult, fit, fit_dataset
from sk_pwiser._utils import accept_any_case_of_y, warn_user


class Fitting:
    """The estimator's training; every call sets one result at its end."""

    @accept_any_case_of_y
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, Y=None, sample_weight=None, groups=None, eval_set=None):
        """Train the network.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix, ParquetImpressions} of shape \
                (n_samples, n_features)
            Impressions: a pandas or polars DataFrame, a polars LazyFrame, a
            `pyarrow.Table`, an array, or a sparse matrix of SciPy; see :ref:`inputs`
            for how their columns are read. Missing values are allowed, infinite ones
            are not. A :class:`~sk_pwiser.datasets.ParquetImpressions` may be larger
            than memory, see :ref:`larger_than_memory`.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,), default=None
            Labels: 0 or 1, tasks in the order of the funnel. With one task, any two
            labels. Those of tasks after the first may be missing if
            `missing_labels="ignore"`. None for a ParquetImpressions, which has labels,
            weights and groups itself.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, >= 0; those above 0 are
            scaled to a mean of 1. Those below 1e-38 times the largest one count as 0,
            with a warning. A weight of 0 for a task after the first makes the
            label missing, as NaN does with `missing_labels="ignore"`; for the first
            task, it leaves the row out of that task's loss and AUC only.
        groups : array-like of shape (n_samples,), default=None
            Group of each row, such as a session, for losses that compare rows within
            groups. Other losses ignore it.
        eval_set : tuple of (X, Y) or ParquetImpressions, default=None
            Validation rows, such as a later day, a ParquetImpressions only if `X` is
            one, too. Their figures go into `history_`, and
            early stopping uses them in place of a random part of the rows. They take
            no part in the encoding, and have no weights and no groups. With
            `early_stopping="auto"` they turn it on; with False every epoch is trained.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If parameters or data are invalid, or training diverges: a loss or weight is
            not finite, or the training loss is more than 1,000 times the one that
            training starts from in the first epoch, or 10 times later; or if the
            checkpoint to resume from is one of other parameters or data. An earlier fit
            stays usable.
        OSError
            If a checkpoint cannot be written. An earlier fit stays usable, and so do
            earlier checkpoints.
        KeyboardInterrupt
            If training is interrupted, by Ctrl-C for example. An earlier fit stays
            usable, and `checkpoint_dir` has the last complete epoch. To keep the epochs
            trained so far instead, put :class:`~sk_pwiser.callbacks.KeepOnInterrupt`
            into `callbacks`.

        Warns
        -----
        UserWarning
            If labels break the funnel, or a task has one label only; if labels are
            missing such that probabilities are biased; if a later task comes out
            likelier than the one before it in 10 % of the training rows or more, by a
            sample of them, see :ref:`coherent_funnels`.
        """
        earlier = getattr(self, "_result", None) if self.warm_start else None
        train = fit_dataset if reads_in_parts(X) else fit
        result = train(
            vars(self),
            X,
            Y,
            sample_weight,
            groups,
            eval_set,
            earlier=earlier,
            estimator_name=type(self).__name__,
        )
        self._set_result(result)
        self._warn_about_rises(result)
        return self

    def _warn_about_rises(self, result):
        """Warn if a later task is likelier than an earlier one in many rows."""
        if result.rises is not None:
            task, share = result.rises
            later, earlier = self.task_names_[task], self.task_names_[task - 1]
            warn_user(
                f"Task {later!r} comes out likelier than {earlier!r} in {share:.0%} of "
                "the training rows, by a sample, although it is possible only after "
                "it. network_params={'task_space': 'conditional'} prevents this, and "
                "{'monotonicity_weight': 1.0} reduces it."
            )

    @accept_any_case_of_y
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, Y, classes=None, sample_weight=None, groups=None):
        """Update the network with one pass over some rows.

        The first call learns the encoding of the columns, and builds the network. Later
        calls keep the encoding, take new category values as unseen, and update the
        network in place, so that no other thread may predict before the call returns.
        A numeric column that was constant so far is learnt from the first rows in which
        it varies. No rows are held out.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels: 0 or 1.
        classes : array-like of shape (2,), default=None
            The two labels of a single task, if the rows of the first call may have
            only one; the same in later calls. Several tasks have the labels 0 and 1.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, as in `fit`.
        groups : array-like of shape (n_samples,), default=None
            Group of each row, as in `fit`.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If parameters or data are invalid, or training diverges. The estimator is
            then as it was before the call.
        KeyboardInterrupt
            If training is interrupted. The estimator is then as it was before the call.
        """
        # scikit-learn's decorator validates the parameters at the first call only.
        self._validate_params()
        earlier = getattr(self, "_result", None)
        result = fit(
            vars(self),
            X,
            Y,
            sample_weight,
            groups,
            earlier=earlier,
            classes=classes,
            single_pass=True,
            estimator_name=type(self).__name__,
        )
        return self._set_result(result)

    def _set_result(self, result: TrainingResult):
        """Set the fitted attributes; none was set before training succeeded."""
        encoder, targets = result.schema.encoder, result.schema.targets
        self._result = result
        self.net_ = result.net
        self.history_ = result.net.history
        self.n_iter_ = len(self.history_)
        self.best_epoch_ = result.best_epoch
        self.classes_ = targets.classes
        self.task_names_ = list(targets.task_names)
        self.n_tasks_ = len(self.task_names_)
        self.n_features_in_ = encoder.n_features_in_
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(encoder, "feature_names_in_"):
            self.feature_names_in_ = encoder.feature_names_in_
        return self
