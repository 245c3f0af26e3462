"""The look before a fit, against pandas, scikit-learn and the fit itself."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import CONTAINERS

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import describe_impressions
from sk_pwiser.inspection._column_facts import Entries, cross_fitted_auc, is_determined

N = 4_000
LOG = make_ctr_cvr(N, n_numeric=2, n_categorical=2, ctr=0.3, cvr=0.3, random_state=0)
RNG = np.random.default_rng(0)
TIME = pd.Series(pd.date_range("2026-03-02", periods=N, freq="5min"))
X = LOG.data.assign(
    user_id=RNG.integers(0, 500, N),
    refund=np.where(LOG.target["conversion"] == 1, 9.5, 0.0),
    late=np.where(np.arange(N) < 0.9 * N, "old", "new"),
    same=3.0,
    holes=np.where(RNG.random(N) < 0.25, np.nan, RNG.normal(size=N)),
    key=[f"row {row}" for row in range(N)],
    items=[[f"i{row % 3}"] * (row % 4) for row in range(N)],
    at=TIME,
)
Y = LOG.target


@pytest.fixture(scope="module")
def described():
    return describe_impressions(X, Y, time="at")


@pytest.fixture(scope="module")
def columns(described):
    return described.columns.set_index("column")


def test_depths_and_periods(described):
    depths = described.depths
    assert depths["reached"].tolist() == ["none", "click", "conversion"]
    assert depths["rows"].tolist() == Y.sum(axis=1).value_counts().sort_index().tolist()
    periods, tenths = described.periods, Y.groupby(np.arange(N) * 10 // N)
    assert periods["start"].tolist() == TIME[:: N // 10].astype(str).tolist()
    assert_allclose(periods["rate_click"], tenths.mean()["click"])
    assert_allclose(periods["rate_conversion"], tenths.mean()["conversion"])


def test_starts_of_periods_have_the_digits_of_the_times():
    times = 123_456_789.25 + np.arange(40)
    labels = np.arange(40) % 3 == 0
    found = describe_impressions(times[:, None], labels, time=times, n_periods=4)
    assert [float(start) for start in found.periods["start"]] == times[::10].tolist()


def test_a_last_period_of_few_rows_is_compared():
    today = np.arange(1_000) >= 970
    x = np.random.default_rng(0).normal(size=1_000) + 3 * today
    labels = np.arange(1_000) % 3 == 0
    found = describe_impressions(x[:, None], labels, time=today.astype(int))
    assert found.flagged("drift") == [0]


def test_values_and_shares(columns):
    plain = X.drop(columns=["at", "items"])
    assert columns.loc[plain.columns, "values"].tolist() == plain.nunique().tolist()
    assert_allclose(columns.loc[plain.columns, "missing"], plain.isna().mean())
    before, last = X[: -N // 10], X[-N // 10 :]
    for name in ("category_0", "user_id", "late", "key"):
        expected = (~last[name].isin(before[name])).mean()
        assert columns["unseen"][name] == pytest.approx(expected)
    assert columns["values"]["items"] == 3


def test_problems_have_flags(described, columns):
    assert described.flagged("leak") == ["refund"]
    assert described.flagged("id") == ["user_id"]
    assert described.flagged("constant") == ["same"]
    # The only column of dates is the time, as in fit.
    assert described.flagged("refused") == []
    assert columns["kind"]["at"] == "time"
    assert described.flagged("one value per row") == ["key"]
    assert described.flagged("new values") == ["late", "key"]
    assert described.flagged("drift") == ["late"]
    assert columns["flags"]["late"] == "new values, drift"
    with pytest.raises(ValueError, match="flag must be one of"):
        described.flagged("leaks")


def test_the_cross_fitted_auc_is_that_of_rates_by_hand():
    codes, y = RNG.integers(0, 6, 300), (RNG.random(300) < 0.3).astype(float)
    fold, known = np.arange(300) % 5, (RNG.random(300) < 0.8).astype(float)
    rate, aucs = np.average(y, weights=known), []
    strength = 4 / rate
    for k in range(5):
        own, rest = (fold == k) & (known > 0), (fold != k) & (known > 0)
        scores = [
            (y[rest & (codes == c)].sum() + strength * rate)
            / ((rest & (codes == c)).sum() + strength)
            for c in codes[own]
        ]
        aucs.append(roc_auc_score(y[own], scores))
    entries = Entries(codes, 5)
    found = cross_fitted_auc(entries, y, known, fold)
    assert found == pytest.approx(np.mean(aucs))
    # A list of one element per row is the same column, also in another order.
    order = RNG.permutation(300)
    lists = Entries(codes[order], 5, order)
    assert cross_fitted_auc(lists, y, known, fold) == pytest.approx(found)


def test_with_times_the_rates_are_those_of_earlier_rows():
    """Against a loop over the parts: the five later sixths of the rows."""
    rng = np.random.default_rng(3)
    codes, time = rng.integers(0, 6, 600), rng.permutation(600)
    y = (rng.random(600) < 0.2 + 0.1 * (codes % 3)).astype(int)
    table = pd.DataFrame({"c": codes.astype(str), "items": [[code] for code in codes]})
    found = describe_impressions(table, y, time=time).columns["auc_task_0"]
    strength, aucs = 4 / min(y.mean(), 1 - y.mean()), []
    for start in range(100, 600, 100):
        before, own = time < start, (time >= start) & (time < start + 100)
        scores = [
            (y[before & (codes == c)].sum() + strength * y.mean())
            / ((before & (codes == c)).sum() + strength)
            for c in codes[own]
        ]
        aucs.append(roc_auc_score(y[own], scores))
    assert found.tolist() == pytest.approx([np.mean(aucs)] * 2)


def group_bookings(seed, n=20_000):
    """Return bookings in the order of time, of which some have many equal rows.

    The lead time has a smooth effect, but copies of a booking share its outcome.
    """
    rng = np.random.default_rng(seed)
    is_group = rng.random(n) < 0.15
    sizes = np.where(is_group, rng.geometric(0.25, n), 1)
    sizes = sizes[np.cumsum(sizes) <= n]
    m = len(sizes)
    day = np.arange(m) * 365 // m
    lead = np.floor(rng.exponential(90, m)).clip(0, 500).astype(int)
    price = (60 + 40 * rng.random(m)).round(1)
    logit = -1 + 0.004 * lead + 0.01 * (price - 80) + np.sin(day / 60)
    canceled = (rng.random(m) < 1 / (1 + np.exp(-logit))).astype(int)
    at = pd.Timestamp("2026-01-01") + pd.to_timedelta(day, "D")
    table = pd.DataFrame({"lead": lead, "price": price, "at": at})
    rows = np.repeat(np.arange(m), sizes)
    return table.iloc[rows].reset_index(drop=True), canceled[rows]


def test_advice_is_judged_on_later_rows_where_there_are_times():
    table, canceled = group_bookings(0)
    inputs = table.drop(columns="at")
    by_chance = describe_impressions(inputs, canceled)
    by_time = describe_impressions(table, canceled, time="at")
    gains = [
        found.columns.set_index("column")["gain"]["lead"]
        for found in (by_chance, by_time)
    ]
    assert by_chance.flagged("category") == ["lead"]
    assert gains[0] > 0.03
    assert by_time.flagged("category") == []
    assert gains[1] < 0.005
    assert "AUC: of the column alone, on random folds" in " ".join(
        str(by_chance).split()
    )
    assert "AUC: of the column alone, on later rows" in " ".join(str(by_time).split())


def test_rows_that_repeat_are_counted():
    table, canceled = group_bookings(1, 5_000)
    inputs = table.drop(columns="at")
    found = describe_impressions(table, canceled, time="at")
    share = inputs.duplicated().mean()
    assert 0.2 < share < 0.4
    assert found.repeats == pytest.approx(share)
    [note] = [note for note in found.notes if "repeat" in note]
    assert note.startswith(f"{share:.1%} of the rows repeat all inputs of another row")
    last = table["at"] >= found.periods["start"].iloc[-1]
    keys = pd.Series(list(inputs.itertuples(index=False, name=None)))
    of_last = keys[last].isin(set(keys[~last])).mean()
    assert f"but of the last period {of_last:.1%} have one in the rows before" in note
    notes = describe_impressions(inputs, canceled).notes
    assert any("name the time, or pass groups" in note for note in notes)
    # Few values come back in later rows as well.
    few = (inputs // 100).assign(array=[[0.5, k % 2] for k in range(len(inputs))])
    few["items"] = [["a"] * (k % 3) for k in range(len(inputs))]
    found = describe_impressions(few, canceled, time=np.arange(len(few)))
    as_text = few.astype(str)
    assert found.repeats == pytest.approx(as_text.duplicated().mean())
    assert any("equal inputs come back" in note for note in found.notes)
    assert describe_impressions(X, Y, time="at").repeats == 0


def test_a_number_that_also_occurs_as_text_is_named():
    column = pd.Series([12, "12", 13, "b"] * 100, dtype=object)
    found = describe_impressions(pd.DataFrame({"id": column}), np.arange(400) % 3 == 0)
    assert found.flagged("numbers and their texts") == ["id"]


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"categorical_features": ["user_id"], "embedding_dim": "auto"},
        {"numeric_encoding": "standard", "target_encoding": False},
        {"numeric_encoding": "piecewise_linear", "embedding_dim": 5},
        {"encoding_params": {"n_hash_buckets": 7, "list_pooling": "sum"}},
    ],
)
@pytest.mark.filterwarnings("ignore:The (numeric )?columns:UserWarning")
@pytest.mark.filterwarnings("ignore:The rows are in an order that matters")
def test_the_inputs_are_those_of_the_fit(params):
    table = X.drop(columns=["at", "key"])
    model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0, **params)
    described = describe_impressions(table, Y, estimator=model)
    found = described.columns.set_index("column")
    is_named = "categorical_features" in params
    assert found["kind"]["user_id"] == ("category" if is_named else "numeric")
    assert described.flagged("id") == ([] if is_named else ["user_id"])
    model.fit(table, Y)
    layer = model.net_.module_.input_layer
    assert found["width"].sum() == layer.width
    for index, name in enumerate(model.encode(table).category_names):
        assert found["vectors"][name] == len(layer.column_embeddings(index))


@pytest.mark.parametrize("n_values", [3, 40, 900])
@pytest.mark.parametrize("order", ["random", "sorted"])
def test_a_column_determines_another_by_its_pairs_of_values(n_values, order):
    """Against the set of all pairs, near the limit of 1.1 pairs per value."""
    rng = np.random.default_rng(n_values)
    found = []
    for n_others in range(0, n_values // 2 + 6, n_values // 40 + 1):
        user = rng.integers(0, n_values, 2_000)
        user = np.sort(user) if order == "sorted" else user
        age = user % (n_values // 2 + 1)
        other = rng.choice(2_000, n_others, replace=False)
        age[other] = rng.integers(0, n_values // 2 + 1, n_others)
        columns = {"user": Entries(user, n_values), "age": Entries(age, n_values // 2)}
        expected = len({*zip(user, age, strict=True)}) <= 1.1 * n_values
        assert is_determined("age", columns) == expected
        assert not is_determined("user", columns)
        found.append(expected)
    assert len(set(found)) == 2


def test_ids_gain_as_categories_and_their_attributes_are_not_named():
    rng = np.random.default_rng(1)
    effect = rng.normal(scale=1.5, size=400)
    user = rng.integers(0, 400, 20_000)
    friends = rng.permutation(90)[np.arange(400) % 90]
    count = rng.geometric(0.02, 20_000)
    logit = effect[user] - 1.5 + 0.3 * np.log(count)
    click = (rng.random(20_000) < 1 / (1 + np.exp(-logit))).astype(int)
    table = pd.DataFrame({"u": user, "friends": friends[user], "count": count})
    found = describe_impressions(table, click)
    gain = found.columns.set_index("column")["gain"]
    assert found.flagged("category") == ["u"]
    assert found.flagged("id") == []
    assert gain["u"] > 0.2
    assert gain["friends"] > 0.05
    assert gain["count"] < 0.005
    assert "'u' (+0." in str(found)
    # Without the users, the attribute stands for them.
    assert describe_impressions(table[["friends"]], click).flagged("category")


def test_rare_conversions_and_missing_labels():
    rng = np.random.default_rng(2)
    click = rng.random(30_000) < 0.02
    buy = np.where(click, rng.random(30_000) < 0.05, 0.0)
    labels = pd.DataFrame({"click": click.astype(float), "buy": buy})
    labels.loc[::10, "buy"] = np.nan
    table = pd.DataFrame({"noise": rng.normal(size=30_000), "paid": buy * 3})
    found = describe_impressions(table, labels, time=np.arange(30_000))
    assert found.flagged("leak") == ["paid"]
    assert found.depths["depth"].tolist() == [-1, 0, 1, 2]
    assert found.depths["rows"].sum() == 30_000
    rate = labels["buy"].groupby(np.arange(30_000) // 3_000).mean()
    assert_allclose(found.periods["rate_buy"], rate)
    assert "3,000 labels are missing: set missing_labels='ignore'." in found.notes


@pytest.mark.parametrize(
    ("parents", "rows", "n_broken"),
    [(None, [3, 1, 1, 2], 0), ({"buy": "click"}, [4, 1, 1, 1], 1)],
)
def test_tasks_that_are_no_funnel_are_counted_as_by_the_fit(parents, rows, n_broken):
    labels = [[0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 1]]
    labels = pd.DataFrame([*labels, [0, 0, 1]], columns=["like", "click", "buy"])
    model = MultiTaskCTRCVRClassifier(task_parents=parents)
    found = describe_impressions(X[:7], labels, estimator=model)
    assert found.depths["rows"].tolist() == rows
    broken = [note for note in found.notes if "break the funnel" in note]
    assert len(broken) == n_broken
    assert all(note.startswith("1 of 7 rows") for note in broken)


COLUMNS = {
    "n": [float(k % 7) for k in range(60)],
    "c": ["ab"[k % 2] for k in range(60)],
    "list": [[k % 3, k % 5] for k in range(60)],
}
LABELS = np.column_stack([np.arange(60) % 3 > 0, np.arange(60) % 3 > 1]).astype(int)


@pytest.mark.parametrize("container", CONTAINERS)
def test_all_libraries_give_the_same(container):
    found = describe_impressions(CONTAINERS[container](COLUMNS), LABELS)
    assert str(found) == str(describe_impressions(pd.DataFrame(COLUMNS), LABELS))
    kinds = ["numeric", "category", "list of categories"]
    assert found.columns["kind"].tolist() == kinds


def test_arrays_one_task_and_many_tasks():
    numbers = X[["numeric_0", "numeric_1"]].to_numpy()
    one = describe_impressions(numbers, np.where(Y["click"], "yes", "no"))
    assert one.columns["column"].tolist() == [0, 1]
    assert one.task_names == ["task_0"]
    five = np.column_stack([Y["click"], *[Y["conversion"]] * 4])
    found = describe_impressions(numbers.tolist(), five.tolist())
    assert_allclose(found.columns["auc_task_0"], one.columns["auc_task_0"], atol=0.02)
    assert "task_4" in str(found)


def test_sparse_tables_are_refused():
    with pytest.raises(TypeError, match=r"X must not be sparse; pass X.toarray\(\)"):
        describe_impressions(sp.csr_matrix((N, 3)), Y)


def test_dates_and_other_refused_columns_do_not_stop_the_description():
    table = X[["numeric_0"]].assign(
        when=TIME.mask(TIME.index % 4 == 0),
        bought=TIME.where(Y["conversion"] == 1),
        span=pd.to_timedelta(np.arange(N), "h"),
        inf=np.where(np.arange(N) == 7, np.inf, 0.0),
        nested=[[[1]]] * N,
        big=2**62 + np.arange(N) % 50,
    )
    found = describe_impressions(table, Y)
    assert found.flagged("refused") == list(table)[1:]
    assert found.flagged("leak") == ["bought"]
    columns = found.columns.set_index("column")
    assert columns["missing"]["when"] == 0.25
    text = " ".join(str(found).split())
    assert "'when' (Column 'when' cannot be read as numbers" in text
    assert "fit with encoding_params={'time_column': 'when'}; otherwise derive" in text
    for name in found.flagged("refused")[2:]:  # as `fit` does
        with pytest.raises((TypeError, ValueError), match=f"'{name}'"):
            MultiTaskCTRCVRClassifier().fit(table[["numeric_0", name]], Y)


def test_more_rows_than_max_rows_are_sampled():
    found = describe_impressions(X, Y, time="at", max_rows=1_000)
    assert found.n_described == 1_000
    assert found.depths["rows"].sum() == N
    assert "Columns: by a random sample of 1,000 rows" in str(found)
    assert found.columns.set_index("column")["values"]["key"] == 1_000
    again = describe_impressions(X, Y, time="at", max_rows=1_000)
    assert str(again) == str(found)
    assert str(describe_impressions(X, Y, max_rows=1_000, random_state=1)) != str(found)


def test_the_text_and_the_html(described):
    lines = str(described).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == "4,000 rows, 12 columns; tasks: click, conversion"
    table = X.rename(columns={"refund": "<b>refund</b> of the whole order"})
    html = describe_impressions(table, Y)._repr_html_()
    assert "&lt;b&gt;refund" in html
    assert "<b>" not in html
    assert html.count("<table>") == html.count("</table>") == 3
    many = pd.DataFrame(RNG.normal(size=(100, 70))).add_prefix("c")
    found = describe_impressions(many, np.arange(100) % 2)
    text = str(found)
    assert "and 10 more" in text
    assert "and 10 more" in found._repr_html_()
    assert "c59 " in text
    assert "c60 " not in text


MODEL = MultiTaskCTRCVRClassifier
REFUSED = {
    ValueError: [
        ({"time": "hour"}, "time is 'hour', which is not a column"),
        ({"time": "holes"}, "Column 'holes' must hold a time in every row"),
        ({"time": [1, 2]}, "inconsistent numbers of samples"),
        ({"time": TIME[::-1]}, "X and time have the same index labels"),
        ({"Y": Y[:-1]}, "X has 4000 rows, Y has 3999"),
        ({"Y": Y + 1}, "Labels must be 0 or 1; column 'click'"),
        ({"n_periods": 1}, "n_periods"),
        ({"estimator": MODEL(categorical_features=["no"])}, "'no', which is not a col"),
        ({"estimator": MODEL(numeric_encoding="no")}, "'numeric_encoding' parameter"),
        ({"X": pd.concat([X, X], axis=1)}, "columns of X must be distinct"),
    ],
    TypeError: [
        ({"time": "late"}, "Column 'late' must hold times"),
        ({"max_rows": 2.5}, "max_rows"),
        ({"estimator": "default"}, "estimator must be None or a MultiTask"),
        ({"estimator": MODEL}, "estimator must be"),
        ({"estimator": make_pipeline(StandardScaler(), MODEL())}, "pass its last step"),
        ({"X": X.to_dict("list")}, "X is a dict"),
    ],
}


@pytest.mark.parametrize(
    ("error", "changes", "message"),
    [(error, *case) for error, cases in REFUSED.items() for case in cases],
)
def test_bad_input(error, changes, message):
    arguments = {"X": X, "Y": Y, **changes}
    with pytest.raises(error, match=message):
        describe_impressions(arguments.pop("X"), arguments.pop("Y"), **arguments)


@pytest.mark.parametrize("n_rows", [2, 5, 9])
def test_few_rows(n_rows):
    table = pl.DataFrame({"a": range(n_rows), "b": ["x"] * n_rows})
    found = describe_impressions(table, np.arange(n_rows) % 2, time="a")
    assert "nan" not in str(found)
    assert found.flagged("constant") == ["b"]


@pytest.mark.parametrize(
    ("times", "start"),
    [
        (789_652_009 + np.arange(300), "1995-01-09 11:46:49"),  # seconds
        ((789_652_009 + np.arange(300.0)) * 1000, "1995-01-09 11:46:49"),
        (20_260_131 + np.arange(300) // 100, "20260131"),  # dates as numbers
        (2_026_013_100 + np.arange(300) // 20, "2026013100"),
        (np.arange(300), "0"),
    ],
)
def test_unix_times_are_shown_as_dates(times, start):
    log = make_ctr_cvr(300, ctr=0.4, cvr=0.4, random_state=0)
    described = describe_impressions(log.data, log.target, time=times)
    assert described.periods["start"][0] == start
