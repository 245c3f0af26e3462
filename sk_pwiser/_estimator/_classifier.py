"""The estimator: its parameters, `fit` and its predictions."""

from typing import ClassVar

from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context

from sk_pwiser._estimator._parameters import PARAMETER_CONSTRAINTS
from sk_pwiser._estimator._predictions import Predictions
from sk_pwiser._table import takes_lower_case_y
from sk_pwiser._training import Trained, train


class MultiTaskCTRCVRClassifier(Predictions, ClassifierMixin, BaseEstimator):
    """Multi-task network for clicks (CTR) and conversions (CVR).

    One network learns all tasks of a funnel, click first, from impressions: rows of a
    DataFrame or array. Category columns are embedded, numeric columns scaled, missing
    and unseen values handled, so that a raw DataFrame fits.

    Parameters
    ----------
    network : {"shared_bottom", "aitm", "escm2", "esmm", "fdn", "metaheac", "mmoe", \
            "omoe", "ple", "single_task", "stem"} or class, default="shared_bottom"
        The network: a name of :mod:`sk_pwiser.networks`, or a subclass of
        :class:`~sk_pwiser.networks.MultiTaskNetwork`.
    network_params : dict, default=None
        Parameters of the network, which its class tells: most take `tower_units` and
        `dropout`, "shared_bottom" and "single_task" `bottom_units`, those with experts
        `n_experts` and `expert_units`.
    loss : {"pwiser", "bce", "combined_pair", "focal", "jrc"} or class, default="pwiser"
        The loss: binary cross-entropy ("bce"), the same plus the pairwise ranking term
        of PWiseR, another of :mod:`sk_pwiser.losses`, or a subclass of
        :class:`~sk_pwiser.losses.MultiTaskLoss`.
    loss_params : dict, default=None
        Parameters of the loss, such as `surrogate`, `score`, `margins` and `tasks` of
        :class:`~sk_pwiser.losses.PWiseR`.
    pwiser_weight : float, default=0.03
        Weight of the pairwise term, >= 0. Losses without the term ignore it.
    calibrator_weight : float or None, default=None
        Weight of :func:`~sk_pwiser.losses.funnel_calibrator`, which penalises a later
        task's probability above an earlier one's. None takes the network's own, which
        is 0 but for "aitm".
    weighting : {"equal", "cagrad", "dwa", "ema", "fixed", "gradcraft", "gradnorm", \
            "metabalance", "nash", "pcgrad", "torchjd", "uncertainty"}, class or \
            Module, default="equal"
        How the tasks' losses, or their gradients, are combined: a name of
        :mod:`sk_pwiser.weighting`, a subclass of
        :class:`~sk_pwiser.weighting.TaskWeighting`, or an aggregator or scalarizer of
        TorchJD.
    weighting_params : dict, default=None
        Parameters of the weighting, which its class tells, such as `weights` of
        "fixed".
    task_space : {"entire", "conditional"}, default="entire"
        What a task after the first learns from: "entire" takes all impressions, and a
        head gives P(Y_k = 1 | impression); "conditional" takes those where the task
        before it happened, and a head gives P(Y_k = 1 | Y_{k-1} = 1, impression).
        Predictions are over impressions in both, by the product of the heads in the
        latter.
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        The category columns: those of category, string, object or bool dtype in a
        pandas or polars DataFrame ("from_dtype"), a boolean mask, indices or names;
        None for none.
    numeric_encoding : {"standard", "quantile", "piecewise_linear"}, \
            default="standard"
        How numeric columns are put in: "standard" subtracts the mean and divides by the
        standard deviation; "quantile" does so with normal scores, the quantiles of the
        normal distribution at the values' ranks, so that only their order counts;
        "piecewise_linear" spreads a value over at most 16 inputs, one a quantile bin:
        1 for bins below the value, 0 for those above, and between these in its own
        (Gorishniy et al., 2022). Unlike there, values beyond those of `fit` count as
        the nearest, and values that fill a bin alone leave the other bins to the rest.
        In all three a missing value counts as the mean of the others, with an input
        that says so.
    embedding_dim : int, default=16
        Width of a category value's embedding.
    interaction : {"cross", "fm"} or None, default=None
        Products of columns, put into any network's input: "cross" replaces the input x
        by x * (W x + b) + x, one cross layer of DCN-v2 (Wang et al., 2021); "fm"
        appends the second-order term of a factorisation machine (Rendle, 2010), the
        sum over pairs of columns of the elementwise product of their embeddings, where
        numeric inputs are a learnt vector times the input: `embedding_dim` inputs more.
    unseen_rate : float, default=0.05
        Share of category values that training takes for unseen ones, in [0, 1). It
        trains what stands for these, and keeps the network from leaning on single
        values.
    optimizer : {"adagrad", "adam", "adamw", "rmsprop", "sgd"} or class, default="adam"
        The optimiser: a name, or a subclass of :class:`torch.optim.Optimizer`.
    lr : float, default=0.003
        Learning rate.
    weight_decay : float, default=0.0
        Weight decay of the optimiser; biases, and what a weighting learns, are spared.
    batch_size : int, default=512
        Largest number of rows of a batch; the rows are spread evenly over batches.
    stratified_batches : bool, default=False
        Whether every batch is to hold a row at the end of the funnel, a converted
        one. Where these are fewer than batches they come more than once, with weights
        that keep the loss unbiased.
    max_epochs : int, default=50
        Largest number of passes over the rows.
    early_stopping : "auto", bool, "loss" or "auc", default="auto"
        Whether to hold out `validation_fraction` of the rows, stratified by funnel
        depth, and to stop once `n_iter_no_change` epochs brought no better validation
        loss (True, "loss") or mean validation AUC ("auc"). "auto" is True above
        10,000 rows. The weights of the best epoch are restored.
    validation_fraction : float, default=0.1
        Share of the rows to hold out for early stopping.
    n_iter_no_change : int, default=3
        Epochs without improvement before training stops.
    device : str, default="auto"
        "auto" takes CUDA where present; or a device of torch, such as "cpu" or
        "cuda:1".
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the forward pass; "bfloat16" uses autocast.
    compile : bool or {"default", "reduce-overhead", "max-autotune"}, default=False
        Whether training runs the network through :func:`torch.compile`, and in which
        mode: "reduce-overhead" and "max-autotune" take CUDA graphs. Compiling takes up
        to a minute, and on CPUs it gained nothing where it was measured. Weightings of
        gradients are refused with it.
    callbacks : list, default=None
        Callbacks of skorch, handed to the net. Those that watch validation figures
        need `early_stopping=True`, which holds rows out.
    warm_start : bool, default=False
        Whether `fit` goes on from the earlier fit, with its encoding, weights,
        optimiser state and history. The network, `task_space` and `numeric_encoding`
        must be the same; `categorical_features` is not asked again.
    verbose : int, default=0
        1 prints a line an epoch, 2 adds a progress bar over the batches.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the holdout, the order of rows and dropout.
        Global generators are left as found.
    task_names : list of str, default=None
        Names of the tasks, one a column of `Y`; by default the columns of a DataFrame
        `Y`, or "click" and "conversion" for two tasks.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; `net_.module_` is the network.
    history_ : skorch.history.History
        One entry an epoch: `epoch`, `train_loss`, `dur` (seconds),
        `train_weight_<task>` and, with early stopping, `valid_loss`,
        `valid_auc_<task>` and `valid_auc_mean`; PWiseR adds
        `train_batches_without_pairs`.
    n_iter_ : int
        Number of epochs trained, earlier ones of a warm start included.
    classes_ : ndarray of shape (n_tasks, 2) or (2,)
        The labels of each task; 1-D for a single task.
    task_names_ : list of str
        Names of the tasks.
    n_tasks_ : int
        Number of tasks.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` had names that are all strings.

    References
    ----------
    Durmus, Saribas, Aldemir, Yang and Cevikalp (2024). :arxiv:`2406.02163`

    Gorishniy, Rubachev and Babenko (2022). "On Embeddings for Numerical Features in
    Tabular Deep Learning." NeurIPS. :arxiv:`2203.05556`

    Wang, Shivanna, Cheng, Jain, Lin, Hong and Chi (2021). "DCN V2: Improved Deep &
    Cross Network." WWW. :arxiv:`2008.13535`

    Rendle (2010). "Factorization Machines." ICDM.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> data = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=5, random_state=0)
    >>> model.fit(data.data, data.target).predict_proba(data.data).shape
    (2000, 2)
    """

    _parameter_constraints: ClassVar[dict] = PARAMETER_CONSTRAINTS

    def __init__(
        self,
        *,
        network="shared_bottom",
        network_params=None,
        loss="pwiser",
        loss_params=None,
        pwiser_weight=0.03,
        calibrator_weight=None,
        weighting="equal",
        weighting_params=None,
        task_space="entire",
        categorical_features="from_dtype",
        numeric_encoding="standard",
        embedding_dim=16,
        interaction=None,
        unseen_rate=0.05,
        optimizer="adam",
        lr=3e-3,
        weight_decay=0.0,
        batch_size=512,
        stratified_batches=False,
        max_epochs=50,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=3,
        device="auto",
        precision="float32",
        compile=False,
        callbacks=None,
        warm_start=False,
        verbose=0,
        random_state=None,
        task_names=None,
    ):
        self.network = network
        self.network_params = network_params
        self.loss = loss
        self.loss_params = loss_params
        self.pwiser_weight = pwiser_weight
        self.calibrator_weight = calibrator_weight
        self.weighting = weighting
        self.weighting_params = weighting_params
        self.task_space = task_space
        self.categorical_features = categorical_features
        self.numeric_encoding = numeric_encoding
        self.embedding_dim = embedding_dim
        self.interaction = interaction
        self.unseen_rate = unseen_rate
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.stratified_batches = stratified_batches
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.device = device
        self.precision = precision
        self.compile = compile
        self.callbacks = callbacks
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.task_names = task_names

    @takes_lower_case_y
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, Y, sample_weight=None, groups=None):
        """Train the network.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions. Missing values are allowed, infinite ones are not.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels: 0 or 1, tasks in the order of the funnel. With one task, any two
            labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0; their scale does not matter.
        groups : array-like of shape (n_samples,), default=None
            Group of each row, such as a session, for losses that compare rows within
            groups; others do without.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If parameters or data are invalid. An earlier fit stays usable.
        """
        previous = getattr(self, "_trained", None) if self.warm_start else None
        return self._keep(train(self, X, Y, sample_weight, groups, previous=previous))

    @takes_lower_case_y
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, Y, classes=None, sample_weight=None, groups=None):
        """Go through some rows once, on from what was learnt before.

        The first call learns the encoding of columns; later calls keep it, and take
        new category values as unseen. No rows are held out.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_samples, n_features)
            Impressions.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels: 0 or 1.
        classes : array-like of shape (2,), default=None
            The two labels of a single task, where the rows of the first call may
            hold one alone. Several tasks have the labels 0 and 1.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, >= 0.
        groups : array-like of shape (n_samples,), default=None
            Group of each row, as in `fit`.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The fitted estimator.

        Raises
        ------
        ValueError, TypeError
            If parameters or data are invalid. What was learnt before stays usable.
        """
        # scikit-learn's own check is made at the first call alone.
        self._validate_params()
        previous = getattr(self, "_trained", None)
        if previous is not None and previous.targets.classes.ndim == 1:
            classes = previous.targets.classes
        trained = train(
            self,
            X,
            Y,
            sample_weight,
            groups,
            previous=previous,
            classes=classes,
            once=True,
        )
        return self._keep(trained)

    def _keep(self, trained: Trained):
        """Take over what training left; nothing was set before it succeeded."""
        self._trained = trained
        self.net_ = trained.net
        self.history_ = trained.net.history
        self.n_iter_ = len(self.history_)
        self.classes_ = trained.targets.classes
        self.task_names_ = list(trained.targets.task_names)
        self.n_tasks_ = len(self.task_names_)
        self.n_features_in_ = trained.encoder.n_features_in_
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(trained.encoder, "feature_names_in_"):
            self.feature_names_in_ = trained.encoder.feature_names_in_
        return self

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.multi_output = True
        tags.input_tags.allow_nan = True
        return tags
