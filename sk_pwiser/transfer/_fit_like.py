"""Fits with the encoder of another estimator, so that weights can be compared."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import clone

from sk_pwiser._fit import EncodedData, Plan, build, check, encode, train
from sk_pwiser._table import ExtendedStatistics, grow_encoder
from sk_pwiser._training import (
    GivenRows,
    MultiTaskNet,
    Settings,
    check_same_model,
    fit_task,
    gather_bags,
    read_table,
    runs_callbacks,
)
from sk_pwiser._utils import accept_any_case_of_y
from sk_pwiser.transfer._compatible import check_fitted, check_type


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
    data = GivenRows(X, Y, sample_weight, groups), eval_set
    return estimator._set_result(_train_like(estimator, source, data, seen))


@runs_callbacks
def _train_like(estimator, source, data, seen):
    start = encode_like(estimator, source, data, seen, extends=False)
    result = train(start.plan, start.data, start.net)
    _fill_untrained(start.net, start.data.rows.train)
    return result


class LikeStart(NamedTuple):
    """A new net, not yet trained, and rows encoded by the schema of another fit."""

    plan: Plan
    data: EncodedData
    net: MultiTaskNet
    origins: list  # see `extend_schema`
    vectors: list


def encode_like(estimator, source, data, seen, extends):
    """Check and encode rows as `fit` does, by the schema of a fitted estimator."""
    estimator._validate_params()
    given, eval_set = data
    earlier = source._result
    # Its checkpoints may be those of the source.
    settings = Settings.of({**vars(estimator), "checkpoint_dir": None})
    # The network is new, and may be of another class.
    check_same_model(settings, replace(earlier.settings, network=settings.network))
    rows = read_table(settings, given, earlier.schema.targets)
    plan = check(settings, rows, eval_set, task=fit_task(estimator, given))
    schema, *origins = extend_schema(earlier.schema, rows, seen, extends)
    encoded = encode(plan, rows, type(estimator).__name__, schema)
    return LikeStart(plan, encoded, build(plan, encoded), *origins)


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


def embedding_tables(network):
    """Map names of parameters to the embedding tables with one row per code."""
    n_rows = sum(network.spec.cardinalities)
    return {
        f"{name}.weight": module.weight
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == n_rows
    }


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
