"""The column of times of a fit that names none: its only dates, or a rising clock."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sk_pwiser._columns._choice import named_as_categories
from sk_pwiser._settings import Settings, exposure_references, left_out_column
from sk_pwiser._times import clock_columns, date_columns
from sk_pwiser._utils._warnings import warn_user


def take_time_column(
    settings: Settings,
    X: Any,
    *,
    earlier: Settings | None = None,  # of the training that this one continues
    warns: bool = True,
) -> Settings:
    """Return settings whose `time_column` is the only column of dates of `X`.

    Without dates, it is a number that never falls and looks like a time or, if training
    continues, the column of the earlier fit. A column that is named as a category is a
    feature. Raises if there are several others of dates.
    """
    if settings.encoding_params["time_column"] is not None:
        return settings
    names, is_date = date_columns(X)
    candidates = [name for name, holds in zip(names, is_date, strict=True) if holds]
    dates = _features_left_out(settings, names, candidates)
    if len(dates) > 1:
        raise ValueError(
            f"X has several columns of dates, {dates}. Name the one that orders the "
            "rows by encoding_params={'time_column': ...}, and derive numbers from the "
            "others, such as an age in days, or leave them out."
        )
    if dates:
        if warns:
            _warn_about_dates(dates[0])
        return _with_time_column(settings, dates[0])
    if candidates:
        return settings
    if earlier is not None:
        # No input of the earlier fit, whatever the order of these rows is.
        name = left_out_column(earlier)
        return _with_time_column(settings, name) if name in names else settings
    clocks = _features_left_out(settings, names, clock_columns(X))
    if not clocks:
        return settings
    if warns:
        _warn_about_clock(clocks)
    return _with_time_column(settings, clocks[0])


def _features_left_out(
    settings: Settings, names: Sequence[Any], candidates: Sequence[Any]
) -> list[Any]:
    """Return the candidates that the user has not named as features."""
    if not candidates:
        return []
    is_named, _ = named_as_categories(settings.categorical_features, names)
    named = {name for name, named in zip(names, is_named, strict=True) if named}
    named |= exposure_references(settings).keys()
    return [name for name in candidates if name not in named]


def _with_time_column(settings: Settings, name: Any) -> Settings:
    params = settings.encoding_params | {"time_column": name}
    return replace(settings, encoding_params=params)


def _warn_about_dates(name: Any) -> None:
    warn_user(
        f"Column {name!r}, the only one of dates, is taken as the time of the "
        "rows: early stopping validates on the last rows, and the column is no "
        f"feature. encoding_params={{'time_column': {name!r}}} says the same "
        "without this warning. To validate on random rows, leave the column out."
    )


def _warn_about_clock(clocks: Sequence[Any]) -> None:
    name, *others = clocks
    other_clocks = ""
    if others:
        other_clocks = f" {others} rise with it: leave them out, too."
    warn_user(
        f"Column {name!r}, a number that never falls from row to row and looks like a "
        "time, is taken as the time of the rows: early stopping validates on the last "
        f"rows, and the column is no feature. encoding_params={{'time_column': {name!r}"
        "} says the same without this warning; with 'time_feature': True, it is a "
        "feature. To validate on random rows, leave the column out, or shuffle the "
        f"rows.{other_clocks}"
    )
