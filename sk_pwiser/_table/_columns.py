"""Which encoder each column of a table gets."""

from functools import partial

from sk_pwiser._table._arrays import ArrayColumn
from sk_pwiser._table._categorical_features import find_category_columns
from sk_pwiser._table._categories import CategoryColumn
from sk_pwiser._table._dataframe import list_columns
from sk_pwiser._table._lists import (
    ListColumn,
    ListWeights,
    check_lists,
    find_weights,
)
from sk_pwiser._table._numeric import NUMERIC_ENCODINGS, PiecewiseLinearColumn
from sk_pwiser._table._read_lists import has_lists
from sk_pwiser._table._target_encoding import check_target_encoding
from sk_pwiser._table._vocabulary import check_vocabulary, read_vocabularies
from sk_pwiser._utils import check_integer


def check_encoding_params(params):
    """Raise if an entry of `encoding_params` is invalid for every table."""
    check_target_encoding(params)
    check_vocabulary(params)
    check_lists(params)
    check_integer("max_bins", params["max_bins"], at_least=1)


def make_columns(params, X, names):
    """Return the encoders of the columns of a table, not yet fitted.

    Parameters
    ----------
    params : mapping
        The parameters of the table's encoder.
    X : DataFrame or 2-D ndarray
        The table.
    names : list of str or int
        Names of its columns.

    Raises
    ------
    ValueError
        If a parameter does not match the columns.
    """
    is_category = find_category_columns(params["categorical_features"], X, names)
    vocabularies = read_vocabularies(params, names, is_category)
    is_list = [has_lists(column) for column in list_columns(X)]
    list_names = [
        name
        for name, *flags in zip(names, is_category, is_list, strict=True)
        if all(flags)
    ]
    weights = find_weights(params["list_weights"], names, list_names)
    make_numeric = NUMERIC_ENCODINGS[params["numeric_encoding"]]
    if issubclass(make_numeric, PiecewiseLinearColumn):
        make_numeric = partial(make_numeric, max_bins=params["max_bins"])
    columns = []
    for index, name in enumerate(names):
        if name in weights.values():
            column = ListWeights(name)
        elif name in list_names:
            pooling = params["list_pooling"]
            column = ListColumn(name, vocabularies[index], pooling, weights.get(name))
        elif is_category[index]:
            column = CategoryColumn(name, vocabularies[index], params["keeps_rare"])
        else:
            column = (ArrayColumn if is_list[index] else make_numeric)(name)
        columns.append(column)
    return columns
