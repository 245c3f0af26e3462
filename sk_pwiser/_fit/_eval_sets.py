"""The validation sets that a user passes to a fit."""

from collections.abc import Mapping
from typing import Any

from sk_pwiser._columns._frames import reads_in_parts
from sk_pwiser._rows._checked_rows import GivenRows, named_place
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._rows._table_rows import read_table


def one_eval_set(eval_set: Any, rows: GivenRows) -> Any:
    """Return validation rows that are passed as X_val and so on as `eval_set`."""
    passed = [name for name, value in rows._asdict().items() if value is not None]
    if eval_set is not None:
        raise ValueError(
            f"Pass validation rows as eval_set or as {passed[0]}_val, not as both."
        )
    if reads_in_parts(rows.X):
        if passed != ["X"]:
            raise ValueError(
                f"{passed[1]}_val must be None for X_val={rows.X!r}, which names its "
                "columns of labels and of groups, and has no weights."
            )
        return rows.X
    for name in ("X", "Y"):
        if name not in passed:
            raise ValueError(f"{name}_val must be given with {passed[0]}_val.")
    return rows


def name_eval_sets(eval_set: Any) -> dict[str, Any]:
    """Return validation sets by the names of their figures; the last is "valid"."""
    sets: dict[Any, Any] = {"valid": eval_set}
    if isinstance(eval_set, Mapping):
        sets = dict(eval_set)
    elif isinstance(eval_set, list):
        sets = {f"valid_{k}": pair for k, pair in enumerate(eval_set)}
    if not sets:
        raise ValueError(f"eval_set must have at least one set; got {eval_set!r}.")
    names = list(sets)[:-1]
    for name in names:
        if not isinstance(name, str) or name in ("train", "valid"):
            raise ValueError(
                "The names of eval_set must be strings other than 'train' and 'valid', "
                f"which the history has; got {name!r}."
            )
    return dict(zip([*names, "valid"], sets.values(), strict=True))


def read_eval_sets(eval_set: Any, rows: Rows) -> dict[str, Rows]:
    """Check validation rows, all but the tables, against the training labels."""
    sets = name_eval_sets(eval_set)
    if not rows.stays_in_memory and any(map(reads_in_parts, sets.values())):
        *further, dataset = sets.values()
        if further:
            raise ValueError(
                "Several sets in eval_set must be tables with labels; a dataset that "
                "is read in parts must be the only one."
            )
        return {"valid": rows.eval_rows(dataset)}
    checked: dict[str, Rows] = {}
    for name, rows_of_set in sets.items():
        origin = "eval_set" if len(sets) == 1 else f"the set {name!r} of eval_set"
        if isinstance(rows_of_set, GivenRows):
            origin = "the validation rows"  # X_val, Y_val and so on
        elif not isinstance(rows_of_set, tuple) or len(rows_of_set) != 2:
            form: Any = type(rows_of_set).__name__
            if isinstance(rows_of_set, tuple):
                form = len(rows_of_set)
            raise TypeError(f"eval_set must be a pair (X, Y); got {form}.")
        with named_place(origin):
            # Validation rows may have only one of the classes, as those of an update.
            checked[name] = read_table(
                rows.settings,
                GivenRows(*rows_of_set),
                rows.tasks,
                may_lack_class=True,
                origin=origin,
            )
    return checked
