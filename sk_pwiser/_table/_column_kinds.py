"""The kinds of columns: which column is encoded how, and which look misread."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import compress
from operator import or_
from typing import Any

import numpy as np

from sk_pwiser._table import _categories, _numbers
from sk_pwiser._table._categories import CategoryColumn, Vocabulary
from sk_pwiser._table._frames import (
    check_among,
    describe,
    find_column,
    to_float,
    unknown_name,
)
from sk_pwiser._table._lists import (
    LIST_MAPPINGS,
    LISTS,
    POOLINGS,
    ListAges,
    ListColumn,
    ListWeights,
)
from sk_pwiser._utils._checks import check_boolean, check_choice, check_integer
from sk_pwiser._utils._warnings import warn_user

# The least values of integers among `encoding_params`.
LEAST = {"target_encoding_blocks": 2, "target_encoding_min_values": 1, "max_bins": 1}


@dataclass(eq=False)
class TimeColumn:
    """A column that orders the rows of a fit, and is no input of the network.

    Later tables may lack it.
    """

    name: Any

    kind = "time"
    not_an_input = "is the time_column, and with time_feature=False no input"
    encoding = "orders the rows"


def check_encoding_params(params):
    """Check what can be refused without a table."""
    for name in (*_categories.Vocabulary._fields, "list_pooling"):
        by_column = isinstance(params[name], Mapping)
        values = params[name] if by_column else {None: params[name]}
        for column, value in values.items():
            place = f"{name}[{column!r}]" if by_column else name
            if name == "list_pooling":
                check_choice(place, value, POOLINGS)
            elif value is not None or by_column or name == "min_frequency":
                check_integer(place, value, at_least=1)
            if name == "n_hash_buckets" and (value or 0) > _categories.MAX_BUCKETS:
                raise ValueError(
                    f"{place} must be at most {_categories.MAX_BUCKETS}; got {value}."
                )
    for name, least in LEAST.items():
        check_integer(name, params[name], at_least=least)
    for name in ("grow_vocabulary", "time_feature"):
        check_boolean(name, params[name])
    for name in LIST_MAPPINGS:
        if not isinstance(params[name], dict | None):
            raise TypeError(
                f"{name} must be None or a dict of columns; got {params[name]!r}."
            )
    chosen = params["list_target_encoding"]
    if not isinstance(chosen, bool | list | tuple):
        raise TypeError(
            f"list_target_encoding must be a bool or a list of names; got {chosen!r}."
        )


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
    make_numeric = _numbers.NUMERIC_ENCODINGS[params["numeric_encoding"]]
    if issubclass(make_numeric, _numbers.PiecewiseLinearColumn):
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
            column = (_numbers.ArrayColumn if is_list[index] else make_numeric)(name)
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


# Names of ids: "id", "user_id", "userId", "id_user", "zip", "country_code", "site_id2".
ID_NAME = re.compile(
    r"(?i:^(id|code)[^a-z])|"
    r"((?i:(^|[^a-z])((user|item|ad|product|customer|session|device)?id"
    r"|uid|uuid|guid|code|zip|zipcode|postcode|hash|sku))|[a-z](Id|ID|Code|Zip))s?\d*$"
)
# Columns are checked by about this number of rows.
SAMPLE_ROWS = 2**18
# Largest share of the rows with distinct values in a column of ids; a column with more
# may number the rows.
MAX_DISTINCT = 0.95
# Without such a name, ids have at least MANY_VALUES values, and unlike amounts:
# - in this share of neighbouring values, one value is at least twice as frequent as
#   the other, and not by chance;
MIN_UNEQUAL = 0.1
# - the values with one last digit, such as multiples of 10 and prices below round ones,
#   are at most this share of the values and of the rows;
MAX_SAME_DIGIT = 0.2
# - at most this correlation between the frequencies of neighbours, on a log scale, if
#   half of the numbers from 0 or 1 on occur, and ...
MIN_COVERAGE, MAX_SMOOTH = 0.5, 0.7
# ... otherwise; the range then has large gaps, or begins near 0.
MAX_COVERAGE, NEAR_ZERO, MAX_SMOOTH_SPREAD = 0.1, 0.01, 0.15


def has_id_name(name):
    return ID_NAME.search(str(name)) is not None


def looks_like_codes(column, name=""):
    """Return whether whole numbers that repeat look like codes or ids, not amounts."""
    values = to_float(column)
    values = values[:: max(1, len(values) // SAMPLE_ROWS)]
    values = values[~np.isnan(values)]
    if (values != np.floor(values)).any():
        return False
    distinct, counts = np.unique(values, return_counts=True)
    if not 2 < len(distinct) <= MAX_DISTINCT * len(values):
        return False
    return has_id_name(name) or _has_unrelated_counts(distinct, counts)


def _has_unrelated_counts(distinct, counts):
    first, last, n_values = distinct[0], distinct[-1], len(distinct)
    if n_values < _categories.MANY_VALUES or first < 0:
        return False
    fewer, more = np.sort([counts[1:], counts[:-1]], axis=0)
    is_unequal = (more >= 2 * fewer) & (more - fewer > 2 * np.sqrt(more + fewer))
    digits = (distinct % 10).astype(np.intp)
    of_values, of_rows = np.bincount(digits), np.bincount(digits, counts)
    same_digit = max(of_values.max() / n_values, of_rows.max() / counts.sum())
    if is_unequal.mean() < MIN_UNEQUAL or same_digit >= MAX_SAME_DIGIT:
        return False
    smooth = np.corrcoef(np.log(counts[1:]), np.log(counts[:-1]))[0, 1]
    coverage = n_values / (last - first + 1)
    if first <= 1 and coverage >= MIN_COVERAGE:
        return bool(smooth < MAX_SMOOTH)
    is_spread = coverage < MAX_COVERAGE or first <= NEAR_ZERO * last
    return bool(is_spread and smooth < MAX_SMOOTH_SPREAD)


# What category columns contain that look misread, and how one of them is converted.
_MISREAD = {
    "amounts": "numbers as text, with many distinct values. If they are amounts, "
    "convert them, for example by X[{!r}].astype(float), without currencies and "
    "separators of thousands.",
    "dates": "dates as text: later dates will be unseen values. Convert them, for "
    "example by pandas.to_datetime(X[{!r}]), and derive numbers, such as the hour, "
    "the weekday or the age in days.",
}


def warn_about_misread(numbers, columns):
    """Warn about codes among the pairs `numbers`, and about misread categories."""
    names = [name for name, column in numbers if looks_like_codes(column, name)]
    if names:
        warn_user(
            f"The numeric columns {names} contain whole numbers that look like codes "
            "or ids, but are encoded by their size. Name codes in categorical_features "
            "(inspection.describe_impressions shows what they gain); any list there, "
            "even an empty one, silences this warning."
        )
    for content, text in _MISREAD.items():
        names = [c.name for c in columns if getattr(c, "content_", None) == content]
        if names:
            warn_user(
                f"The category columns {names} contain {text.format(names[0])} Any "
                "list as categorical_features, even [], silences this warning."
            )


def warn_about_constants(columns):
    names = [c.name for c in columns if getattr(c, "has_one_value", False)]
    if names:
        warn_user(
            f"The columns {names} have the same value, or none, in all rows of fit. "
            "Leave them out, or check how they were read."
        )


def warn_about_split_values(columns):
    """Warn about columns in which a number and its text both occur."""
    names = []
    for column in columns:
        if getattr(column, "content_", None) != "numbers and their texts":
            continue
        pairs = _categories.split_values(column.codes_)  # empty if values are hashed
        example = f" ({pairs[0][0]!r} and {pairs[0][1]!r})" if pairs else ""
        names.append(f"{column.name!r}{example}")
    if names:
        warn_user(
            "Columns contain numbers that also occur as text, which count as two "
            f"values each: {', '.join(names)}. A file that is read in parts may have "
            "such columns: read ids as text, or convert them by .astype(str)."
        )


def warn_about_few_values(columns, with_rates=()):
    """Warn about columns learnt from few values, and those `with_rates` of few rows."""
    names = [c.name for c in columns if getattr(c, "has_few_values", False)]
    names += [name for name in with_rates if name not in names]
    if names:
        warn_user(
            f"The encoding of the columns {names} is learnt from fewer than "
            f"{_numbers.FEW_VALUES} values: later numbers will be clipped to their "
            "range, and rates keep their scale. Pass more rows, or begin with fit."
        )


# Largest share of the distinct whole numbers of a column that may be lost as doubles.
MAX_MERGED = 0.01


def refuse_merged(name, column):
    """Raise a ValueError if doubles cannot tell the whole numbers of a column apart."""
    kinds = "int64", "uint64", "int128", "object", "decimal"
    if not str(column.dtype).lower().startswith(kinds):
        return
    if np.fmax.reduce(np.abs(to_float(column)), initial=0) <= 2**53:
        return
    _, values = _categories.factorize(column)
    doubles = dict(zip(map(float, values), values, strict=True))
    if len(doubles) < (1 - MAX_MERGED) * len(values):
        one = next(value for value in values if doubles[float(value)] != value)
        raise ValueError(
            f"Column {describe(name, column)} contains numbers above 2**53 that are "
            f"equal in double precision, such as {one} and {doubles[float(one)]}. Name "
            "ids in categorical_features, or subtract the smallest value."
        )


def column_kinds(encoder):
    if encoder.sparse_ is not None:
        names = getattr(encoder, "feature_names_in_", range(encoder.n_features_in_))
        return {"sparse": list(names)}
    kinds = {}
    for column in encoder.columns_:
        kinds.setdefault(column.kind, []).append(column.name)
    return kinds


def vector_counts(encoder):
    """Return the numbers of embeddings by column; a list may share those of another."""
    if encoder.sparse_ is not None:
        return {"sparse columns": encoder.sparse_.n_vectors}
    counts = dict(zip(encoder.category_names_, encoder.cardinalities_, strict=True))
    return counts | {c.name: c.n_own for c in encoder.of_kind(ListColumn)}


# How the name of a column of `HistoryFeatures` ends that it has for each key.
SINCE_IMPRESSION = "__since_impression"


def history_column(names):
    """Return the name of a column that `HistoryFeatures` made, or None."""
    found = (n for n in names if isinstance(n, str) and n.endswith(SINCE_IMPRESSION))
    return next(found, None)
