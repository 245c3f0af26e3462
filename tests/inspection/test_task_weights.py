"""The plot of the task weights against the history."""

import sys

import numpy as np
import pytest
from refusals import X, Y, small
from sklearn.exceptions import NotFittedError

from sk_pwiser.inspection import plot_task_weights
from sk_pwiser.weighting import TaskWeighting


@pytest.fixture(scope="module")
def weighted():
    return small(weighting="ema", max_epochs=3).fit(X, Y)


def test_one_line_per_task_through_the_weights_of_the_epochs(weighted):
    ax = plot_task_weights(weighted)
    lines = {line.get_label(): line for line in ax.get_lines()}
    assert list(lines) == ["click", "conversion"]
    for task, line in lines.items():
        expected = weighted.history_[:, f"train_weight_{task}"]
        np.testing.assert_array_equal(line.get_xydata().T, [[1, 2, 3], expected])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Epoch", "Weight")
    assert [t.get_text() for t in ax.get_legend().get_texts()] == list(lines)


def test_given_axes_are_used(weighted, pyplot):
    _, ax = pyplot.subplots()
    assert plot_task_weights(weighted, ax=ax) is ax
    assert plot_task_weights(weighted) is not ax
    assert len(ax.get_lines()) == 2


def test_one_task_and_an_epoch_without_weights():
    model = small(max_epochs=1).fit(X, Y["click"])
    model.partial_fit(X, Y["click"])
    del model.history_[0]["train_weight_click"]
    (line,) = plot_task_weights(model).get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [1, 2])
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, 1])


class WithoutRecord(TaskWeighting):
    def forward(self, losses):
        return losses.sum()

    def record(self, weights):
        pass


def test_errors(monkeypatch):
    with pytest.raises(NotFittedError):
        plot_task_weights(small())
    model = small(weighting=WithoutRecord, max_epochs=1).fit(X, Y)
    with pytest.raises(ValueError, match="'train_weight_click'; its columns are"):
        plot_task_weights(model)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install m.*\[plot\]"):
        plot_task_weights(model)
