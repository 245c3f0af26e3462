"""`python -m sk_pwiser` on small data and a few epochs."""

import numpy as np
import pytest
from refusals import X, Y

from sk_pwiser import __main__ as command

pd = pytest.importorskip("pandas")
FEW = ["--folds", "2", "--max-epochs", "1", "--jobs", "1"]


@pytest.fixture(autouse=True)
def _small_examples(monkeypatch):
    monkeypatch.delenv("SK_PWISER_DATA", raising=False)
    small = command.make_ctr_cvr(600, ctr=0.4, cvr=0.4, random_state=0)
    monkeypatch.setattr(command, "make_ctr_cvr", lambda *args, **kwargs: small)


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


def test_generated_impressions(capsys):
    command.main([*FEW, "--seed", "3"])
    out = capsys.readouterr().out
    assert "generated impressions: 600 rows, 12 features; click 36.83%, conv" in out
    assert "2 folds stratified by funnel depth, seed 3" in out
    assert out.count("fold 2 of 2, ") == 2
    assert "SK_PWISER_DATA is not set" in out
    rows = rows_of_table(out)
    assert [row[0] for row in rows] == ["click"] * 2 + ["conversion"] * 2 + [
        "CVR"
    ] * 2 + ["neg"] * 2
    means = [float(row[-1]) for row in rows[:6:2]]
    assert all(0.3 < mean < 1 for mean in means)
    assert -1 < float(rows[6][-1]) < -0.2
    assert "conversion AUC: " in out
    assert "Seeds of the folds: [" in out


def test_real_impressions_are_added(monkeypatch, capsys):
    asked = []

    def load(path, second, *, subset):
        asked.append((path, second, subset))
        return command.make_ctr_cvr()

    monkeypatch.setenv("SK_PWISER_DATA", "folder")
    monkeypatch.setattr(command, "load_kuairand", load)
    command.main(FEW)
    assert asked == [("folder", "engage", "train"), ("folder", "long", "train")]
    out = capsys.readouterr().out
    assert "KuaiRand, click and engage: 600 rows" in out
    assert out.count("Differences to bce") == 3


def test_weights_are_candidates(capsys):
    command.main([*FEW, "--weights", "0.1", "1"])
    out = capsys.readouterr().out
    assert "fold 1 of 2, pwiser (weight 0.1):" in out
    assert "fold 2 of 2, pwiser (weight 1):" in out


def test_a_file_of_the_user(capsys, csv):
    command.main([*FEW, "--data", str(csv), "--targets", *Y.columns])
    out = capsys.readouterr().out
    assert f"log.csv: {len(X)} rows, {X.shape[1]} features; click 41.33%, conv" in out
    assert out.count("Differences to bce") == 1
    assert "SK_PWISER_DATA" not in out


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.parquet"])
def test_reading_files(tmp_path, name):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    path = tmp_path / name
    frame = pd.DataFrame(
        {"id": [7, 8], "buy": [0, 1], "age": [1.5, 2.5], "see": [1, 1]}
    )
    write = frame.to_parquet if name.endswith("parquet") else frame.to_csv
    write(path, index=False)
    features, labels = command.read(path, ["see", "buy"], ["id"])
    assert features.dtypes.astype(str).tolist() == ["category", "float64"]
    assert labels.columns.tolist() == ["see", "buy"]
    np.testing.assert_array_equal(labels, [[1, 0], [1, 1]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "click"], "--data and --targets must be given together"),
        (["--data", "log.csv"], "--data and --targets must be given together"),
        (["--categorical", "id"], "--categorical must be given with --data"),
        (["--folds", "1"], "--folds must be an int >= 2, got 1"),
        (["--data", "no.csv", "--targets", "click"], "No such file or directory"),
        (["--data", "log.txt", "--targets", "click"], "must end in .csv, .csv.gz or"),
        (["--data", "log.csv", "--targets", "view"], r"--targets must name columns of"),
        (
            ["--data", "log.csv", "--targets", "click", "--categorical", "x"],
            "--categorical must name columns of log.csv, got ['x']; its columns are",
        ),
    ],
)
def test_bad_arguments(monkeypatch, capsys, csv, arguments, message):
    monkeypatch.chdir(csv.parent)
    with pytest.raises(SystemExit) as exit_:
        command.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err
