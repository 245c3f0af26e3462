"""The table of the paper: its figures, its rows and the fits that it keeps."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import log_loss, roc_auc_score

pytestmark = pytest.mark.slow

pd = pytest.importorskip("pandas")


@pytest.fixture
def table(module):
    return module("paper_table")


class Lines(list):
    """A report that keeps its tables."""

    def text(self, *lines):
        self += lines

    def table(self, columns, label=""):
        self.append([label, *columns])

    def row(self, label, cells):
        self.append([label, *cells])


def results(**auc_values):
    """Return rows of two seeds per network and loss, from {network: {loss: values}}."""
    return pd.DataFrame(
        [
            {"network": network, "seed": seed, "loss": loss, "ctcvr_auc": value}
            for network, by_loss in auc_values.items()
            for seed in range(2)
            for loss, value in ((loss, v[seed]) for loss, v in by_loss.items())
        ]
    )


def test_differences_are_paired_and_have_student_intervals(table):
    lines = Lines()
    rows = results(mmoe={"bce": (0.70, 0.72), "pwiser": (0.71, 0.734)})
    table.print_table(lines, rows, "ctcvr_auc")
    low, high = stats.t.interval(0.95, 1, loc=12, scale=stats.sem([10, 14]))
    assert lines == [
        ["network", "bce", "pwiser"],
        ["mmoe", "0.7100", f"+12.0 ({(high - low) / 2:.1f})"],
    ]


def test_the_last_row_is_the_mean_of_the_networks(table):
    lines = Lines()
    rows = results(
        stem={"bce": (0.70, 0.70), "pwiser": (0.71, 0.71)},
        mmoe={"bce": (0.60, 0.60), "pwiser": (0.58, 0.58)},
    )
    table.print_table(lines, rows, "ctcvr_auc")
    assert [line[0] for line in lines] == ["network", "stem", "mmoe", "mean"]
    assert lines[-1] == ["mean", "0.6500", "-5.0 (0.0)"]


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


def test_gains_are_differences_to_cross_entropy_of_the_same_seeds(table):
    lines = Lines()
    conversion_auc = {
        "bce": (0.70, 0.72),
        "pwiser": (0.71, 0.734),
        "pwiser 1": (0.8,) * 2,
        "auto": (0.7, 0.72),
    }
    rows = results(mmoe=conversion_auc).assign(
        data="rare", inputs="embeddings", rate=0.004, ctr_auc=0.6, ctcvr_log_loss=0.02
    )
    rows.loc[rows["loss"] == "pwiser 1", "ctr_auc"] = 0.59
    table.print_gains(lines, rows)
    of_default, of_one = (
        1000 * (np.array(conversion_auc[loss]) - conversion_auc["bce"])
        for loss in ("pwiser", "pwiser 1")
    )
    half_widths = [
        stats.t.ppf(0.975, 1) * np.std(gains, ddof=1) / np.sqrt(2)
        for gains in (of_default, of_one)
    ]
    assert lines[1] == [
        "rare (0.4%), embeddings",
        "0.7100",
        f"+12.0 ({half_widths[0]:.1f})",
        "+0.0 (0.0)",
        f"+90.0 ({half_widths[1]:.1f})",
        "-10.0 (0.0)",
        "+0.00 (0.00)",
    ]
