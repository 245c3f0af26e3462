"""Checks of fitted estimators and of rows; parts and embeddings of their networks."""

import inspect
import reprlib
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from sklearn.utils.validation import _num_samples, check_is_fitted

from sk_pwiser._columns._frames import as_table, column_of
from sk_pwiser._columns._target_statistics import TargetStatistics
from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._rows._encoded_rows import gather_bags
from sk_pwiser._tasks._labels import check_tasks
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._utils._checks import is_iterable
from sk_pwiser._utils._equality import equal
from sk_pwiser.networks import SHARED_PARAMS, random_inputs
from sk_pwiser.weighting import depends_on

# Number of random rows that show which parameters a task depends on. For a single row,
# all units of a layer may be inactive.
N_PROBES = 64
# The buffers of networks that shift predictions to their levels.
LEVEL_BUFFERS = ("level_offset", "value_offset", "value_slope")


def check_type(name, estimator):
    if not isinstance(estimator, MultiTaskCTRCVRClassifier):
        raise TypeError(
            f"{name} must be a MultiTaskCTRCVRClassifier; got {estimator!r}."
        )


def check_fitted(name, estimator):
    check_type(name, estimator)
    check_is_fitted(
        estimator, "_result", msg=f"{name}, a %(name)s, is not fitted: call fit first."
    )


def check_compatible(estimators: Iterable[MultiTaskCTRCVRClassifier]) -> None:
    """Raise unless fitted estimators have equal networks, tasks and encoders.

    Weights of two networks can be combined only if each weight has the same meaning in
    both: the networks must have the same form, the tasks must be the same, and each
    category value and each number must be encoded alike. :func:`fit_like`, and
    :func:`fine_tune` with `extend=False`, train with the encoder of another estimator.

    Parameters
    ----------
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators. Each is compared with the first.

    Raises
    ------
    TypeError
        If `estimators` is not a sequence of
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.
    ValueError
        If the sequence is empty, or if an estimator differs from the first. The message
        contains its index and the first difference: in the network's class or
        parameters, the tasks, the columns, a vocabulary, a numeric column, the target
        statistics, or the shape of a tensor.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import check_compatible
    >>> data = make_ctr_cvr(400, ctr=0.3, random_state=0)
    >>> first, second = (
    ...     MultiTaskCTRCVRClassifier(max_epochs=1, network_params={"dropout": dropout})
    ...     for dropout in (0.0, 0.1)
    ... )
    >>> models = [model.fit(data.data, data.target) for model in (first, second)]
    >>> check_compatible(models[:1])
    >>> check_compatible(models)
    Traceback (most recent call last):
        ...
    ValueError: estimators[1] differs from estimators[0] in the parameter dropout of
    the network: 0.1, not 0.0.
    """
    first, *later = _list_fitted(estimators)
    for index, estimator in enumerate(later, 1):
        check_same_network(f"estimators[{index}]", estimator, "estimators[0]", first)


def _list_fitted(estimators):
    """Return the estimators as a list; each must be fitted, and there must be one."""
    if not is_iterable(estimators):
        raise TypeError(
            f"estimators must be a sequence of fitted estimators; got {estimators!r}."
        )
    estimators = list(estimators)
    if not estimators:
        raise ValueError("estimators must hold at least one estimator; it is empty.")
    for index, estimator in enumerate(estimators):
        check_fitted(f"estimators[{index}]", estimator)
    return estimators


def check_same_network(name, estimator, other_name, other):
    """Raise a ValueError at the first difference in network, tasks or encoders."""
    aspects = _aspects(estimator._result)
    _check_equal(name, aspects, other_name, _aspects(other._result))


def _check_equal(name, aspects, other_name, expected_aspects):
    """Compare what two estimators have by name, in the order of the expected names."""
    for aspect in expected_aspects | aspects:
        value = aspects.get(aspect)
        expected = expected_aspects.get(aspect)
        if equal(value, expected):
            continue
        if isinstance(value, dict) and isinstance(expected, dict):
            keys = expected | value
            key = next(k for k in keys if not equal(value.get(k), expected.get(k)))
            aspect = f"{aspect}, value {key!r}"
            value = value.get(key)
            expected = expected.get(key)
        raise ValueError(
            f"{name} differs from {other_name} in {aspect}: {_short(value)}, not "
            f"{_short(expected)}."
        )


def _short(value):
    """Return the name of a class, or a short text of another value."""
    return getattr(value, "__name__", None) or reprlib.repr(value)


def _aspects(result):
    """Return what compatible estimators have in common, by name, in order."""
    module = result.net.module_
    schema = result.schema
    targets = schema.targets
    statistics = schema.statistics
    aspects = {"the network": type(module)}
    for name, value in sorted(_network_params(result).items()):
        aspects[f"the parameter {name} of the network"] = value
    # The classes of several tasks are 0 and 1; floats if labels may be missing. A
    # single task has the name of the Series of its labels, if there is one.
    is_single = targets.classes.ndim == 1
    aspects["the tasks"] = None if is_single else list(targets.task_names)
    aspects["the classes"] = targets.classes.tolist() if is_single else None
    columns = schema.encoder.all_columns_
    aspects["the columns"] = [column.name for column in columns]
    for column in columns:
        aspects[f"the encoding of column {column.name!r}"] = type(column)
        for name, value in _learnt_attributes(column).items():
            name = "vocabulary" if name == "codes_" else name
            aspects[f"the {name} of column {column.name!r}"] = value
    aspects["the target statistics"] = None if statistics is None else TargetStatistics
    if statistics is not None:
        # The statistics are arrays in the order of the columns: their names come first.
        names = statistics.column_names(schema.encoder)
        aspects["the columns of the target statistics"] = names
        for name, value in _learnt_attributes(statistics).items():
            aspects[f"{name} of the target statistics"] = value
    for name, tensor in module.state_dict().items():
        # A level is no part of the architecture: only some models have one.
        if name not in LEVEL_BUFFERS:
            aspects[f"the shape of {name}"] = tuple(tensor.shape)
    return aspects


def _network_params(result):
    """Return all parameters of the network, the defaults included."""
    network = result.net.module_
    # The first parameter is spec.
    _, *parameters = inspect.signature(type(network)).parameters.values()
    defaults = {
        p.name: p.default
        for p in parameters
        if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    }
    names = *SHARED_PARAMS, "embedding_dim", "negative_sampling_rate", "task_parents"
    shared = {name: getattr(network.spec, name) for name in names}
    params = {**defaults, **result.settings.network_params, **shared}
    # Widths may be given as a list or as a tuple.
    return {k: tuple(v) if isinstance(v, list) else v for k, v in params.items()}


def _learnt_attributes(encoding):
    """Return the attributes that a column, or target statistics, have learnt."""
    return {name: value for name, value in vars(encoding).items() if name[-1] == "_"}


def check_pool(estimators):
    """Return the estimators as a list; all must be fitted to the same tasks."""
    pool = _list_fitted(estimators)
    for index, estimator in enumerate(pool):
        check_same_tasks(f"estimators[{index}]", estimator, "estimators[0]", pool[0])
    return pool


def check_same_tasks(name, estimator, other_name, other):
    """Raise at the first difference in classes or, of several tasks, in names."""
    _check_equal(name, _task_aspects(estimator), other_name, _task_aspects(other))


def _task_aspects(estimator):
    """Return the tasks and classes of an estimator, by name."""
    names = list(estimator.task_names_) if estimator.classes_.ndim > 1 else None
    return {"the tasks": names, "the classes": estimator.classes_.tolist()}


def check_members(base, estimators):
    """Return the estimators as a list; each must be compatible with the base."""
    check_fitted("base", base)
    members = _list_fitted(estimators)
    for index, member in enumerate(members):
        check_same_network(f"estimators[{index}]", member, "base", base)
    return members


def check_table(X):
    """Return a table that can be read several times, with at least one row."""
    X = as_table(X)
    if _num_samples(X) < 1:
        raise ValueError("X must have at least one row; it has none.")
    return X


def check_labels(estimator, X, Y):
    """Return the labels of rows as a float32 array of shape (n_samples, n_tasks).

    Labels may be missing, as NaN, if the estimator's `missing_labels` says so.
    """
    result = estimator._result
    settings = replace(result.settings, missing_labels=estimator.missing_labels)
    targets = check_tasks(settings, Y, result.schema.targets, may_lack_class=True)
    check_match(X, len(targets.values), Y=Y)
    return targets.with_nan()


def check_weights(weights, n_estimators):
    """Return weights of estimators that sum to 1; equal weights if None is given."""
    weights = 1.0 if weights is None else weights
    values = one_per_estimator("weights", weights, n_estimators)
    if values.min() < 0 or values.sum() == 0:
        raise ValueError(f"weights must be >= 0 and not all 0; got {weights!r}.")
    return values / values.sum()


def one_per_estimator(name, values, n_estimators):
    """Return one finite number per estimator; `values` may be one for all."""
    numbers = np.asarray(values, dtype=float)
    if numbers.shape not in ((), (n_estimators,)) or not np.isfinite(numbers).all():
        raise ValueError(
            f"{name} must be a finite number or {n_estimators} of them; got {values!r}."
        )
    return np.broadcast_to(numbers, (n_estimators,))


def check_markets(markets, X, n_estimators):
    """Return which estimator each row belongs to, as indices, or None."""
    if markets is None:
        return None
    n_samples = _num_samples(X)
    if isinstance(markets, str):
        markets = column_of(X, "markets", markets)
    check_match(X, n_samples, markets=markets)
    indices = np.asarray(markets)
    last = n_estimators - 1
    is_valid = indices.shape == (n_samples,) and indices.dtype.kind in "iu"
    if not is_valid or indices.min() < 0 or indices.max() > last:
        raise ValueError(
            f"markets must hold the index of an estimator, 0 to {last}, for each of "
            f"{n_samples} rows; got {reprlib.repr(indices.tolist())}."
        )
    return indices


def predict_each(estimators, X):
    """Return probabilities, of shape `(n_estimators, n_samples, n_tasks)`."""
    return np.stack(
        [model._predict_positive(X).astype(np.float64) for model in estimators]
    )


def named_parts(estimator: MultiTaskCTRCVRClassifier) -> dict[str, list[str]]:
    """Return the names of the network's tensors by the part that they belong to.

    A part has the name of the attribute of the network that holds it, such as "bottom",
    "experts", "gates" or "towers". The tables of category embeddings are "embedding",
    and the other tensors of the input layer "input_layer". Tensors on which only one
    task depends form a separate part, named after the task: "towers.click". This
    dependence is read from the computational graph, so that it is also found for your
    own network.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier
        A fitted estimator.

    Returns
    -------
    dict of str to list of str
        Names of the parts, and the names of their tensors in
        `estimator.net_.module_.state_dict()`. Each tensor is in exactly one part.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import named_parts
    >>> data = make_ctr_cvr(400, ctr=0.3, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=1).fit(data.data, data.target)
    >>> list(named_parts(model))
    ['embedding', 'input_layer', 'bottom', 'towers.click', 'towers.conversion']
    """
    check_fitted("estimator", estimator)
    network = estimator.net_.module_
    owners = _only_tasks(network, estimator.task_names_)
    tables = {
        f"{name}.weight"
        for name, module in network.input_layer.named_modules(prefix="input_layer")
        if isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag)
    }
    parts: dict[str, list[str]] = {}
    for name in network.state_dict():
        part = "embedding" if name in tables else name.partition(".")[0]
        if name in owners:
            part = f"{part}.{owners[name]}"
        parts.setdefault(part, []).append(name)
    return parts


def embedding_tables(network):
    """Map names of parameters to the embedding tables with one row per code."""
    n_rows = sum(network.spec.cardinalities)
    return {
        f"{name}.weight": module.weight
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == n_rows
    }


def _only_tasks(network, task_names):
    """Map names of parameters to the task, if only one task depends on them."""
    if len(task_names) < 2:
        return {}
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    was_training = network.training
    network.eval()
    try:
        with torch.enable_grad():
            codes, numeric, bags = random_inputs(network, N_PROBES)
            if bags is not None:
                numeric = network.input_layer.with_sums(codes, numeric, bags)
            # Not __call__, which composes the heads of a chain.
            output = network.forward(codes, numeric)
    finally:
        network.train(was_training)
    heads = output.conditional_logits
    # The sum over random rows: what a task depends on in any of them.
    sums = (output.logits if heads is None else heads).float().sum(dim=0)
    parameters = list(trained.values())
    depends = [depends_on(sums, task, parameters) for task in range(len(task_names))]
    return {
        name: task_names[task_depends.index(True)]
        for name, *task_depends in zip(trained, *depends, strict=True)
        if sum(task_depends) == 1
    }


def find_present(network, rows):
    """Return which rows of the tables these rows train, as a mask.

    Those of unseen values are included. The second mask is for the vectors that lists
    and sparse columns do not share with a category column; it is empty without them.
    """
    layer = network.input_layer
    bag_layer = layer.bags
    present = torch.zeros(sum(layer.cardinalities), dtype=torch.bool)
    present[layer.unseen.cpu()] = True
    present[rows.column("codes").cpu().long() + layer.offsets.cpu()] = True
    if bag_layer is None:
        return present, torch.zeros(0, dtype=torch.bool)
    in_bags = torch.zeros(bag_layer.embeddings[0].num_embeddings, dtype=torch.bool)
    # The training rows may be a selection of the stored rows.
    selected = torch.arange(len(rows.codes)) if rows.rows is None else rows.rows
    bags = gather_bags(rows.bags, selected, bag_layer.n_bags)
    bags = bags.to(bag_layer.starts.device)
    _, is_unshared, bag_places, places = bag_layer.locate(bags)
    present[places[~is_unshared].cpu()] = True
    in_bags[bag_places[is_unshared].cpu()] = True
    return present, in_bags


def fill_untrained(net, rows):
    """Give values without a training row the embedding of unseen values."""
    layer = net.module_.input_layer
    bag_layer = layer.bags
    present, in_bags = find_present(net.module_, rows)
    sizes = torch.tensor(layer.cardinalities, dtype=torch.int64)
    # For each row of a table, the row for unseen values of the same column.
    unseen = layer.unseen.cpu().repeat_interleave(sizes)
    _copy_rows(embedding_tables(net.module_).values(), unseen, ~present)
    if bag_layer is not None:
        # The same for the vectors that lists and sparse columns have for themselves.
        starts = bag_layer.own_starts.cpu()
        sizes = torch.cat([starts, torch.tensor([len(in_bags)])]).diff()
        unseen = (starts + layer.unseen_code).repeat_interleave(sizes)
        has_unseen = (bag_layer.unseen.cpu() >= 0) & ~bag_layer.is_shared.cpu()
        absent = ~in_bags & has_unseen.repeat_interleave(sizes)
        tables = [table.weight for table in bag_layer.embeddings]
        _copy_rows(tables, unseen, absent)


def _copy_rows(tables, sources, chosen):
    """Overwrite the chosen rows of tables by other rows of them."""
    places = chosen.nonzero().squeeze(1)
    with torch.no_grad():
        for table in tables:
            table[places.to(table.device)] = table[sources[places].to(table.device)]


def load_weights(network, source, origins, vectors):
    """Copy the weights of a network into one that may have further embeddings.

    `origins` holds the earlier code of each code, -1 for new values, and `vectors` the
    same for the vectors of lists. Returns which rows of the tables existed before.
    """
    source_layer = source.input_layer
    bag_layer = source_layer.bags
    state = dict(source.state_dict())
    unseen = source.spec.unseen_code
    none = np.zeros(0, dtype=np.int64)  # of a table without category columns
    # A value that was rare has a code, but no embedding.
    codes = [
        np.where(origin[:n_new] < n_old, origin[:n_new], -1)
        for origin, n_new, n_old in zip(
            origins, network.spec.cardinalities, source_layer.cardinalities, strict=True
        )
    ]
    tables = embedding_tables(source)
    copied = [(tables, codes, source_layer.offsets)]
    if vectors:
        name = "input_layer.bags.embeddings.{}.weight"
        tables = {name.format(t): table for t, table in enumerate(bag_layer.tables)}
        copied.append((tables, vectors, bag_layer.own_starts))
    for tables, origins_of_columns, firsts in copied:
        # New values start from the embedding of unseen values.
        places = [
            first + np.where(origin >= 0, origin, unseen)
            for origin, first in zip(origins_of_columns, firsts.tolist(), strict=True)
        ]
        places = torch.from_numpy(np.concatenate([none, *places]))
        for name, table in tables.items():
            state[name] = table.detach()[places.to(table.device)]
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            "The weights of the source do not fit the network: only embedding tables "
            "of the input layer may grow, but not wider, as with embedding_dim='auto'. "
            f"Pass extend=False to add no values. {error}"
        ) from error
    return torch.from_numpy(np.concatenate([none, *codes]) >= 0)


@contextmanager
def tables_without_decay(net):
    """Exempt the embedding tables from weight decay for a training run.

    Otherwise, values that do not occur in its rows would lose their embeddings.
    """
    kinds = torch.nn.Embedding | torch.nn.EmbeddingBag
    modules = net.module_.modules()
    tables = {id(module.weight) for module in modules if isinstance(module, kinds)}
    groups = net.optimizer_.param_groups
    usual_params = [list(group["params"]) for group in groups]
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
    del groups[len(usual_params) :]
    for group, params in zip(groups, usual_params, strict=True):
        group["params"] = params
