"""Functions over fitted estimators whose tables have lists, or are sparse."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.transfer import fine_tune, fit_like, merge_estimators, named_parts

N = 80
RNG = np.random.default_rng(0)
Y = (RNG.random((N, 2)) < [0.5, 0.6]).astype(int).cumprod(axis=1)
LISTS = [RNG.integers(5, size=1 + i % 3).tolist() for i in range(N)]
TABLES = {
    "lists": pd.DataFrame({"items": LISTS, "other": LISTS[::-1], "n": np.arange(N)}),
    "sparse": sp.csr_array(sp.random(N, 6, density=0.3, random_state=0)),
}


@pytest.fixture(params=TABLES)
def table(request):
    return TABLES[request.param]


def test_fine_tuning_and_merging(table):
    base = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0).fit(table, Y)
    assert next(iter(named_parts(base))) == "embedding"
    members = [
        fine_tune(base, table, Y, regularizer=name, random_state=0, extend=False)
        for name in (None, "l2_sp")
    ]
    merged = merge_estimators(base, members, table, Y)
    probabilities = merged.predict_proba(table)
    assert np.isfinite(probabilities).all()
    assert (probabilities != base.predict_proba(table)).all()
    with pytest.raises(ValueError, match=r"tred.* does not support sparse X"):
        fine_tune(base, table, Y, regularizer="tred")


def without_value_2(table, model):
    """Return rows in which no list holds the value 2, and its vectors in the bags."""
    if sp.issparse(table):
        return np.flatnonzero(table[:, [2]].toarray()[:, 0] == 0), np.array([2])
    rows = [i for i in range(N) if not {2} & {*LISTS[i], *LISTS[-1 - i]}]
    columns = model._result.schema.encoder.bag_columns_
    starts = np.cumsum([0, *(column.n_vectors for column in columns)])
    places = [
        start + column.items_.codes_[2]
        for start, column in zip(starts, columns, strict=False)
        if column.items_ is not None
    ]
    return np.array(rows), np.array(places)


def vectors_of_bags(model):
    return model.net_.module_.input_layer.bags.embeddings[0].weight.numpy(force=True)


def test_values_that_do_not_occur_keep_their_vectors(table):
    params = {"early_stopping": False, "batch_size": 8, "weight_decay": 0.01}
    params |= {"max_epochs": 3, "random_state": 0}
    base = MultiTaskCTRCVRClassifier(**params).fit(table, Y)
    rows, absent = without_value_2(table, base)
    kept = table[rows] if sp.issparse(table) else table.iloc[rows]
    tuned = fine_tune(base, kept, Y[rows], extend=False)
    realign = {"X": kept, "Y": Y[rows], "max_epochs": 3}
    args = base, [base], kept, Y[rows]
    merged = merge_estimators(*args, objective=None, realign=realign)
    start = vectors_of_bags(base)
    for model in (tuned, merged):
        end = vectors_of_bags(model)
        np.testing.assert_array_equal(end[absent], start[absent])
        assert (end != start).any()


@pytest.mark.parametrize("shared", [None, {"items": "first"}])
def test_values_of_lists_without_training_rows_count_as_unseen(shared):
    table = TABLES["lists"].assign(first=pd.Categorical([each[0] for each in LISTS]))
    estimator = MultiTaskCTRCVRClassifier(
        max_epochs=1, random_state=0, encoding_params={"shared_embeddings": shared}
    )
    source = estimator.fit(table, Y)
    rows, absent = without_value_2(table, source)
    model = fit_like(estimator, source, table.iloc[rows], Y[rows])
    vectors, layer = vectors_of_bags(model), model.net_.module_.input_layer
    of_bags = layer.bags
    starts = of_bags.own_starts[~of_bags.is_shared].tolist()
    assert len(absent) == len(starts) == (1 if shared else 2)
    for place, start in zip(absent, starts, strict=True):
        unseen = start + layer.unseen_code
        np.testing.assert_array_equal(vectors[place], vectors[unseen])
        assert (vectors[place + 1] != vectors[unseen]).any()
        assert (vectors[place - 1] != vectors[unseen]).any()
