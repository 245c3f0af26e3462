"""The file of a history, which holds no code."""

from contextlib import contextmanager
from datetime import timedelta

import numpy as np

from sk_pwiser._files import PlainForm, read_file, write_file
from sk_pwiser._times import duration_label
from sk_pwiser._version import __version__
from sk_pwiser.history._history_state import HistoryState, ValueIndex
from sk_pwiser.history._key_log import KeyLog, Slices
from sk_pwiser.history._plan import Plan, check_params

FORM = PlainForm([KeyLog, Slices])


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
        state, plan = self._fitted()
        state = state.whole(plan)
        content = self._describe() | {
            "indices": {
                name: _compact(index.values) for name, index in state.indices.items()
            },
            "logs": [log.replaced() for log in state.logs],
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
    except (AttributeError, LookupError, TypeError, ValueError) as error:
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
    names = "label_delay", "state_delay", "windows", "half_lives", "max_age"
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


def earlier_kinds(content, name):
    """Return the kinds of values that a column had; files before them have none."""
    return content.get("kinds", {}).get(name, ())
