"""What training prints: the table of the epochs and the progress bars."""

import io
import re
import sys

import numpy as np
import pytest
from checkpointed import Interrupted, InterruptsAfter
from skorch.callbacks import EpochScoring
from small_model import X, Y, small

from sk_pwiser._training._callbacks import TrainingProgressBar
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
    return re.split(r"\s{2,}", printed.splitlines()[0].strip())


def test_tasks_are_printed_in_the_order_of_the_funnel_then_other_figures(capsys):
    # The names are sorted against the order of the funnel, "mean" between them.
    names = ["view", "order", "buy"]
    labels = np.column_stack([Y["click"], Y["conversion"], Y["conversion"]])
    labels[::2, 2] = 0
    scoring = EpochScoring(mean_auc_scorer, name="auc_again", lower_is_better=False)
    params = {"early_stopping": True, "task_names": names, "callbacks": [scoring]}
    small(verbose=1, **params).fit(X, labels)
    printed = capsys.readouterr().out
    aucs = [f"AUC {name}" for name in [*names, "mean"]]
    losses = ["train loss", "valid loss", "log loss"]
    assert columns_of(printed) == ["epoch", *losses, *aucs, "auc_again", "seconds"]


def test_the_figures_are_those_of_the_history(capsys):
    model = small(verbose=1, early_stopping=True).fit(X, Y)
    printed = capsys.readouterr().out
    _, _, *lines, _ = printed.splitlines()
    assert len(lines) == model.n_iter_
    figures = {
        "epoch": "epoch",
        "train loss": "train_loss",
        "valid loss": "valid_loss",
        "log loss": "valid_log_loss_mean",
        "AUC click": "valid_auc_click",
        "AUC conversion": "valid_auc_conversion",
        "AUC mean": "valid_auc_mean",
        "seconds": "dur",
    }
    assert columns_of(printed) == list(figures)
    for line, row in zip(lines, model.history_, strict=True):
        for text, name in zip(line.split(), figures.values(), strict=True):
            assert float(text) == pytest.approx(row[name], abs=1e-4)


def test_the_loss_of_a_value_is_that_of_validation_rows(capsys):
    labels = Y.assign(spend=np.arange(len(Y)) * Y["conversion"])
    model = small(verbose=1, early_stopping=True, value_tasks={"spend": "conversion"})
    model.fit(X, labels)
    printed = capsys.readouterr().out
    columns = columns_of(printed)
    assert [name for name in columns if "spend" in name] == ["loss spend"]
    # The last lines say how long the amounts were learnt, and why training ended.
    *_, line, further, _ = printed.splitlines()
    assert further.startswith("The amounts were learnt for ")
    shown = dict(zip(columns, line.split(), strict=True))
    expected = model.history_[-1, "valid_loss_spend"]
    assert float(shown["loss spend"]) == pytest.approx(expected, abs=1e-4)


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


class NotebookBar:
    """What a notebook would show, without ipywidgets."""

    made = ()

    def __init__(self, **options):
        self.options = options
        self.n = options["initial"]
        self.descriptions = []
        self.is_closed = False
        NotebookBar.made = (*NotebookBar.made, self)

    def set_description(self, text):
        self.descriptions.append(text)

    def update(self, n):
        self.n += n

    def clear(self):
        pass

    def close(self):
        self.is_closed = True


def test_the_bar_counts_rows_of_all_epochs(monkeypatch):
    monkeypatch.setattr(TrainingProgressBar, "_use_notebook", lambda self: True)
    monkeypatch.setattr("tqdm.notebook.tqdm", NotebookBar)
    monkeypatch.setattr(NotebookBar, "made", ())
    small(verbose=2, early_stopping=False, max_epochs=3).fit(X, Y)
    [bar] = NotebookBar.made
    assert bar.options["total"] == bar.n == 3 * len(X)
    assert bar.options["initial"] == 0
    assert bar.descriptions == [f"Epoch {epoch} of 3" for epoch in (1, 2, 3)]
    assert bar.is_closed


def test_a_notebook_without_widgets_gets_a_bar_of_text(monkeypatch):
    def refuses(**options):
        raise ImportError("IProgress not found")

    monkeypatch.setattr(TrainingProgressBar, "_use_notebook", lambda self: True)
    monkeypatch.setattr("tqdm.notebook.tqdm", refuses)
    monkeypatch.setattr(sys, "stderr", Terminal())
    small(verbose=2).fit(X, Y)
    assert "Epoch 1 of 2: " in sys.stderr.getvalue()
