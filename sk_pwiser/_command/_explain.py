"""Explain the rows of a file: `python -m sk_pwiser explain`.

Says which columns of each row a fitted model's predictions come from, as
`sk_pwiser.inspection.explain_rows` computes it: one line of reasons per row and task.
With --output, the contributions of all columns are written as a table.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from sk_pwiser._columns._text_cells import numbers_of_texts
from sk_pwiser._command._messages import messages_in_one_line
from sk_pwiser._command._table_files import (
    PARQUET,
    check_columns,
    is_parquet,
    read_parquet,
    read_texts,
)
from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._model_files import read_file, replacing
from sk_pwiser._utils._checks import check_integer
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.inspection import RowExplanations, explain_rows

# What a file of a model may hold.
MODEL_CLASSES: dict[str, Any] = {
    "MultiTaskCTRCVRClassifier": MultiTaskCTRCVRClassifier,
    "FunnelCalibrator": FunnelCalibrator,
}


def main(argv: Sequence[str]) -> None:
    """Explain the rows that the arguments name."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    with messages_in_one_line(parser):
        check(arguments)
        run(arguments)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the arguments after `explain`."""
    parser = argparse.ArgumentParser(
        prog="python -m sk_pwiser explain",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="file that `save` of a model wrote")
    add(
        "rows",
        type=Path,
        metavar="FILE",
        help="CSV or Parquet file of the rows to explain, with the model's columns",
    )
    add(
        "--background",
        type=Path,
        metavar="FILE",
        help="file of rows to compare with, such as some dozens of a day's rows "
        "(default: up to 12 of the rows to explain)",
    )
    add(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help="tasks to explain, 'cvr' for the conversion rate given a click, and names "
        "of values (default: all)",
    )
    add(
        "--largest",
        type=int,
        default=3,
        metavar="N",
        help="number of columns to name per line (default: 3)",
    )
    add(
        "--id",
        metavar="COLUMN",
        help="column of FILE that names the rows in the lines and in the table "
        "(default: the rows are numbered from 0)",
    )
    add(
        "--over-all-rows",
        action="store_true",
        help="print the columns with the largest mean absolute contributions over all "
        "rows instead of a line per row",
    )
    add(
        "--output",
        type=Path,
        metavar="FILE",
        help="CSV or Parquet file to write the contributions of all columns to",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="seed of the permutations with more than eight columns (default: 0)",
    )
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Raise before any work if an option is wrong, or the output cannot be written."""
    check_integer("--largest", arguments.largest, at_least=1)
    output = arguments.output
    if output is None:
        return
    name = output.name.removesuffix(".gz")
    if not name.endswith((".csv", *PARQUET)):
        raise ValueError(
            f"--output must end with .csv, .csv.gz or .parquet; got {str(output)!r}"
        )
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {str(output.parent)!r}")
    for path in (arguments.model, arguments.rows, arguments.background):
        if path is not None and output.resolve() == path.resolve():
            raise ValueError(f"--output would replace {str(path)!r}, which is read")


def run(arguments: argparse.Namespace) -> None:
    """Explain the rows, print the reasons, and write the table."""
    model = load_model(arguments.model)
    X, names = read_rows(arguments.rows, model, arguments.id)
    background = None
    if arguments.background is not None:
        background, _ = read_rows(arguments.background, model)
    explanations = explain_rows(
        model,
        X,
        background=background,
        tasks=arguments.tasks,
        random_state=arguments.seed,
    )
    if arguments.over_all_rows:
        lines = lines_over_all_rows(explanations, arguments.largest)
    else:
        lines = lines_of_rows(explanations, names, arguments.largest)
    print(*lines, sep="\n", flush=True)
    if arguments.output is not None:
        write_table(explanations, names, arguments)


def load_model(path: Path) -> Any:
    """Return the estimator or the calibrator in a file."""
    content, _ = read_file(path)
    class_name = content.get("class") if isinstance(content, dict) else None
    if class_name not in MODEL_CLASSES:
        raise ValueError(
            f"{path.name} holds no {' or '.join(MODEL_CLASSES)} that can be explained, "
            f"but {class_name or 'something else'}"
        )
    return MODEL_CLASSES[class_name].load(path)


def read_rows(path: Path, model: Any, id_name: str | None = None) -> tuple[Any, Any]:
    """Return the rows in a file with the columns of a model, and their names."""
    estimator = getattr(model, "estimator_", model)
    if not hasattr(estimator, "feature_names_in_"):
        raise ValueError(
            "The model was fitted on columns without names, which a file cannot be "
            "matched with; use sk_pwiser.inspection.explain_rows in Python."
        )
    encoder = estimator._result.schema.encoder
    # Others, such as those of the exposure, change no explanation.
    columns = {column.name: column for column in encoder.read_columns_}
    if not columns:
        raise ValueError("The model was fitted on a sparse table, which no file holds.")
    needed_names = list(columns)
    group_name = getattr(model, "by_", None)  # of a calibrator
    if group_name is not None and group_name not in columns:
        needed_names.append(group_name)
    expected_names = [*needed_names, *([] if id_name is None else [id_name])]
    if is_parquet(path):
        id_columns = [n for n, c in columns.items() if c.network_input == "codes"]
        frame = read_parquet(path, id_columns, "explain")
    else:
        frame = read_texts(path, expected_names, "explain")
    check_columns(path, frame, expected_names)
    if not len(frame):
        raise ValueError(f"{path.name} has no rows")
    names = None if id_name is None else frame[id_name].tolist()
    X = frame[needed_names]
    if not is_parquet(path):
        X = read_columns(path, X, model, columns)
    return X, names


def read_columns(path: Path, texts: Any, model: Any, columns: dict[str, Any]) -> Any:
    """Return the columns of a CSV file as the columns of a model read them."""
    pd = import_extra("pandas", "explain")
    cells = {}
    for name in texts:
        column_texts = texts[name].astype(object)
        column_texts = column_texts.where(texts[name].notna(), None).tolist()
        try:
            if name in columns:
                values = columns[name].cells_of_texts(column_texts)
            else:
                values = groups_of_texts(name, column_texts, model.shifts_)
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from None
        is_number = name in columns and columns[name].network_input == "numeric"
        cells[name] = pd.Series(values, dtype=float if is_number else object)
    return pd.DataFrame(cells)


def groups_of_texts(name: str, texts: Sequence[str | None], groups: Any) -> Any:
    """Return the groups of a calibrator, which are texts or numbers as in its fit."""
    if any(isinstance(group, str) for group in groups):
        return texts
    return numbers_of_texts(name, texts)


def lines_of_rows(
    explanations: RowExplanations, names: Any, n_reasons: int
) -> list[str]:
    """Return a line per row and task, with what is predicted and why."""
    lines = []
    for row in range(len(explanations)):
        name = row if names is None else names[row]
        for index, task in enumerate(explanations.task_names):
            output = explanations.log_odds[row, index]
            if task in explanations.value_names:
                predicted = f"{np.exp(output):.4g}"
            else:
                predicted = f"{expit(output):.3%}"
            reasons = explanations.reasons(row, index, n_reasons=n_reasons)
            reasons = reasons or ["no column differs from the background"]
            lines.append(f"row {name}, {task} {predicted}: {'; '.join(reasons)}")
    return lines


def lines_over_all_rows(explanations: RowExplanations, n_columns: int) -> list[str]:
    """Return a line per task with the columns that contribute most over all rows."""
    sizes = np.abs(explanations.contributions).mean(axis=0)
    lines = []
    for index, task in enumerate(explanations.task_names):
        largest = np.argsort(-sizes[:, index], kind="stable")[:n_columns]
        columns = [
            f"{explanations.column_names[column]} {sizes[column, index]:.3g}"
            for column in largest
        ]
        lines.append(
            f"{task}, mean absolute contributions of {len(explanations)} rows: "
            f"{', '.join(columns)}"
        )
    return lines


def write_table(
    explanations: RowExplanations, names: Any, arguments: argparse.Namespace
) -> None:
    """Write the contributions, one line per row, task and column."""
    table = explanations.to_frame()
    # Columns of a file have one type.
    table["value"] = [None if value is None else str(value) for value in table["value"]]
    if names is not None:
        table.insert(1, arguments.id, [names[row] for row in table["row"]])
    is_compressed = arguments.output.suffix == ".gz"
    # A table that is written half looks like one of fewer rows.
    with replacing(arguments.output) as file:
        if is_parquet(arguments.output):
            table.to_parquet(file, index=False)
        else:
            compression = "gzip" if is_compressed else None
            table.to_csv(file, index=False, compression=compression)
    print(f"{len(table):,} contributions are in {arguments.output}", flush=True)
