"""Histories on disk: one file without code, or a folder of Parquet tables."""

import json
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np

from sk_pwiser._files import PlainForm, read_file, write_bytes, write_file
from sk_pwiser._times import duration_label
from sk_pwiser._utils import import_extra
from sk_pwiser._version import __version__
from sk_pwiser.history._history_state import HistoryState, ValueIndex, add_values
from sk_pwiser.history._history_tables import arrow_array
from sk_pwiser.history._key_log import KeyLog, Slices, columns_of_totals, no_totals
from sk_pwiser.history._plan import Plan, check_params

FORM = PlainForm([KeyLog, Slices])
DESCRIPTION = "history.json"


class HistoryFiles:
    """The files of `HistoryFeatures`."""

    def save(self, path):
        """Write the history to a file that holds no code.

        The file has the parameters and the state, so that a loaded history gives the
        same values and can be updated. It is in the format of safetensors, has a
        checksum, and appears at once or not at all; see :ref:`files`.

        Parameters
        ----------
        path : str or path-like
            The file. One that exists is replaced.

        Raises
        ------
        TypeError
            If values of keys or lists are not numbers, text or tuples.
        """
        state, _ = self._fitted()
        content = self._describe() | {
            "indices": {
                name: _compact(index.values) for name, index in state.indices.items()
            },
            "logs": state.logs,
            "everything": state.everything,
        }
        write_file(path, *FORM.encode(content, "history"))

    @classmethod
    def load(cls, path):
        """Read a history from a file that `save` wrote; nothing in it is executed.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        HistoryFeatures
            The history.

        Raises
        ------
        ValueError
            If the file is damaged, altered or not one of a history.
        """
        values, arrays = read_file(path)
        with valid_history(path):
            content, plan = read_description(values, arrays)
            indices = {
                name: ValueIndex(_as_list(found), earlier_kinds(content, name))
                for name, found in content["indices"].items()
            }
            learnt = indices, content["logs"], content["everything"]
            state = HistoryState(content["classes"], content["end"], *learnt)
            return cls._of(content, plan, state)

    def write_parquet(self, folder):
        """Write the history to a folder of Parquet files, for other programs to read.

        ``key_0.parquet`` holds the keys of the first kind with their totals,
        ``rows_0.parquet`` the rows that are not in the totals, and
        ``list_0_0.parquet`` the values of its first list; ``rows.parquet`` the rows of
        all keys, and ``history.json`` the parameters.

        Parameters
        ----------
        folder : str or path-like
            The folder: a new or an empty one.

        Raises
        ------
        FileExistsError
            If the folder is not empty.
        TypeError
            If the values of a column are of several types.
        """
        state, plan = self._fitted()
        parquet = import_extra("pyarrow.parquet", "Parquet files")
        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"The folder must be empty: {str(folder)!r} is not.")
        tables = {}
        for key, (names, log) in enumerate(zip(plan.keys, state.logs, strict=True)):
            columns = {
                name: _values(state.indices[name], log.columns[:, j], name)
                for j, name in enumerate(names)
            }
            tables[f"key_{key}"] = columns | _totals_table(log)
            tables[f"rows_{key}"] = _rows_table(log)
            lists = zip(plan.lists_of(key), log.lists, strict=True)
            for place, (each, own) in enumerate(lists):
                tables[f"list_{key}_{place}"] = {
                    "key": own.keys(),
                    "time": own.time,
                    "value": _values(state.indices[each.column], own.value, each.name),
                }
        tables["rows"] = _rows_table(state.everything)
        tables["key"] = _totals_table(state.everything)
        folder.mkdir(parents=True, exist_ok=True)
        import pyarrow as pa

        for name, columns in tables.items():
            parquet.write_table(pa.table(columns), folder / f"{name}.parquet")
        # Last, so that an interrupted folder is none.
        text = json.dumps(FORM.encode(self._describe(), "history")[0], indent=1)
        write_bytes(folder / DESCRIPTION, text.encode("ascii"))

    @classmethod
    def read_parquet(cls, folder):
        """Read a history from a folder that `write_parquet` wrote.

        Parameters
        ----------
        folder : str or path-like
            The folder.

        Returns
        -------
        HistoryFeatures
            The history.

        Raises
        ------
        FileNotFoundError
            If the folder has no ``history.json``.
        ValueError
            If it is not one of a history, or a file is absent or damaged.
        """
        parquet = import_extra("pyarrow.parquet", "Parquet files")
        folder = Path(folder)
        text = (folder / DESCRIPTION).read_text(encoding="ascii")

        def read(name):
            return parquet.read_table(folder / f"{name}.parquet")

        with valid_history(folder):
            content, plan = read_description(json.loads(text))
            learnt = _read_state(plan, content, read)
            state = HistoryState(content["classes"], content["end"], *learnt)
            return cls._of(content, plan, state)

    def _describe(self):
        """Return what the state has beside its arrays."""
        state, plan = self._fitted()
        return {
            "class": "HistoryFeatures",
            "sk_pwiser": __version__,
            "params": plain_params(plan.params),
            "features": list(self.feature_names_in_),
            "kind": plan.kind,
            "task_names": plan.task_names,
            "classes": state.classes,
            "end": state.end,
            "references": [log.reference for log in state.logs],
            "kinds": {name: sorted(each.kinds) for name, each in state.indices.items()},
        }

    @classmethod
    def _of(cls, content, plan, state):
        history = cls(**content["params"])
        history.feature_names_in_ = np.array(content["features"], dtype=object)
        history.n_features_in_ = len(content["features"])
        history._set_state(state, plan)
        return history


@contextmanager
def valid_history(path):
    """Raise errors in the content of a file as one that names the file."""
    try:
        yield
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{str(path)!r} holds no valid history: {error}") from error


def read_description(values, arrays=()):
    """Return the decoded content of a file, checked, and the plan."""
    content = FORM.decode(values, arrays)
    if content["class"] != "HistoryFeatures":
        raise ValueError(f"it is one of {content['class']!r}")
    check_params(content["params"])
    return content, Plan(content["params"], content["kind"], content["task_names"])


def plain_params(params):
    """Return parameters with timedeltas as text, as a file has them."""
    names = "label_delay", "windows", "half_lives", "max_age"
    return params | {name: _plain_durations(params[name]) for name in names}


def _plain_durations(value):
    if isinstance(value, dict):
        return {name: _plain_durations(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_plain_durations(each) for each in value)
    is_span = isinstance(value, timedelta | np.timedelta64)
    return duration_label(value) if is_span else value


def _compact(values):
    """Return values of one type of number as an array that holds them exactly."""
    types = set(map(type, values))
    if types not in ({int}, {float}, {bool}):
        return values
    array = np.array(values)
    # Integers from 2^63 on become floats beside smaller ones.
    return values if types == {int} and array.dtype.kind not in "iu" else array


def _as_list(values):
    return values.tolist() if isinstance(values, np.ndarray) else values


def _values(index, places, name):
    """Return values as an array of Arrow."""
    import pyarrow as pa  # installed

    try:
        return arrow_array(index.values).take(pa.array(places))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise TypeError(
            f"{name!r} has values of several types, which Parquet cannot hold: {error}"
        ) from error


def _totals_table(log):
    """Return the totals as one column per number; arrays of a key become several."""
    columns = columns_of_totals(log.totals)
    return {f"total:{name}": column for name, column in columns.items()}


def _rows_table(log):
    return {
        "key": log.rows.keys(),
        "time": log.time,
        **{f"label:{k}": column for k, column in enumerate(log.labels.T)},
    }


def earlier_kinds(content, name):
    """Return the kinds of values that a column had; files before them have none."""
    return content.get("kinds", {}).get(name, ())


def _read_state(plan, content, read):
    """Return the values of the columns, the logs of the keys and that of all rows."""
    indices, logs = {}, []
    for name in plan.columns:
        indices[name] = ValueIndex([], earlier_kinds(content, name))
    for key, names in enumerate(plan.keys):
        table = read(f"key_{key}")
        columns = [add_values(indices, name, table[name].to_pylist()) for name in names]
        columns = np.stack(columns, axis=1)
        log = _read_log(columns, table, read(f"rows_{key}"), plan)
        log.reference = content["references"][key]
        for each in plan.lists_of(key):
            table = read(f"list_{key}_{each.place}")
            values = add_values(indices, each.column, table["value"].to_pylist())
            log.lists.append(_read_slices(table, log.n_keys, values))
        logs.append(log.sorted())
    none = np.zeros((1, 0), dtype=np.int64)
    return indices, logs, _read_log(none, read("key"), read("rows"), plan.of_all)


def _read_log(columns, table, rows, plan):
    n_tasks, time = len(plan.task_names), rows["time"].to_numpy()
    totals = no_totals(len(columns), n_tasks, len(plan.half_lives), time.dtype)
    for name, column in columns_of_totals(totals).items():
        column[:] = table[f"total:{name}"].to_numpy()
    labels = [rows[f"label:{k}"].to_numpy() for k in range(n_tasks)]
    labels = np.reshape(labels, (n_tasks, len(time))).T.astype(np.int8)
    return KeyLog(columns, _read_slices(rows, len(columns), labels), [], totals)


def _read_slices(table, n_keys, values):
    keys = table["key"].to_numpy()
    offsets = np.append(0, np.bincount(keys, minlength=n_keys).cumsum())
    return Slices(offsets, table["time"].to_numpy(), values)
