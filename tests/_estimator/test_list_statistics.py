"""Target statistics of list columns: means over the elements, without own labels."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from rows_with_statistics import fit_transform
from small_model import small

from sk_pwiser._columns._codes import FIRST_VALUE
from sk_pwiser._columns._list import Elements
from sk_pwiser._columns._target_statistics import TargetStatistics
from sk_pwiser._rows._blocks import assign_blocks
from sk_pwiser.datasets import ParquetImpressions

N, TASKS = 600, ["click", "conversion"]
SHARED = {"last": "author"}


def make_log(n=N, seed=0):
    """Rows whose words and last authors say how often they are clicked."""
    rng = np.random.default_rng(seed)
    words = [rng.integers(0, 12, k).tolist() for k in rng.integers(0, 5, n)]
    last = [rng.integers(0, 12, k).tolist() for k in rng.integers(1, 4, n)]
    logit = np.log(0.3 / 0.7) + [
        (np.sum(w) - 6 * len(w)) / 6 + np.mean(v) - 6
        for w, v in zip(words, last, strict=True)
    ]
    click = rng.random(n) < 1 / (1 + np.exp(-logit))
    Y = np.column_stack([click, click & (rng.random(n) < 0.5)]).astype(int)
    X = pd.DataFrame(
        {
            "author": pd.Categorical([f"a{i}" for i in rng.integers(0, 12, n)]),
            "words": [
                None if i % 9 == 0 else [f"w{v}" for v in w]
                for i, w in enumerate(words)
            ],
            "last": [[f"a{v}" for v in w] for w in last],
            "x": rng.normal(size=n),
        }
    )
    return X, pd.DataFrame(Y, columns=TASKS)


def make(**params):
    encoding = {
        "list_target_encoding": True,
        "shared_embeddings": SHARED,
        "target_encoding_min_values": 10,
        "target_encoding_blocks": 5,
    }
    encoding |= params.pop("encoding_params", {})
    return small(encoding_params=encoding, **params)


def raw(statistics, place, table, inputs):
    """Return inputs as log-odds and log(1 + n)."""
    width = statistics.n_tasks_ + 1
    own = inputs[:, place * width : (place + 1) * width]
    return own * statistics.scales_[table] + statistics.means_[table]


def log_odds(statistics, table, y, counted, codes):
    """Compute the mean over elements by hand; `counted` has (code, row) pairs."""
    found = []
    for code in codes:
        rows = [row for c, row in counted if c == code and code >= FIRST_VALUE]
        n, k = len(rows), y[rows].sum(axis=0)
        p, a = statistics.rates_, statistics.strengths_[table]
        rate = (k + a * p) / (n + a)
        found.append([*np.log(rate / (1 - rate)) - np.log(p / (1 - p)), np.log1p(n)])
    return np.mean(found, axis=0)


def test_a_list_has_the_mean_of_its_elements_without_its_own_block(monkeypatch):
    """A vocabulary of its own counts elements, a shared one the category column."""

    def fixed(self, counts):
        return np.full(self.n_tasks_, 10.0)

    monkeypatch.setattr(TargetStatistics, "_estimate_strengths", fixed)
    rng = np.random.default_rng(0)
    n = 400
    sizes = rng.integers(1, 4, n)
    own, shared = (
        Elements(rng.integers(1, 10, sizes.sum()), sizes.copy()) for _ in range(2)
    )
    codes = rng.integers(2, 10, (n, 1))
    rate = np.add.reduceat(own.codes, sizes.cumsum() - sizes) / sizes / 12
    y = (rng.random((n, 2)) < [[0.5, 0.5]] * rate[:, None] * codes / 6).astype(float)
    block, others = assign_blocks(n, 4), np.arange(n) % 6 == 0
    statistics = TargetStatistics([0], [10, 10], [(0, 1), (1, 0)])
    inputs = fit_transform(
        statistics, codes, y, np.ones_like(y), block, others, lists=[own, shared]
    )
    of_rows = np.repeat(np.arange(n), sizes)
    starts = sizes.cumsum() - sizes
    for row in range(0, n, 7):
        seen = ~others if others[row] else ~others & (block != block[row])
        elements = slice(starts[row], starts[row] + sizes[row])
        pairs = [(c, r) for c, r in zip(own.codes, of_rows, strict=True) if seen[r]]
        found = raw(statistics, 1, 1, inputs)[row]
        expected = log_odds(statistics, 1, y, pairs, own.codes[elements])
        assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        pairs = [(codes[r, 0], r) for r in np.flatnonzero(seen)]
        found = raw(statistics, 2, 0, inputs)[row]
        expected = log_odds(statistics, 0, y, pairs, shared.codes[elements])
        assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_inputs_of_a_fit():
    X, Y = make_log(2_000)
    encoded = make(max_epochs=1).fit(X, Y).encode(X)
    names = encoded.numeric_names
    assert names[-9:-6] == [
        f"author_{n}" for n in ("click_rate", "conversion_rate", "frequency")
    ]
    assert [n.split("_")[0] for n in names[-6:]] == ["words"] * 3 + ["last"] * 3
    words, last = encoded.numeric[:, -6], encoded.numeric[:, -3]
    of_rows = [0 if w is None else sum(int(v[1:]) - 6 for v in w) for w in X["words"]]
    assert np.corrcoef(words, of_rows)[0, 1] > 0.4
    assert np.isfinite(last).all()
    plain = small(encoding_params={"shared_embeddings": SHARED}, max_epochs=1)
    assert len(plain.fit(X, Y).encode(X).numeric_names) == len(names) - 9


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Rows with new category values")
@pytest.mark.parametrize("grows", [False, True])
def test_every_later_call_takes_them(grows):
    X, Y = make_log()
    later, y_later = make_log(200, seed=1)
    later["last"] = [["new", "a1"]] * 200
    later["author"] = later["author"].astype(str).where(later.index % 3 > 0, "new")
    model = make(encoding_params={"grow_vocabulary": grows}, warm_start=True)
    model.fit(X, Y).fit(X, Y)
    model.partial_fit(later, y_later)
    counts = model._result.schema.statistics.counts_[1][0, 0]
    words = [*X["words"], *later["words"]]
    # An empty list counts once, as a value of its own.
    assert counts.sum() == sum(max(len(w), 1) for w in words if w is not None)


def test_files_have_the_same_statistics(tmp_path):
    X, Y = make_log()
    X.join(Y).to_parquet(tmp_path / "a.parquet", row_group_size=100)
    files = ParquetImpressions(tmp_path, list(X), TASKS)
    params = {"early_stopping": True, "max_epochs": 1, "validation_fraction": 0.001}
    found, expected = make(**params).fit(files), make(**params).fit(X, Y)
    own, other = (m._result.schema.statistics for m in (found, expected))
    for counts, wanted in zip(own.counts_, other.counts_, strict=True):
        assert_allclose(counts, wanted)
    for means, wanted in zip(own.means_, other.means_, strict=True):
        assert_allclose(means, wanted, rtol=0.02, atol=1e-3)
    assert_allclose(found.encode(X).numeric, expected.encode(X).numeric, atol=0.1)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"list_target_encoding": "words"}, TypeError, "a bool or a list of names"),
        (
            {"list_target_encoding": ["x"]},
            ValueError,
            "contains 'x', which is not a column of lists of categories; these are "
            r"\['words', 'last'\]",
        ),
        (
            {"list_target_encoding": ["last"], "target_encoding_min_values": 99},
            ValueError,
            "shares the vocabulary of 'author'; add this column to target_encoding",
        ),
    ],
)
def test_refusals(params, error, message):
    X, Y = make_log()
    with pytest.raises(error, match=message):
        make(encoding_params=params).fit(X, Y)
    model = make(warm_start=True).fit(X, Y)
    model.set_params(encoding_params__list_target_encoding=["words"])
    with pytest.raises(ValueError, match=r"\['author', 'words'\], the earlier fit"):
        model.fit(X, Y)
    assert model.predict_proba(X).shape == (N, 2)
