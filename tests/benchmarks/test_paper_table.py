"""The table of the paper: its summary and its figures."""

from argparse import Namespace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import log_loss, roc_auc_score

pd = pytest.importorskip("pandas")

HEADER = (
    "block,part,data,network,loss,weight,seed,default_weight,ctr_auc,cvr_auc,"
    "ctcvr_auc,mean_auc,ctr_log_loss,ctcvr_log_loss,ctr_ece,ctcvr_ece,"
    "ctr_grouped_auc,ctcvr_grouped_auc,epochs,seconds,settings"
)


def line(part, data, network, weight, seed, ctr, ctcvr, block="embeddings"):
    loss = "pwiser" if weight else "bce"
    mean = (ctr + ctcvr) / 2
    return (
        f"{block},{part},{data},{network},{loss},{weight},{seed},0.1,{ctr},0.6,"
        f"{ctcvr},{mean},0.3,0.1,0.01,0.02,nan,nan,3,1.0,abc"
    )


@pytest.fixture
def results(tmp_path, module):
    """Two data sets with one network each, and one more cell without BCE."""
    lines = [HEADER]
    # Weight 0.3 is best on the first data set, the default 0.1 on the second.
    for data, best in (("first", "0.3"), ("second", "0.1")):
        for weight in ("0.1", "0.3", "1"):
            value = 0.8 if weight == best else 0.7
            lines.append(
                line("validation", data, "shared_bottom", weight, 0, 0.7, value)
            )
    for seed, gain in enumerate((0.010, 0.014)):
        lines += [
            line("test", "first", "mmoe", "", seed, 0.70, 0.80),
            line("test", "first", "mmoe", "0.3", seed, 0.699, 0.80 + gain),
            line("test", "first", "mmoe", "0.1", seed, 0.701, 0.801),
            line("test", "second", "mmoe", "", seed, 0.70, 0.80),
            line("test", "second", "mmoe", "0.1", seed, 0.698, 0.796),
        ]
    # A row that a later run replaced, and a cell without its counterpart.
    lines.insert(1, line("test", "first", "mmoe", "0.3", 0, 0.1, 0.1))
    lines.append(line("test", "second", "stem", "0.1", 0, 0.9, 0.9))
    path = tmp_path / "results.csv"
    path.write_text("\n".join(lines) + "\n")
    return module("paper_table").read(path)


class Lines(list):
    """A report that keeps its texts."""

    def text(self, *lines):
        self += lines

    def table(self, columns):
        self.append([*columns])

    def row(self, label, cells):
        self.append([label, *cells])


@pytest.fixture
def printed(module):
    """Return a function of results and blocks: the texts, and the rows of tables."""

    def print_table(results, blocks):
        lines = Lines()
        module("paper_table").print_table(lines, results, blocks)
        return lines

    return print_table


def test_the_last_line_summarises_the_first_block(results, printed):
    blocks = ("embeddings", "target-encoding")
    *_, before, last = printed(results, blocks)
    # CTCVR: +.012 and -.004; CTR: -.001 and -.002; the default is lowest at -.004.
    assert last == (
        "CTCVR: pwiser ahead in 1 of 2 cells, mean +0.0040; CTR: mean -0.0015; "
        "default never below -0.0040"
    )
    assert before == "second, mmoe: -0.0040"


def test_cells_without_all_seeds_are_left_out(results, printed):
    lines = printed(results, ["embeddings"])
    assert "Left out, since not all seeds have been run: stem on second." in lines
    is_last = (results["data"] == "first") & (results["seed"] == 1)
    *_, last = printed(
        results[~(is_last & (results["weight"] == "0.3"))], ["embeddings"]
    )
    assert "ahead in 0 of 1 cells" in last


def test_rows_of_the_second_block_do_not_change_the_last_line(results, printed):
    blocks = ("embeddings", "target-encoding")
    *_, expected = printed(results, blocks)
    other = results.assign(block="target-encoding", ctcvr_auc=0.5)
    *_, last = printed(pd.concat([results, other]), blocks)
    assert last == expected


def test_the_weight_is_chosen_on_validation_rows(results, module):
    chosen_weight = module("paper_table").chosen_weight
    assert chosen_weight(results, "embeddings", "first") == "0.3"
    assert chosen_weight(results, "embeddings", "second") == "0.1"
    assert chosen_weight(results, "target-encoding", "first") is None


def test_differences_are_paired_and_have_student_intervals(results, module):
    tools = module("paper_table")
    found, _ = tools.comparisons(results, "embeddings")
    values = found["first", "mmoe"]["tuned"]["ctcvr_auc"]
    np.testing.assert_allclose(values, [0.010, 0.014])
    mean, half_width = tools.interval(values)
    low, high = stats.t.interval(0.95, 1, loc=mean, scale=stats.sem(values))
    np.testing.assert_allclose([mean - half_width, mean + half_width], [low, high])


def test_a_run_appends_the_missing_cells_only(results, tmp_path, module, monkeypatch):
    path = tmp_path / "results.csv"
    table = module("paper_table")
    cells = [
        table.Cell("embeddings", "test", "second", "mmoe", "bce", "", seed)
        for seed in range(3)
    ]
    called = []

    def run_cell(cell, *args):
        called.append(cell)
        values = line("test", "second", "mmoe", "", cell.seed, 0.7, 0.8).split(",")
        return dict(zip(HEADER.split(","), values, strict=True))

    monkeypatch.setattr(table, "run_cell", run_cell)
    arguments = Namespace(output=path, max_epochs=1, jobs=1, threads=1)
    table.run(cells, arguments, None)
    assert called == cells[2:]
    table.run(cells, arguments, None)
    assert called == cells[2:]


def test_a_row_with_other_columns_is_not_appended(tmp_path, module):
    append = module("paper_table").append
    path = tmp_path / "results.csv"
    append(path, {"seed": 0, "ctr_auc": 0.7})
    with pytest.raises(ValueError, match=r"results\.csv has other columns"):
        append(path, {"seed": 0, "auc": 0.7})
    assert path.read_text() == "seed,ctr_auc\n0,0.7\n"


def test_figures_of_labels_and_of_probabilities(module):
    figures = module("_harness")
    generator = np.random.default_rng(0)
    probability, p = generator.random((2, 400))
    labels = np.repeat([1, 0], 400)
    weights = np.concatenate([probability, 1 - probability])
    expected = roc_auc_score(labels, np.tile(p, 2), sample_weight=weights)
    assert figures.expected_auc(probability, p) == pytest.approx(expected)
    y = (generator.random(400) < probability).astype(int)
    assert figures.expected_auc(y, p) == pytest.approx(roc_auc_score(y, p))
    assert figures.expected_log_loss(y, p) == pytest.approx(log_loss(y, p))


def test_data_sets_in_their_order_and_networks_by_name(tmp_path, module):
    lines = [HEADER]
    for data in ("second", "first"):
        lines.append(line("validation", data, "shared_bottom", "0.1", 0, 0.7, 0.8))
        for network in ("stem", "mmoe"):
            lines.append(line("test", data, network, "", 0, 0.7, 0.8))
            lines.append(line("test", data, network, "0.1", 0, 0.7, 0.8))
    path = tmp_path / "results.csv"
    path.write_text("\n".join(lines))
    results = module("paper_table")
    found, _ = results.comparisons(results.read(path), "embeddings")
    assert list(found) == [
        (data, network) for data in ("second", "first") for network in ("mmoe", "stem")
    ]
