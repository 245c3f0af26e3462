"""The picture of the estimator in notebooks: what it adds, and what it escapes."""

import html.parser
import importlib
import re
from email.message import Message
from importlib.metadata import PackageNotFoundError

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import config_context
from sklearn.base import BaseEstimator
from small_model import X, Y, small

from sk_pwiser._utils import _doc_links

UNSAFE = '<script>alert("1")</script>&'


class Tables(html.parser.HTMLParser):
    """The summaries and the cells of the tables that the package adds."""

    def __init__(self, text):
        super().__init__()
        self.titles, self.rows, self.tags, self.place = [], [], [], None
        self.feed(text[text.index('<div class="sk-pwiser-summary">') :])
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("summary", "td", "th"):
            self.place = self.titles if tag == "summary" else self.rows[-1]
            self.place.append("")

    def handle_endtag(self, tag):
        if tag in ("summary", "td", "th"):
            self.place = None

    def handle_data(self, data):
        if self.place is not None:
            self.place[-1] += data


@pytest.fixture(scope="module")
def fitted():
    return small(early_stopping=True).fit(X, Y)


def test_an_unfitted_estimator_has_the_picture_of_scikit_learn():
    text = small()._repr_html_()
    assert "MultiTaskCTRCVRClassifier" in text
    assert "sk-pwiser-summary" not in text


def test_the_network_with_its_layers_and_parameters(fitted):
    tables = Tables(fitted._repr_html_())
    module = fitted.net_.module_
    n_parameters = sum(p.numel() for p in module.parameters())
    assert tables.titles[0] == f"Network: SharedBottom, {n_parameters:,} parameters"
    layers = {row[0]: row[1:] for row in tables.rows if len(row) == 4}
    width = module.width
    assert layers["bottom.layers.0"] == ["Linear", f"{width} → 8", f"{width * 8 + 8:,}"]
    # One row for the equal layers of the two towers.
    assert layers["towers.*.hidden.layers.0"] == ["Linear", "2 x (8 → 4)", "72"]
    counts = [row[3].replace(",", "") for row in tables.rows if len(row) == 4][1:]
    assert sum(map(int, counts)) == n_parameters


def test_rows_columns_and_embeddings(fitted):
    tables = Tables(fitted._repr_html_())
    n_valid = len(X) // 10
    assert tables.titles[1] == (
        f"Rows: {len(X) - n_valid} for training, {n_valid} for validation; 12 columns"
    )
    names = ", ".join(f"category_{k}" for k in range(4))
    assert ["category", "4", names] in tables.rows
    for k in range(4):
        name = f"category_{k}"
        size = fitted.net_.module_.spec.cardinalities[k]
        assert [name, str(size), "16"] in tables.rows


def test_names_are_escaped_and_there_is_no_script_of_our_own():
    renamed = X.rename(columns={"numeric_0": UNSAFE, "category_0": f"{UNSAFE}2"})
    labels = Y.set_axis([f"{UNSAFE}3", "conversion"], axis=1)
    text = small().fit(renamed, labels)._repr_html_()
    assert UNSAFE not in text
    tables = Tables(text)
    assert "script" not in tables.tags
    cells = [cell for row in tables.rows for cell in row]
    assert any(UNSAFE in cell for cell in cells)
    assert f"{UNSAFE}2" in cells


def test_both_methods_and_the_display_setting(fitted):
    with config_context(display="diagram"):
        bundle = fitted._repr_mimebundle_()
    assert "sk-pwiser-summary" in bundle["text/html"]
    assert "sk-pwiser-summary" not in bundle["text/plain"]
    with config_context(display="text"):
        assert not hasattr(fitted, "_repr_html_")
        assert "text/html" not in fitted._repr_mimebundle_()


def test_sparse_columns_arrays_lists_and_many_names():
    lists = [["a", "b"], ["b"], []] * 100
    table = pd.DataFrame(
        {
            "list": lists,
            "array": [np.array([0.5, k], dtype=float) for k in range(300)],
            **{f"number {k}": np.arange(300.0) for k in range(10)},
            "category": ["x", "y", "z"] * 100,
        }
    )
    rows = Tables(small().fit(table, Y)._repr_html_()).rows
    kinds = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert kinds["list of categories"] == ["1", "list"]
    assert kinds["array of numbers"] == ["1", "array"]
    assert kinds["numeric"][0] == "10"
    assert kinds["numeric"][1].endswith("number 7 and 2 more")
    # Vectors for two elements, missing and unseen ones, and the empty list.
    assert kinds["list"] == ["5", "16"]
    sparse = sp.random(300, 50, density=0.1, random_state=0, format="csr")
    rows = Tables(small().fit(sparse, Y)._repr_html_()).rows
    assert ["sparse columns", "50", "16"] in rows


def test_long_tables_say_how_many_rows_they_leave_out():
    table = pd.DataFrame({f"c{k}": ["x", "y", "z"] * 100 for k in range(35)})
    assert ["and 5 more"] in Tables(small().fit(table, Y)._repr_html_()).rows


def test_partial_fit_and_files(fitted, tmp_path):
    model = small().partial_fit(X, Y)
    model.partial_fit(X[:50], Y[:50])
    titles = Tables(model._repr_html_()).titles
    assert titles[1] == "Rows: 50 in the last call of partial_fit; 12 columns"
    fitted.save(tmp_path / "model")
    loaded = type(fitted).load(tmp_path / "model")
    found, expected = (
        re.sub(r".*sk-pwiser-summary", "", each._repr_html_(), flags=re.DOTALL)
        for each in (loaded, fitted)
    )
    assert found == expected


def history_of(model):
    tables = Tables(model._repr_html_())
    header, *rows = tables.rows[[row[0] for row in tables.rows].index("epoch") :]
    return header, [row for row in rows if len(row) == len(header)], tables.titles


def test_the_history_with_the_epoch_that_was_kept():
    model = small(early_stopping=True, max_epochs=6, n_iter_no_change=2).fit(X, Y)
    header, rows, titles = history_of(model)
    assert f"History: {model.stop_reason_}" in titles
    assert header[:3] == ["epoch", "train_loss", "valid_loss"]
    assert header[3] == "valid_log_loss_mean"
    assert header[4:-1] == [f"valid_auc_{k}" for k in ("click", "conversion", "mean")]
    for epoch, (row, expected) in enumerate(zip(rows, model.history_, strict=True), 1):
        kept = " (kept)" if epoch == model.best_epoch_ else ""
        figures = [f"{expected[name]:.4g}" for name in header[1:]]
        assert row == [f"{epoch}{kept}", *figures]


@pytest.mark.slow
def test_the_history_of_many_epochs_of_a_single_task_and_of_updates():
    model = small(max_epochs=95, early_stopping=True, n_iter_no_change=95)
    header, rows, _ = history_of(model.fit(X, Y["click"]))
    assert header[3:5] == ["valid_log_loss_click", "valid_auc_click"]
    epochs = [row[0] for row in rows]
    assert f"{model.best_epoch_} (kept)" in epochs
    assert epochs[-1].startswith("95")
    assert len(epochs) in (24, 25)
    header, rows, titles = history_of(model.partial_fit(X, Y["click"]))
    assert "History: 96 epochs." in titles
    assert rows[-1][0] == "96 (kept)"
    assert rows[-1][2] == ""  # an update has no validation rows


ADDRESS = "https://example.org/docs"


@pytest.fixture
def address(monkeypatch):
    """An address of the documentation, in the metadata of the installed package."""
    lines = Message()
    lines["Project-URL"] = "Paper, https://example.org/paper"
    lines["Project-URL"] = f"Documentation, {ADDRESS}/"
    monkeypatch.setattr(_doc_links, "metadata", lambda name: lines)
    _doc_links.documentation_address.cache_clear()
    yield ADDRESS
    _doc_links.documentation_address.cache_clear()


def public_estimators():
    for module in ("", ".calibration", ".history", ".linear_model", ".weighting"):
        imported = importlib.import_module(f"sk_pwiser{module}")
        for name in imported.__all__:
            value = getattr(imported, name)
            if isinstance(value, type) and issubclass(value, BaseEstimator):
                yield pytest.param(value, imported.__name__, id=name)


@pytest.mark.parametrize(("cls", "module"), public_estimators())
def test_the_picture_links_to_the_page_of_the_api_reference(cls, module, address):
    estimator = object.__new__(cls)
    expected = f"{address}/generated/{module}.{cls.__name__}.html"
    assert estimator._get_doc_link() == expected


def test_the_link_is_in_the_picture_where_there_is_an_address(fitted, address):
    class Own(type(fitted)):
        """A class without a page."""

    link = f'href="{ADDRESS}/generated/sk_pwiser.MultiTaskCTRCVRClassifier.html"'
    assert link in fitted._repr_html_()
    Own.__module__ = "own"
    assert ADDRESS not in Own()._repr_html_()


def test_without_an_address_there_is_no_link(fitted, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    for found in (missing, lambda name: Message()):
        monkeypatch.setattr(_doc_links, "metadata", found)
        _doc_links.documentation_address.cache_clear()
        assert fitted._get_doc_link() == ""
        assert "sk_pwiser.MultiTaskCTRCVRClassifier.html" not in fitted._repr_html_()
    _doc_links.documentation_address.cache_clear()
