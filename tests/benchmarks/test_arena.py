"""The errors of the arena's figures, and the folder of its runs."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

pytestmark = pytest.mark.slow

pytest.importorskip("pandas")
pytest.importorskip("polars")


@pytest.fixture
def arena(module):
    return module("arena")


def draw(seed, n_users=300):
    """Draw users whose rows are alike, labels of two tasks and two predictions."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), rng.integers(1, 9, n_users))
    taste = rng.normal(size=n_users)[user]
    click = rng.random(len(user)) < 1 / (1 + np.exp(1 - taste))
    conversion = click & (rng.random(len(user)) < 0.4)
    first = 0.3 / (1 + np.exp(-taste - rng.normal(size=len(user)))) + 0.1
    second = first.round(1) + 0.05
    Y = np.column_stack([click, conversion]).astype(int)
    return user, Y, np.column_stack([first, first / 3]), np.column_stack([second] * 2)


def test_the_shares_of_rows_are_those_of_the_auc(arena):
    _, Y, _, p = draw(0)  # with ties
    auc, shares = arena.auc_and_shares(Y[:, 0], p[:, 0])
    assert auc == pytest.approx(roc_auc_score(Y[:, 0], p[:, 0]), abs=1e-12)
    assert shares.mean() == pytest.approx(0, abs=1e-9)
    # One more copy of a row moves the AUC by its share, to the first order.
    n = len(Y)
    for row in (0, 5, 17):
        weights = np.ones(n)
        weights[row] += 1e-4
        moved = roc_auc_score(Y[:, 0], p[:, 0], sample_weight=weights)
        assert (moved - auc) * n / 1e-4 == pytest.approx(shares[row], abs=1e-3)


@pytest.mark.parametrize("figure", ["first AUC", "last AUC", "CVR AUC", "log loss"])
def test_errors_of_differences_equal_those_of_a_bootstrap_over_users(arena, figure):
    user, Y, first, second = draw(1)
    ours, theirs = (
        arena.figures_of_rows(Y, p)[figure] for p in (first, second * [1, 0.3])
    )
    error = arena.error_of_units(ours[1] - theirs[1], user)
    rng = np.random.default_rng(2)
    rows_of_user = [np.flatnonzero(user == name) for name in range(user.max() + 1)]
    differences = []
    for _ in range(300):
        drawn = rng.integers(0, len(rows_of_user), len(rows_of_user))
        rows = np.concatenate([rows_of_user[name] for name in drawn])
        values = [
            arena.figures_of_rows(Y[rows], p[rows])[figure][0]
            for p in (first, second * [1, 0.3])
        ]
        differences.append(values[0] - values[1])
    assert error == pytest.approx(np.std(differences), rel=0.15)


def test_runs_of_another_version_are_repeated(arena, tmp_path, monkeypatch):
    runs = arena.Runs(tmp_path)
    model = "sk_pwiser, bce"
    assert runs.read("drift", model, 0) is None
    p = np.full((3, 2), 0.5, dtype=np.float32)
    runs.write("drift", model, 0, p=p, facts={"version": arena.version_of(model)})
    np.testing.assert_array_equal(runs.read("drift", model, 0)["p"], p)
    monkeypatch.setattr(arena.sk_pwiser, "__version__", "99.0")
    assert runs.read("drift", model, 0) is None


OURS = "sk_pwiser, pwiser"


class Report:
    """The lines of a report: rows as lists, and texts."""

    def __init__(self):
        self.lines = []

    def text(self, *lines):
        self.lines += lines

    def table(self, columns):
        self.lines.append(["", *columns])

    def row(self, label, cells):
        self.lines.append([label, *cells])


def table_and_entries(arena, seed, models):
    """Return a table and the entries of models, whose predictions have some noise."""
    user, Y, p, _ = draw(seed)
    table = SimpleNamespace(Y_test=Y, units=user)
    rng = np.random.default_rng(seed)
    entries = {}
    for model, noise in models.items():
        ranks = p + noise * rng.random((len(p), 1))
        facts = {"fit": 2 + noise, "predict": 1.0, "MiB": 4.0}
        entries[model] = arena.Entry(table, [facts | {"p": ranks / ranks.max() * 0.9}])
    return table, entries


def test_tables_on_which_this_package_is_behind_come_first(arena):
    noises = {
        "ahead": {OURS: 0, "LightGBM": 9, "CatBoost": 5},
        "behind": {OURS: 9, "LightGBM": 0, "CatBoost": 5},
        "level": {OURS: 0, "LightGBM": 0, "LightGBM, best of 8": 0},
        "no rival": {OURS: 0},
    }
    tables = {}
    all_entries = {}
    for name, models in noises.items():
        tables[name], all_entries[name] = table_and_entries(arena, 3, models)
    report = Report()
    arena.report_summary(report, OURS, all_entries, tables)
    _, _, columns, *lines = report.lines
    labels = [line if isinstance(line, str) else line[0] for line in lines]
    assert labels[:5] == [
        "behind in a figure by more than two errors",
        "behind",
        "level or ahead in all figures",
        "level",
        "ahead",
    ]
    behind, level, ahead = (
        dict(zip(columns, lines[place], strict=True)) for place in (1, 3, 4)
    )
    assert behind["behind in"] == "last AUC, first AUC, log loss"
    assert behind["last AUC, best"] == "LightGBM"
    Y = tables["behind"].Y_test[:, 1]
    aucs = [
        roc_auc_score(Y, all_entries["behind"][model].runs[0]["p"][:, 1])
        for model in (OURS, "LightGBM")
    ]
    difference = float(behind["last AUC"].partition(" ")[0])
    assert difference == pytest.approx(aucs[0] - aucs[1], abs=1e-4)
    assert level["last AUC, best"] == "LightGBM"  # a search is no rival
    assert (ahead["behind in"], ahead["last AUC, best"]) == ("-", "CatBoost")
    assert lines[5].startswith("last AUC: ahead on 1, level on 1, behind on 1 of 3")


def test_costs_are_geometric_means_of_ratios_on_the_same_table(arena):
    all_entries = {
        name: table_and_entries(arena, 4, models)[1]
        for name, models in {
            "a": {"LightGBM": 0, OURS: 2},
            "b": {"LightGBM": 0, OURS: 14},
            "c": {OURS: 5},
        }.items()
    }
    report = Report()
    arena.report_cost(report, all_entries)
    assert report.lines[3:] == [
        [OURS, "2", "4.00 (2.00-8.00)", "1.00 (1.00-1.00)", "1.00 (1.00-1.00)"],
        ["LightGBM", "2", *["1.00 (1.00-1.00)"] * 3],
    ]


def test_trees_stop_on_the_last_rows_of_a_log_in_the_order_of_time(module):
    pytest.importorskip("lightgbm")
    models = module("_arena_models")
    model = models.one_peer("LightGBM, small leaves, without new ids", 0)
    stopping = models.stopping_on_last_rows(model.model.model)
    kinds = {type(step) for step in stopping.get_params().values()}
    assert models.StopsOnLastRows in kinds
    assert models.StopsEarly not in kinds


def test_a_version_is_that_of_the_code_and_not_of_its_docstrings(arena, tmp_path):
    digest_of_code = arena.digest_of_code.__wrapped__
    file = tmp_path / "module.py"
    file.write_text('"""One."""\n\n\ndef f():\n    """Two."""\n    return "three"\n')
    digest = digest_of_code(tmp_path)
    file.write_text('"""1."""\n\ndef f():\n    """2."""  # Four.\n    return "three"\n')
    assert digest_of_code(tmp_path) == digest
    file.write_text('"""1."""\n\ndef f():\n    """2."""\n    return "four"\n')
    assert digest_of_code(tmp_path) != digest
