"""Labels and names of the tasks."""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple

import numpy as np
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sk_pwiser._columns import _frames
from sk_pwiser._tasks import _amounts, _implied_labels, _tree

# How arrays are read; their values are checked afterwards.
READING = {"ensure_2d": False, "ensure_all_finite": False}


def read_array(values, name, rule, *, dtype=None, error=None):
    """Return an argument as a 1-D or 2-D array; `rule` follows the name in messages."""
    _frames.refuse_unreadable(values, name)
    try:
        return check_array(values, dtype=dtype, input_name=name, **READING)
    # Some libraries raise their own classes of errors.
    except Exception as reading_error:
        if error is None:
            is_type_error = isinstance(reading_error, TypeError)
            error = TypeError if is_type_error else ValueError
        culprit = ""
        if hasattr(values, "columns") and hasattr(values, "dtypes") and len(values):
            names = zip(values.columns, _frames.list_columns(values), strict=True)
            wrong = [label for label, column in names if not _can_read(column, dtype)]
            culprit = f" Found in column {wrong[0]!r}." if wrong else ""
        reason = _frames.first_line(reading_error)
        raise error(f"{name} {rule} {reason}{culprit}") from reading_error


def _can_read(column, dtype):
    try:
        check_array(column, dtype=dtype, **READING)
    except Exception:
        return False
    return True


# Missing labels raise an error, or are left out of the loss and the scores of a task.
MISSING_LABELS = ("error", "ignore")


class ReadLabels(NamedTuple):
    """Labels that were read, but whose values are not checked yet."""

    values: np.ndarray  # (n_samples, n_tasks) or (n_samples,), 0 where missing
    missing: np.ndarray | None  # of the same shape, or None
    columns: list | None  # names, if there are any


def names_of_columns(Y):
    """Return the column names of labels as strings, or None if they have none."""
    Y = _frames.collected(Y)
    # Tables of Arrow have arrays as `columns`.
    columns = getattr(Y, "column_names", getattr(Y, "columns", None))
    if columns is not None:
        return [str(column) for column in columns]
    # An array of several columns may have a name, too, such as those of dask.
    name = getattr(Y, "name", None) if getattr(Y, "ndim", 1) < 2 else None
    # The name may be pandas.NA, which has no truth value.
    is_none = name is None or _frames.is_missing(name) or str(name) == ""
    return None if is_none else [str(name)]


def read_labels(Y, missing_labels="error", *, input_name="Y"):
    """Read labels; with "ignore", some may be missing."""
    if Y is None:
        raise ValueError(
            "This estimator requires y to be passed, but the target y is None."
        )
    Y = _frames.collected(Y)
    columns = names_of_columns(Y)
    _frames.refuse_repeated(f"The columns of {input_name}", columns or [])
    labels = read_array(Y, input_name, "cannot be read as labels:")
    missing = find_missing(labels)
    if missing is not None:
        if missing_labels == "error":
            hint = " With missing_labels='ignore', missing labels are left out."
            _raise_for_most(missing, columns, f"Input {input_name} contains NaN", hint)
        labels = labels.copy()
        labels[missing] = 0
    is_infinite = labels.dtype.kind == "f" and np.isinf(labels)
    if np.any(is_infinite):
        _raise_for_most(is_infinite, columns, f"Input {input_name} {INFINITE}")
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "UO":
        labels = read_words(labels)
    # Nullable integers were read as floats.
    is_frame = hasattr(Y, "columns") and hasattr(Y, "dtypes")
    dtypes = Y.dtypes if is_frame else [getattr(Y, "dtype", labels.dtype)]
    numpy_dtypes = [getattr(dtype, "numpy_dtype", dtype) for dtype in dtypes]
    if all(isinstance(d, np.dtype) and d.kind in "iub" for d in numpy_dtypes):
        labels = labels.astype(np.result_type(*numpy_dtypes), copy=False)
    return ReadLabels(labels, missing, columns)


INFINITE = "contains infinity or a value too large for dtype('float64')"

# Labels as text, in any case; a single task may have any two texts.
WORDS = {"yes": 1, "true": 1, "1": 1, "1.0": 1, "no": 0, "false": 0, "0": 0, "0.0": 0}


def read_words(labels):
    """Return labels whose texts of `WORDS` are replaced by 0 and 1."""
    if labels.dtype.kind not in "UO":
        return labels
    labels = labels.astype(object)
    texts = {label for label in labels.flat if isinstance(label, str)}
    meaning = {text: _word(text, text) for text in texts}
    return np.frompyfunc(meaning.get, 2, 1)(labels, labels)


def _word(label, default=None):
    return WORDS.get(str(label).strip().lower(), default)


def find_missing(labels):
    """Return where an array has missing values, or None."""
    if labels.dtype == object:
        with np.errstate(invalid="ignore"):  # by which numpy 2.5 warns about NaN
            missing = np.frompyfunc(_frames.is_missing, 1, 1)(labels).astype(bool)
    elif labels.dtype.kind in "iub":
        return None
    else:
        missing = labels != labels
    return missing if missing.any() else None


def _raise_for_most(is_wrong, columns, message, hint=""):
    """Raise a ValueError about the column with the most wrong labels."""
    is_wrong = is_wrong.reshape(len(is_wrong), -1)
    counts = is_wrong.sum(axis=0)
    k = int(counts.argmax())
    name = k if columns is None else columns[k]
    raise ValueError(
        f"{message}: {counts[k]} in column {name!r}, the first in row "
        f"{is_wrong[:, k].argmax()}.{hint}"
    )


def zero_one_labels(labels, columns=None, *, input_name="Y", hint=""):
    """Return labels of 0 and 1, 0 where missing, `(n_samples, n_tasks)`, as float32.

    The `hint` ends the message about other labels.
    """
    is_wrong = ~np.isin(labels, [0, 1])
    if is_wrong.any():
        k = int(is_wrong.any(axis=0).argmax())
        row = int(is_wrong[:, k].argmax())
        name = k if columns is None else columns[k]
        value = labels[row : row + 1, k].tolist()[0]
        if isinstance(value, str):
            event = max(map(str, labels[:, k]))
            hint = (
                f"{hint} With several tasks, text must be yes or no, or true or false; "
                f"convert other text to 0 and 1, for example by {input_name} = "
                f"({input_name} == {event!r}).astype(int)."
            )
        raise ValueError(
            f"Labels must be 0 or 1; column {name!r} of {input_name} contains "
            f"{value!r} in row {row}.{hint}"
        )
    return labels.astype(np.float32)


def one_task_labels(labels, columns=None, classes=None, *, input_name="Y"):
    """Return labels of one task as 0 and 1, `(n_samples, 1)`, and the two classes."""
    name = 0 if columns is None else columns[0]
    where = f"column {name!r} of {input_name}"
    if labels.dtype == object:
        is_text = [isinstance(label, str) for label in labels]
        if len(set(is_text)) == 2:
            raise ValueError(
                f"Labels must be all text or all numbers; {where} contains "
                f"{labels[is_text.index(True)]!r} and {labels[is_text.index(False)]!r}."
            )
        if not all(is_text):
            # Of numbers or dates; scikit-learn takes decimals for unknown objects.
            labels = np.array(
                [float(v) if isinstance(v, Decimal) else v for v in labels.tolist()]
            )
            if labels.dtype.kind == "f" and np.isinf(labels).any():
                message = f"Input {input_name} {INFINITE}"
                _raise_for_most(np.isinf(labels), [name], message)
    try:
        check_classification_targets(labels)
    except ValueError as error:
        raise ValueError(f"{error} Found in {where}.") from error
    distinct = np.unique(labels)
    if classes is None and len(distinct) > 2:
        raise ValueError(
            "Only binary classification is supported. The type of the target is "
            f"{type_of_target(labels)}: {where} contains {distinct[:5].tolist()}."
        )
    if classes is None and len(distinct) < 2:
        raise ValueError(
            "This estimator needs both classes of a single task; the data contains "
            f"only one class: {distinct.tolist()[0]!r}, in {where}."
        )
    classes = distinct if classes is None else np.unique(classes)
    if [_word(c) for c in classes if isinstance(c, str)] == [1, 0]:
        raise ValueError(
            f"Labels must be written in one way; {where} contains {classes.tolist()}, "
            "whose last one in the order of text would be the event."
        )
    is_known = np.isin(labels, classes)
    if len(classes) != 2 or not is_known.all():
        raise ValueError(
            "Only binary classification is supported: expected the classes "
            f"{classes.tolist()}, got the labels {distinct[:5].tolist()} in {where}"
            + ("." if is_known.all() else f", in row {int(np.argmin(is_known))}.")
        )
    return (labels == classes[1]).astype(np.float32)[:, np.newaxis], classes


def binary_labels(labels, columns=None, classes=None, *, missing=None, input_name="Y"):
    """Return labels as 0 and 1, `(n_samples, n_tasks)`, and the classes of all tasks.

    Those of one task are the two `classes`, by default the two labels found. Labels are
    0 where they are `missing`, of the same shape.
    """
    if labels.ndim == 1 or labels.shape[1] == 1:
        labels = column_or_1d(labels)
        if missing is None:
            return one_task_labels(labels, columns, classes, input_name=input_name)
        is_known = ~missing.ravel()
        values = np.zeros((len(labels), 1), dtype=np.float32)
        if not is_known.any():
            if classes is None:
                raise ValueError(f"{input_name} has no label in any row.")
            return values, np.unique(classes)
        values[is_known], classes = one_task_labels(
            labels[is_known], columns, classes, input_name=input_name
        )
        return values, classes
    if classes is not None and not np.array_equal(np.unique(classes), [0, 1]):
        raise ValueError(
            "classes must be 0 and 1 for several tasks; got "
            f"{np.unique(classes).tolist()}."
        )
    dtype = np.dtype(int) if labels.dtype == object else labels.dtype
    classes = np.tile(np.array([0, 1], dtype=dtype), (labels.shape[1], 1))
    return zero_one_labels(labels, columns, input_name=input_name), classes


def check_order(subject, names, expected):
    """Raise a ValueError if names are the expected ones in another order.

    The `subject` of the message has the names.
    """
    names = list(names)
    expected = list(expected)
    if names != expected and sorted(names) == sorted(expected):
        raise ValueError(
            f"{subject} must be in the order of the tasks, {expected}; got {names}."
        )


def choose_task_names(n_tasks, task_names, columns, default_names):
    """Return the first of three lists of names that is not None, or default names."""
    if task_names is not None:
        task_names = list(task_names)
        if not all(isinstance(name, str) for name in task_names):
            raise TypeError(f"task_names must be strings; got {task_names}.")
        _frames.refuse_repeated("task_names", task_names)
        if len(task_names) != n_tasks:
            raise ValueError(
                f"Y has {n_tasks} columns, but task_names is {task_names}."
            )
        if columns is not None:
            check_order("task_names", task_names, columns)
    for names in (task_names, columns, default_names):
        if names is not None:
            names = tuple(map(str, names))
            check_unreserved(names)
            return names
    if n_tasks == 2:
        return ("click", "conversion")
    return tuple(f"task_{k}" for k in range(n_tasks))


def check_unreserved(names):
    """Raise if one of several tasks has a name that means something else."""
    in_history = {"mean", "mean_best", *(f"{name}_best" for name in names)}
    reasons = {
        name: f"the history has the column 'valid_auc_{name}'" for name in in_history
    }
    reasons["cvr"] = (
        "task='cvr' means P(last task | first task), but the probability of a task is "
        "that of its event over all rows, such as 'conversion'"
    )
    for name in names if len(names) > 1 else ():
        if name in reasons:
            raise ValueError(
                f"A task must not have the name {name!r}: {reasons[name]}. Rename the "
                "column of Y, or pass other task_names."
            )


# Share of a task's events without the one that it presupposes, above which it probably
# presupposes another one, or none.
MAX_UNRELATED = 0.1
# Largest relative error of a task's rate, due to the selection of its labels, without a
# warning.
MAX_BIAS = 0.1


@dataclass
class Targets:
    """Checked labels of one or more tasks, 0 or 1, and 0 where they are missing."""

    values: np.ndarray  # float32 (n_samples, n_tasks)
    classes: np.ndarray  # (n_tasks, 2), or (2,) for 1-D labels, in the user's dtype
    task_names: tuple
    parents: tuple  # index of the task that each presupposes, -1 for none
    missing: np.ndarray | None = None
    # The rows that each of these stands for; None if there are no labels.
    counts: np.ndarray | None = None
    learnt_values: _amounts.Values = _amounts.NO_VALUES
    # float64 (n_samples, n_values), NaN where there is none to learn; None without any.
    amounts: np.ndarray | None = None

    def check_same_tasks(self, other, name):
        """Raise if other labels, by `name` in messages, have other tasks or classes."""
        is_same = np.array_equal(other.classes, self.classes)
        if other.task_names != self.task_names or not is_same:
            raise ValueError(
                f"Training uses the tasks {list(self.task_names)} and the classes "
                f"{self.classes.tolist()}; {name} has {list(other.task_names)} and "
                f"{other.classes.tolist()}."
            )
        if other.learnt_values != self.learnt_values:
            raise ValueError(
                f"Training uses the values {list(self.learnt_values.names)} of the "
                f"tasks {list(self.learnt_values.parents)}; {name} has "
                f"{list(other.learnt_values.names)} of "
                f"{list(other.learnt_values.parents)}."
            )

    def at(self, rows):
        return replace(
            self,
            values=self.values[rows],
            missing=None if self.missing is None else self.missing[rows],
            counts=self.counts[rows],
            amounts=None if self.amounts is None else self.amounts[rows],
        )

    def without(self, left_out):
        """Mark more labels as missing."""
        missing = left_out if self.missing is None else left_out | self.missing
        if not missing.any():
            return self
        return replace(self, values=np.where(missing, 0, self.values), missing=missing)

    def with_nan(self):
        if self.missing is None:
            return self.values
        return np.where(self.missing, np.float32(np.nan), self.values)

    def problems(self, constant_tasks=True, task_space="entire", weights=None):
        """Name broken funnels, constant tasks, and labels missing not at random.

        `weights` are those of the labels, (n_samples, n_tasks), or None.
        """
        messages = []
        values = self.with_nan()
        n_broken = self._n_broken(range(len(self.task_names)), self.parents)
        if n_broken:
            effect = "contribute to the loss of each task but not to the pairwise term"
            if task_space == "conditional":
                effect = "are left out of the later task, whose probability is too low"
            messages.append(
                f"{n_broken} of {int(self.counts.sum())} rows break the funnel: a "
                f"later task is 1 although an earlier one is 0. These rows {effect}."
                + (self._order_hint(n_broken) or self._parents_hint())
            )
        for k, name in enumerate(self.task_names if constant_tasks else ()):
            labels = values[~np.isnan(values[:, k]), k]
            effect = "the network learns nothing about it"
            if len(labels) == 0:
                fault = "has no label in any row"
            elif (labels == labels[0]).all():
                fault = f"is {int(labels[0])} in every row"
                effect = "the network can only learn this constant"
            else:
                continue
            messages.append(f"Task {name!r} {fault}: {effect}.")
        if task_space == "entire" and self.missing is not None:
            messages += self._selection_messages()
        return messages

    def _n_broken(self, columns, parents):
        """Count the rows with a task but without its parent, a place in `columns`."""
        # One pass per column, since accumulation along short rows is much slower.
        values = self.with_nan()
        stopped = []  # by task, the rows in which the funnel has ended
        broken = np.zeros(len(values), dtype=bool)
        for k, parent in zip(columns, parents, strict=True):
            stops = values[:, k] == 0
            if parent >= 0:
                broken |= stopped[parent] & (values[:, k] == 1)
                stops |= stopped[parent]
            stopped.append(stops)
        return int(self.counts[broken].sum())

    def _order_hint(self, n_broken):
        """Name the order from frequent to rare, if it breaks in far fewer rows."""
        counts = self.counts @ self.values
        chain = _tree.chain_parents(len(counts))
        # A task that never happens breaks no order at the end.
        if self.parents != chain or not counts.all():
            return ""
        order = np.argsort(-counts, kind="stable")
        n_broken_in_order = self._n_broken(order, chain)
        if n_broken_in_order > n_broken / 10:
            return ""
        names = [self.task_names[k] for k in order]
        return (
            f" In the order {names} only {n_broken_in_order} rows would: the columns "
            "of Y must be in the order of the funnel, click first."
        )

    def unrelated(self):
        """Return shares of the events of tasks without the one that they presuppose.

        They are those above `MAX_UNRELATED`, by the index of the task.
        """
        shares = {}
        values = self.with_nan()
        n_rows = self.counts
        for k, parent in enumerate(self.parents):
            if parent < 0:
                continue
            happened = values[:, k] == 1
            without = happened & (values[:, parent] == 0)
            share = n_rows[without].sum() / max(n_rows[happened].sum(), 1)
            if share > MAX_UNRELATED:
                shares[k] = share
        return shares

    def _parents_hint(self):
        """Say that tasks may presuppose another one than they are said to, or none."""
        names = self.task_names
        shares = " and ".join(
            f"{share:.0%} of the events of {names[k]!r} come without "
            f"{names[self.parents[k]]!r}"
            for k, share in self.unrelated().items()
        )
        return f" {shares}: if that is right, set task_parents." if shares else ""

    def _selection_messages(self):
        values = self.with_nan()
        n_rows = self.counts
        for k, parent in enumerate(self.parents):
            if parent < 0:
                continue
            has_label = ~np.isnan(values[:, k])
            with_parent = values[:, parent] == 1
            without_parent = values[:, parent] == 0
            n_with = n_rows[with_parent].sum()
            n_without = n_rows[without_parent].sum()
            n_labels_with = n_rows[with_parent & has_label].sum()
            n_labels_without = n_rows[without_parent & has_label].sum()
            n_labels = n_labels_with + n_labels_without
            if not n_with or not n_without or not n_labels:
                continue
            share = n_labels / (n_with + n_without)
            share_with = n_labels_with / n_with
            share_without = n_labels_without / n_without
            error = np.sqrt(share * (1 - share) * (1 / n_with + 1 / n_without))
            ratio = share_with / share
            is_biased = abs(ratio - 1) > MAX_BIAS
            if is_biased and abs(share_with - share_without) > 4 * error:
                yield (
                    f"Task {self.task_names[k]!r} has a label in {share_with:.0%} of "
                    f"the rows with {self.task_names[parent]!r} and in "
                    f"{share_without:.0%} of the other rows. In entire task space, its "
                    f"mean probability is then about {ratio:.2f} times as high as its "
                    "rate. Set network_params="
                    "{'task_space': 'conditional'}, or remove labels at random."
                )


def check_targets(
    Y,
    task_names=None,
    *,
    default_names=None,
    classes=None,
    missing_labels="error",
    task_parents=_tree.CHAIN,
    value_tasks=None,
    learnt_tasks=None,
):
    """Check labels; `task_names` precede the columns' names, these `default_names`.

    Missing labels of `learnt_tasks` that a later task implies are filled in, by default
    as these rows say, see `fill_implied`.
    """
    amount_columns = []
    value_names = ()
    _amounts.check_value_tasks(value_tasks)
    if value_tasks:
        Y = _frames.collected(Y)
        all_columns = names_of_columns(Y)
        Y, amount_columns, value_names = _amounts.split_columns(
            Y, value_tasks, all_columns
        )
    labels, missing, columns = read_labels(Y, missing_labels)
    values, classes = binary_labels(labels, columns, classes, missing=missing)
    missing = None if missing is None else missing.reshape(values.shape)
    names = choose_task_names(values.shape[1], task_names, columns, default_names)
    parents = _tree.read_task_parents(task_parents, names)
    values, missing = _implied_labels.fill_implied(
        values, missing, parents, learnt_tasks
    )
    targets = Targets(
        values=values,
        classes=classes,
        task_names=names,
        parents=parents,
        missing=missing,
        counts=np.broadcast_to(1, len(values)),
    )
    if not value_tasks:
        return targets
    learnt_values = _amounts.find_values(value_tasks, value_names, names)
    return replace(
        targets,
        learnt_values=learnt_values,
        amounts=_amounts.read_amounts(amount_columns, learnt_values, values, missing),
    )


def check_tasks(settings, Y, expected=None, classes=None, *, may_lack_class=False):
    """Check the labels of a fit; their tasks must be the expected ones."""
    if may_lack_class and expected is not None and expected.classes.ndim == 1:
        passed = expected.classes if classes is None else np.unique(classes)
        if not np.array_equal(passed, expected.classes):
            raise ValueError(
                f"classes must be {expected.classes.tolist()}, as in the earlier fit; "
                f"got {passed.tolist()}."
            )
        classes = expected.classes  # these rows may have only one of them
    targets = check_targets(
        Y,
        settings.task_names,
        default_names=None if expected is None else expected.task_names,
        classes=classes,
        missing_labels=settings.missing_labels,
        task_parents=settings.task_parents,
        value_tasks=settings.value_tasks,
    )
    if expected is None:
        return targets
    if targets.classes.shape == (2,) == expected.classes.shape:
        # The name of a single task is not checked: a Series may have any.
        targets = replace(targets, task_names=expected.task_names)
    expected.check_same_tasks(targets, "Y")
    return targets


@dataclass
class SoftTargets(Targets):
    """Probabilities of another model, in place of labels, which a network learns."""

    def with_nan(self):
        """Return the more likely labels, by which validation rows are stratified."""
        return np.rint(self.values)

    def unrelated(self):
        return {}

    def problems(self, constant_tasks=True, task_space="entire", weights=None):
        """Return none: probabilities are neither constant nor missing."""
        return []
