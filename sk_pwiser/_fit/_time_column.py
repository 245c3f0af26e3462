"""The column of times of a fit that names none: the only column of dates, if any."""

from dataclasses import replace
from itertools import compress
from typing import Any

from sk_pwiser._columns._choice import named_as_categories
from sk_pwiser._settings import Settings
from sk_pwiser._times import date_columns
from sk_pwiser._utils._warnings import warn_user


def take_time_column(settings: Settings, X: Any, *, warns: bool = True) -> Settings:
    """Return settings whose `time_column` is the only column of dates of `X`.

    A column that is named as a category is a feature. Raises if there are several
    others.
    """
    if settings.encoding_params["time_column"] is not None:
        return settings
    names, is_date = date_columns(X)
    if not any(is_date):
        return settings
    is_named, _ = named_as_categories(settings.categorical_features, names)
    is_feature = zip(is_date, is_named, strict=True)
    dates = list(compress(names, (date and not named for date, named in is_feature)))
    if not dates:
        return settings
    if len(dates) > 1:
        raise ValueError(
            f"X has several columns of dates, {dates}. Name the one that orders the "
            "rows by encoding_params={'time_column': ...}, and derive numbers from the "
            "others, such as an age in days, or leave them out."
        )
    name = dates[0]
    if warns:
        warn_user(
            f"Column {name!r}, the only one of dates, is taken as the time of the "
            "rows: early stopping validates on the last rows, and the column is no "
            f"feature. encoding_params={{'time_column': {name!r}}} says the same "
            "without this warning. To validate on random rows, leave the column out."
        )
    return replace(
        settings, encoding_params=settings.encoding_params | {"time_column": name}
    )
