"""Numeric columns that were constant in fit and vary in later training."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from sk_pwiser._table import NUMERIC_ENCODINGS, TableEncoder, learn_constant_columns
from sk_pwiser._table._numbers import ArrayColumn

WITH_BINS = {name for name, kind in NUMERIC_ENCODINGS.items() if kind.n_bins_}
CONSTANT = pd.DataFrame({"price": [3.0] * 4, "age": [1.0, 2.0, 3.0, 4.0]})
VARIES = pd.DataFrame({"price": [1.0, 2.0, 2.0, 7.0], "age": [9.0, 9.0, 9.0, 9.0]})


def fitted(encoding, table=CONSTANT):
    encoder = TableEncoder(numeric_encoding=encoding)
    encoder.fit_transform(table)
    return encoder


def inputs(encoder, table):
    return encoder.transform(table)[1]


@pytest.mark.parametrize("encoding", NUMERIC_ENCODINGS)
def test_a_column_that_varies_is_learnt_from_these_rows(encoding):
    encoder = fitted(encoding)
    before = inputs(encoder, VARIES)
    learnt = learn_constant_columns(encoder, VARIES)
    # The number of inputs and bins is that of the network; other columns stay.
    assert learnt.numeric_bins_ == encoder.numeric_bins_
    encoded = inputs(learnt, VARIES)
    assert_array_equal(encoded[:, 1], before[:, 1])
    assert_array_equal(before[:, 0], np.zeros(4))
    assert_array_equal(inputs(encoder, VARIES), before)
    if encoding in WITH_BINS:
        # Three distinct values are the edges of two bins of one component.
        assert_allclose(encoded[:, 0], [0.0, 0.5, 0.5, 1.0])
    else:
        [expected] = NUMERIC_ENCODINGS[encoding]("price").fit_transform(VARIES["price"])
        assert_array_equal(encoded[:, 0], expected)


@pytest.mark.parametrize("encoding", NUMERIC_ENCODINGS)
def test_a_missing_value_counts_as_the_mean(encoding):
    learnt = learn_constant_columns(fitted(encoding), VARIES)
    missing = VARIES.assign(price=np.nan)
    assert_allclose(
        inputs(learnt, missing)[:, 0], inputs(learnt, VARIES)[:, 0].mean(), atol=1e-7
    )


@pytest.mark.parametrize("encoding", NUMERIC_ENCODINGS)
def test_indicators_of_missing_values_are_those_of_fit(encoding):
    with_missing = CONSTANT.assign(price=[3.0, np.nan, 3.0, 3.0])
    for table, n_inputs in ((CONSTANT, 2), (with_missing, 3)):
        encoder = fitted(encoding, table)
        later = VARIES.assign(price=[1.0, np.nan, 2.0, 7.0])
        assert inputs(learn_constant_columns(encoder, later), later).shape == (
            4,
            n_inputs,
        )


def test_columns_that_stay_constant_give_the_same_encoder():
    encoder = fitted("standard")
    assert learn_constant_columns(encoder, CONSTANT.assign(price=5.0)) is encoder
    assert learn_constant_columns(encoder, CONSTANT.assign(price=np.nan)) is encoder


def test_weights_of_the_rows_count():
    twice = pd.concat([VARIES, VARIES[:1]])
    weights = np.array([2.0, 1.0, 1.0, 1.0])
    weighted = learn_constant_columns(fitted("standard"), VARIES, weights)
    repeated = learn_constant_columns(fitted("standard"), twice)
    assert_allclose(inputs(weighted, VARIES), inputs(repeated, VARIES), rtol=1e-6)


def test_elements_of_arrays():
    def rows(*elements):
        return pd.Series([np.array(pair) for pair in zip(*elements, strict=True)])

    constant, later = rows([1.0, 2.0], [5.0, 5.0]), rows([1.0, 3.0], [4.0, 6.0])
    column = ArrayColumn("vector").fit(constant)
    assert_array_equal(column.transform(later)[1], [0.0, 0.0])
    learnt = column.learn_constant(later)
    assert_array_equal(learnt.transform(later)[1], [-1.0, 1.0])
    assert_array_equal(learnt.transform(later)[0], column.transform(later)[0])
    assert not learnt.has_constant
    assert column.learn_constant(constant) is column
