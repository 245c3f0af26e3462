"""Compare models of clicks and conversions: `python -m sk_pwiser`.

Without options, fits logistic regression, gradient boosting and this package to
generated logs, with both losses and with columns of the past, and prints their scores
on further rows and what follows from them; and, if the environment variable
SK_PWISER_DATA names a folder with KuaiRand-Pure, compares the losses on real
impressions. With --data, describes the impressions in a file of yours, and compares the
losses on it: on the same folds and with the same seeds, with 95 % intervals and a
verdict for each metric.

`python -m sk_pwiser explain --help` is about explanations of the rows in a file.
"""

import argparse
from pathlib import Path
from typing import Any

from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sk_pwiser",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    columns: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "COLUMN"}
    epochs = MultiTaskCTRCVRClassifier().max_epochs
    add("--data", type=Path, metavar="FILE", help="CSV or Parquet file of impressions")
    add(
        "--targets",
        **columns,
        help="columns of the file that hold the labels (0 and 1, no and yes, or false "
        "and true), in funnel order, for example: click conversion",
    )
    add(
        "--values",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN[:TASK]",
        help="columns of amounts to learn, and the target under which each arises, for "
        "example: spend:conversion; without a target, an amount per impression",
    )
    add("--categorical", **columns, help="columns to read as categories, as text is")
    add(
        "--time",
        metavar="COLUMN",
        help="column with ISO dates or numbers that order the rows, no feature: later "
        "rows judge columns and test the folds, and early stopping decides on the last "
        "ones (default: the column of dates in a Parquet file, if there is one)",
    )
    add(
        "--groups",
        metavar="COLUMN",
        help="column with the subject of each row, such as a person, no feature: new "
        "subjects test the folds and, without --against-others, decide on early "
        "stopping",
    )
    add(
        "--against-others",
        action="store_true",
        help="compare with models of other packages instead of the losses: logistic "
        "regression, gradient boosting and, where installed, LightGBM and CatBoost",
    )
    add("--ignore", **columns, help="columns of the file to leave out")
    add(
        "--weights",
        nargs="+",
        type=float,
        metavar="WEIGHT",
        help="values of pwiser_weight to compare",
    )
    add("--folds", type=int, default=5, help="number of folds (default: 5)")
    add("--seed", type=int, default=0, help="seed of folds and fits (default: 0)")
    add("--jobs", type=int, default=-1, help="parallel fits (default: one per CPU)")
    text = "largest number of epochs per fit (default: %(default)s)"
    add("--max-epochs", type=int, default=epochs, help=text)
    add(
        "--refit",
        action="store_true",
        help="train each network again on all rows of its fold, with the length that "
        "early stopping has found: up to twice the time",
    )
    return parser


# Options about a file of the user.
DATA_OPTIONS = (
    "values",
    "categorical",
    "time",
    "groups",
    "ignore",
    "against_others",
    "weights",
    "refit",
)


def check(arguments: argparse.Namespace) -> None:
    """Raise if options do not fit together."""
    if (arguments.data is None) != (not arguments.targets):
        raise ValueError("--data and --targets must be given together")
    if arguments.data is None:
        for option in DATA_OPTIONS:
            if getattr(arguments, option):
                name = option.replace("_", "-")
                raise ValueError(f"--{name} must be given with --data")
    value_tasks = read_value_tasks(arguments)
    for option in ("categorical", "ignore", "time", "groups"):
        value = getattr(arguments, option)
        names = [value] if isinstance(value, str) else value or []
        for name in names:
            if name in arguments.targets:
                raise ValueError(
                    f"--{option} contains {name!r}, which is one of the --targets."
                )
            if name in value_tasks:
                raise ValueError(
                    f"--{option} contains {name!r}, which is one of the --values."
                )
    if arguments.time in arguments.ignore:
        raise ValueError(f"--time and --ignore both name {arguments.time!r}.")
    if arguments.groups is not None:
        for option in ("categorical", "ignore"):
            if arguments.groups in getattr(arguments, option):
                raise ValueError(
                    f"--groups and --{option} both name {arguments.groups!r}."
                )
        if arguments.time is not None:
            raise ValueError(
                "--groups must be given without --time, which tests later rows of all "
                "subjects"
            )
    if arguments.against_others and arguments.weights:
        raise ValueError("--weights must be given without --against-others")


def read_value_tasks(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return the columns of amounts and the tasks under which they arise.

    The last colon ends the name of the column, since names may contain colons.
    """
    value_tasks: dict[str, str | None] = {}
    entries = ",".join(arguments.values).split(",") if arguments.values else []
    for entry in entries:
        column, colon, task = entry.strip().rpartition(":")
        if not colon:  # an amount per impression
            column = task
            task = ""
        if not column or column in value_tasks:
            raise ValueError(
                "--values must name different columns, such as spend:conversion; got "
                f"{' '.join(arguments.values)!r}"
            )
        if column in arguments.targets:
            raise ValueError(
                f"--values contains {column!r}, which is one of the --targets."
            )
        if task and task not in arguments.targets:
            raise ValueError(
                f"--values has the task {task!r} for {column!r}; it must be one of the "
                f"--targets, {arguments.targets}"
            )
        value_tasks[column] = task or None
    return value_tasks


def make_model(
    arguments: argparse.Namespace, **params: Any
) -> MultiTaskCTRCVRClassifier:
    """Return the estimator of all comparisons."""
    return MultiTaskCTRCVRClassifier(
        max_epochs=arguments.max_epochs, refit=arguments.refit, **params
    )
