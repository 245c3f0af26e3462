"""Training that takes the encoder of a fitted estimator, or its weights as well."""

from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from sklearn.base import clone

from sk_pwiser._fit import build, check, encode, train
from sk_pwiser._table._encoder import grow_encoder, learn_constant_columns
from sk_pwiser._table._target_statistics import ExtendedStatistics
from sk_pwiser._table._weights_and_groups import row_weights
from sk_pwiser._training import (
    GivenRows,
    Settings,
    check_same_model,
    fit_task,
    gather_bags,
    read_table,
    runs_callbacks,
)
from sk_pwiser._utils import accept_any_case_of_y, check_choice, check_number
from sk_pwiser.transfer._compatible import check_fitted, check_type, embedding_tables
from sk_pwiser.transfer._regularizers import (
    DEFAULT_WEIGHTS,
    OF_FEATURES,
    REGULARIZERS,
    penalised,
)


@accept_any_case_of_y
def fit_like(
    estimator,
    source,
    X,
    Y,
    sample_weight=None,
    *,
    groups=None,
    eval_set=None,
    seen=False,
):
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
    given = GivenRows(X, Y, sample_weight, groups)
    result = _train(estimator, source, given, eval_set, seen=seen, extends=False)
    return estimator._set_result(result)


@runs_callbacks
def _train(estimator, source, given, eval_set, *, seen, extends, near=None):
    """Train a network on rows that are encoded by the schema of a fitted estimator.

    It is a new one or, if `near` has a regulariser and its weight, one that starts from
    the weights of the source.
    """
    estimator._validate_params()
    earlier = source._result
    # Its checkpoints may be those of the source.
    settings = Settings.of({**vars(estimator), "checkpoint_dir": None})
    # The network is new, and may be of another class.
    check_same_model(settings, replace(earlier.settings, network=settings.network))
    table = read_table(settings, given, earlier.schema.targets)
    plan = check(settings, table, eval_set)
    schema, *origins = extend_schema(earlier.schema, table, seen, extends)
    data = encode(plan, table, type(estimator).__name__, schema)
    net, task, rows = build(plan, data), fit_task(estimator, given), data.train
    if near is None:
        result = train(plan, data, net, task=task)
        _fill_untrained(net, rows)
        return result
    regularizer, weight = near
    is_known = load_weights(net.module_, earlier.net.module_, *origins)
    # l2_sp leaves free the embeddings of new values and of values that do not occur.
    is_known &= find_present(net.module_, rows)[0]
    net.note_start(rows.sample)
    # Drawn from a copy: training has the random numbers of an ordinary fit.
    seed = deepcopy(plan.random_state).randint(np.iinfo(np.int32).max)
    keeps_near = nullcontext()
    if weight:
        keeps_near = penalised(net, regularizer, weight, rows, is_known, seed)
    with _tables_without_decay(net), keeps_near:
        return train(plan, data, net, task=task)


def extend_schema(schema, rows, seen, extends):
    """Return a schema for further rows, with codes for their new values if `extends`.

    The second result is an array per category column with the earlier code of each
    code, -1 for new values. The third is the same for the vectors of list columns.
    """
    encoder, statistics = schema.encoder, schema.statistics
    origins = [np.arange(n) for n in encoder.n_codes_]
    vectors = [np.arange(column.n_own) for column in encoder.lists_]
    if extends:
        encoder, origins, vectors = grow_encoder(encoder, rows.rows.X)
        weights = row_weights(rows.summary.scaled)
        encoder = learn_constant_columns(encoder, rows.rows.X, weights)
    if statistics is not None:
        if seen and not statistics.counts_rows:
            raise ValueError(
                "seen=True requires a source that was fitted without sample_weight: "
                "its target statistics are sums of weights, from which the rows of X "
                "cannot be subtracted. Fit it without weights, or without target "
                "statistics (target_encoding=False); with seen=False, the inputs of "
                "rows that it was fitted on reveal their labels."
            )
        if seen and rows.summary.scaled is not None:
            raise ValueError(
                "sample_weight must be None with seen=True, and no label may be "
                "missing: each fit scales its weights, so that weighted rows cannot be "
                "subtracted from the target statistics of the source."
            )
        # Rows that the statistics have counted must be subtracted again, block by
        # block.
        kind = "seen" if seen else "new"
        statistics = ExtendedStatistics(statistics, origins, kind, extends, vectors)
    schema = replace(schema, encoder=encoder, statistics=statistics)
    return schema, origins, vectors


def find_present(network, rows):
    """Return which rows of the tables these rows train, as a mask.

    Those of unseen values are included. The second mask is for the vectors that lists
    and sparse columns do not share with a category column; it is empty without them.
    """
    layer, of_bags = network.input_layer, network.input_layer.bags
    present = torch.zeros(sum(layer.cardinalities), dtype=torch.bool)
    present[layer.unseen.cpu()] = True
    codes = rows.column("codes").cpu().long()
    present[codes + layer.offsets.cpu()] = True
    if of_bags is None:
        return present, torch.zeros(0, dtype=torch.bool)
    in_bags = torch.zeros(of_bags.embeddings[0].num_embeddings, dtype=torch.bool)
    # The training rows may be a selection of the stored rows.
    selected = torch.arange(len(rows.codes)) if rows.rows is None else rows.rows
    bags = gather_bags(rows.bags, selected, of_bags.n_bags)
    _, is_own, own, places = of_bags.locate(bags.to(of_bags.starts.device))
    present[places[~is_own].cpu()] = True
    in_bags[own[is_own].cpu()] = True
    return present, in_bags


def _fill_untrained(net, rows):
    """Give values without a training row the embedding of unseen values."""
    layer, of_bags = net.module_.input_layer, net.module_.input_layer.bags
    present, in_bags = find_present(net.module_, rows)
    sizes = torch.tensor(layer.cardinalities, dtype=torch.int64)
    # For each row of a table, the row for unseen values of the same column.
    unseen = layer.unseen.cpu().repeat_interleave(sizes)
    _copy_rows(embedding_tables(net.module_).values(), unseen, ~present)
    if of_bags is not None:
        # The same for the vectors that lists and sparse columns have for themselves.
        starts = of_bags.own_starts.cpu()
        sizes = torch.cat([starts, torch.tensor([len(in_bags)])]).diff()
        unseen = (starts + layer.unseen_code).repeat_interleave(sizes)
        has_unseen = (of_bags.unseen.cpu() >= 0) & ~of_bags.is_shared.cpu()
        absent = ~in_bags & has_unseen.repeat_interleave(sizes)
        _copy_rows((table.weight for table in of_bags.embeddings), unseen, absent)


def _copy_rows(tables, sources, chosen):
    """Overwrite the chosen rows of tables by other rows of them."""
    places = chosen.nonzero().squeeze(1)
    with torch.no_grad():
        for table in tables:
            table[places.to(table.device)] = table[sources[places].to(table.device)]


@accept_any_case_of_y
def fine_tune(
    source,
    X,
    Y,
    sample_weight=None,
    *,
    groups=None,
    eval_set=None,
    regularizer=None,
    regularizer_weight=None,
    seen=False,
    extend=True,
    **params,
):
    r"""Train a copy of a fitted estimator on the impressions of a new market.

    The network starts from the weights of `source`, with a new optimiser. A regulariser
    keeps it near `source`, which helps if the market has few rows; :ref:`transfer` has
    the formulas:

    - "l2_sp" penalises the distance from the source's weights, without embeddings of
      category values that are new or do not occur in `X`;
    - "delta" penalises the distance from the source's features, which are the input of
      the network's towers;
    - "tred" penalises the distance from those features of the source that matter in the
      new market. It gained nothing over plain fine-tuning in the comparisons of
      :ref:`transfer`.

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
    regularizer : {"l2_sp", "delta", "tred"} or None, default=None
        The penalty, if any.
    regularizer_weight : float, default=None
        Weight of the penalty, >= 0; by default 0.01 for "l2_sp", and 0.5 otherwise.
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
        `random_state`. The others are taken from the source.

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
    is new; here the tasks are the same, and all weights are kept near the source. DELTA
    weights channels by their importance; here all have the same weight.

    The equations of TRED were not available. Here the gates g, which separate relevant
    features :math:`g \circ \varphi_0` from the others, minimise the cross-entropy of a
    linear model per task on the first part, relative to the entropy of the base rate,
    minus 0.05 times the maximum mean discrepancy of the parts, plus penalties. Tasks
    whose labels are all equal in `X` have no influence.

    References
    ----------
    X. Li, Grandvalet and Davoine (2018). "Explicit Inductive Bias for Transfer Learning
    with Convolutional Networks." ICML. :arxiv:`1802.01483`

    X. Li, Xiong, Wang, Rao, Liu and Huan (2019). "DELTA: Deep Learning Transfer using
    Feature Map with Attention for Convolutional Networks." ICLR. :arxiv:`1901.09229`

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
    weight = _check_regularizer(regularizer, regularizer_weight)
    estimator = clone(source).set_params(**params)
    # The penalty hooks into the network's modules, which a compiled network skips.
    if weight and estimator.compile:
        raise ValueError(
            f"regularizer={regularizer!r} requires compile=False; got "
            f"compile={estimator.compile!r}."
        )
    _check_same_network(source, estimator)
    if regularizer in OF_FEATURES and source.net_.module_.spec.bags:
        raise ValueError(
            f"regularizer={regularizer!r} does not support sparse X and lists of "
            "categories; use 'l2_sp' or None."
        )
    given, near = GivenRows(X, Y, sample_weight, groups), (regularizer, weight)
    how = {"seen": seen, "extends": extend, "near": near}
    return estimator._set_result(_train(estimator, source, given, eval_set, **how))


def _check_regularizer(regularizer, weight):
    """Return the weight of the penalty, 0 if there is none."""
    check_choice("regularizer", regularizer, (*REGULARIZERS, None))
    if weight is None:
        return DEFAULT_WEIGHTS[regularizer]
    weight = check_number("regularizer_weight", weight, at_least=0)
    if regularizer is None:
        raise ValueError(
            f"regularizer_weight={weight!r} has no effect without a regularizer; "
            f"choose one of {list(REGULARIZERS)}."
        )
    return weight


def _check_same_network(source, estimator):
    """Raise if the parameters describe another network than the source has."""
    settings = source._result.settings
    for name in ("network", "network_params", "embedding_dim"):
        now, before = getattr(estimator, name), getattr(settings, name)
        if (now or {}) != (before or {}):
            raise ValueError(
                f"{name} must be that of the source, {before!r}; got {now!r}."
            )


def load_weights(network, source, origins, vectors):
    """Copy the weights of a network into one that may have further embeddings.

    `origins` holds the earlier code of each code, -1 for new values, and `vectors` the
    same for the vectors of lists. Returns which rows of the tables existed before.
    """
    before, of_bags = source.input_layer, source.input_layer.bags
    state, unseen = dict(source.state_dict()), source.spec.unseen_code
    none = np.zeros(0, dtype=np.int64)  # of a table without category columns
    # A value that was rare has a code, but no embedding.
    codes = [
        np.where(origin[:n_new] < n_old, origin[:n_new], -1)
        for origin, n_new, n_old in zip(
            origins, network.spec.cardinalities, before.cardinalities, strict=True
        )
    ]
    tables = embedding_tables(source)
    copied = [(tables, codes, before.offsets)]
    if vectors:
        name = "input_layer.bags.embeddings.{}.weight"
        tables = {name.format(t): table for t, table in enumerate(of_bags.tables)}
        copied.append((tables, vectors, of_bags.own_starts))
    for tables, parts, firsts in copied:
        # New values start from the embedding of unseen values.
        places = [
            first + np.where(own >= 0, own, unseen)
            for own, first in zip(parts, firsts.tolist(), strict=True)
        ]
        places = torch.from_numpy(np.concatenate([none, *places]))
        for name, table in tables.items():
            state[name] = table.detach()[places.to(table.device)]
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            "the weights of the source do not fit the network: except for the "
            "embedding tables of the input layer, no shape of a tensor may depend on "
            'the number of category values. With embedding_dim="auto", new values may '
            f"widen embeddings. Pass extend=False to add no values. {error}"
        ) from error
    return torch.from_numpy(np.concatenate([none, *codes]) >= 0)


@contextmanager
def _tables_without_decay(net):
    """Exempt the embedding tables from weight decay for a training run.

    Otherwise, values that do not occur in its rows would lose their embeddings.
    """
    kinds = torch.nn.Embedding | torch.nn.EmbeddingBag
    modules = net.module_.modules()
    tables = {id(module.weight) for module in modules if isinstance(module, kinds)}
    groups = net.optimizer_.param_groups
    before = [list(group["params"]) for group in groups]
    for group in list(groups):
        # A group has one decay, so its tables move to a separate group.
        exempt = [p for p in group["params"] if id(p) in tables]
        if exempt and group.get("weight_decay"):
            group["params"] = [p for p in group["params"] if id(p) not in tables]
            net.optimizer_.add_param_group(
                {**group, "params": exempt, "weight_decay": 0.0}
            )
    yield
    # Continued training expects the usual groups of the optimiser.
    del groups[len(before) :]
    for group, params in zip(groups, before, strict=True):
        group["params"] = params
