"""`python -m sk_pwiser explain` on small files."""

import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit
from small_model import DATA, small

from sk_pwiser._command import _explain, _main
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.inspection import explain_rows

pd = pytest.importorskip("pandas")
N_ROWS = 5
# Categories of text and of numbers, numbers with missing ones, and a flag.
X = DATA.data.rename(columns=str)[["numeric_0", "category_0"]].assign(
    shop=np.arange(len(DATA.data)) % 7 + 10_000,
    plan=np.where(np.arange(len(DATA.data)) % 3 == 0, "NA", "007"),
    is_new=np.arange(len(DATA.data)) % 2 == 0,
)
X["category_0"] = X["category_0"].astype(str).astype(object)
X.loc[::4, "numeric_0"] = np.nan
Y = DATA.target
ROWS = X[:N_ROWS]
BACKGROUND = X[100:110]


@pytest.fixture(scope="module")
def model():
    return small(categorical_features=["shop"], target_encoding=False).fit(X, Y)


@pytest.fixture
def folder(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    model.save("model.zip")
    ROWS.assign(request=[f"r{k}" for k in range(N_ROWS)], spare=1).to_csv(
        "rows.csv", index=False
    )
    BACKGROUND.to_csv("background.csv", index=False, sep=";")
    return tmp_path


COMMON = ["explain", "model.zip", "rows.csv", "--background", "background.csv"]


def test_a_line_per_row_and_task_says_why(folder, model, capsys):
    _main.main([*COMMON, "--tasks", "click", "cvr", "--largest", "2"])
    lines = capsys.readouterr().out.splitlines()
    expected = explain_rows(model, ROWS, background=BACKGROUND, tasks=["click", "cvr"])
    assert len(lines) == 2 * N_ROWS
    for row in range(N_ROWS):
        for index, task in enumerate(["click", "cvr"]):
            line = lines[2 * row + index]
            start, percent, reasons = re.fullmatch(
                r"(row \d, \w+) ([\d.]+)%: (.*)", line
            ).groups()
            assert start == f"row {row}, {task}"
            p = expit(expected.log_odds[row, index])
            assert float(percent) / 100 == pytest.approx(p, abs=1e-5)
            assert reasons == "; ".join(expected.reasons(row, task, n_reasons=2))


@pytest.mark.parametrize("name", ["reasons.csv", "reasons.csv.gz", "reasons.parquet"])
def test_the_table_has_all_contributions(folder, model, capsys, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    _main.main([*COMMON, "--id", "request", "--output", name, "--over-all-rows"])
    lines = capsys.readouterr().out.splitlines()
    read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
    table = read(name)
    expected = explain_rows(model, ROWS, background=BACKGROUND)
    frame = expected.to_frame()
    columns = ["row", "request", "task", "column", "value", "contribution", "error"]
    assert list(table) == columns
    for column in ("row", "task", "column"):
        assert list(table[column]) == list(frame[column])
    assert list(table["request"]) == [f"r{row}" for row in frame["row"]]
    assert_allclose(table["contribution"], frame["contribution"], atol=1e-6)
    values = table[table["column"] == "is_new"]["value"].astype(str)
    assert set(values) == {"True", "False"}
    # Over all rows, the columns with the largest mean come first.
    sizes = np.abs(expected.contributions).mean(axis=0)
    for index, task in enumerate(expected.task_names):
        assert lines[index].startswith(f"{task}, mean absolute contributions of 5 rows")
        assert expected.column_names[sizes[:, index].argmax()] in lines[index]
    assert lines[-1] == f"{len(frame)} contributions are in {name}"


def test_parquet_files_and_the_default_background(folder, model, capsys):
    pytest.importorskip("pyarrow")
    ROWS.to_parquet("rows.parquet")
    _main.main(["explain", "model.zip", "rows.parquet"])
    lines = capsys.readouterr().out.splitlines()
    expected = explain_rows(model, ROWS)
    reasons = "; ".join(expected.reasons(2, "click"))
    assert lines[6] == f"row 2, click {expit(expected.log_odds[2, 0]):.3%}: {reasons}"


def test_a_calibrated_model_with_groups(folder, model, capsys):
    calibrator = FunnelCalibrator(model, cv=None, method="sigmoid", by="shop")
    calibrator.fit(X, Y).save("model.zip")
    _main.main([*COMMON, "--tasks", "conversion"])
    lines = capsys.readouterr().out.splitlines()
    p = calibrator.predict_proba(ROWS)[:, 1]
    shown = [float(re.search(r" ([\d.]+)%", line)[1]) / 100 for line in lines]
    assert_allclose(shown, p, atol=1e-5)


def test_amounts_and_positions(folder, capsys):
    table = X.assign(position=np.arange(len(X)) % 5)
    labels = Y.assign(spend=3.0 * Y["conversion"])
    model = small(
        categorical_features=["shop"],
        exposure_features=["position"],
        value_tasks={"spend": "conversion"},
    ).fit(table, labels)
    model.save("model.zip")
    _main.main([*COMMON, "--tasks", "spend"])
    lines = capsys.readouterr().out.splitlines()
    amounts = model.predict_value(table[:N_ROWS])
    shown = [float(re.search(r"spend (\S+):", line)[1]) for line in lines]
    assert_allclose(shown, amounts, rtol=1e-3)
    assert all("multiplies the mean amount by" in line for line in lines)


def test_a_row_like_the_background_has_no_reasons(folder, capsys):
    pd.concat([ROWS[:1]] * 3).to_csv("rows.csv", index=False)
    _main.main(["explain", "model.zip", "rows.csv", "--tasks", "click"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    end = ": no column differs from the background"
    assert all(line.endswith(end) for line in lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["absent.zip", "rows.csv"], "No such file or directory: 'absent.zip'"),
        (["rows.csv", "rows.csv"], "'rows.csv' is not a file of sk_pwiser"),
        (["model.zip", "absent.csv"], "No such file or directory: 'absent.csv'"),
        (["model.zip", "few.csv"], "few.csv has no columns ['numeric_0', 'shop']; its"),
        (["model.zip", "empty.csv"], "empty.csv has no rows"),
        (
            ["model.zip", "words.csv"],
            "words.csv: Column 'numeric_0' contained numbers in fit; row 1 (the first "
            "one is 0) has 'many'.",
        ),
        (["model.zip", "ids.csv"], "ids.csv: Column 'shop' contained numbers in fit"),
        (["model.zip", "latin.csv"], "latin.csv is not a CSV file in UTF-8"),
        (
            ["model.zip", "rows.csv", "--background", "few.csv"],
            "few.csv has no columns",
        ),
        (["model.zip", "rows.csv", "--tasks", "buy"], "'buy'"),
        (["model.zip", "rows.csv", "--id", "name"], "has no columns ['name']"),
        (
            ["model.zip", "rows.csv", "--largest", "0"],
            "--largest must be an integer",
        ),
        (["model.zip", "rows.csv", "--output", "a.txt"], "--output must end with .csv"),
        (["model.zip", "rows.csv", "--output", "no/a.csv"], "there is no folder 'no'"),
        (
            ["model.zip", "rows.csv", "--output", "./rows.csv"],
            "--output would replace 'rows.csv', which is read",
        ),
        (["list.zip", "rows.csv"], "Column 'category_0' contained values in fit that"),
        (["array.zip", "rows.csv"], "The model was fitted on columns without names"),
        (["one.csv"], "the following arguments are required: FILE"),
    ],
)
def test_errors_are_one_line(folder, capsys, options, message):
    ROWS.drop(columns=["numeric_0", "shop"]).to_csv("few.csv", index=False)
    ROWS[:0].to_csv("empty.csv", index=False)
    numbers = ["1", "many", "2", "3", "4"]
    ROWS.assign(numeric_0=numbers).to_csv("words.csv", index=False)
    ROWS.assign(shop="west").to_csv("ids.csv", index=False)
    (folder / "latin.csv").write_bytes(b"caf\xe9")
    if options[0] == "list.zip":
        lists = X.assign(category_0=[[value] for value in X["category_0"]])
        small(max_epochs=1).fit(lists, Y).save("list.zip")
    if options[0] == "array.zip":
        small(max_epochs=1).fit(X[["numeric_0", "shop"]].to_numpy(), Y).save(
            "array.zip"
        )
    with pytest.raises(SystemExit) as exit_:
        _main.main(["explain", *options])
    assert exit_.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("python -m sk_pwiser explain: error: ")
    assert message in line
    assert not (folder / "a.csv").exists()


def test_a_file_of_something_else_is_named(folder, capsys):
    history = pytest.importorskip("sk_pwiser.history").HistoryFeatures(
        keys=["shop"], time="at", label_delay=0
    )
    history.fit(X.assign(at=np.arange(len(X))), Y)
    history.save("history.zip")
    with pytest.raises(SystemExit):
        _main.main(["explain", "history.zip", "rows.csv"])
    assert "history.zip holds no MultiTaskCTRCVRClassifier" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["reasons.csv", "reasons.csv.gz", "reasons.parquet"])
def test_a_table_that_fails_half_way_leaves_the_earlier_one(
    tmp_path, monkeypatch, name
):
    table = pd.DataFrame({"row": [0, 1], "column": "age", "value": [1.5, None]})
    explanations = SimpleNamespace(to_frame=table.copy)
    arguments = SimpleNamespace(output=tmp_path / name, id=None)
    _explain.write_table(explanations, None, arguments)
    read = pd.read_parquet if name.endswith("parquet") else pd.read_csv
    assert read(arguments.output)["column"].tolist() == ["age", "age"]
    before = arguments.output.read_bytes()

    def fails(*args):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="no space"):
        _explain.write_table(explanations, None, arguments)
    assert arguments.output.read_bytes() == before
    assert os.listdir(tmp_path) == [name]
