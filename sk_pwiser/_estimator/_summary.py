"""A summary of a fit in HTML: network, rows and columns, epochs and embeddings."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any

import torch

from sk_pwiser._columns._encoder import column_kinds, vector_counts
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._utils._integers import ceil_div

# Title, header and rows.
Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]

# Longer tables end with the number of rows left out.
MAX_ROWS = 30
# Longer lists of column names end with the number of names left out.
MAX_NAMES = 8

STYLE = (
    "<style>"
    ".sk-pwiser-summary{font-family:monospace;margin:.3em 0}"
    ".sk-pwiser-summary summary{cursor:pointer;padding:.2em 0}"
    ".sk-pwiser-summary table{border-collapse:collapse;margin:.2em 1em}"
    ".sk-pwiser-summary :is(td,th){border:1px solid rgba(128,128,128,.4);"
    "padding:.15em .6em;text-align:left}"
    "</style>"
)


class SummaryMixin:
    """Mixin class of an estimator whose picture in notebooks ends with a summary."""

    _result: TrainingResult

    # scikit-learn's BaseEstimator has these methods.
    def _repr_html_inner(self) -> str:
        picture: str = super()._repr_html_inner()  # type: ignore[misc]
        return picture + self._summary_html()

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)  # type: ignore[misc]
        if "text/html" in bundle:
            bundle["text/html"] += self._summary_html()
        return bundle

    def _summary_html(self) -> str:
        """Return the summary of the last fit, without scripts, or "" before it."""
        if not hasattr(self, "_result"):
            return ""
        result = self._result
        network = result.net.module_
        encoder = result.schema.encoder
        n_parameters = sum(p.numel() for p in network.parameters())
        n_train, n_valid = result.n_rows
        n_rows = f"{n_train:,} for training, {n_valid:,} for validation"
        if result.single_pass:
            n_rows = f"{n_train:,} in the last call of partial_fit"
        tables: list[Table] = [
            (
                f"Network: {type(network).__name__}, {n_parameters:,} parameters",
                ("Layer", "Kind", "Shape", "Parameters"),
                layer_rows(network),
            ),
            (
                f"Rows: {n_rows}; {encoder.n_features_in_:,} columns",
                ("Kind of column", "Number", "Names"),
                [
                    (kind, f"{len(names):,}", _list(names))
                    for kind, names in column_kinds(encoder).items()
                ],
            ),
            _history(result),
        ]
        n_vectors = vector_counts(encoder)
        if n_vectors:
            spec = network.spec
            widths = spec.widths + [spec.embedding_dim] * len(spec.bags)
            title = f"Embeddings: {sum(n_vectors.values()):,} vectors"
            rows = [
                (column, f"{n:,}", width)
                for (column, n), width in zip(n_vectors.items(), widths, strict=True)
            ]
            tables.append((title, ("Column", "Vectors", "Width"), rows))
        sections = "".join(_section(*table) for table in tables)
        return f'{STYLE}<div class="sk-pwiser-summary">{sections}</div>'


def _history(result: TrainingResult) -> Table:
    """Return a table of epochs at equal distances, and of the one that was kept."""
    history = result.net.history
    task_names = result.schema.targets.task_names
    if len(task_names) > 1:
        log_loss = "valid_log_loss_mean"
        aucs = [f"valid_auc_{name}" for name in [*task_names, "mean"]]
    else:
        log_loss = f"valid_log_loss_{task_names[0]}"
        aucs = [f"valid_auc_{task_names[0]}"]
    columns = [
        column
        for column in ("train_loss", "valid_loss", log_loss, *aucs, "dur")
        if any(column in row for row in history)
    ]
    step = ceil_div(len(history), MAX_ROWS - 1)
    shown_epochs = {result.best_epoch, *range(len(history), 0, -step)}
    rows = []
    for row in history:
        if row["epoch"] in shown_epochs:
            mark = " (kept)" if row["epoch"] == result.best_epoch else ""
            cells = (f"{row[c]:.4g}" if c in row else "" for c in columns)
            rows.append((f"{row['epoch']}{mark}", *cells))
    title = result.stop_reason or f"{len(history):,} epochs."
    return f"History: {title}", ("epoch", *columns), rows


def layer_rows(network: torch.nn.Module) -> list[tuple[str, str, str, str]]:
    """Return path, kind, shape and number of parameters of the layers of a network."""
    # Paths, and numbers of parameters.
    groups: dict[tuple[str, str, str], tuple[list[list[str]], list[int]]] = {}
    # Equal layers at the same place, such as of the towers, are one row.
    for path, layer in network.named_modules():
        parameters = list(layer.parameters(recurse=False))
        if parameters:
            largest = max(parameters, key=lambda p: p.numel())
            shape = " x ".join(f"{n:,}" for n in largest.shape) or "1"
            if hasattr(layer, "in_features"):
                shape = f"{layer.in_features:,} → {layer.out_features:,}"
            key = (re.sub(r"\d+", "*", path), type(layer).__name__, shape)
            paths, sizes = groups.setdefault(key, ([], []))
            paths.append(path.split("."))
            sizes += [p.numel() for p in parameters]
    rows = []
    for (_, kind, shape), (paths, sizes) in groups.items():
        steps = zip(*paths, strict=True)
        common = [names[0] if len({*names}) == 1 else "*" for names in steps]
        shapes = f"{len(paths)} x ({shape})" if len(paths) > 1 else shape
        rows.append((".".join(common), kind, shapes, f"{sum(sizes):,}"))
    return rows


def _list(names: Sequence[Any]) -> str:
    """Return the first names in one line, and how many more there are."""
    shown = ", ".join(map(str, names[:MAX_NAMES]))
    more = len(names) - MAX_NAMES
    return shown if more <= 0 else f"{shown} and {more:,} more"


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return the HTML of a table that opens at a click on its title."""
    headings = "".join(f"<th>{escape(text)}</th>" for text in header)
    body = [f"<tr>{headings}</tr>"]
    for row in rows[:MAX_ROWS]:
        cells = "".join(f"<td>{escape(str(cell))}</td>" for cell in row)
        body.append(f"<tr>{cells}</tr>")
    if len(rows) > MAX_ROWS:
        more = f"and {len(rows) - MAX_ROWS:,} more"
        body.append(f'<tr><td colspan="{len(header)}">{more}</td></tr>')
    return (
        f"<details><summary>{escape(title)}</summary>"
        f"<table>{''.join(body)}</table></details>"
    )
