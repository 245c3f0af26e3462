"""Rows of persons: attributes that stay the same, and values that change by year."""

import numpy as np
import pandas as pd


def rows_of_persons(n_persons, seed=0, *, most_rows=7):
    """Return the rows of each person together, with the person as a last column."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(n_persons), rng.integers(1, most_rows + 1, n_persons))
    n_rows = len(person)
    is_first = np.diff(person, prepend=-1) > 0
    nth = np.arange(n_rows) - np.maximum.accumulate(np.arange(n_rows) * is_first)
    birth = rng.integers(1930, 1990, n_persons)[person]
    year = rng.integers(2000, 2010, n_persons)[person] + nth
    income = rng.normal(10, 2, n_persons)[person] + rng.normal(0, 0.4, n_rows)
    return pd.DataFrame(
        {
            "sex": rng.integers(0, 2, n_persons)[person].astype(str),
            "region": rng.integers(0, 12, n_persons)[person].astype(str),
            "birth": birth,
            "score": rng.normal(size=n_persons)[person].round(2),
            "age": year - birth,
            "income": income.round(1),
            "visits": rng.poisson(2, n_rows),
            "year": year,
            "person": person,
        }
    )
