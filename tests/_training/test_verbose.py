"""What training prints: the table of the epochs and the progress bars."""

import io
import re
import sys

import numpy as np
import pytest
from checkpointed import Interrupted, InterruptsAfter
from skorch.callbacks import EpochScoring
from small_model import X, Y, small

from sk_pwiser.metrics import mean_auc_scorer

ANSI = re.compile(r"\x1b\[")


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self):
        """Return the last line that a reader sees, after carriage returns."""
        line = ""
        for part in self.getvalue().rpartition("\n")[2].split("\r"):
            line = part + line[len(part) :]
        return line


def columns_of(printed):
    return printed.splitlines()[0].split()


def test_tasks_are_printed_in_the_order_of_the_funnel_then_other_figures(capsys):
    # The names are sorted against the order of the funnel, "mean" between them.
    names = ["view", "order", "buy"]
    labels = np.column_stack([Y["click"], Y["conversion"], Y["conversion"]])
    labels[::2, 2] = 0
    scoring = EpochScoring(mean_auc_scorer, name="auc_again", lower_is_better=False)
    params = {"early_stopping": True, "task_names": names, "callbacks": [scoring]}
    small(verbose=1, **params).fit(X, labels)
    printed = capsys.readouterr().out
    aucs = [f"valid_auc_{name}" for name in [*names, "mean"]]
    assert columns_of(printed) == [
        *("epoch", "train_loss", "valid_loss", "valid_log_loss_mean"),
        *(*aucs, "auc_again", "dur"),
    ]


def test_the_figures_are_those_of_the_history(capsys):
    model = small(verbose=1, early_stopping=True).fit(X, Y)
    header, _, *lines, _ = capsys.readouterr().out.splitlines()
    assert len(lines) == model.n_iter_
    for line, row in zip(lines, model.history_, strict=True):
        shown = dict(zip(header.split(), line.split(), strict=True))
        for name in header.split():
            assert float(shown[name]) == pytest.approx(row[name], abs=1e-4)


@pytest.mark.parametrize("verbose", [1, 2])
def test_a_file_gets_neither_colours_nor_bars(capsys, verbose):
    small(verbose=verbose, early_stopping=True).fit(X, Y)
    printed = capsys.readouterr()
    assert printed.out
    assert not ANSI.search(printed.out)
    assert printed.err == ""


def test_a_terminal_gets_colours_for_the_best_figures(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    small(verbose=1, early_stopping=True).fit(X, Y)
    assert ANSI.search(sys.stdout.getvalue())


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bars_are_erased(monkeypatch, capsys, method):
    monkeypatch.setattr(sys, "stderr", Terminal())
    getattr(small(verbose=2, early_stopping=method == "fit"), method)(X, Y)
    drawn = sys.stderr.getvalue()
    assert "%|" in drawn
    assert "\n" not in drawn
    assert sys.stderr.screen().strip() == ""
    assert columns_of(capsys.readouterr().out)[0] == "epoch"


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bars_are_erased_if_training_fails(monkeypatch, method):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(Interrupted) as caught:
        getattr(small(verbose=2, callbacks=[InterruptsAfter(0)]), method)(X, Y)
    assert caught.tb is not None  # holds the net, so that nothing is collected
    assert "%|" in sys.stderr.getvalue()
    assert sys.stderr.screen().strip() == ""
