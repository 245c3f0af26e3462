"""Columns that were constant in fit: their warning, and numbers that vary later."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from small_model import N, X, Y, small, warnings_in

from sk_pwiser._columns._array import ArrayColumn
from sk_pwiser._columns._encoder import TableEncoder, learn_constant_columns
from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser.datasets import ParquetImpressions

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
        learnt = NUMERIC_ENCODINGS[encoding]("price").fit(VARIES["price"])
        [expected] = learnt.transform(VARIES["price"])
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
    values = column.read(later)
    assert_array_equal(column.transform(values)[1], [0.0, 0.0])
    learnt = column.learn_constant(later)
    assert_array_equal(learnt.transform(values)[1], [-1.0, 1.0])
    assert_array_equal(learnt.transform(values)[0], column.transform(values)[0])
    assert not learnt.has_constant
    assert column.learn_constant(constant) is column


CONSTANTS = {
    "nan": np.full(N, np.nan),
    "three": np.full(N, 3),
    "word": ["word"] * N,
    "none": pd.Series([None] * N, dtype=object),
}
VARYING = {
    "some": np.where(np.arange(N) % 2, 3.0, np.nan),
    "words": np.where(np.arange(N) % 2, "word", None),
}


def test_fit_names_constant_columns_in_one_warning(tmp_path):
    table = X.assign(**CONSTANTS, **VARYING)
    message = f"The columns {list(CONSTANTS)} have the same value, or none, in all rows"
    [found] = warnings_in(small().fit, table, Y)
    assert found.startswith(message)
    model = small(warm_start=True).fit(X.assign(three=np.arange(N)), Y)
    assert warnings_in(model.fit, X.assign(three=3), Y) == []
    assert warnings_in(small().fit, X.assign(**VARYING), Y) == []
    table.astype({"none": "string"}).assign(**Y).to_parquet(tmp_path / "log.parquet")
    log = ParquetImpressions(tmp_path, list(table), list(Y))
    [found] = warnings_in(small().fit, log)
    assert found.startswith(message)


def test_constants_are_usual_in_the_rows_of_an_update():
    table = X.assign(**CONSTANTS)
    model = small()
    for _ in range(2):
        assert warnings_in(model.partial_fit, table, Y) == []


def test_arrays_are_constant_if_all_elements_are():
    table = X.assign(
        flat=[[0.0, 1.0]] * N, vector=[[0.0, float(row)] for row in range(N)]
    )
    [found] = warnings_in(small().fit, table, Y)
    assert found.startswith("The columns ['flat'] have the same value")
