"""`python -m sk_pwiser` on small data and a few epochs."""

import re
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
from small_model import X, Y

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._command import _compare, _generated_logs, _log_file, _main, _options
from sk_pwiser._tasks._labels import check_targets
from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer, mean_log_loss_scorer
from sk_pwiser.model_selection import _package_models, compare_models

pytestmark = pytest.mark.slow

pd = pytest.importorskip("pandas")
FEW = ["--folds", "2", "--max-epochs", "1", "--jobs", "1"]


@pytest.fixture(autouse=True)
def _small_examples(monkeypatch):
    monkeypatch.delenv("SK_PWISER_DATA", raising=False)
    small = _generated_logs.make_ctr_cvr(600, ctr=0.4, cvr=0.4, random_state=0)
    monkeypatch.setattr(_generated_logs, "make_ctr_cvr", lambda *args, **kwargs: small)
    monkeypatch.setattr(_generated_logs, "N_LOGS", 1)
    monkeypatch.setattr(_generated_logs, "N_TRAIN", 400)
    monkeypatch.setattr(_generated_logs, "N_USERS", 40)


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "log.csv"
    X.assign(**Y).to_csv(path, index=False)
    return path


def rows_of_table(out):
    """Return the rows of the printed table as lists of words."""
    lines = out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("metric "))
    return [line.split() for line in lines[start + 1 : start + 9]]


# A few users are all new in the later half.
FEW_USERS = pytest.mark.filterwarnings("ignore:Almost all rows have a value")
MODELS = ["logistic_regression", "hist_gradient_boosting"]
MAIN = {
    "Rare conversions": [*MODELS, "sk_pwiser, bce", "sk_pwiser, pwiser"],
    "Users who come back": [
        *(name + past for past in ("", " + past") for name in [*MODELS, "sk_pwiser"])
    ],
}


@FEW_USERS
def test_generated_logs(capsys):
    _main.main([*FEW, "--seed", "3"])
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    for title, names in MAIN.items():
        lines = out[out.index(title) :].splitlines()
        start = 1 + next(k for k, line in enumerate(lines) if "pred/obs" in line)
        assert lines[start - 1].split() == ["AUC", "log", "loss", "pred/obs"] * 2
        rows, said = lines[start : start + len(names)], lines[start + len(names) :]
        assert [line[:29].rstrip() for line in rows] == names
        scores = np.array([line[29:].split() for line in rows], dtype=float)
        aucs = dict(zip(names, scores[:, 3], strict=True))
        # The sentences say what the table shows.
        best = said[0].split("In conversion AUC, ")[1].split(" is best here.")[0]
        assert aucs[best] == scores[:, 3].max()
        pattern = r"- (.*) is (\S+) (ahead of|behind) (.*)"
        found = [re.fullmatch(pattern, line) for line in said[1:8]]
        found = [match.groups() for match in found if match]
        assert names[-1] in {first for first, *_ in found}
        for first, size, place, second in found:
            change = aucs[first] - aucs[second]
            assert float(size) == pytest.approx(abs(change), abs=6e-4)
            if abs(change) > 6e-4:  # otherwise the digits that are shown may be equal
                assert place == ("ahead of" if change > 0 else "behind")
    assert out.rstrip().endswith("--targets click conversion --weights 0.1 1")


def test_a_comparison_of_ids_as_numbers_says_so_at_its_end(capsys, tmp_path):
    rows = pd.DataFrame({"shop_id": np.arange(len(X)) % 50 + 10_000}).join(Y)
    rows.to_csv(tmp_path / "log.csv", index=False)
    options = ["--data", str(tmp_path / "log.csv"), "--targets", *Y.columns]
    _main.main([*FEW, *options])
    out = capsys.readouterr().out
    end = "read as numbers, which may mislead: shop_id"
    assert end in out.splitlines()[-2]
    _main.main([*FEW, *options, "--categorical", "shop_id"])
    assert end not in capsys.readouterr().out


def test_visits_come_in_the_order_of_time():
    X, Y = _generated_logs.make_visits(200, seed=0)
    assert X["time"].is_monotonic_increasing
    assert (Y["conversion"] <= Y["click"]).all()
    cut = len(X) // 2
    # Most users of the later half are new.
    assert X["user"][cut:].isin(X["user"][:cut]).mean() < 0.3
    again, _ = _generated_logs.make_visits(200, seed=0)
    assert again.equals(X)


def test_the_scores_are_those_of_each_task():
    log = _generated_logs.make_ctr_cvr()
    X, Y = log.data, log.target
    model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0).fit(X, Y)
    found = _generated_logs.score(model, X, Y)
    assert found[0] == ctr_auc_scorer(model, X, Y)
    assert found[3] == ctcvr_auc_scorer(model, X, Y)
    assert np.mean(found[1::3]) == pytest.approx(-mean_log_loss_scorer(model, X, Y))
    ratios = model.predict_proba(X).sum(axis=0) / Y.sum()
    np.testing.assert_allclose(found[2::3], ratios, rtol=1e-5)


def test_real_impressions_are_added(monkeypatch, capsys):
    asked = []

    def load(path, second, *, subset):
        asked.append((path, second, subset))
        return _generated_logs.make_ctr_cvr()

    monkeypatch.setenv("SK_PWISER_DATA", "folder")
    monkeypatch.setattr(_main, "load_kuairand", load)
    monkeypatch.setattr(_main, "show_logs", lambda arguments: None)
    _main.main(FEW)
    assert asked == [("folder", "engage", "train"), ("folder", "long", "train")]
    out = capsys.readouterr().out
    assert "KuaiRand, click and engage: 600 rows" in out
    assert out.count("Differences to bce") == 2


def test_a_file_of_the_user(capsys, csv):
    options = ["--data", str(csv), "--targets", *Y.columns, "--weights", "0.1", "1"]
    _main.main([*FEW, *options])
    out = capsys.readouterr().out
    assert f"log.csv: {len(X)} rows, {X.shape[1]} features; click 41.33%, conv" in out
    assert out.count("Differences to bce") == 1
    assert "fold 1 of 2, pwiser (weight 0.1):" in out
    assert "fold 2 of 2, pwiser (weight 1):" in out
    described, compared = out.split("log.csv: ")
    assert described.startswith(f"{len(X)} rows, {X.shape[1]} columns; tasks: click, c")
    assert all(f"\n{name}  " in described for name in X)
    assert "drift" not in described
    assert "Differences" in compared
    assert "s to predict and score\nSeeds of the folds: [" in compared


def test_a_file_against_models_of_other_packages(monkeypatch, capsys, csv):
    absent = dict.fromkeys(_package_models.PACKAGES, "no")
    monkeypatch.setattr(_package_models, "PACKAGES", absent)
    options = ["--data", str(csv), "--targets", *Y, "--against-others"]
    fitted = []
    fit = MultiTaskCTRCVRClassifier.fit
    monkeypatch.setattr(
        MultiTaskCTRCVRClassifier,
        "fit",
        lambda self, *args: fitted.append(self) or fit(self, *args),
    )
    _main.main([*FEW, *options])
    assert [model.max_epochs for model in fitted] == [1, 1]
    out = capsys.readouterr().out
    assert "Differences to sk_pwiser over" in out
    assert "hist_gradient_boosting" in out
    assert "s to predict and score" in out


# Amounts in decimals, whole numbers, with zeros in front, and words for missing ones.
AMOUNTS = np.array(["12.50", "7", "007.5", " 3e1"])[np.arange(len(X)) % 4]


@pytest.mark.parametrize("against_others", [False, True])
def test_values_are_compared(monkeypatch, tmp_path, capsys, against_others):
    absent = dict.fromkeys(_package_models.PACKAGES, "no")
    monkeypatch.setattr(_package_models, "PACKAGES", absent)
    spend = np.where(Y["conversion"] == 1, AMOUNTS, "NULL")
    log = X.assign(at=np.arange(len(X)), **Y, spend=spend, seconds=np.arange(len(X)))
    log.to_csv(tmp_path / "log.csv", index=False)
    options = ["--data", str(tmp_path / "log.csv"), "--targets", *Y, "--time", "at"]
    options += ["--values", "spend:conversion", "--values", "seconds:"]
    if against_others:
        options.append("--against-others")
    _main.main([*FEW, *options])
    out = capsys.readouterr().out
    events = int(Y["conversion"].sum())
    described, _ = out.split("\n* ", maxsplit=1)
    [line] = [line for line in described.splitlines() if line.startswith("spend ")]
    known = pd.Series(AMOUNTS[Y["conversion"] == 1]).astype(float)
    figures = [f"{events}", f"{known.mean():.4g}", f"{known.median():.4g}"]
    assert line.split()[2:5] == figures
    assert "spend Gini" in out
    assert "spend total error" in out
    assert "seconds, predicted / observed total: " in out
    if against_others:
        assert "Differences to sk_pwiser over" in out
        assert "mean_amount" in out
        assert "logistic_gamma" in out
        assert "hist_gradient_boosting" in out  # the events
    else:
        assert "spend, predicted / observed total: bce " in out


@pytest.mark.parametrize("kind", ["decimal", "int", "text"])
def test_amounts_of_every_type_are_read(tmp_path, kind):
    amounts = {
        "decimal": [Decimal("1.50"), None, Decimal("2.25")],
        "int": [1, 0, 3],
        "text": ["1.50", " ", "2.25"],
    }
    log = LOG.assign(spend=amounts[kind], buy=["yes", "no", "yes"])
    write(log, tmp_path / "log.parquet")
    options = ["--data", str(tmp_path / "log.parquet"), "--targets", "see", "buy"]
    options += ["--values", "spend:buy", "--ignore", "id", "at"]
    arguments = _options.make_parser().parse_args(options)
    _options.check(arguments)
    X, Y, *_ = _log_file.read(arguments)
    assert list(X) == ["age"]
    assert list(Y) == ["see", "buy", "spend"]
    targets = check_targets(Y, value_tasks=_options.read_value_tasks(arguments))
    expected = {"int": [1, np.nan, 3]}.get(kind, [1.5, np.nan, 2.25])
    np.testing.assert_array_equal(targets.amounts[:, 0], expected)


def test_names_of_values():
    options = ["--targets", "click", "buy", "--values", "a:b:buy,c:", "d", "e::click"]
    arguments = _options.make_parser().parse_args(["--data", "log.csv", *options])
    expected = {"a:b": "buy", "c": None, "d": None, "e:": "click"}
    assert _options.read_value_tasks(arguments) == expected


@pytest.mark.parametrize("options", [[], ["--against-others"]])
def test_refit_reaches_every_network(monkeypatch, tmp_path, options):
    absent = dict.fromkeys(_package_models.PACKAGES, "no")
    monkeypatch.setattr(_package_models, "PACKAGES", absent)
    # With fewer rows, early stopping would hold none out.
    rows = [*range(len(X))] * 8
    X.assign(**Y).iloc[rows].to_csv(tmp_path / "log.csv", index=False)
    options = ["--data", str(tmp_path / "log.csv"), "--targets", *Y, *options]
    stages = []
    fit = MultiTaskCTRCVRClassifier.fit

    def noted(self, *args, **kwargs):
        fit(self, *args, **kwargs)
        stages.append({epoch.get("stage") for epoch in self.history_})
        return self

    monkeypatch.setattr(MultiTaskCTRCVRClassifier, "fit", noted)
    _main.main([*FEW, *options])
    _main.main([*FEW, *options, "--refit"])
    n_fits = len(stages) // 2
    assert stages == [{None}] * n_fits + [{1, 2}] * n_fits


LOG = pd.DataFrame(
    {
        "id": [7, 8, 8],
        "buy": ["no", "Yes", "no"],
        "age": [1.5, 2.5, np.nan],
        "see": [True, True, False],
        "at": pd.to_datetime(["2026-01-02", "2026-01-03", "2026-01-01"]),
    }
)


@pytest.mark.parametrize(
    "name", ["log.csv", "log.csv.gz", "log.PARQUET", "indexed.parquet"]
)
def test_reading_files(tmp_path, name):
    is_indexed = name.startswith("indexed")
    path = write(LOG.set_index(["id", "at"]) if is_indexed else LOG, tmp_path / name)
    options = ["--targets", "see", "buy", "--categorical", "id", "--time", "at"]
    arguments = _options.make_parser().parse_args(["--data", str(path), *options])
    features, labels, times, _ = _log_file.read(arguments)
    assert features.dtypes.astype(str).to_dict() == {"id": "category", "age": "float64"}
    assert labels.columns.tolist() == ["see", "buy"]
    np.testing.assert_array_equal(labels, [[1, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(times, LOG["at"])
    arguments.ignore, arguments.categorical = ["id"], []
    assert _log_file.read(arguments)[0].columns.tolist() == ["age"]
    ids = [2**53 + 1, None, 2**53]
    write(LOG.assign(id=pd.array(ids, "Int64")), path)
    arguments.ignore, arguments.categorical = [], ["id"]
    read_ids = _log_file.read(arguments)[0]["id"]
    assert [int(value) for value in read_ids.cat.categories] == [2**53, 2**53 + 1]
    assert read_ids.isna().tolist() == [False, True, False]


CODES = """user;zip;country;x;n;at;click;conversion
150;02134;NA;1.5;NA;2026-03-28 00:10:56 +0100;0;0
A12;2134;None;;3;2026-03-29 00:10:56 +0100;1;1
150;99999;;-1e3;4;2026-03-30 00:10:56 +0200;1;NA
"""


def read_texts(tmp_path, text, *options):
    (tmp_path / "log.csv").write_text(text)
    options = ["--data", str(tmp_path / "log.csv"), "--targets", *Y, *options]
    return _log_file.read(_options.make_parser().parse_args(options))[:3]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_values_of_categories_are_the_texts_of_the_file(tmp_path, separator, capsys):
    text = CODES.replace("1;NA\n", "1;0\n").replace(";", separator)
    table, labels, times = read_texts(tmp_path, text, "--time", "at")
    assert table["user"].tolist() == ["150", "A12", "150"]
    assert table["zip"].tolist() == ["02134", "2134", "99999"]
    assert table["country"].tolist()[:2] == ["NA", "None"]
    assert table["country"].isna().tolist() == [False, False, True]
    np.testing.assert_array_equal(table["x"], [1.5, np.nan, -1000.0])
    # Among numbers, the words are missing values.
    np.testing.assert_array_equal(table["n"], [np.nan, 3.0, 4.0])
    np.testing.assert_array_equal(labels, [[0, 0], [1, 1], [1, 0]])
    expected = ["2026-03-27T23:10:56", "2026-03-28T23:10:56", "2026-03-29T22:10:56"]
    assert times.dt.strftime("%Y-%m-%dT%H:%M:%S").tolist() == expected
    assert "since their numbers begin with 0: zip" in capsys.readouterr().out
    named, *_ = read_texts(tmp_path, text, "--categorical", "n", "zip", "--ignore", "x")
    assert named["n"].tolist() == ["NA", "3", "4"]
    assert named["zip"].nunique() == 3
    assert "x" not in named


def test_words_for_missing_labels_are_missing(tmp_path):
    with pytest.raises(ValueError, match="1 labels of --targets are missing"):
        read_texts(tmp_path, CODES)


def test_an_id_has_one_value_in_all_parts_of_a_large_file(tmp_path):
    """pandas guesses types by parts of a file, which are 2^k rows of all columns."""
    rows = 30_000
    codes = np.random.default_rng(0).integers(100, 200, rows).astype(str).astype(object)
    codes[-3:] = ["A12", "B7", "A12"]
    table = pd.DataFrame(dict.fromkeys([f"f{k}" for k in range(60)], np.zeros(rows)))
    table = table.assign(zip=codes, click=np.arange(rows) % 2, conversion=0)
    table["conversion"] = table["click"]
    table.to_csv(tmp_path / "log.csv", index=False)
    # As pandas reads the file by itself, many values occur twice.
    with pytest.warns(pd.errors.DtypeWarning):
        assert pd.read_csv(tmp_path / "log.csv")["zip"].nunique() > 150
    options = ["--data", str(tmp_path / "log.csv"), "--targets", *Y]
    arguments = _options.make_parser().parse_args(options)
    features, *_ = _log_file.read(arguments)
    assert features["zip"].nunique() == table["zip"].nunique() == 102


@pytest.mark.parametrize("end", ["Z", " UTC", "UTC", " +01:00", "+0100", " -05", ""])
def test_offsets_of_times(tmp_path, end):
    moments = ["2026-03-28 00:10:56", "2026-03-29T00:10:56.5", "2026-03-30 00:10"]
    lines = [f"{k},{moment}{end},1,1" for k, moment in enumerate(moments)]
    text = "\n".join(["x,at,click,conversion", *lines])
    *_, times = read_texts(tmp_path, text, "--time", "at")
    if not end:
        assert times.dt.tz is None
    hours = {"+": 1, "-": -5}.get(end.strip()[:1], 0)
    expected = pd.to_datetime(moments, format="ISO8601") - pd.Timedelta(hours, "h")
    found = pd.to_datetime(times, utc=True).dt.tz_convert(None)
    np.testing.assert_array_equal(found, expected)


def write(frame, path):
    if path.suffix.lower() == ".parquet":
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False)
    return path


def test_worker_processes_find_what_the_command_uses():
    options = ["--max-epochs", "1", "--jobs", "2"]
    command_line = [sys.executable, "-m", "sk_pwiser", *options]
    done = subprocess.run(command_line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "conversion AUC" in done.stdout


@pytest.mark.filterwarnings("default")
def test_scores_and_warnings_are_those_that_a_reader_expects(tmp_path, capsys):
    times = 789_652_009 + 86_400 * np.arange(len(X))
    # Each fit warns of a column with one value.
    path = write(X.assign(at=times, same=1, **Y), tmp_path / "log.csv")
    options = ["--data", str(path), "--targets", *Y, "--time", "at", "--folds", "3"]
    _main.main(["--max-epochs", "1", "--jobs", "2", *options])
    out, err = capsys.readouterr()
    assert "minus log loss" not in out
    [row] = [each for each in rows_of_table(out) if each[:3] == ["log", "loss", "bce"]]
    assert 0 < float(row[3]) < 1
    assert "1995-01-09 11:46:49" in out
    lines = err.splitlines()
    assert lines
    assert all(line.startswith("Warning: ") for line in lines)
    assert len(set(lines)) == len(lines)
    assert "process.py" not in err


def test_a_log_with_times_and_words(monkeypatch, tmp_path, capsys):
    seen = {}

    def compare(*args, **kwargs):
        seen.update(kwargs)
        return compare_models(*args, **kwargs)

    monkeypatch.setattr(_compare.model_selection, "compare_models", compare)
    times = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(X))[::-1], "h")
    words = Y.replace({0: " no", 1: "YES"})
    path = write(X.assign(at=times, late=times, **words), tmp_path / "log.csv")
    options = ["--targets", *Y.columns, "--time", "at", "--ignore", "late"]
    _main.main([*FEW, "--data", str(path), *options])
    out = capsys.readouterr().out
    assert f"{len(X)} rows, {X.shape[1]} features; click 41.33%, conv" in out
    assert "2 folds in the order of 'at', seed 0" in out
    assert "drift" in out
    assert "2026-01-01 00:00:00" in out
    for train, test in seen["cv"].split(X, Y):
        assert times[train].max() < times[test].min()
    # The fits hold out the last rows, too.
    assert seen["estimator"].encoding_params == {"time_column": "at"}


DAYS = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(len(X)) // 3, "D")


def test_a_column_of_real_dates_is_the_time(tmp_path, capsys):
    path = write(X.assign(at=DAYS, **Y), tmp_path / "log.parquet")
    _main.main([*FEW, "--data", str(path), "--targets", *Y])
    out = capsys.readouterr().out
    assert out.startswith(
        "The dates in 'at' order the rows, as with --time at; to leave"
    )
    assert "2 folds in the order of 'at', seed 0" in out
    assert f"{X.shape[1]} features; click" in out
    _main.main([*FEW, "--data", str(path), "--targets", *Y, "--ignore", "at"])
    assert "stratified by funnel depth" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_dates_as_text_are_proposed_as_the_time(tmp_path, capsys, name):
    texts = DAYS.strftime("%Y-%m-%d")
    table = X.assign(at=texts, local=DAYS.strftime("%d/%m/%Y"), **Y)
    path = write(table, tmp_path / name)
    _main.main([*FEW, "--data", str(path), "--targets", *Y])
    out = capsys.readouterr().out
    proposal = "If 'at' orders the rows, judge and compare on later rows: --time at"
    assert out.count("judge and compare on later rows") == out.count(proposal) == 1
    assert "The folds are random, although these columns hold dates: at" in out
    options = ["--targets", *Y, "--time", "at", "--ignore", "local"]
    _main.main([*FEW, "--data", str(path), *options])
    assert "hold dates" not in capsys.readouterr().out


def test_other_models_do_not_read_the_times(monkeypatch, tmp_path, capsys):
    names = ["sk_pwiser", "logistic_regression"]
    few = _compare.model_selection.named_models(names, n_tasks=2)
    monkeypatch.setattr(
        _compare.model_selection, "named_models", lambda *args, **kwargs: few
    )
    times = pd.date_range("2026-01-01", periods=len(X), freq="h")
    options = ["--targets", *Y.columns, "--time", "at", "--against-others"]
    found = []
    for name, other in (("a.csv", times), ("b.csv", times + pd.Timedelta("9h"))):
        path = write(X.assign(at=other, **Y), tmp_path / name)
        _main.main([*FEW, "--data", str(path), *options])
        out = capsys.readouterr().out
        found.append(rows_of_table(out))
    assert found[0] == found[1]
    assert f"{X.shape[1]} features; click" in out


DATA = ["--data", "log.parquet", "--targets", *Y]


def test_times_may_have_the_offsets_of_summer_and_winter(monkeypatch, tmp_path, capsys):
    hours = pd.date_range("2026-03-28", periods=len(X), freq="h", tz="Europe/Berlin")
    at = [hour.isoformat() for hour in hours]
    assert len({text[-6:] for text in at}) == 2
    monkeypatch.chdir(tmp_path)
    write(X.assign(at=at, **Y), tmp_path / "log.parquet")
    _main.main([*FEW, *DATA, "--time", "at"])
    assert "2 folds in the order of 'at', seed 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        # Files.
        ({"click": "perhaps"}, DATA, "'click' of Y contains 'perhaps' in row 0"),
        ({"click": np.nan}, DATA, "300 labels of --targets are missing. Leave th"),
        ({"conversion": np.nan}, DATA, "300 labels of --targets are missing. Leave th"),
        ({"at": "soon"}, [*DATA, "--time", "at"], "soon"),
        ({"at": "04/05/2026"}, [*DATA, "--time", "at"], "Time data 04/05/2026 is"),
        (
            {"at": np.where(np.arange(len(X)) % 2, "2026-04-30", "2026-04-30T12:00Z")},
            [*DATA, "--time", "at"],
            "Mixed timezones",
        ),
        ({"at": None}, [*DATA, "--time", "at"], "Column 'at' must hold a time in ever"),
        ({"at": 1}, [*DATA, "--time", "at"], "n_splits=2 with min_conversions=1"),
        ({"price": np.inf}, DATA, "'price'"),
        # Columns that are named.
        ({}, [*DATA, "--time", "x"], "log.parquet has no columns ['x']; its columns"),
        ({}, [*DATA, "--categorical", "x"], "no columns ['x']; its columns are ['num"),
        ({}, [*DATA[:3], "view"], "log.parquet has no columns ['view']"),
        ({}, [*DATA[:3], "clik"], "Did you mean 'click'?"),
        ({}, [*DATA, "--time", "click"], "--time contains 'click', which is one of"),
        ({}, [*DATA, "--ignore", "conversion"], "--ignore contains 'conversion', wh"),
        ({}, [*DATA, "--categorical", "click"], "--categorical contains 'click', wh"),
        ({}, [*DATA, "--time", "at", "--ignore", "at"], "--time and --ignore both n"),
        (
            {"at": LOG["at"][0], "late": LOG["at"][0]},
            DATA,
            "log.parquet has several columns of dates, ['at', 'late']: name the one",
        ),
        # Options.
        ({}, ["--targets", "click"], "--data and --targets must be given together"),
        ({}, ["--categorical", "id"], "--categorical must be given with --data"),
        ({}, ["--weights", "1"], "--weights must be given with --data"),
        ({}, ["--values", "a"], "--values must be given with --data"),
        ({}, [*DATA, "--values", "x"], "log.parquet has no columns ['x']; its columns"),
        ({}, [*DATA, "--values", "x:buy"], "--values has the task 'buy' for 'x'; it"),
        ({}, [*DATA, "--values", "click"], "--values contains 'click', which is one"),
        ({}, [*DATA, "--values", "x,x"], "--values must name different columns"),
        ({}, [*DATA, "--values", ":click"], "--values must name different columns"),
        ({}, [*DATA, "--values", "x", "--ignore", "x"], "--ignore contains 'x', which"),
        (
            {"spend": "5 EUR"},
            [*DATA, "--values", "spend"],
            "column 'spend' of Y contains '5 EUR' in row 0. Remove currencies",
        ),
        ({"spend": -1.0}, [*DATA, "--values", "spend"], "must not be negative; column"),
        ({}, ["--refit"], "--refit must be given with --data"),
        (
            {},
            [*DATA, "--against-others", "--weights", "1"],
            "--weights must be given without --against-others",
        ),
        ({}, [*DATA, "--folds", "1"], "cv must be an int >= 2 or a splitter, got 1"),
        ({}, ["--data", "a.csv", *DATA[2:]], "No such file or directory: 'a.csv'"),
        (
            {},
            ["--data", "latin.csv", *DATA[2:]],
            "latin.csv is not a CSV file in UTF-8",
        ),
    ],
)
def test_errors_are_one_line(monkeypatch, tmp_path, capsys, columns, options, message):
    monkeypatch.chdir(tmp_path)
    write(X.assign(**{**Y, **columns}), tmp_path / "log.parquet")
    (tmp_path / "latin.csv").write_bytes(b"caf\xe9")
    with pytest.raises(SystemExit) as exit_:
        _main.main([*FEW, *options])
    assert exit_.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m sk_pwiser: error: ")
    assert message in line


def test_a_parquet_file_of_joined_tables(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    log = X.assign(**Y)
    path = tmp_path / "log.parquet"
    pd.concat([log[:300], log[:300]]).to_parquet(path)
    _main.main(["--data", str(path), "--targets", *Y, *FEW])
    assert capsys.readouterr().out.startswith("600 rows, ")
