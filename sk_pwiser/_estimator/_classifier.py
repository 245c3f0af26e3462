"""The estimator: its parameters."""

from typing import ClassVar

from sklearn.base import BaseEstimator, ClassifierMixin

from sk_pwiser._estimator._access import Access
from sk_pwiser._estimator._copies import Copies
from sk_pwiser._estimator._fitting import Fitting
from sk_pwiser._estimator._html import HTML
from sk_pwiser._estimator._nested_params import NestedParams
from sk_pwiser._estimator._parameters import PARAMETER_CONSTRAINTS
from sk_pwiser._estimator._predictions import Predictions
from sk_pwiser._estimator._saving import Saving


class MultiTaskCTRCVRClassifier(
    NestedParams,
    Fitting,
    Predictions,
    Saving,
    Copies,
    Access,
    HTML,
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
        Keyword arguments of the network class. Most networks take `tower_units` and
        `dropout`; "shared_bottom" and "single_task" take `bottom_units`, those with
        experts `n_experts` and `expert_units`. Every network takes

        - `interaction`, None by default: products of columns in the network's input.
          "cross" replaces the input x by x * (W x + b) + x, one cross layer of DCN-v2
          (Wang et al., 2021); "fm" appends the second-order term of a factorisation
          machine (Rendle, 2010), the sum over pairs of columns of the elementwise
          products of their embeddings;
        - `task_space`, "entire" by default: a task after the first learns from all
          impressions, and its head gives P(Y_k = 1 | impression). With "conditional"
          it learns from those where the task before it happened, and its head gives
          P(Y_k = 1 | Y_{k-1} = 1, impression). Predictions are over impressions in
          both cases, in the latter by the product of the heads;
        - `monotonicity_weight`, 0 by default and 0.6 with "aitm": weight of
          :func:`~sk_pwiser.losses.funnel_monotonicity_penalty`, which penalises a
          later task's probability above an earlier one's.
    loss : {"pwiser", "bce", "combined_pair", "focal", "jrc"} or class, default="pwiser"
        The loss: binary cross-entropy ("bce"), the same plus the pairwise ranking term
        of PWiseR, another of :mod:`sk_pwiser.losses`, or a subclass of
        :class:`~sk_pwiser.losses.MultiTaskLoss`.
    loss_params : dict, default=None
        Keyword arguments of the loss class, such as `surrogate`, `score`, `margins` and
        `tasks` of :class:`~sk_pwiser.losses.PWiseR`.
    pwiser_weight : float, default=0.1
        Weight of the pairwise term, >= 0: how strongly the term pulls the score of a
        converted row, relative to its own cross-entropy, at any conversion rate; see
        :class:`~sk_pwiser.losses.PWiseR`. Losses without the term ignore it.
    weighting : {"equal", "cagrad", "dwa", "ema", "fixed", "gradcraft", "gradnorm", \
            "metabalance", "nash", "pcgrad", "torchjd", "uncertainty"}, class or \
            Module, default="equal"
        How the tasks' losses, or their gradients, are combined: a name of
        :mod:`sk_pwiser.weighting`, a subclass of
        :class:`~sk_pwiser.weighting.TaskWeighting`, or an aggregator or scalarizer of
        TorchJD.
    weighting_params : dict, default=None
        Keyword arguments of the weighting class, such as `weights` of "fixed".
    categorical_features : "from_dtype", array-like or None, default="from_dtype"
        The category columns: those of category, string, object or bool dtype in a
        DataFrame and those with text in an array ("from_dtype"), a boolean mask,
        indices or names; None for no category columns. With "from_dtype", a warning
        names whole numbers that look like codes or ids; see :ref:`vocabularies`.
    numeric_encoding : {"bins_and_scores", "piecewise_linear", "standard", \
            "quantile"}, default="bins_and_scores"
        How numeric columns are encoded: "standard" subtracts the mean and divides by
        the standard deviation; "quantile" does so with normal scores, the quantiles of
        the normal distribution at the values' ranks, so that only their order counts;
        "piecewise_linear" spreads a value over inputs, one per bin: 1 for bins below
        the value, 0 for those above, and the position between 0 and 1 within its own
        bin (Gorishniy et al., 2022). A column has a bin for each frequent value, and 16
        bins with equal shares of the other rows, see `max_bins` of `encoding_params`.
        Unlike in the paper, values outside the range seen in `fit` count as the nearest
        inside. "bins_and_scores" adds the normal score of the position among the bins,
        and halves the inputs of columns with at most 16 bins for more values: steps and
        frequent values remain visible, and smooth effects take one weight. In all four
        a missing value counts as the mean of the known ones, with an input that
        indicates it.
    target_encoding : "auto", bool or array-like of (str or int), default="auto"
        The category columns whose values also give target statistics: for each task
        the share of rows in which it happened, shrunk to the base rate, as log-odds
        minus the base log-odds, and the logarithm of the number of rows; see
        :ref:`target_encoding`. "auto" and True select the columns with at least 100
        distinct values, False none; otherwise names or indices.
    embedding_dim : int or "auto", default=16
        Width of the embedding of a category value. With "auto" it depends on the number
        n of the column's codes: min(16, round(1.6 * n**0.56)), so that columns with
        fewer than 60 values have narrower embeddings.
    encoding_params : dict, default=None
        Further settings of the encoding. `min_frequency`, `max_categories` and
        `n_hash_buckets` are a number for all category columns, or a dict of names or
        indices of columns to numbers; see :ref:`vocabularies`.

        - `category_dropout`, 0.05 by default: share in [0, 1) of category values that
          training replaces by the code of unseen values. It trains that code, and
          regularises the network;
        - `grow_vocabulary`, False by default: whether `partial_fit` gives new values
          codes of their own, if they occur in `min_frequency` of its rows. Their
          embeddings start as that of unseen values. Columns with `max_categories` or
          `n_hash_buckets` do not grow. Without it, new values are counted in a warning
          and encoded as unseen;
        - `list_pooling`, "mean" by default: how the vectors of the elements of a list
          are pooled, by their "mean" or "sum"; see :ref:`inputs`;
        - `list_weights`, None by default: a dict of names of list columns to names of
          columns with one weight >= 0 per element, for a weighted mean or sum;
        - `max_bins`, 64 by default: largest number of bins of a numeric column. Up to
          `max_bins` + 1 distinct values are all edges of bins. With 16 or fewer, all
          bins have equal shares, but for values that fill one alone. More than 16
          require 32 rows per bin;
        - `max_categories`, None by default: largest number of codes of a column's
          values, as in scikit-learn's OneHotEncoder. The most frequent values have
          codes of their own, the others share the code of unseen values, which counts
          as one of them. Target statistics distinguish them all the same;
        - `min_frequency`, 2 by default: values seen in fewer rows share the code of
          unseen values. Target statistics distinguish them all the same;
        - `n_hash_buckets`, None by default: number of codes over which values are
          distributed by a hash, unseen values included. It replaces the vocabulary: no
          value has a code of its own, whatever `min_frequency`, unless
          `max_categories` is given for the column, too; then only the rest is hashed.
          The hash is the same in every process and for every kind of column. Missing
          values keep their code, and target statistics are those of the buckets;
        - `target_encoding_blocks`, 10 by default: number of blocks of consecutive rows.
          The target statistics of a training row leave out its own block;
        - `target_encoding_min_values`, 100 by default: smallest number of distinct
          values of columns that `target_encoding="auto"` selects;
        - `time_column`, None by default: a numeric column that orders the rows for the
          blocks, if they are not in the order of time. It stays a feature.
    missing_labels : {"error", "ignore"}, default="error"
        Whether labels of tasks after the first may be missing (NaN, None, pandas.NA or
        null in `Y`), such as a conversion that may still come. With "ignore", they take
        no part in the loss, the pairs, the AUC and the rates of their task, and the row
        keeps its other labels; see :ref:`missing_labels`. The loss must take weights
        per row and task, as those of the package do.
    negative_sampling_rate : float, default=1.0
        Share of the rows without a click (the first task) that the log has kept, in
        (0, 1], drawn at random. Training uses the rows of the sampled log, without
        weights, and the probabilities of all tasks are corrected to the full log; see
        :ref:`downsampling`.
    optimizer : {"adagrad", "adam", "adamw", "rmsprop", "sgd"} or class, default="adam"
        The optimiser: a name, or a subclass of :class:`torch.optim.Optimizer` that
        takes one dense gradient per step, of parameters of any shape. LBFGS, Muon and
        SparseAdam do not.
    optimizer_params : dict, default=None
        Keyword arguments of the optimiser, such as `betas` or `momentum`, and

        - `average_decay`, 0.99 by default: decay in [0, 1) of an exponential moving
          average of the weights over the steps of `fit`. Validation figures and
          predictions are those of the averaged network. 0 or None for no average;
        - `clip_grad_norm`, None by default: largest norm of the gradient of all
          parameters; longer ones are scaled down;
        - `embedding_lr`, None by default: learning rate of the embeddings; None for
          `lr`;
        - `embedding_weight_decay`, None by default: weight decay of the embeddings;
          None for five times `weight_decay`;
        - `lazy_embeddings`, "auto" by default: whether a step of "adam" updates only
          the embeddings of values in the batch, and only their moments, so that its
          cost does not depend on the number of values. "auto" does so for tables of
          2**20 weights or more, if the other parameters support it.
    lr : float, default=0.003
        Learning rate.
    weight_decay : float, default=0.0001
        Weight decay of the optimiser; embeddings have five times as much, biases and
        the parameters of a weighting none. Optimisers without weight decay ignore the
        default.
    batch_size : int, default=512
        Largest number of rows per batch; the rows are spread evenly over the batches.
    stratified_batches : bool, default=False
        Whether every batch has a row at the end of the funnel, a converted one. If
        there are fewer converted rows than batches, they are drawn several times, with
        weights that sum to one draw. The expected loss is that of shuffled batches,
        also with the pairwise term of "pwiser", in which a converted row counts with
        its weight. The pair terms of "combined_pair" and "jrc" are means over the pairs
        of a batch, for which this does not hold.
    max_epochs : int, default=50
        Largest number of epochs.
    early_stopping : "auto", bool, "loss" or "auc", default="auto"
        Whether to hold out `validation_fraction` of the rows, stratified by funnel
        depth, and to stop if the validation loss (True, "loss") or the mean validation
        AUC ("auc") has not improved for `n_iter_no_change` epochs. "auto" is True above
        1,000 rows, or with an `eval_set`. The weights of the best epoch are restored.
    validation_fraction : float, default=0.1
        Share of the rows held out for early stopping; not used if `fit` receives an
        `eval_set`.
    n_iter_no_change : int, default=3
        Number of epochs without improvement after which training stops.
    device : str, default="auto"
        "auto" uses CUDA if it is present; otherwise a device of torch, such as "cpu" or
        "cuda:1".
    precision : {"float32", "bfloat16"}, default="float32"
        Precision of the forward pass; "bfloat16" uses autocast.
    compile : bool or {"default", "reduce-overhead", "max-autotune"}, default=False
        Whether training runs the network through :func:`torch.compile`, and in which
        mode: "reduce-overhead" and "max-autotune" use CUDA graphs. Compiling takes up
        to a minute, and did not speed up training on CPUs. It does not support
        weightings of gradients.
    callbacks : list, default=None
        Callbacks of skorch, see :ref:`hooks`. Those that read validation figures
        require early stopping. The history has no figures per batch; `EpochScoring`
        requires its default `use_caching=True`. A callback ends training after the
        epoch by setting `net.stop_training_ = True`; a `KeyboardInterrupt` propagates,
        but for that of skorch's own `EarlyStopping`.
        :class:`~sk_pwiser.callbacks.KeepOnInterrupt` keeps the epochs trained before
        Ctrl-C.
    checkpoint_dir : str or path-like, default=None
        A folder for checkpoints, of one fit at a time: `fit` writes the state of
        training to it after every epoch, and keeps the last two files. After a crash,
        `fit` of a new estimator with the same parameters and `warm_start=True` resumes
        from them; see :ref:`checkpoints`. `partial_fit` writes none. Needs the extra
        `files`.
    warm_start : bool, default=False
        Whether `fit` continues from the earlier fit, with its encoding, weights,
        optimiser state and history; see :ref:`warm_start`. The network, `task_space`,
        `numeric_encoding`, `negative_sampling_rate` and the columns of
        `target_encoding` must be the same; `categorical_features`, `min_frequency`,
        `max_categories` and `n_hash_buckets` are ignored. Without an earlier fit, `fit`
        resumes from `checkpoint_dir`, if it has a checkpoint.
    verbose : int, default=0
        1 prints one line per epoch: the losses, the validation AUC of the tasks in the
        order of the funnel, and their mean. 2 adds, in a terminal or a notebook, a
        progress bar over the batches.
    random_state : int, RandomState instance or None, default=None
        Seed of all random numbers. torch's global generators are left unchanged.
    task_names : list of str, default=None
        Names of the tasks, one per column of `Y`; by default the columns of a DataFrame
        `Y`, or "click" and "conversion" for two tasks. "mean" names a column of
        `history_`, and no task.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; `net_.module_` is the network.
    history_ : skorch.history.History
        One entry per epoch: `epoch`, `train_loss`, `dur` (seconds),
        `train_weight_<task>` and, with validation rows, `valid_loss`,
        `valid_auc_<task>` and `valid_auc_mean`; PWiseR adds
        `train_batches_without_pairs`, and missing labels `train_missing_<task>`, the
        number of rows without that label.
    n_iter_ : int
        Number of epochs trained, including those before a warm start.
    best_epoch_ : int
        The epoch in `history_` whose weights the network has: the best one with early
        stopping, otherwise the last.
    classes_ : ndarray of shape (n_tasks, 2) or (2,)
        The labels of each task; 1-D for a single task.
    task_names_ : list of str
        Names of the tasks.
    n_tasks_ : int
        Number of tasks.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` has column names that are all strings.

    References
    ----------
    Durmus, Saribas, Aldemir, Yang and Cevikalp (2024). :arxiv:`2406.02163`

    Gorishniy, Rubachev and Babenko (2022). "On Embeddings for Numerical Features in
    Tabular Deep Learning." NeurIPS. :arxiv:`2203.05556`

    Wang et al. (2021). "DCN V2." WWW. :arxiv:`2008.13535`

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
        pwiser_weight=0.1,
        weighting="equal",
        weighting_params=None,
        categorical_features="from_dtype",
        numeric_encoding="bins_and_scores",
        target_encoding="auto",
        embedding_dim=16,
        encoding_params=None,
        missing_labels="error",
        negative_sampling_rate=1.0,
        optimizer="adam",
        optimizer_params=None,
        lr=3e-3,
        weight_decay=1e-4,
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
        checkpoint_dir=None,
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
        self.weighting = weighting
        self.weighting_params = weighting_params
        self.categorical_features = categorical_features
        self.numeric_encoding = numeric_encoding
        self.target_encoding = target_encoding
        self.embedding_dim = embedding_dim
        self.encoding_params = encoding_params
        self.missing_labels = missing_labels
        self.negative_sampling_rate = negative_sampling_rate
        self.optimizer = optimizer
        self.optimizer_params = optimizer_params
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
        self.checkpoint_dir = checkpoint_dir
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.task_names = task_names

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.classifier_tags.multi_class = False
        tags.target_tags.multi_output = True
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        return tags
