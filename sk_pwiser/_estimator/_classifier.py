"""The estimator: its parameters and their documentation, `fit` and `partial_fit`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._columns._id_vectors import IdVectors
from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser._estimator._parameter_checks import checks_parameters
from sk_pwiser._estimator._parameters import ParametersMixin, explain_names
from sk_pwiser._estimator._predictions import NetworkPredictionMixin
from sk_pwiser._estimator._saving import SavingMixin
from sk_pwiser._estimator._summary import SummaryMixin
from sk_pwiser._fit import fit, fit_further, fit_twice, one_eval_set, update
from sk_pwiser._rows._checked_rows import GivenRows
from sk_pwiser._settings import PARAMETER_CONSTRAINTS, Settings
from sk_pwiser._tasks._tree import parents_by_name
from sk_pwiser._training import _callbacks
from sk_pwiser._training._growth import add_vectors_to_schema
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import describe_weight, weight_of
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._undo import Undo, take_back
from sk_pwiser._utils._doc_links import DocLink
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.losses import MultiTaskLoss
from sk_pwiser.networks import MultiTaskNetwork
from sk_pwiser.weighting import TaskWeighting


class MultiTaskCTRCVRClassifier(
    DocLink,
    NetworkPredictionMixin,
    ParametersMixin,
    SavingMixin,
    SummaryMixin,
    _callbacks.CallbackSupportMixin,
    ClassifierMixin,
    BaseEstimator,
):
    """Multi-task network for clicks (CTR) and conversions (CVR).

    One network learns all tasks of a funnel, click first, from impressions: the rows
    of a DataFrame or array. Category columns are embedded and numeric columns scaled;
    missing values and unseen categories are handled, so that a raw DataFrame can be
    passed to `fit`.

    Parameters
    ----------
    network : {"shared_bottom", "aitm", "ctcl", "dcmt", "ddpo", "escm2", "esmm", \
            "fdn", "metaheac", "mmoe", "omoe", "ple", "single_task", "stem"} or class, \
            default="shared_bottom"
        The network: a name of :mod:`sk_pwiser.networks`, or a subclass of
        :class:`~sk_pwiser.networks.MultiTaskNetwork`.
    network_params : dict, default=None
        Keyword arguments of the network class, such as `tower_units` and `dropout`, and
        those of all networks: `domain_features`, `interaction`, `n_cross_layers`,
        `cross_rank`, `task_space`, `monotonicity_weight`; see :ref:`network_params`.
    loss : {"pwiser", "bce", "combined_pair", "focal", "jrc"} or class, default="pwiser"
        The loss: binary cross-entropy ("bce"), the same plus the pairwise ranking term
        of PWiseR, another of :mod:`sk_pwiser.losses`, or a subclass of
        :class:`~sk_pwiser.losses.MultiTaskLoss`.
    loss_params : dict, default=None
        Keyword arguments of the loss class, such as `surrogate`, `score`, `margins` and
        `tasks` of :class:`~sk_pwiser.losses.PWiseR`.
    pwiser_weight : float, "auto" or None, default="auto"
        Weight of the pairwise term, >= 0: how strongly it pulls the score of a
        converted row, relative to the row's cross-entropy. None is 0.1 if at least 1 %
        of the rows convert, and at most 0.3 if fewer do. "auto" is the same unless
        conversions are rare and halves of the training rows speak for 1 or 0; see
        :ref:`pwiser_weight`.
    weighting : {"equal", "dwa", "ema", "fixed", "nash", "torchjd", \
            "uncertainty"}, class or \
            Module, default="equal"
        How the tasks' losses, or their gradients, are combined: a name of
        :mod:`sk_pwiser.weighting`, a subclass of
        :class:`~sk_pwiser.weighting.TaskWeighting`, or an aggregator or scalarizer of
        TorchJD.
    weighting_params : dict, default=None
        Keyword arguments of the weighting class, such as `weights` of "fixed".
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        The category columns: those of category, string or bool dtype, or with text
        ("from_dtype"); names or indices, which are added to these; a boolean mask of
        all columns; or None for none; see :ref:`category_columns`.
    numeric_encoding : {"bins_and_scores", "piecewise_linear", "standard", \
            "quantile"}, default="bins_and_scores"
        How numbers are encoded: scaled ("standard"), as normal scores ("quantile"), as
        one input per bin ("piecewise_linear", Gorishniy et al., 2022), or as inputs per
        bin and a score; see :ref:`numeric_encodings`.
    target_encoding : "auto", bool or array-like of (str or int), default="auto"
        The category columns whose values are also encoded by their rates of the tasks
        and their number of rows; see :ref:`target_encoding`. "auto" and True select
        those with at least 100 distinct values, False none; otherwise names or indices.
    embedding_dim : int or "auto", default=16
        Width of the embedding of a category value. "auto" is
        min(16, round(1.6 * n**0.56)) for a column with n codes.
    encoding_params : dict, default=None
        Further settings of the encoding, such as `time_column`, the column that orders
        the rows, `min_frequency`, `n_hash_buckets`, `grow_vocabulary`, `vectors` and
        `parents`; see :ref:`encoding_params`, which describes all of them.
    exposure_features : list, dict or None, default=None
        Columns that say how a row was shown, such as ``["position", "slot"]``, and add
        terms to the log-odds of the click. Predictions are at a reference, which a dict
        states, ``{"position": 1}``; see :doc:`/user_guide/exposure`.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels may be missing, of any task and in any row, such as a conversion
        that may still come or a question that was not asked. With "ignore", they take
        no part in the loss, the pairs, the AUC and the rates of their task; rows
        without any label are left out, with a warning. See :ref:`missing_labels`.
    task_parents : "chain", None or dict, default="chain"
        Which task presupposes which: each the one before it ("chain"), none another
        one (None), or as in a dict, ``{"conversion": "click", "like": "click"}``; see
        :ref:`task_trees`.
    value_tasks : dict or None, default=None
        Columns of `Y` with amounts, such as the money or the time of an event, and the
        task under which each arises, by name or index: ``{"spend": "conversion"}``;
        None as the task stands for an amount per impression. `predict_value` predicts
        their means; see :doc:`/user_guide/values`.
    value_loss : {"gamma", "lognormal", "tweedie"}, default="gamma"
        How amounts are distributed around their mean. "gamma" and "lognormal" learn the
        mean given the event, "tweedie" that per impression.
    negative_sampling_rate : float, default=1.0
        Share of the rows without a click (the first task) that the log has kept, in
        (0, 1], drawn at random. The probabilities are corrected to the full log; see
        :ref:`downsampling`.
    optimizer : {"adagrad", "adam", "adamw", "rmsprop", "sgd"} or class, \
            default="adam"
        The optimiser: a name, or a subclass of :class:`torch.optim.Optimizer` that
        takes one dense gradient per step; see :ref:`optimizer_params`.
    optimizer_params : dict, default=None
        Keyword arguments of the optimiser, such as `betas` or `momentum`, and
        `average_decay`, `clip_grad_norm`, `embedding_lr`, `embedding_weight_decay` and
        `lazy_embeddings`; see :ref:`optimizer_params`.
    lr : float, default=0.01
        Learning rate, the highest one of a schedule.
    lr_schedule : {"warmup_stable_decay"} or None, default="warmup_stable_decay"
        How the learning rate changes: "warmup_stable_decay" raises it, holds it until
        the validation figure no longer improves, and lets it fall to 0 from the best
        epoch on. None for a constant rate; see :ref:`lr_schedule_steps`.
    weight_decay : float or "auto", default="auto"
        Weight decay of the optimiser, which acts on the mean loss of the rows. "auto"
        is 4 divided by the number of training rows, at most 0.0005, and more for
        embeddings, and lets those of frequent values start further apart, so that it
        hides no combination of columns; see :ref:`optimizer_params`.
    batch_size : int, default=1024
        Largest number of rows per batch; the rows are spread evenly over the batches.
    stratified_batches : bool, default=False
        Whether every batch has a row at the end of the funnel, a converted one; see
        :ref:`stratified_batches`.
    max_epochs : int, default=50
        Largest number of epochs. Without early stopping, take the `best_epoch_` of a
        fit with it, since many epochs overfit; see :ref:`why_no_leak`.
    early_stopping : "auto", bool, str or callable, default="auto"
        Whether to hold rows out, the last ones of a `time_column`, and stop when a
        figure of them no longer improves: the loss (True, "loss"), "auc", "log_loss",
        "grouped_auc", one of a task such as "auc_click", or a scorer. "auto" is True
        above 1,000 rows, or with an `eval_set`; see :ref:`early_stopping`.
    validation_fraction : float, default=0.1
        Share of the rows held out for early stopping; not used if `fit` receives an
        `eval_set`.
    n_iter_no_change : int, default=3
        Number of epochs without improvement after which training stops or, with a
        schedule, after which the learning rate decays at the latest; see
        :ref:`early_stopping`.
    refit : bool, default=False
        Whether `fit` trains a second time, on all rows, for the length of training that
        early stopping found on some; see :ref:`refit`. It needs rows that `fit` has
        held out itself, and takes about as long as the first training.
    device : str, default="auto"
        "auto" uses CUDA or another accelerator of torch if it is present; otherwise a
        device of torch, such as "cpu" or "cuda:1".
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the forward pass; "bfloat16" uses autocast.
    compile : bool or {"default", "reduce-overhead", "max-autotune", "graph"}, \
            default=False
        Whether training runs the network through :func:`torch.compile`, and in which
        mode. With "graph", each step is a CUDA graph instead, with the same results;
        see :ref:`graphs`.
    callbacks : list, default=None
        Callbacks of skorch; see :ref:`hooks`. Those of scikit-learn are set by
        ``set_callbacks``; see :ref:`sklearn_callbacks`.
    checkpoint_dir : str or path-like, default=None
        A folder for checkpoints of one fit, which `fit` writes after every epoch. After
        a crash, `fit` of a new estimator with the same parameters and `warm_start=True`
        resumes from them; see :ref:`checkpoints`.
    warm_start : bool, default=False
        Whether `fit` continues from the earlier fit or, without one, from the
        checkpoint in `checkpoint_dir`; see :ref:`warm_start`.
    verbose : int, default=0
        1 prints one line per epoch, and at the end where and why training ended. 2 adds
        a progress bar in a terminal or a notebook; see :ref:`epoch_figures`.
    random_state : int, RandomState instance or None, default=None
        Seed of all random numbers. torch's global generators are left unchanged.
    task_names : list of str, default=None
        Names of the tasks, in the order of the columns of `Y`; by default the columns
        of a DataFrame `Y`, or "click" and "conversion" for two tasks. The names "mean"
        and "cvr" are taken if there are several tasks.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; `net_.module_` is the network.
    history_ : skorch.history.History
        One entry per epoch with its losses and seconds and, with validation rows, their
        log loss and AUC per task; see :ref:`epoch_figures`.
    n_iter_ : int
        Number of epochs trained, including those before a warm start, and those of both
        stages with `refit=True`.
    best_epoch_ : int
        The epoch in `history_` whose weights the network has: with early stopping the
        best one of the last call of `fit`, otherwise, and with `refit=True`, the last.
    stop_reason_ : str or None
        Where and why the last `fit` ended, and which epoch the weights are from; with
        `refit=True`, of both stages. None after `partial_fit`.
    pwiser_weight_ : float or None
        The weight of the pairwise term; None if the loss has none.
    pwiser_weight_reason_ : str
        Why it has this value, with the figures of held-out rows if they decided.
    classes_ : ndarray of shape (n_tasks, 2) or (2,)
        The labels of each task; 1-D for a single task.
    task_names_ : list of str
        Names of the tasks.
    task_parents_ : dict of str to (str or None)
        The task that each task presupposes, None for none.
    n_tasks_ : int
        Number of tasks.
    value_names_ : list of str
        Names of the columns of amounts; empty without `value_tasks`.
    value_parents_ : dict of str to (str or None)
        The task under which the amounts of each value arise, None if there is none.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` has column names that are all strings.
    combinations_ : list of tuple of (str or int)
        The combinations of columns that are read beside these, see
        :ref:`combinations`.
    column_encodings_ : dict of (str or int) to Bunch
        How each column was read: `kind`, `encoding` in words, `["values"]`, `rates` and
        `bins`; see :ref:`column_encodings`.

    References
    ----------
    Durmus, Saribas, Aldemir, Yang and Cevikalp (2024). :arxiv:`2406.02163`

    Gorishniy, Rubachev and Babenko (2022). "On Embeddings for Numerical Features in
    Tabular Deep Learning." NeurIPS. :arxiv:`2203.05556`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=5, random_state=0)
    >>> model.fit(data.data, data.target).predict_proba(data.data).shape
    (2000, 2)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PARAMETER_CONSTRAINTS,
        "numeric_encoding": [StrOptions(set(NUMERIC_ENCODINGS))],
    }

    # Fitted attributes, which `_set_result` assigns, beside those of predictions.
    net_: MultiTaskNet
    history_: Any
    n_iter_: int
    best_epoch_: int
    stop_reason_: str | None
    pwiser_weight_: float | None
    pwiser_weight_reason_: str
    n_features_in_: int
    feature_names_in_: np.ndarray

    @explain_names
    def __init__(
        self,
        *,
        network: str | type[MultiTaskNetwork] = "shared_bottom",
        network_params: dict[str, Any] | None = None,
        loss: str | type[MultiTaskLoss] = "pwiser",
        loss_params: dict[str, Any] | None = None,
        pwiser_weight: float | str | None = "auto",
        weighting: str | type[TaskWeighting] | torch.nn.Module = "equal",
        weighting_params: dict[str, Any] | None = None,
        categorical_features: npt.ArrayLike | None = "from_dtype",
        numeric_encoding: str = "bins_and_scores",
        target_encoding: bool | npt.ArrayLike = "auto",
        embedding_dim: int | str = 16,
        encoding_params: dict[str, Any] | None = None,
        exposure_features: npt.ArrayLike | dict[Any, Any] | None = None,
        missing_labels: str = "error",
        task_parents: str | dict[Any, Any] | None = "chain",
        value_tasks: dict[Any, Any] | None = None,
        value_loss: str = "gamma",
        negative_sampling_rate: float = 1.0,
        optimizer: str | type[torch.optim.Optimizer] = "adam",
        optimizer_params: dict[str, Any] | None = None,
        lr: float = 0.01,
        lr_schedule: str | None = "warmup_stable_decay",
        weight_decay: float | str = "auto",
        batch_size: int = 1024,
        stratified_batches: bool = False,
        max_epochs: int = 50,
        early_stopping: bool | str | Callable[..., Any] = "auto",
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 3,
        refit: bool = False,
        device: str | torch.device = "auto",
        precision: str = "float32",
        compile: bool | str = False,
        callbacks: Sequence[Any] | None = None,
        checkpoint_dir: str | PathLike[str] | None = None,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        task_names: Sequence[str] | None = None,
    ) -> None:
        self.network = network
        self.network_params = network_params
        self.loss = loss
        self.loss_params = loss_params
        self.pwiser_weight = pwiser_weight
        self.weighting = weighting
        self.weighting_params = weighting_params
        self.categorical_features = categorical_features
        self.numeric_encoding = numeric_encoding
        self.target_encoding = target_encoding
        self.embedding_dim = embedding_dim
        self.encoding_params = encoding_params
        self.exposure_features = exposure_features
        self.missing_labels = missing_labels
        self.task_parents = task_parents
        self.value_tasks = value_tasks
        self.value_loss = value_loss
        self.negative_sampling_rate = negative_sampling_rate
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.stratified_batches = stratified_batches
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.refit = refit
        self.device = device
        self.precision = precision
        self.compile = compile
        self.callbacks = callbacks
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.task_names = task_names

    @explain_names
    @checks_parameters(also_nested=False)
    def fit(
        self,
        X: Any,
        Y: Any = None,
        sample_weight: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
        eval_set: Any = None,
        X_val: Any = None,
        Y_val: Any = None,
        sample_weight_val: npt.ArrayLike | None = None,
        groups_val: npt.ArrayLike | None = None,
    ) -> Self:
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
            Labels: 0 or 1, or the words no and yes, or false and true, in any case;
            tasks in the order of the funnel. With one task, any two labels. Rows are
            matched to those of `X` by position; pandas objects with the same index
            labels in another order are refused. Labels may be missing if
            `missing_labels="ignore"`. None for a ParquetImpressions, which
            has labels, weights and groups itself.
        sample_weight : array-like of shape (n_samples,) or (n_samples, n_tasks), \
                default=None
            Weights of the rows, or of the rows and tasks, >= 0. Weights above 0 are
            scaled to a mean of 1. Weights below 1e-38 times the largest one count as 0,
            with a warning. A weight of 0 for a task makes the label missing, as NaN
            does with `missing_labels="ignore"`.
        groups : array-like of shape (n_samples,), default=None
            Group of each row, such as a session. Losses that compare rows do so within
            groups, the validation rows of early stopping are whole groups, and so are
            the blocks of the target statistics. Exceptions: groups that come back are
            parted by a `time_column`; blocks part groups whose values are a category
            column, such as user ids, whose rates predictions will read; and a group
            of more than twice `validation_fraction`, such as that of all guests, is
            treated as rows without a group, with a warning. Without groups and times,
            rows of one subject that stand together, such as the years of a person, are
            recognised: validation rows are whole subjects, with a warning.
        eval_set : tuple of (X, Y), ParquetImpressions, list or dict, default=None
            Validation rows, such as a later day, a ParquetImpressions only if `X` is
            one, too. Their figures go into `history_`, and early stopping uses them in
            place of a random part of the rows. They take no part in the encoding, and
            have no weights, and groups only in a ParquetImpressions. With
            `early_stopping="auto"` they turn it on; with False every epoch is trained.
            Of a list of pairs, or a dict of names to pairs, the last is the validation
            set; the figures of the others begin with `valid_0_`, `valid_1_` and so on,
            or with their name.
        X_val : {DataFrame, array-like} of shape (n_val, n_features), default=None
            Validation rows, in place of `eval_set`, as in
            :class:`~sklearn.ensemble.HistGradientBoostingClassifier`; they may be a
            ParquetImpressions, without `Y_val`. A pipeline transforms `X_val` with
            ``Pipeline(..., transform_input=["X_val"])``, see :ref:`later_rows`.
        Y_val : array-like of shape (n_val, n_tasks) or (n_val,), default=None
            Labels of these rows.
        sample_weight_val : array-like of shape (n_val,) or (n_val, n_tasks), \
                default=None
            Weights of these rows.
        groups_val : array-like of shape (n_val,), default=None
            Groups of these rows.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If parameters or data are invalid, if a loss or weight is not finite, or if
            the checkpoint to resume from has other parameters or data. An earlier fit
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
        ConvergenceWarning
            If training diverged with finite weights: the cross-entropy of training rows
            is more than 10 times that of constant probabilities. Without validation
            rows, the weights of the epoch with the lowest training loss are restored,
            or of the one before if that loss was measured before the divergence,
            unless an embedding table is updated by rows.
        UserWarning
            If labels break the funnel, with the order of tasks in which they would not,
            if there is one; if a task has one label only; if labels are missing such
            that probabilities are biased; if early stopping draws validation rows at
            random from rows with columns of
            :class:`~sk_pwiser.history.HistoryFeatures`, or, in a warm start, from rows
            that the earlier fit may have been trained on; if a `time_column` is too
            coarse for `validation_fraction`; if validation rows lack the groups that
            the loss and the training rows have; if a later task is predicted as more
            probable than the one before it in 10 % of a sample of the training rows or
            more, see :ref:`coherent_funnels`.
        """
        last_result = getattr(self, "_result", None) if self.warm_start else None
        training_rows = GivenRows(X, Y, sample_weight, groups)
        validation_rows = GivenRows(X_val, Y_val, sample_weight_val, groups_val)
        if any(value is not None for value in validation_rows):
            eval_set = one_eval_set(eval_set, validation_rows)
        result = self._fit(training_rows, eval_set, last_result)
        self._set_result(result)
        if result.rises is not None:
            task, share = result.rises
            name = self.task_names_[task]
            warn_user(
                f"Task {name!r} is predicted as more probable than "
                f"{self.task_parents_[name]!r} in {share:.0%} of a sample of the rows, "
                "but presupposes it. network_params={'task_space': 'conditional'} "
                "prevents this, {'monotonicity_weight': 1.0} reduces it."
            )
        return self

    @_callbacks.runs_callbacks
    def _fit(
        self, rows: GivenRows, eval_set: Any, last_result: TrainingResult | None
    ) -> TrainingResult:
        """Train, and return the result without setting the fitted attributes.

        A method of its own, since callbacks are torn down after it, which may fail: the
        estimator must then be as it was.
        """
        task = self._task(rows)
        settings = Settings.of(vars(self))
        name = type(self).__name__
        if settings.refit:
            return fit_twice(
                settings,
                rows,
                eval_set,
                earlier_fit=last_result,
                task=task,
                estimator_name=name,
            )
        if settings.warm_start:
            return fit_further(
                settings,
                rows,
                eval_set,
                earlier_fit=last_result,
                task=task,
                estimator_name=name,
            )
        return fit(settings, rows, eval_set, task=task, estimator_name=name)

    def _task(self, rows: GivenRows) -> _callbacks.FitTask | None:
        """Return the training as scikit-learn's callbacks see it, if there are any."""
        if not hasattr(self, "_skl_callbacks"):
            return None
        return _callbacks.FitTask.for_fit(self, rows)

    @explain_names
    @checks_parameters(also_nested=False)
    def partial_fit(
        self,
        X: Any,
        Y: Any,
        classes: npt.ArrayLike | None = None,
        sample_weight: npt.ArrayLike | None = None,
        groups: npt.ArrayLike | None = None,
    ) -> Self:
        """Update the network with one pass over some rows.

        The first call learns the encoding of the columns, and builds the network. Later
        calls keep the encoding, so that a change of `categorical_features` or
        `target_encoding` has no effect, take new category values as unseen, and update
        the network in place, so that no other thread may predict before the call
        returns, and that a shallow copy of the estimator changes as well.
        What the earlier rows could not show has untrained weights, and is learnt from
        the first rows that do: a numeric column that was constant so far, a sparse
        column without entries, the rates of a task that did not differ between the
        values of a column. The mean prediction of each task follows the events of the
        rows, half of the way with 100 events, and the steps of the training do not
        change it, if there is an `lr_schedule`. No rows are held out.

        Few conversions say little about single values, and one pass does not correct
        the steps that they caused. The labels of a task are therefore shrunk towards
        the mean rate among the rows with the event of its parent task. This prior
        counts for 30 events, and fades out as training sees more of them. It needs a
        loss that is a mean over rows, such as "bce" and "pwiser", and there is none
        with ``lr_schedule=None``.

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
            Weights of the rows, or of the rows and tasks, as in `fit`. Later calls
            divide them by the mean weight of the first call, so that weights compare
            over calls; rows without weights weigh as much as a row of the first call.
        groups : array-like of shape (n_samples,), default=None
            Group of each row, as in `fit`.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If parameters or data are invalid, or a loss or weight is not finite. The
            estimator is then as it was before the call.
        KeyboardInterrupt
            If training is interrupted. The estimator is then as it was before the call
            or, if the update was complete, as after it.

        Warns
        -----
        UserWarning
            If columns of numbers are learnt from fewer than 100 values, whose range
            later calls keep; if rows have new category values, without
            `grow_vocabulary`; if the mean weight is more than 10 times, or less than a
            tenth of, that of the first call.
        """
        # scikit-learn's decorator validates the parameters at the first call only.
        self._validate_params()
        last_result = getattr(self, "_result", None)
        undo: Undo = []
        try:
            rows = GivenRows(X, Y, sample_weight, groups)
            self._set_result(self._update(rows, last_result, classes, undo))
        except BaseException:
            # An interrupt after the result was set leaves the complete update.
            if getattr(self, "_result", None) is last_result:
                take_back(undo)
            raise
        return self

    def add_vectors(self, vectors: Mapping[Any, Any]) -> Self:
        """Add vectors of new ids, which predictions read at once, without training.

        The entry `vectors` of `encoding_params` does not change. A
        :class:`~sk_pwiser.export.Scorer` is a copy: create it again.

        Parameters
        ----------
        vectors : dict of column to DataFrame or mapping
            By the name of a column that had vectors in `fit`, a table as in
            `encoding_params`. It may have new ids only; ids that have a vector get
            the new one.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The estimator.

        Raises
        ------
        ValueError, TypeError
            If a column had no vectors in `fit`, or if vectors are not of the same size,
            are not finite, or repeat an id. The estimator stays as it was.

        Examples
        --------
        >>> model.add_vectors({"item_id": new_items})  # doctest: +SKIP
        """
        check_is_fitted(self, "_result")
        if not isinstance(vectors, Mapping):
            raise TypeError(
                "vectors must be a dict of columns and their tables; got "
                f"{type(vectors).__name__}."
            )
        result = self._result
        tables = {name: IdVectors(table) for name, table in vectors.items()}
        schema = add_vectors_to_schema(result.schema, tables)
        result.net.module_.set_vectors(schema.vectors())
        return self._set_result(replace(result, schema=schema))

    @_callbacks.runs_callbacks
    def _update(
        self,
        rows: GivenRows,
        last_result: TrainingResult | None,
        classes: Any,
        undo: Undo,
    ) -> TrainingResult:
        """Train on further rows, and return the result like `_fit`."""
        task = self._task(rows)
        return update(
            Settings.of(vars(self)),
            rows,
            earlier_fit=last_result,
            classes=classes,
            undo=undo,
            task=task,
            estimator_name=type(self).__name__,
        )

    def _set_result(self, result: TrainingResult) -> Self:
        """Set the fitted attributes, all in one assignment.

        Ctrl-C between two assignments would leave those of two fits.
        """
        attributes = dict(vars(self))
        # The only attribute that a fit may lack.
        attributes.pop("feature_names_in_", None)
        self.__dict__ = attributes | self._attributes(result)
        return self

    @staticmethod
    def _attributes(result: TrainingResult) -> dict[str, Any]:
        encoder = result.schema.encoder
        targets = result.schema.targets
        loss = result.net.criterion_.loss
        attributes = {
            "_result": result,
            "net_": result.net,
            "history_": result.net.history,
            "n_iter_": len(result.net.history),
            "best_epoch_": result.best_epoch,
            "stop_reason_": result.stop_reason,
            "pwiser_weight_": weight_of(loss),
            "pwiser_weight_reason_": describe_weight(
                result.settings, result.schema.weight_trial, loss
            ),
            "classes_": targets.classes,
            "task_names_": list(targets.task_names),
            "task_parents_": parents_by_name(targets.parents, targets.task_names),
            "n_tasks_": len(targets.task_names),
            "value_names_": list(targets.learnt_values.names),
            "value_parents_": targets.learnt_values.parents_by_name(targets.task_names),
            "n_features_in_": encoder.n_features_in_,
            "combinations_": [column.name for column in encoder.combinations_],
        }
        if hasattr(encoder, "feature_names_in_"):
            attributes["feature_names_in_"] = encoder.feature_names_in_
        return attributes
