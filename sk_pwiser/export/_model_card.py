"""A model card: what a fitted estimator is, its quality, and its limits."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.utils.validation import check_is_fitted

from sk_pwiser import _responses
from sk_pwiser._columns._frames import collected
from sk_pwiser._tasks._tree import path_to
from sk_pwiser._tasks._weights import check_weights
from sk_pwiser._utils._extras import import_extra
from sk_pwiser._version import __version__
from sk_pwiser.metrics import (
    expected_calibration_error,
    normalized_gini,
    predicted_over_observed,
    reliability_curve,
)

if TYPE_CHECKING:
    from skops.card import Card

# With fewer events or rows without one, the figures of a task are uncertain.
FEW_EVENTS = 100
# From this distance of predicted over observed on, the level is said to be off.
LARGE_ERROR = 0.1
# Bins of rows in which predicted and observed rates are compared.
N_BINS = 10
# Digits of the figures.
N_DIGITS = 4


def model_card(
    estimator: Any, X: Any, Y: Any, *, sample_weight: npt.ArrayLike | None = None
) -> "Card":
    """Return a card that describes a fitted estimator and its quality on given rows.

    Parameters
    ----------
    estimator : estimator object
        A fitted :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` or
        :class:`~sk_pwiser.calibration.FunnelCalibrator`, also at the end of a pipeline
        or in a search.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions that the estimator has not seen, if possible later ones than those
        of its training.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, and the amounts of an estimator with `value_tasks`.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    skops.card.Card
        The card, with the sections Model, Evaluation, Reliability, Values (if there are
        any), Columns, Limits, Use and Hyperparameters. Sections can be added, changed
        and deleted, ``save("README.md")`` writes it as Markdown, and ``render()``
        returns this text.

    Raises
    ------
    ImportError
        If skops is not installed.
    NotFittedError
        If the estimator is not fitted.
    ValueError, TypeError
        If `X` or `Y` do not fit the estimator.

    See Also
    --------
    sk_pwiser.inspection.describe_impressions : Describes a table before a fit.
    sk_pwiser.metrics.reliability_curve : The rates of the card.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.export import model_card
    >>> data = make_ctr_cvr(600, ctr=0.4, cvr=0.4, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0)
    >>> model.fit(data.data[:400], data.target[:400])
    MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0)
    >>> card = model_card(model, data.data[400:], data.target[400:])
    >>> print(card.render().strip()[:7])
    # Model
    """
    card_module = import_extra("skops.card", "model_card")
    check_is_fitted(estimator)
    X = collected(X)
    Y = collected(Y)
    predictions = _responses.Predictions(estimator, X, {})
    targets, is_known, columns = predictions.read_targets(
        Y, sample_weight=sample_weight
    )
    n_samples = len(targets)
    names = predictions.task_names() or columns
    weight = np.ones(n_samples)
    if sample_weight is not None:
        weight = check_weights(sample_weight, n_samples, 1, names[:1]).ravel()
    tasks = _qualities(predictions, targets, is_known, names=names, weight=weight)
    card = card_module.Card(estimator, template=None, model_diagram=False)
    card.add(Model=_description(estimator, names))
    card.add_table(
        description=f"On {n_samples:,} impressions. The rate is the observed one; "
        "predicted / observed compares the numbers of events, and the calibration "
        "error is the mean distance of predicted and observed rates over bins.",
        Evaluation=_columns_of(task.figures() for task in tasks),
    )
    card.add(Reliability="Predicted and observed rates, from the least to the most.")
    for task in tasks:
        if len(task.y):
            # A slash would begin a further section.
            section = f"Reliability/{task.name.replace('/', ' per ')}"
            card.add_table(**{section: task.reliability()})
            card.select(section).title = task.name
    values = _value_figures(estimator, predictions, X, Y, weight)
    if values:
        card.add_table(
            description="Amounts per impression. Gini is the normalised coefficient: "
            "1 is the order of the amounts, and 0 a random one.",
            Values=_columns_of(values),
        )
    encodings = _find(estimator, "column_encodings_")
    if encodings is not None:
        card.add_table(Columns=_encoding_table(encodings))
    card.add(Limits=_limits(tasks, encodings or {}))
    card.add(Use=_use(estimator))
    card.add_hyperparams(section="Hyperparameters")
    return card


def _qualities(
    predictions: _responses.Predictions,
    targets: np.ndarray,
    is_known: np.ndarray,
    *,
    names: list[str],
    weight: np.ndarray,
) -> "list[TaskQuality]":
    """Return labels and predictions of each task, and of the CVR of several."""
    qualities = []
    for task, name in enumerate(names):
        rows = is_known[:, task]
        p = predictions.of_task(task, targets)[rows]
        qualities.append(TaskQuality(name, targets[rows, task], p, weight[rows]))
    path = path_to(len(names) - 1, predictions.task_parents(len(names)))
    if len(path) > 1:
        # As `predict_cvr`, of the last task given the first of those it presupposes.
        rows = is_known[:, -1] & (targets[:, path[0]] == 1)
        p = predictions.cvr(targets)[rows]
        name = f"{names[-1]} given {names[path[0]]}"
        qualities.append(TaskQuality(name, targets[rows, -1], p, weight[rows]))
    return qualities


class TaskQuality:
    """Labels and predictions of one task, where the label is known."""

    def __init__(
        self, name: str, y: np.ndarray, p: np.ndarray, weight: np.ndarray
    ) -> None:
        self.name = name
        self.y = y
        self.p = p
        self.weight = weight
        self.n_events = int(y.sum())

    @property
    def has_both_classes(self) -> bool:
        """Whether some rows have the event, and others have not."""
        return 0 < self.n_events < len(self.y)

    @property
    def ratio(self) -> float:
        """The predicted over the observed number of events, NaN without one."""
        if self.n_events == 0:
            return np.nan
        return predicted_over_observed(self.y, self.p, sample_weight=self.weight)

    def figures(self) -> dict[str, Any]:
        """Return a row of the table of figures; those that are undefined are empty."""
        figures: dict[str, Any] = {
            "task": self.name,
            "rows": len(self.y),
            "events": self.n_events,
        }
        rate = np.nan
        auc = np.nan
        loss = np.nan
        error = np.nan
        if len(self.y):
            rate = float(np.average(self.y, weights=self.weight))
            # Without both classes, scikit-learn has to be told the labels.
            options: dict[str, Any] = {"sample_weight": self.weight}
            loss = log_loss(self.y, self.p, labels=[0, 1], **options)
            error = expected_calibration_error(self.y, self.p, n_bins=N_BINS, **options)
            if self.has_both_classes:
                auc = roc_auc_score(self.y, self.p, **options)
        return figures | {
            "rate": _text(rate),
            "AUC": _text(auc),
            "log loss": _text(loss),
            "predicted / observed": _text(self.ratio),
            "calibration error": _text(error),
        }

    def reliability(self) -> dict[str, list[Any]]:
        """Return the rates by bin, as columns of a table."""
        curve = reliability_curve(
            self.y, self.p, n_bins=N_BINS, sample_weight=self.weight
        )
        return {
            "predicted": [_text(rate) for rate in curve.predicted],
            "observed": [_text(rate) for rate in curve.observed],
            "rows": [f"{n:,.0f}" for n in curve.weight],
        }


def _find(estimator: Any, name: str) -> Any:
    """Return an attribute of an estimator, or of one in it, None without any."""
    for layer in _responses.nested_estimators(estimator):
        if hasattr(layer, name):
            return getattr(layer, name)
        inner = getattr(layer, "estimator_", None)  # of a calibrator
        if hasattr(inner, name):
            return getattr(inner, name)
    return None


def _description(estimator: Any, names: list[str]) -> str:
    """Return what the estimator is and what it predicts."""
    *_, last = _responses.nested_estimators(estimator)
    funnel = ", ".join(names)
    lines = [
        f"`{type(last).__name__}` of sk_pwiser {__version__}. It predicts the "
        f"probability of each event over impressions: {funnel}."
    ]
    parents = _find(estimator, "task_parents_") or {}
    lines += [
        f"{name} presupposes {parent}."
        for name, parent in parents.items()
        if parent is not None
    ]
    network = _find(estimator, "network")
    if network is not None:
        network_name = network if isinstance(network, str) else network.__name__
        lines.append(f"The network is `{network_name}`.")
    n_iter = _find(estimator, "n_iter_")
    if n_iter is not None:
        lines.append(f"It was trained for {n_iter} epochs.")
    value_parents = _find(estimator, "value_parents_") or {}
    for value, parent in value_parents.items():
        under = "per impression" if parent is None else f"under the event {parent}"
        lines.append(f"It predicts the mean of {value}, {under}.")
    return " ".join(lines)


def _value_figures(
    estimator: Any,
    predictions: _responses.Predictions,
    X: Any,
    Y: Any,
    weight: np.ndarray,
) -> list[dict[str, Any]]:
    """Return a row of figures per value, none if the labels have no amounts."""
    value_tasks = predictions.value_tasks()
    if not value_tasks or not hasattr(estimator, "predict_value"):
        return []
    observed = predictions.observed_amounts(Y, value_tasks)
    predicted = np.reshape(estimator.predict_value(X), observed.shape)
    weights = predictions.amount_weights(Y, value_tasks, observed, weight)
    figures = []
    for index, name in enumerate(predictions.value_names()):
        rows = ~np.isnan(observed[:, index])
        amounts = observed[rows, index]
        if len(amounts) == 0 or np.ptp(amounts) == 0:
            continue  # there is no order, and perhaps no total
        options = {"sample_weight": weights[rows, index]}
        gini = normalized_gini(amounts, predicted[rows, index], **options)
        ratio = predicted_over_observed(amounts, predicted[rows, index], **options)
        figures.append(
            {
                "value": name,
                "rows": len(amounts),
                "amounts above 0": int(np.count_nonzero(amounts)),
                "mean": _text(float(np.average(amounts, weights=weights[rows, index]))),
                "Gini": _text(gini),
                "predicted / observed total": _text(ratio),
            }
        )
    return figures


def _encoding_table(encodings: dict[Any, Any]) -> dict[str, list[Any]]:
    """Return how columns are read, as columns of a table."""
    # An embedding of their own have only the values of categories.
    n_values = [
        "" if encoding["values"] is None else f"{len(encoding['values']):,}"
        for encoding in encodings.values()
    ]
    return {
        "column": [str(name) for name in encodings],
        "kind": [encoding.kind for encoding in encodings.values()],
        "encoding": [encoding.encoding for encoding in encodings.values()],
        "values": n_values,
        "rates": ["yes" if encoding.rates else "" for encoding in encodings.values()],
    }


def _limits(tasks: list[TaskQuality], encodings: dict[Any, Any]) -> str:
    """Return what the estimator cannot do, and what the rows could not show."""
    limits = [
        "Predictions are those of impressions like the training ones: rates that "
        "change need an update, and new values of categories count as unseen.",
        "The figures are those of the rows of this card. Random rows of the training "
        "period promise more than later ones.",
        "Predictions are not effects: what an ad changes is not known from a log of "
        "those who saw it.",
    ]
    for task in tasks:
        if min(task.n_events, len(task.y) - task.n_events) < FEW_EVENTS:
            limits.append(
                f"{task.name}: {task.n_events:,} events in {len(task.y):,} rows; its "
                "figures are uncertain."
            )
        elif abs(task.ratio - 1) > LARGE_ERROR:
            limits.append(
                f"{task.name}: {task.ratio:.2f} times as many events are predicted as "
                "were observed; calibrate it before bids depend on it."
            )
    n_ids = sum(encoding.kind == "category" for encoding in encodings.values())
    if n_ids:
        limits.append(
            f"{n_ids} of {len(encodings)} columns are categories; the file contains "
            "their values, which may be personal data if they are ids of users."
        )
    return "\n".join(f"- {limit}" for limit in limits)


def _use(estimator: Any) -> str:
    """Return lines of code that load the estimator and predict."""
    name = type(estimator).__name__
    module = type(estimator).__module__.partition("._")[0]
    if not hasattr(estimator, "load"):
        return "```python\nestimator.predict_proba(X)  # a column per task\n```"
    return (
        f"```python\nfrom {module} import {name}\n\n"
        f'model = {name}.load("model.safetensors")  # a file of save\n'
        "model.predict_proba(X)  # a column per task\n```"
    )


def _columns_of(rows: Iterable[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return rows of a table as columns."""
    rows = list(rows)
    return {name: [row[name] for row in rows] for name in rows[0]}


def _text(figure: float) -> str:
    """Return a figure with some digits, and no text for NaN."""
    return "" if np.isnan(figure) else f"{figure:.{N_DIGITS}g}"
