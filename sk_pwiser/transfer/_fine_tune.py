"""Training that takes the encoder of a fitted estimator, or its weights as well.

A penalty of `REGULARIZERS` may keep a network near the one that its training started
from.
"""

import math
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import clone
from torch.nn import functional as F

from sk_pwiser._columns._encoder import (
    grow_encoder,
    learn_constant_columns,
    unchanged_origins,
)
from sk_pwiser._columns._target_statistics import ExtendedStatistics
from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._fit import (
    SharedColumns,
    build,
    check,
    encode,
    refuse_refit,
    take_time_column,
    train,
)
from sk_pwiser._rows._checked_rows import GivenRows
from sk_pwiser._rows._table_rows import read_table
from sk_pwiser._settings import ENCODING_PARAMS, Settings, describe
from sk_pwiser._training._callbacks import FitTask, runs_callbacks
from sk_pwiser._training._continue import check_same_model
from sk_pwiser._utils._checks import accept_any_case_of_y, check_choice, check_number
from sk_pwiser._utils._equality import equal
from sk_pwiser.transfer._compatible import (
    check_fitted,
    check_type,
    embedding_tables,
    fill_untrained,
    find_present,
    load_weights,
    tables_without_decay,
)

# The penalties and their default weights.
REGULARIZERS = {"l2_sp": 0.01, "tred": 0.5}

# The separation of features in "tred": weights of its terms, and its optimisation.
DISCREPANCY_WEIGHT = 0.05
GATE_PENALTY = 0.024
HEAD_PENALTY = 0.03
N_STEPS = 200
STEP_SIZE = 0.05
N_ROWS = 128  # of a step and label
# Parameters that change the meaning or the shapes of the source's weights; of
# `encoding_params`, all but those of training.
SOURCE_PARAMS = (
    "network",
    "network_params",
    "embedding_dim",
    "target_encoding",
    "categorical_features",
)
TRAINING_ENTRIES = {
    "category_dropout",
    "forget_after",
    "grow_vocabulary",
    "time_column",
    "target_encoding_blocks",
    "vectors",  # the source has them
}
# Rows from which the scales of the features are computed.
N_SCALED_ROWS = 10_000


def l2_sp_penalty(parameters, start, masks):
    """Compute half the squared distance of parameters from their start.

    `masks` has factors of the rows of embedding tables.
    """
    total = torch.zeros((), device=next(iter(start.values())).device)
    for name, parameter in parameters.items():
        difference = parameter - start[name]
        if name in masks:
            difference = difference * masks[name]
        total = total + difference.square().sum()
    return total / 2


def distance_penalty(features, reference):
    """Compute the mean squared distance of features, both `(batch, width)`.

    It is a mean over rows and features: networks differ in width by a factor of 12.
    """
    return (features - reference).square().mean()


def squared_discrepancy(x, y, n_kernels=5):
    """Compute the squared maximum mean discrepancy of two samples, (n_rows, width).

    The kernel is the mean of Gaussian kernels, whose widths differ by factors of 2.
    """
    points = torch.cat([x, y])
    # Not torch.cdist, whose gradient is not finite for equal points after a root.
    squares = points.square().sum(dim=1)
    distances = squares.unsqueeze(0) + squares.unsqueeze(1) - 2 * points @ points.T
    distances = distances.clamp(min=0)
    n = len(points)
    n_x = len(x)
    mean = distances.detach().sum() / (n * (n - 1))
    scale = mean.clamp(min=torch.finfo(points.dtype).tiny)
    widths = [scale * 2.0 ** (i - n_kernels // 2) for i in range(n_kernels)]
    # Several widths, since the right one is not known.
    kernel = torch.stack([torch.exp(-distances / w) for w in widths]).mean(dim=0)
    within = kernel[:n_x, :n_x].mean() + kernel[n_x:, n_x:].mean()
    return within - 2 * kernel[:n_x, n_x:].mean()


def separate(read, y, sample_weight, seed):
    """Find which features matter for the labels: gates in (0, 1), near 1 if they do.

    `read` returns the features of some rows, `(n_chosen, width)`, for their numbers.

    Linear models of the gated features predict the labels. The cross-entropy of each
    task is divided by the entropy of its base rate, so that the penalties have the same
    effect at all rates. Half of the rows of a step have positive labels, weighted by
    the base rate. Tasks whose labels are all equal are left out. If no task remains,
    all gates are 1.
    """
    generator = torch.Generator().manual_seed(seed)
    n_scaled = min(len(y), N_SCALED_ROWS)
    deviation = read(torch.arange(n_scaled) * len(y) // n_scaled).std(dim=0)
    # Constant features carry no information: they are 0.
    scale = torch.where(deviation > 1e-6, 1 / deviation.clamp(min=1e-6), 0.0)
    device = scale.device
    width = len(scale)
    tasks = _balanced_tasks(y.cpu(), sample_weight)
    if not tasks:
        return torch.ones(width, device=device)
    base_logits = [math.log(shares[0] / shares[1]) for _, _, shares in tasks]
    # Over the entropy of a rate of 1/2.
    entropies = [-sum(s * math.log2(s) for s in shares) for _, _, shares in tasks]
    logits = torch.zeros(width, device=device, requires_grad=True)
    heads = torch.zeros(len(tasks), width, device=device, requires_grad=True)
    biases = torch.tensor(base_logits, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([logits, heads, biases], lr=STEP_SIZE)
    for _step in range(N_STEPS):
        gates = torch.sigmoid(logits)
        rows = [torch.randint(len(y), (N_ROWS,), generator=generator)]
        for rows_by_label, sums, _ in tasks:
            for chosen, cumulated in zip(rows_by_label, sums, strict=True):
                # Inverse transform sampling, in proportion to the weights, since
                # torch.multinomial takes at most 2**24 rows.
                u = torch.rand(N_ROWS // 2, generator=generator, dtype=torch.float64)
                places = torch.searchsorted(cumulated, u * cumulated[-1], right=True)
                rows.append(chosen[places.clamp(max=len(chosen) - 1)])
        x, *by_label = (scale * read(torch.cat(rows))).split([len(r) for r in rows])
        # The two parts should differ as much as possible.
        relevant = gates * x
        irrelevant = (1 - gates) * x
        loss = -DISCREPANCY_WEIGHT * squared_discrepancy(relevant, irrelevant)
        loss = loss + GATE_PENALTY * gates.square().mean()
        loss = loss + HEAD_PENALTY * heads.square().sum()
        for k, (_, _, shares) in enumerate(tasks):
            pair = by_label[2 * k : 2 * k + 2]
            for share, sign, x in zip(shares, (-1, 1), pair, strict=True):
                z = x @ (gates * heads[k]) + biases[k]
                # log(1 + exp(-z)) for label 1, weighted by its share.
                loss = loss + share * F.softplus(sign * z).mean() / entropies[k]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.sigmoid(logits.detach())


def _balanced_tasks(y, sample_weight):
    """Return the tasks that have weighted rows with both labels.

    Three lists for each have an entry per label, 1 first: the rows, their cumulated
    weights, and the shares of the labels in the total weight.
    """
    tasks = []
    weights = torch.ones(len(y), 1) if sample_weight is None else sample_weight.cpu()
    weights = weights.double().view(len(y), -1).expand(len(y), y.shape[1])
    for labels, weight in zip(y.T, weights.T, strict=True):
        is_class = torch.stack([labels > 0, labels == 0]) & (weight > 0)
        rows = [torch.nonzero(mask).squeeze(1) for mask in is_class]
        if all(map(len, rows)):
            sums = [weight[indices].cumsum(0) for indices in rows]
            totals = torch.stack([cumulated[-1] for cumulated in sums])
            tasks.append((rows, sums, (totals / totals.sum()).tolist()))
    return tasks


def features_of(network, inputs):
    """Return the features of a network, without a gradient, `(batch, width)`."""
    with torch.no_grad(), _recording(network) as recorded:
        network(*inputs)
    return _flat(recorded[0], len(inputs[0]))


@contextmanager
def _recording(network):
    """Record the input of the towers in a list; a call fills it if it is empty."""
    towers = getattr(network, network.towers_name, None)
    if towers is None:
        raise ValueError(
            f"network {type(network).__name__} has no module {network.towers_name!r}. "
            "Set its class attribute towers_name to the module that maps features to "
            "logits, whose input the regularizer compares."
        )
    recorded = []

    def record(_module, inputs):
        if not recorded:
            recorded.append(inputs[0])

    # A network may call the towers one by one: the first call counts.
    hooks = [module.register_forward_pre_hook(record) for module in towers.modules()]
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()


def _flat(features, n_rows):
    """Return the features of all towers as one float32 vector per row."""
    features = features.float()
    return features.reshape(-1, n_rows, features.shape[-1]).movedim(0, 1).flatten(1)


@contextmanager
def penalised(net, penalty, rows, included, seed):
    """Add a penalty to the extra losses in training.

    Before the first step, "l2_sp" is 0, and "tred" is the size of the features that do
    not matter.
    """
    network = net.module_
    reads_features = penalty.regularizer == "tred"
    # A copy: the parameters themselves are about to change.
    initial = deepcopy(network).eval()
    gates = 1.0
    start = {name: p.detach() for name, p in initial.named_parameters()}
    included = included.to(net.device).unsqueeze(1)
    masks = dict.fromkeys(embedding_tables(network), included)

    def read(chosen):
        """Return the initial features of some rows: those of all rows may not fit."""
        if rows.rows is not None:
            chosen = rows.rows[chosen.to(rows.rows.device)]
        inputs, _ = rows.batch(chosen.to(rows.device))
        inputs = inputs["codes"].long(), inputs["numeric"]
        return features_of(initial, [tensor.to(net.device) for tensor in inputs])

    if reads_features:
        gates = separate(read, rows.column("y"), rows.column("sample_weight"), seed)

    references = []

    def compare(module, inputs):
        """Compute the features that those of a batch are compared with."""
        if not module.training:
            return
        # Before the network runs, and on copies: both networks may change their inputs.
        copies = [tensor.clone() for tensor in inputs]
        with torch.autocast(inputs[0].device.type, enabled=False):
            references.append(gates * features_of(initial, copies))

    def add(module, inputs, output):
        features = _flat(recorded[0], len(inputs[0])) if reads_features else None
        recorded.clear()
        if not module.training:
            return output
        # Squares of small differences would be lost in half precision.
        with torch.autocast(inputs[0].device.type, enabled=False):
            if reads_features:
                value = distance_penalty(features, references.pop())
            else:
                value = l2_sp_penalty(dict(network.named_parameters()), start, masks)
        extra = {**output.extra_losses, "regularizer": penalty.weight * value}
        return output._replace(extra_losses=extra)

    recorder = _recording(network) if reads_features else nullcontext([])
    with recorder as recorded:
        hooks = [network.register_forward_hook(add)]
        if reads_features:
            hooks.append(network.register_forward_pre_hook(compare))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


@accept_any_case_of_y
def fit_like(
    estimator: MultiTaskCTRCVRClassifier,
    source: MultiTaskCTRCVRClassifier,
    X: Any,
    Y: Any,
    sample_weight: npt.ArrayLike | None = None,
    *,
    groups: npt.ArrayLike | None = None,
    eval_set: Any = None,
    seen: bool = False,
) -> MultiTaskCTRCVRClassifier:
    """Fit a new network on one market, with the encoder of a fit on all markets.

    An encoder that is learnt on one market has its own codes, bins of numbers and
    target statistics, so that weights of two markets' networks have different meanings.
    This function takes the encoder of `source`, with all category values that occurred
    in its fit. Everything else is as in `estimator.fit`: the network starts from random
    weights, and its output biases from the rates of this market.

    Category values without a training row, in columns or in lists, get the embedding of
    unseen values, since their own has not been trained.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier
        The parameters of the fit. It is not changed, and need not be fitted.
        `numeric_encoding`, `task_space` and `interaction` must be the same as in
        `source`; `categorical_features`, `target_encoding` and the entries of
        `encoding_params` about columns and values are ignored.
    source : MultiTaskCTRCVRClassifier
        The fitted estimator whose encoder is used. It is not changed. A fit of one
        epoch is enough to learn an encoder.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions of the market.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, the tasks of `source`.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows, >= 0. With `seen=True`, not supported if there are target
        statistics.
    groups : array-like of shape (n_samples,), default=None
        Group of each row, as in `fit`.
    eval_set : tuple of (X, Y), default=None
        Rows for early stopping, as in `fit`.
    seen : bool, default=False
        Whether `source` was fitted on the rows of `X`, too. The target statistics of a
        training row then leave out its block of rows, so that its own label is not
        among its inputs. With False, the rows are encoded by the statistics of `source`
        as they would be in a prediction, which is right if they are new to it. Target
        statistics cannot leave out rows if the source was fitted with weights that
        differ: fit it without `sample_weight` or without target statistics.

    Returns
    -------
    MultiTaskCTRCVRClassifier
        A new fitted estimator with the parameters of `estimator` and the encoder of
        `source`, which :func:`check_compatible` accepts together.

    Raises
    ------
    ValueError
        If parameters, tasks or columns differ from `source`, or if `seen=True` and
        there are rows that `source` was not fitted on, or it was fitted with
        `sample_weight` and has target statistics.

    Warns
    -----
    UserWarning
        If `seen=False` and the target statistics of `source` suggest that it was fitted
        on the rows of `X`.

    See Also
    --------
    fine_tune : Starts from the weights of the source.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import check_compatible, fit_like
    >>> data = make_ctr_cvr(1_000, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    >>> source = model.fit(X, Y)
    >>> markets = [
    ...     fit_like(model, source, X[rows], Y[rows], seen=True)
    ...     for rows in (X.index < 500, X.index >= 500)
    ... ]
    >>> check_compatible([source, *markets])
    """
    check_type("estimator", estimator)
    check_fitted("source", source)
    estimator = clone(estimator)
    rows = GivenRows(X, Y, sample_weight, groups)
    result = _train(estimator, source, rows, eval_set, seen=seen, extends=False)
    return estimator._set_result(result)


class Penalty(NamedTuple):
    """What keeps a network near its start."""

    regularizer: str | None
    weight: float


@runs_callbacks
def _train(estimator, source, given_rows, eval_set, *, seen, extends, penalty=None):
    """Train a network on rows that are encoded by the schema of a fitted estimator.

    It is a new one or, with a `Penalty`, one that starts from the weights of the
    source.
    """
    estimator._validate_params()
    source_result = source._result
    # Its checkpoints may be those of the source.
    settings = Settings.of({**vars(estimator), "checkpoint_dir": None})
    refuse_refit(settings, "training with the columns of a source")
    settings = take_time_column(settings, given_rows.X, earlier=source_result.settings)
    # The network is new, and may be of another class.
    check_same_model(
        settings, replace(source_result.settings, network=settings.network)
    )
    table = read_table(
        settings, given_rows, source_result.schema.targets, may_lack_class=True
    )
    plan = check(settings, table, eval_set)
    schema, *origins = extend_schema(source_result.schema, table, seen, extends)
    data = encode(plan, table, SharedColumns(settings, schema))
    # Fine-tuned weights were learnt from the rows of the source, too.
    n_earlier = 0 if penalty is None else int(source_result.net.criterion_.n_rows)
    net = build(plan, data, n_earlier_rows=n_earlier)
    rows = data.train
    task = None
    if hasattr(estimator, "_skl_callbacks"):
        task = FitTask.for_fit(estimator, given_rows)
    if penalty is None:
        result = train(plan, data, net, task=task)
        fill_untrained(net, rows)
        return result
    is_included = load_weights(net.module_, source_result.net.module_, *origins)
    # l2_sp leaves free the embeddings of new values and of values that do not occur.
    is_included &= find_present(net.module_, rows)[0]
    net.note_start(rows)
    # Drawn from a copy: training has the random numbers of an ordinary fit.
    seed = deepcopy(plan.random_state).randint(np.iinfo(np.int32).max)
    keeps_near = nullcontext()
    if penalty.weight:
        keeps_near = penalised(net, penalty, rows, is_included, seed)
    with tables_without_decay(net), keeps_near:
        return train(plan, data, net, task=task)


def extend_schema(schema, rows, seen, extends):
    """Return a schema for further rows, with codes for their new values if `extends`.

    The second result is an array per category column with the earlier code of each
    code, -1 for new values. The third is the same for the vectors of list columns.
    """
    encoder = schema.encoder
    statistics = schema.statistics
    origins, vectors = unchanged_origins(encoder)
    if extends:
        encoder, origins, vectors = grow_encoder(encoder, rows.rows.X)
        encoder = learn_constant_columns(encoder, rows.rows.X, rows.summary.row_weights)
    if statistics is not None:
        if seen and not (statistics.counts_rows and rows.summary.scaled is None):
            raise ValueError(
                "sample_weight must be None with seen=True, here and in the fit of the "
                "source, and no label may be missing: weighted rows cannot be "
                "subtracted from target statistics. Fit the source without these "
                "(target_encoding=False), or pass seen=False if the rows are new to it."
            )
        # Rows that the statistics have counted must be subtracted again, block by
        # block.
        kind = "seen" if seen else "new"
        statistics = ExtendedStatistics(statistics, origins, kind, extends, vectors)
    schema = replace(schema, encoder=encoder, statistics=statistics)
    return schema, origins, vectors


@accept_any_case_of_y
def fine_tune(
    source: MultiTaskCTRCVRClassifier,
    X: Any,
    Y: Any,
    sample_weight: npt.ArrayLike | None = None,
    *,
    groups: npt.ArrayLike | None = None,
    eval_set: Any = None,
    regularizer: str | None = None,
    regularizer_weight: float | None = None,
    seen: bool = False,
    extend: bool = True,
    **params: Any,
) -> MultiTaskCTRCVRClassifier:
    r"""Train a copy of a fitted estimator on the impressions of a new market.

    The network starts from the weights of `source`, with a new optimiser. A regulariser
    keeps it near `source`, which helps if the market has few rows; :ref:`transfer` has
    the formulas:

    - "l2_sp" penalises the distance from the source's weights, without embeddings of
      category values that are new or do not occur in `X`;
    - "tred" penalises the distance from those features of the source that matter in the
      new market; the features are the input of the network's towers. It gained nothing
      over plain fine-tuning in any comparison.

    Parameters
    ----------
    source : MultiTaskCTRCVRClassifier
        The fitted estimator. It is not changed.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions of the new market, with the columns of the source.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, the tasks of the source.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows, >= 0. With `seen=True`, not supported if there are target
        statistics.
    groups : array-like of shape (n_samples,), default=None
        Group of each row, as in `fit`.
    eval_set : tuple of (X, Y), default=None
        Rows for early stopping, as in `fit`.
    regularizer : {"l2_sp", "tred"} or None, default=None
        The penalty, if any.
    regularizer_weight : float, default=None
        Weight of the penalty, >= 0; by default 0.01 for "l2_sp", and 0.5 for "tred".
    seen : bool, default=False
        Whether the source was fitted on the rows of `X`, too, as after one fit on all
        markets. The target statistics of a training row then leave out its block of
        rows, so that its own label is not among its inputs. This is not possible if the
        source was fitted with weights that differ: fit it without `sample_weight` or
        without target statistics.
    extend : bool, default=True
        Whether the encoder learns from the rows. Category values without an embedding
        get one if they occur in `min_frequency` rows, with the embedding of unseen
        values as its start, and the target statistics include the rows. False keeps
        the encoder of the source, as :func:`merge_estimators` requires.
    **params : dict
        Parameters of the new estimator, such as `lr`, `max_epochs`, `early_stopping` or
        `random_state`. The others are taken from the source; those of its encoding
        must be the same.

    Returns
    -------
    MultiTaskCTRCVRClassifier
        A new fitted estimator. Its `history_` begins with the first epoch of this
        training. The training loss in it includes the penalty, the validation loss does
        not.

    Raises
    ------
    ValueError
        If a parameter is invalid, if the network or its encoding would differ from the
        source, or if `seen=True` and there are rows that the source was not fitted on,
        or it was fitted with `sample_weight` and has target statistics.

    Warns
    -----
    UserWarning
        If `seen=False` and the target statistics of the source suggest that it was
        fitted on the rows of `X`.

    See Also
    --------
    fit_like : Starts from random weights, with the encoder of the source.

    Notes
    -----
    Departures from the papers: L2-SP treats the output layer separately, since its task
    is new; here the tasks are the same, and all weights are kept near the source.

    The equations of TRED were not available. Here the gates g, which separate relevant
    features :math:`g \circ \varphi_0` from the others, minimise the cross-entropy of a
    linear model per task on the first part, relative to the entropy of the base rate,
    minus 0.05 times the maximum mean discrepancy of the parts, plus penalties. Tasks
    whose labels are all equal in `X` have no influence.

    References
    ----------
    X. Li, Grandvalet and Davoine (2018). "Explicit Inductive Bias for Transfer Learning
    with Convolutional Networks." ICML. :arxiv:`1802.01483`

    Li, Hu, Li, Xiong, Xu and Dou (2024). "Towards accurate knowledge transfer via
    target-awareness representation disentanglement." Machine Learning 113(2), 699-723.
    :arxiv:`2010.08532`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import fine_tune
    >>> data = make_ctr_cvr(1_000, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> source = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0)
    >>> source = source.fit(X[:800], Y[:800])
    >>> model = fine_tune(source, X[800:], Y[800:], regularizer="l2_sp", max_epochs=3)
    >>> model.n_iter_, source.n_iter_
    (3, 2)
    """
    check_fitted("source", source)
    if regularizer == "delta":
        raise ValueError(
            "regularizer='delta' was removed. Use 'l2_sp', which is ahead of it, or "
            "'tred', which compares features, too."
        )
    penalty = _read_penalty(regularizer, regularizer_weight)
    estimator = clone(source).set_params(**params)
    # The penalty hooks into the network's modules, which a compiled network skips.
    if penalty.weight and estimator.compile:
        raise ValueError(
            f"regularizer={regularizer!r} requires compile=False; got compile="
            f"{estimator.compile!r}."
        )
    _check_same_encoding(Settings.of(vars(estimator)), source._result.settings)
    if regularizer == "tred" and source.net_.module_.spec.bags:
        raise ValueError(
            f"regularizer={regularizer!r} does not support sparse X and lists; use "
            "'l2_sp' or None."
        )
    result = _train(
        estimator,
        source,
        GivenRows(X, Y, sample_weight, groups),
        eval_set,
        seen=seen,
        extends=extend,
        penalty=penalty,
    )
    return estimator._set_result(result)


def _read_penalty(regularizer, regularizer_weight):
    """Return the `Penalty` of parameters, checked."""
    check_choice("regularizer", regularizer, (*REGULARIZERS, None))
    weight = REGULARIZERS.get(regularizer, 0.0)
    if regularizer_weight is not None:
        weight = check_number("regularizer_weight", regularizer_weight, at_least=0)
        if regularizer is None:
            raise ValueError(
                f"regularizer_weight={weight!r} has no effect without a regularizer: "
                f"one of {list(REGULARIZERS)}."
            )
    return Penalty(regularizer, weight)


def _check_same_encoding(settings, source_settings):
    """Raise if a parameter would change the encoding or the network of the source."""
    pairs = {
        name: (getattr(settings, name), getattr(source_settings, name))
        for name in SOURCE_PARAMS
    }
    for name in sorted(ENCODING_PARAMS.keys() - TRAINING_ENTRIES):
        pairs[name] = (
            settings.encoding_params[name],
            source_settings.encoding_params[name],
        )
    for name, (value, expected) in pairs.items():
        if not equal(describe(value), describe(expected)):
            raise ValueError(
                f"{name} must be that of the source, {expected!r}; got {value!r}."
            )
