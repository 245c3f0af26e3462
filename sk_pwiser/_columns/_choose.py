"""The choice of kinds: which column is encoded how."""

from collections.abc import Mapping
from functools import partial
from itertools import compress
from operator import or_

import numpy as np

from sk_pwiser._columns import _array, _piecewise_linear, _registry
from sk_pwiser._columns._category import CategoryColumn
from sk_pwiser._columns._frames import check_among, find_column, unknown_name
from sk_pwiser._columns._list import LIST_MAPPINGS, LISTS, ListColumn
from sk_pwiser._columns._list_weights import ListAges, ListWeights
from sk_pwiser._columns._time import TimeColumn
from sk_pwiser._columns._vocabulary import Vocabulary


def named_as_categories(features, names):
    """Return whether `categorical_features` names each column, and if it is a mask."""
    chosen = []
    if not isinstance(features, str | None):  # "from_dtype"
        # In an array of text, the index 1 of a list would be "1".
        chosen = np.atleast_1d(np.array(features, dtype=object)).tolist()
        chosen = [c.item() if isinstance(c, np.generic) else c for c in chosen]
    if chosen and all(isinstance(c, bool) for c in chosen):
        if len(chosen) != len(names):
            raise ValueError(
                "categorical_features as a mask must have one entry per column of X, "
                f"{len(names)}; it has {len(chosen)}."
            )
        return chosen, True
    is_named = [False] * len(names)
    for column in chosen:
        is_named[find_column("categorical_features", column, names)] = True
    return is_named, False


def make_columns(params, contents, names):
    """Return unfitted encoders of columns, given what `content_of` says of each.

    `params` are those of the encoder.
    """
    features = params["categorical_features"]
    by_dtype = [
        features is not None and content in ("categories", "lists")
        for content in contents
    ]
    is_named, is_mask = named_as_categories(features, names)
    # A mask decides on all columns, names add to those that the dtype tells.
    is_category = is_named if is_mask else list(map(or_, by_dtype, is_named))
    is_list = [content in ("lists", "arrays") for content in contents]
    time = params["time_column"]
    if time is not None:
        # First of all: it may be the only column of dates, which are no features.
        if time not in names:
            raise unknown_name("time_column is", time, names)
        index = names.index(time)
        # Others are named in categorical_features, not chosen by their dtype.
        if is_category[index] and contents[index] not in ("categories", "lists"):
            raise ValueError(
                f"categorical_features contains {time!r}, which is the time_column and "
                "no feature; leave it out, or set time_feature=True in encoding_params."
            )
        is_category[index] = False
    vocabularies = read_vocabularies(params, names, is_category)
    categories = list(compress(zip(names, is_list, strict=True), is_category))
    of_lists = [name for name, has_several in categories if has_several]
    of_values = [name for name, has_several in categories if not has_several]
    lists = make_list_columns(params, names, vocabularies, of_lists, of_values)
    make_numeric = _registry.NUMERIC_ENCODINGS[params["numeric_encoding"]]
    if issubclass(make_numeric, _piecewise_linear.PiecewiseLinearColumn):
        make_numeric = partial(make_numeric, max_bins=params["max_bins"])
    columns = []
    for index, name in enumerate(names):
        if name == time:
            column = TimeColumn(name)
        elif name in lists:
            column = lists[name]
        elif is_category[index]:
            column = CategoryColumn(name, vocabularies[index])
        else:
            column = (_array.ArrayColumn if is_list[index] else make_numeric)(name)
        columns.append(column)
    return columns


def read_vocabularies(params, names, is_category):
    """Return the `Vocabulary` of each column, from numbers for all or by column."""
    numbers, categories = [], list(compress(names, is_category))
    for name, default in Vocabulary()._asdict().items():
        value, found = params[name], {}
        if not isinstance(value, Mapping):
            numbers.append([value] * len(names))
            continue
        for column, number in value.items():
            index = find_column(name, column, names)
            check_among(name, names[index], categories, "category column")
            found[index] = number
        numbers.append([found.get(index, default) for index in range(len(names))])
    return [Vocabulary(*of_column) for of_column in zip(*numbers, strict=True)]


def make_list_columns(params, names, vocabularies, list_names, category_names):
    """Return, by name, unfitted encoders of lists and of their weights and ages."""
    pooling = params["list_pooling"]
    if not isinstance(pooling, Mapping):
        pooling = dict.fromkeys(list_names, pooling)
    mappings = {name: params[name] or {} for name in LIST_MAPPINGS}
    for parameter, columns in {"list_pooling": pooling, **mappings}.items():
        for column in columns:
            check_among(parameter, column, list_names, LISTS)
        for column in mappings.get(parameter, {}).values():
            check_among(parameter, column, names)
    weights, ages, shared = mappings.values()
    made = {name: ListAges(name) for name in ages.values()}
    made |= {name: ListWeights(name) for name in weights.values()}
    category_names = [name for name in category_names if name not in made]
    for column, name in shared.items():
        parameter = f"shared_embeddings[{column!r}]"
        check_among(parameter, name, category_names, "category column")
    for column, own in {**dict.fromkeys(list_names, "mean"), **pooling}.items():
        is_list = column not in made  # and no weights or ages of another list
        attends = is_list and own == "attention"
        if attends and column not in shared:
            raise ValueError(
                f"list_pooling='attention' of column {column!r} requires a category "
                "column to attend to: add one for it to shared_embeddings."
            )
        if column in ages and not attends:
            raise ValueError(
                f"list_ages contains {column!r}, whose list_pooling is {own!r}; only "
                "'attention' reads ages."
            )
        if is_list:
            vocabulary = vocabularies[names.index(column)]
            given = (mapping.get(column) for mapping in (weights, shared, ages))
            made[column] = ListColumn(column, vocabulary, own, *given)
    return made
