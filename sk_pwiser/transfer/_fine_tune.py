"""Fine-tuning: training that starts from the weights of a fitted estimator."""

from contextlib import contextmanager, nullcontext
from copy import deepcopy

import numpy as np
import torch
from sklearn.base import clone

from sk_pwiser._fit import train
from sk_pwiser._training import GivenRows, runs_callbacks
from sk_pwiser._utils import accept_any_case_of_y, check_choice, check_number
from sk_pwiser.transfer._compatible import check_fitted
from sk_pwiser.transfer._fit_like import (
    embedding_tables,
    encode_like,
    find_present,
)
from sk_pwiser.transfer._regularizers import (
    DEFAULT_WEIGHTS,
    OF_FEATURES,
    REGULARIZERS,
    penalised,
)


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
    data = GivenRows(X, Y, sample_weight, groups), eval_set
    result = _train_near(estimator, source, data, seen, extend, (regularizer, weight))
    return estimator._set_result(result)


@runs_callbacks
def _train_near(estimator, source, data, seen, extends, penalty):
    start = encode_like(estimator, source, data, seen, extends)
    net, rows, (regularizer, weight) = start.net, start.data.train, penalty
    of_source = source._result.net.module_
    is_known = load_weights(net.module_, of_source, start.origins, start.vectors)
    # l2_sp leaves free the embeddings of new values and of values that do not occur.
    is_known &= find_present(net.module_, rows)[0]
    net.note_start(rows.sample)
    # Drawn from a copy: training has the random numbers of an ordinary fit.
    seed = deepcopy(start.plan.random_state).randint(np.iinfo(np.int32).max)
    keeps_near = nullcontext()
    if weight:
        keeps_near = penalised(net, regularizer, weight, rows, is_known, seed)
    with _tables_without_decay(net), keeps_near:
        return train(start.plan, start.data, net, task=start.task)


def _check_regularizer(regularizer, weight):
    """Return the weight of the penalty, 0 if there is none."""
    check_choice("regularizer", regularizer, (*REGULARIZERS, None))
    if weight is not None:
        check_number("regularizer_weight", weight, at_least=0)
    if regularizer is None:
        if weight is not None:
            raise ValueError(
                f"regularizer_weight={weight!r} has no effect without a regularizer; "
                f"choose one of {list(REGULARIZERS)}."
            )
        return 0.0
    return DEFAULT_WEIGHTS[regularizer] if weight is None else float(weight)


def _check_same_network(source, estimator):
    """Raise if the parameters describe another network than the source has."""
    settings = source._result.settings
    for name in ("network", "network_params", "embedding_dim"):
        now, before = getattr(estimator, name), getattr(settings, name)
        if (now or {}) != (before or {}):
            raise ValueError(
                f"{name} must be that of the source, {before!r}; got {now!r}."
            )


def load_weights(network, source, origins, vectors=()):
    """Copy the weights of a network into one that may have further embeddings.

    `origins` holds the earlier code of each code, -1 for new values, and `vectors` the
    same for the vectors of lists. Returns which rows of the tables existed before.
    """
    sizes, before = network.spec.cardinalities, source.input_layer
    first_rows = zip(before.offsets.tolist(), before.unseen.tolist(), strict=True)
    rows, known = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=bool)]
    for origin, n_new, n_old, (first, unseen) in zip(
        origins, sizes, before.cardinalities, first_rows, strict=True
    ):
        # New values start from the embedding of unseen values.
        codes = origin[:n_new]
        known.append((codes >= 0) & (codes < n_old))
        rows.append(np.where(known[-1], first + codes, unseen))
    places = torch.from_numpy(np.concatenate(rows))
    state = dict(source.state_dict())
    for name in embedding_tables(source):
        state[name] = state[name][places.to(state[name].device)]
    if vectors:
        of_bags, of_unseen = before.bags, source.spec.unseen_code
        starts = of_bags.own_starts.tolist()
        places = [
            first + np.where(own >= 0, own, of_unseen)
            for own, first in zip(vectors, starts, strict=True)
        ]
        places = torch.from_numpy(np.concatenate(places))
        for t, table in enumerate(of_bags.tables):
            name = f"input_layer.bags.embeddings.{t}.weight"
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
    return torch.from_numpy(np.concatenate(known))


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
