"""Describes impressions before a fit: depths, rates and columns, as text and tables."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone
from sklearn.utils import _safe_indexing, check_consistent_length, check_random_state

from sk_pwiser._columns._frames import as_table, collected, is_sparse, result_frame
from sk_pwiser._rows._subjects import Subjects
from sk_pwiser._tasks._amounts import check_value_tasks, split_columns
from sk_pwiser._tasks._labels import check_targets, names_of_columns
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._stratify import depth_in_tree
from sk_pwiser._times import NUMBER, Times, times_of, unix_unit
from sk_pwiser._utils._checks import check_choice, check_integer
from sk_pwiser._utils._text_tables import aligned
from sk_pwiser.inspection import _column_facts
from sk_pwiser.inspection._value_facts import ValueFacts, describe_values, value_notes

if TYPE_CHECKING:
    from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier

# Largest number of lines of a printed table.
MAX_LINES = 60
# Width of the names of columns in it.
NAME_WIDTH = 22
# Width of the names of tasks, which head columns of numbers.
TASK_WIDTH = 10
# Width of the lines of notes, which is about that of the table.
NOTE_WIDTH = 96
STYLE = (
    "<style>"
    ".sk-pwiser-impressions :is(td,th){padding:.1em .6em;text-align:right}"
    ".sk-pwiser-impressions .left{text-align:left}"
    "</style>"
)


def describe_impressions(
    X: Any,
    Y: Any,
    *,
    time: Any = None,
    value_tasks: Mapping[Any, Any] | None = None,
    estimator: "MultiTaskCTRCVRClassifier | None" = None,
    n_periods: int = 10,
    max_rows: int = 1_000_000,
    random_state: int | np.random.RandomState | None = 0,
) -> "ImpressionsDescription":
    """Describe impressions before a fit, and what a fit would do with them.

    Parameters
    ----------
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions, as in ``fit`` of :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`, but
        not sparse. Columns that it refuses, such as dates, are reported.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1; the tasks in funnel order, the click first. Labels may be
        missing. Beside them the columns of amounts that ``value_tasks`` names.
    time : str or array-like of shape (n_samples,), default=None
        The name of a column of ``X``, or the times of the rows: dates, or numbers of
        any unit. With times, rates are shown by period, and the last period is compared
        with the rows before it.
    value_tasks : dict or None, default=None
        Columns of ``Y`` with amounts, and the tasks under which they arise, as the
        parameter of the estimator, which is the default.
    estimator : MultiTaskCTRCVRClassifier, default=None
        The estimator whose encoding is described; it need not be fitted. None is one
        with the default parameters.
    n_periods : int, default=10
        Number of periods, at least 2, with about equal numbers of rows. Rows of equal
        time are in one period, so that there may be fewer.
    max_rows : int, default=1_000_000
        Columns are described by a random sample of this number of rows if there are
        more, whose distinct values are then fewer. Depths and rates are those of all
        rows.
    random_state : int, RandomState instance or None, default=0
        Seed of the sample, of the folds, and of the rows that stand for the last period
        if there are no times.

    Returns
    -------
    ImpressionsDescription
        The description; ``print`` and notebooks show it as tables with notes.

    Raises
    ------
    ValueError, TypeError
        If ``X`` is sparse, if labels or times are invalid or do not match ``X``, if
        ``time`` is not a column of ``X``, or if a parameter of the estimator is
        invalid.

    See Also
    --------
    sk_pwiser.model_selection.compare_models : Fits this estimator and others.

    Notes
    -----
    The AUC of a column is that of one prediction: the rate of the task among the rows
    with the same value, in at most 64 bins for numbers, shrunk to the mean rate. It is
    the mean over five folds, so that a column with a different value in each row has
    0.5 rather than 1. With times, each fold is predicted with the rates of all rows
    before it, as by a model in use; without, random folds with those of the others,
    which flatters columns whose effects change, and rows that repeat. Lists are
    predicted by the mean over their elements. Columns that are refused, and arrays of
    numbers, are predicted by whether their value is missing. An AUC above 0.95 suggests
    a leak: a value that is known only after the event.

    Drift is the AUC, on random folds, of telling the rows of the last period from those
    of the first.

    Rows with equal inputs are counted by a hash per row. A note says how many rows of a
    random part, and of the last period, have a copy among the other rows: a random
    split is only fair if both are alike. Another one says if rows of one subject, such
    as the years of a person, stand together, as far as no column of dates orders them.

    Amounts are described where their event happened. The squares of a few large amounts
    decide how well their mean is known: n amounts tell it as well as the square of the
    total divided by the sum of the squares, which is the number of equal amounts of the
    same standard error, if the number of events is random.

    Whole numbers that repeat are compared as categories and as bins: the rate of a
    value, shrunk to the rate of its bin, with the latter. The gain is that of the AUC
    of the task with the largest gain. It is noted if it is at least 0.005, if the log
    loss improves by five standard errors, and if the column is not an attribute of
    another one, as the age of a user is: its gain is then that of the users.

    Examples
    --------
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.inspection import describe_impressions
    >>> log = make_ctr_cvr(
    ...     2_000, n_numeric=1, n_categorical=1, ctr=0.3, cvr=0.3, random_state=0
    ... )
    >>> X = log.data.assign(refund=9.5 * log.target["conversion"])
    >>> description = describe_impressions(X, log.target)
    >>> description.columns[["column", "kind", "values", "width"]]
           column      kind  values  width
    0   numeric_0   numeric    2000      5
    1  category_0  category      50     16
    2      refund   numeric       2      1
    >>> description.flagged("leak")
    ['refund']
    """
    # Not at the top: it loads torch.
    from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier

    X = as_table(X)
    Y = collected(Y)
    if estimator is None:
        estimator = MultiTaskCTRCVRClassifier()
    if not isinstance(estimator, MultiTaskCTRCVRClassifier):
        raise TypeError(
            f"estimator must be None or a MultiTaskCTRCVRClassifier; got {estimator!r}."
            " For a pipeline, pass its last step and the table that it reads."
        )
    if is_sparse(X):
        raise TypeError("X must not be sparse; pass X.toarray() of some columns.")
    check_integer("n_periods", n_periods, at_least=2)
    check_integer("max_rows", max_rows, at_least=2 * _column_facts.N_FOLDS)
    rng = check_random_state(random_state)
    if value_tasks is not None:
        check_value_tasks(value_tasks)
        estimator = clone(estimator).set_params(value_tasks=dict(value_tasks))
    targets = check_targets(
        Y,
        estimator.task_names,
        missing_labels="ignore",
        task_parents=estimator.task_parents,
        value_tasks=estimator.value_tasks,
    )
    events, *_ = split_columns(Y, estimator.value_tasks, names_of_columns(Y))
    depth = depth_in_tree(events, targets.parents)
    names = targets.task_names
    n_samples = len(depth)
    check_match(X, n_samples, Y=Y, time=time)
    period = np.zeros(n_samples, dtype=np.intp)
    period_starts = ["all"]
    time_values = None
    if time is not None:
        times = times_of(X, time)
        check_consistent_length(X, times.values)
        period, period_starts = split_periods(times, n_periods)
        time_values = times.values
    rows: slice | np.ndarray = slice(None)
    if n_samples > max_rows:
        rows = np.sort(rng.choice(n_samples, max_rows, replace=False))
        X = _safe_indexing(X, rows)
    table, inputs = estimator._column_inputs(X, targets)
    sample = _column_facts.Rows.draw(
        targets.at(rows),
        depth[rows],
        period[rows],
        rng,
        times=None if time_values is None else time_values[rows],
    )
    facts = _column_facts.describe_columns(table, inputs, sample, time)
    columns = facts.columns
    notes = targets.problems() + repeat_notes(facts.repeats)
    if time is None and len(sample.fold) == n_samples:
        notes += subject_notes(facts.subjects)
    if targets.missing is not None and estimator.missing_labels == "error":
        n_missing = int(targets.missing.sum())
        notes.append(f"{n_missing:,} labels are missing: set missing_labels='ignore'.")
    notes += combination_notes(
        estimator._found_combinations(
            table,
            targets.at(rows),
            None if time_values is None else time_values[rows],
        )
    )
    value_facts = describe_values(targets)
    notes += value_notes(value_facts)
    return ImpressionsDescription(
        task_names=list(names),
        depths=result_frame(describe_depths(depth, names)),
        periods=result_frame(describe_periods(targets, period, period_starts)),
        facts=columns,
        value_facts=value_facts,
        notes=notes + column_notes(columns, names),
        n_described=len(sample.fold),
        has_times=time is not None,
        repeats=facts.repeats.share,
    )


def split_periods(times: Times, n_periods: int) -> tuple[np.ndarray, list[str]]:
    """Return the period of each row, and the first time of each period as text."""
    ordered = np.sort(times.values)
    # By quantiles, so that quiet hours do not make empty periods; equal times stay
    # together.
    edges = np.unique(ordered)
    if len(edges) > n_periods:
        edges = np.unique(ordered[np.arange(n_periods) * len(ordered) // n_periods])
    # Nanoseconds per unit of the times.
    scale = 1 if times.kind != NUMBER else unix_unit(ordered[[0, -1]])
    if scale is None:
        starts = [f"{edge:.15g}" if edge % 1 else str(int(edge)) for edge in edges]
    else:
        dates = (edges * scale).astype(np.int64).astype("M8[ns]")
        starts = np.datetime_as_string(dates, unit="s").tolist()
        starts = [start.replace("T", " ") for start in starts]
    return np.searchsorted(edges, times.values, side="right") - 1, starts


def describe_depths(
    depth: np.ndarray, task_names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the numbers of rows by depth, as columns of a table."""
    counts = np.bincount(depth + 1, minlength=len(task_names) + 2)
    first = 0 if counts[0] else 1  # unknown depths are rare
    return {
        "depth": np.arange(-1, len(task_names) + 1)[first:],
        "reached": np.array(["unknown", "none", *task_names], dtype=object)[first:],
        "rows": counts[first:],
        "share": counts[first:] / len(depth),
    }


def describe_periods(
    targets: Any, period: np.ndarray, starts: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the rates of the tasks by period, as columns of a table."""
    rates = {}
    is_known = _column_facts.known_labels(targets)
    for k, name in enumerate(targets.task_names):
        n_known = np.bincount(period, is_known[:, k])
        n_ones = np.bincount(period, targets.values[:, k])
        # NaN without a known label: 0 would look like a rate.
        rates[f"rate_{name}"] = n_ones / np.where(n_known > 0, n_known, np.nan)
    start = np.array(starts, dtype=object)
    return {"start": start, "rows": np.bincount(period), **rates}


# Share of rows with the inputs of another row from which they are noted.
MANY_REPEATS = 0.05
# Repeats come back if those of later rows are at least this share of the random ones.
COMES_BACK = 0.8


def repeat_notes(repeats: _column_facts.Repeats) -> list[str]:
    """Return what rows with equal inputs do to random splits, in a list."""
    if not repeats.share >= MANY_REPEATS:
        return []
    start = (
        f"{repeats.share:.1%} of the rows repeat all inputs of another row. Of a "
        f"random fifth of the rows, {repeats.random_share:.1%} have a copy in the "
        "others"
    )
    if np.isnan(repeats.last_share):
        return [
            f"{start}. If copies belong to one event, such as a booking of several "
            "rows or an over-sampled row, random folds and random validation rows "
            "promise too much: name the time, or pass groups."
        ]
    later = f"of the last period {repeats.last_share:.1%} have one in the rows before"
    if repeats.last_share >= COMES_BACK * repeats.random_share:
        return [f"{start}, and {later}: equal inputs come back, as on later rows."]
    return [
        f"{start}, but {later}: random folds and random validation rows promise too "
        "much. Split by time, and name the time_column."
    ]


def combination_notes(
    combinations: Sequence[tuple[tuple[Any, ...], float | None]],
) -> list[str]:
    """Return which columns tell more together than each of them alone, in a list."""
    found = []
    for names, gain in combinations:
        text = " with ".join(map(repr, names))
        found.append(text if gain is None else f"{text} ({gain:.1%})")
    if not found:
        return []
    return [
        "Together, columns tell more than each of them alone: a fit also learns a rate "
        "for each combination of their values (how much less uncertain the event is): "
        f"{', '.join(found)}."
    ]


def subject_notes(subjects: Subjects | None) -> list[str]:
    """Return what rows of one subject do to random splits, in a list."""
    if subjects is None:
        return []
    return [
        f"{subjects.sentence()}. On new subjects, random folds promise too much: pass "
        "groups=..., with the subject of each row, to fit and to FunnelGroupKFold; "
        "the command has --groups."
    ]


# What the flags of columns mean, in the order of the notes.
MEANINGS = {
    "leak": f"Alone, a column has an AUC above {_column_facts.LEAK}, which suggests a "
    "leak: a value that is known only after the event",
    "refused": "fit refuses columns",
    "id": "Numbers that look like ids or codes would be encoded by their size; add the "
    "columns that are ids to categorical_features (gain of AUC as categories)",
    "category": "Whole numbers predict better as categories than as amounts; try them "
    "in categorical_features (gain of AUC)",
    "amounts": "Categories of text contain amounts; convert them to numbers",
    "numbers and their texts": "Numbers also occur as text, such as 12 and '12', and "
    "count as two values each; convert the column to text",
    "dates": "Categories of text contain dates. If they order the rows, convert them "
    "by pandas.to_datetime, and name them as time here and as time_column in fit; "
    "otherwise derive numbers, such as the hour, the weekday or the age in days",
    "one value per row": "Every row has a different value; leave out row numbers",
    "constant": "One value, or none, in all rows; nothing can be learnt from it",
    "new values": "More than half of the rows of the last period (without times, of a "
    "random tenth of the rows) have a value that does not occur in the other rows",
    "drift": "Alone, a column tells the last period from the first with an AUC above "
    f"{_column_facts.DRIFT}; leave out numbers that grow with the time, such as that "
    "of the month",
}


def column_notes(
    columns: Sequence[_column_facts.ColumnFacts], task_names: Sequence[str]
) -> list[str]:
    """Return a sentence per flag that columns have."""
    notes = []
    for flag, meaning in MEANINGS.items():
        texts = [
            _flag_text(flag, facts, task_names)
            for facts in columns
            if flag in facts.flags
        ]
        if texts:
            notes.append(f"{meaning}: {', '.join(texts)}.")
    return notes


def _flag_text(
    flag: str, facts: _column_facts.ColumnFacts, task_names: Sequence[str]
) -> str:
    """Return the name of a flagged column, with the figure that led to the flag."""
    detail = ""
    if flag == "leak":
        best = int(np.nanargmax(facts.auc))
        detail = f"{task_names[best]}, {facts.auc[best]:.3f}"
    elif flag in ("id", "category") and not np.isnan(facts.gain):
        detail = f"{facts.gain:+.3f}"
    elif flag == "drift":
        detail = f"{facts.drift:.3f}"
    elif flag == "refused":
        detail = facts.input.error.rstrip(".")
    return f"{facts.column!r} ({detail})" if detail else repr(facts.column)


@dataclass(repr=False, eq=False, kw_only=True)
class ImpressionsDescription:
    """A description of impressions, as :func:`describe_impressions` returns it.

    ``print`` shows it as text, and notebooks as HTML.

    Parameters
    ----------
    task_names : list of str
        Names of the tasks.
    depths : pandas.DataFrame or dict of str to ndarray
        Numbers of rows by funnel depth: ``depth`` (-1 if a missing label leaves it
        unknown), ``reached`` (the last task that happened, and all that it presupposes
        by the ``task_parents`` of the estimator), ``rows`` and ``share``. A DataFrame
        if pandas is installed, otherwise a dict with the same columns.
    periods : pandas.DataFrame or dict of str to ndarray
        Rates of the tasks by period; without times, over all rows. ``start`` (the first
        time of the period, also of Unix times as a date), ``rows`` and, for each task,
        ``rate_<task>``, its rate among the rows with its label.
    facts : list of ColumnFacts
        What is known of each column.
    notes : list of str
        Problems of the labels and of the columns, in sentences.
    n_described : int
        Number of rows by which the columns are described.
    has_times : bool
        Whether the last period is a period of time, not a random part of the rows.
    repeats : float
        Share of the described rows that repeat all inputs of a row before them. The
        time is no input, nor are columns that ``fit`` refuses.
    value_facts : list of ValueFacts
        What is known of each column of amounts.

    See Also
    --------
    describe_impressions : Describes a table.

    Examples
    --------
    >>> from sk_pwiser.inspection import describe_impressions
    >>> X = [[number % 7, "ab"[number % 2]] for number in range(40)]
    >>> Y = [[number % 4 > 1, number % 4 > 2] for number in range(40)]
    >>> describe_impressions(X, Y).depths
       depth     reached  rows  share
    0      0        none    20   0.50
    1      1       click    10   0.25
    2      2  conversion    10   0.25
    """

    task_names: list[str]
    depths: Any
    periods: Any
    facts: list[_column_facts.ColumnFacts]
    notes: list[str]
    n_described: int
    has_times: bool
    repeats: float
    value_facts: list[ValueFacts]

    @property
    def values(self) -> Any:
        """What is known of the columns of amounts.

        Returns
        -------
        pandas.DataFrame or dict of str to ndarray or None
            One row per value, None without values:

            - ``value``, ``task``: the column of amounts, and the task under which they
              arise, no text for amounts per impression;
            - ``n_events``, ``n_amounts``, ``n_zeros``: numbers of rows with the event,
              of known amounts, and of amounts of 0;
            - ``mean``, ``median``, ``quantile_99``, ``largest``: of the known amounts;
            - ``largest_share``: part of the total in the largest 1 % of the amounts;
            - ``n_effective``: number of equal amounts whose mean would be as uncertain:
              the square of the total divided by the sum of the squares.
        """
        if not self.value_facts:
            return None
        rows = [asdict(facts) for facts in self.value_facts]
        return result_frame(
            {name: np.array([row[name] for row in rows]) for name in rows[0]}
        )

    @property
    def columns(self) -> Any:
        """What is known of the columns, and what the estimator would do with them.

        Returns
        -------
        pandas.DataFrame or dict of str to ndarray
            One row per column of ``X``:

            - ``column``: its name or index;
            - ``kind``: how it is read, or "refused";
            - ``values``: number of distinct values;
            - ``missing``: share of missing values;
            - ``unseen``: share of rows of the last period, or of a random tenth without
              times, whose value does not occur in the other rows; for categories, and
              for numbers that may be categories;
            - ``drift``: AUC of telling the last period from the first, NaN without
              times;
            - ``auc_<task>``: cross-fitted AUC of the column alone;
            - ``gain``: gain of this AUC if whole numbers are read as categories;
            - ``encoding``, ``vectors`` and ``width``: how the network reads it, its
              number of embeddings, and its inputs of the first layer;
            - ``flags``: words for the problems of the notes, separated by commas.
        """
        rows = [
            {
                "column": facts.column,
                "kind": facts.input.kind,
                "values": facts.values,
                "missing": facts.missing,
                "unseen": facts.unseen,
                "drift": facts.drift,
                **{
                    f"auc_{task}": auc
                    for task, auc in zip(self.task_names, facts.auc, strict=True)
                },
                "gain": facts.gain,
                "encoding": facts.input.encoding,
                "vectors": facts.input.vectors,
                "width": facts.input.width,
                "flags": ", ".join(facts.flags),
            }
            for facts in self.facts
        ]
        return result_frame(
            {name: np.array([row[name] for row in rows]) for name in rows[0]}
        )

    def flagged(self, flag: str) -> list[Any]:
        """Return the names of the columns with a flag.

        Parameters
        ----------
        flag : str
            One of the flags in ``columns``: "leak", "refused", "id", "category",
            "amounts", "numbers and their texts", "dates", "one value per row",
            "constant", "new values" or "drift".

        Returns
        -------
        list of str or int
            Names or indices of columns.

        Raises
        ------
        ValueError
            If there is no such flag.
        """
        check_choice("flag", flag, MEANINGS)
        return [facts.column for facts in self.facts if flag in facts.flags]

    def __repr__(self) -> str:
        lines = [self._title()]
        for headers, cells, sides in self._tables():
            lines += ["", *aligned([*headers, *cells[:MAX_LINES]], sides)]
            if len(cells) > MAX_LINES:
                lines.append(f"and {len(cells) - MAX_LINES:,} more")
        for text in [self._legend(), *(f"* {note}" for note in self.notes)]:
            lines += ["", *textwrap.wrap(text, NOTE_WIDTH)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        blocks = [f"<p>{escape(self._title())}</p>"]
        for headers, cells, sides in self._tables():
            rows = [_html_row("th", row, sides) for row in headers]
            rows += [_html_row("td", row, sides) for row in cells[:MAX_LINES]]
            blocks.append(f"<table>{''.join(rows)}</table>")
            if len(cells) > MAX_LINES:
                blocks.append(f"<p>and {len(cells) - MAX_LINES:,} more</p>")
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        blocks.append(f"<p>{escape(self._legend())}</p><ul>{notes}</ul>")
        return f'{STYLE}<div class="sk-pwiser-impressions">{"".join(blocks)}</div>'

    def _title(self) -> str:
        n_samples = self.depths["rows"].sum()
        text = f"{n_samples:,} rows, {len(self.facts):,} columns; tasks: "
        text += ", ".join(self.task_names)
        if self.n_described < n_samples:
            text += f". Columns: by a random sample of {self.n_described:,} rows"
        return text

    def _legend(self) -> str:
        last = "the last period" if self.has_times else "a random tenth of the rows"
        drift = " drift: AUC of last against first period." if self.has_times else ""
        order = "on later rows" if self.has_times else "on random folds"
        return (
            f"unseen: share of {last} with values that no other row has.{drift} AUC: "
            f"of the column alone, {order}. width: inputs of the first layer."
        )

    def _tables(self) -> Iterator[tuple[list[list[str]], list[list[str]], str]]:
        """Yield the headers of each table, its cells, and the sides of its columns."""
        task_names = [_short(name, TASK_WIDTH) for name in self.task_names]
        yield [["depth", "rows", "share"]], self._depth_cells(), "<>>"
        headers = [["period from", "rows", *task_names]]
        yield headers, self._period_cells(), "<>" + ">" * len(task_names)
        if self.value_facts:
            headers = [
                ["", "", "", "", "", "", "", "in the"],
                [
                    "value",
                    "under",
                    "amounts",
                    "mean",
                    "median",
                    "99 %",
                    "largest",
                    "top 1 %",
                ],
            ]
            yield headers, self._value_cells(), "<<>>>>>>"
        # The first and the last task stand for many, so that lines fit on a screen.
        n_tasks = len(task_names)
        shown_tasks = range(n_tasks) if n_tasks <= 3 else [0, n_tasks - 1]
        names = ["column", "kind", "values", "missing", "unseen"]
        if self.has_times:
            names.append("drift")
        headers = [
            [""] * len(names) + ["AUC"] * len(shown_tasks) + ["input", ""],
            [*names, *(task_names[k] for k in shown_tasks), "width", "encoding"],
        ]
        cells = [self._column_cells(facts, shown_tasks) for facts in self.facts]
        n_numbers = len(names) + len(shown_tasks) - 1
        yield headers, cells, "<<" + ">" * n_numbers + "<"

    def _depth_cells(self) -> list[list[str]]:
        rows = zip(*(self.depths[name] for name in self.depths), strict=True)
        return [
            [f"{depth}: {reached}", f"{n:,}", _share(share, 2)]
            for depth, reached, n, share in rows
        ]

    def _period_cells(self) -> list[list[str]]:
        rows = zip(*(self.periods[name] for name in self.periods), strict=True)
        return [
            [start, f"{n:,}", *(_share(rate, 2) for rate in rates)]
            for start, n, *rates in rows
        ]

    def _value_cells(self) -> list[list[str]]:
        return [
            [
                _short(facts.value, NAME_WIDTH),
                _short(facts.task or "impression", TASK_WIDTH),
                f"{facts.n_amounts:,}",
                *(
                    "" if np.isnan(amount) else f"{amount:,.4g}"
                    for amount in (
                        facts.mean,
                        facts.median,
                        facts.quantile_99,
                        facts.largest,
                    )
                ),
                _share(facts.largest_share),
            ]
            for facts in self.value_facts
        ]

    def _column_cells(
        self, facts: _column_facts.ColumnFacts, shown_tasks: Sequence[int]
    ) -> list[str]:
        scores = [facts.auc[k] for k in shown_tasks]
        if self.has_times:
            scores.insert(0, facts.drift)
        kind, *_ = facts.input.kind.partition(" of ")
        return [
            _short(str(facts.column), NAME_WIDTH),
            kind,
            "" if np.isnan(facts.values) else f"{facts.values:,.0f}",
            _share(facts.missing),
            _share(facts.unseen),
            *("" if np.isnan(score) else f"{score:.3f}" for score in scores),
            str(facts.input.width),
            facts.input.encoding,
        ]


def _html_row(tag: str, row: Sequence[str], sides: str) -> str:
    """Return a row of a table of HTML; sides are "<" or ">" per cell."""
    cells = []
    for cell, side in zip(row, sides, strict=True):
        style = " class=left" if side == "<" else ""
        cells.append(f"<{tag}{style}>{escape(cell)}</{tag}>")
    return f"<tr>{''.join(cells)}</tr>"


def _short(name: str, longest: int) -> str:
    """Return a name, whose end is left out if it is longer than a width."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _share(value: float, digits: int = 1) -> str:
    """Return a share in percent, and no text for NaN."""
    return "" if np.isnan(value) else f"{value:.{digits}%}"
