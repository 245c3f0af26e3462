"""Validation rows that the user passes to `fit`."""

from dataclasses import replace
from typing import Any

from sk_pwiser._training._data import EncodedData, check_rows
from sk_pwiser._training._rows import Rows
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._streamed import TrainingData


def check_eval_set(settings: Settings, eval_set: Any, targets: Any) -> Rows | None:
    """Check validation rows, all but the table itself.

    Parameters
    ----------
    settings : Settings
        The estimator's parameters.
    eval_set : tuple or None
        Table and labels.
    targets : Targets
        Labels of the training rows; the validation rows have the same tasks.

    Raises
    ------
    ValueError, TypeError
        If `eval_set` is not a pair, or its labels are invalid or of other tasks.
    """
    if eval_set is None:
        return None
    if not isinstance(eval_set, tuple | list) or len(eval_set) != 2:
        found = (
            f"{len(eval_set)} entries"
            if isinstance(eval_set, tuple | list)
            else type(eval_set).__name__
        )
        raise TypeError(f"eval_set must be a pair (X, Y); got {found}.")
    X, Y = eval_set
    try:
        # Validation rows may have only one of the classes, like those of an update.
        return check_rows(
            settings, X, Y, None, None, targets, classes=None, single_pass=True
        )
    except (ValueError, TypeError) as error:
        raise type(error)(f"In eval_set: {error}") from error


def with_eval_rows(data: EncodedData, rows: Rows) -> EncodedData:
    """Encode validation rows like rows of a prediction, and add them to the data.

    They are in no target statistic and in no distribution of a column.
    """
    inputs = data.schema.transform(rows.X)
    # There are weights only if labels are missing.
    valid = inputs.impressions(rows.targets.values, rows.weights)
    return replace(data, rows=TrainingData(data.rows.train, valid))
