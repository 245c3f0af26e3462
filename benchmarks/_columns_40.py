"""A generated table of 40 columns as logs and registers have them.

Effects are steps in integers, amounts that are mostly 0, heavy tails, categories with
few values, and pairs of columns that act together.
"""

import numpy as np
import pandas as pd

N_ROWS = 60_000


def columns_40(seed):
    """Return features and labels of a funnel of two tasks, 25 % and 7 % of the rows.

    The effects are the same for every seed, the rows are new.
    """
    effects, rows = np.random.default_rng(5), np.random.default_rng(seed)
    columns, logits = {}, np.zeros((N_ROWS, 2))

    def add(name, values, *happens, scale):
        columns[name] = values
        for event in happens:
            logits[:] += np.outer(event, effects.normal(scale=scale, size=2))

    for index in range(12):
        n_values = effects.integers(2, 45)
        codes = rows.choice(n_values, N_ROWS, p=effects.dirichlet(np.ones(n_values)))
        columns[f"category_{index}"] = pd.Categorical(codes.astype(str))
        logits += effects.normal(scale=0.35, size=(n_values, 2))[codes]
    for index in range(10):
        largest = effects.integers(10, 100)
        values = rows.integers(0, largest, N_ROWS)
        is_above = values > effects.integers(2, largest - 2)
        add(f"integer_{index}", values, is_above, scale=0.5)
    for index in range(10):
        is_zero = rows.random(N_ROWS) < effects.uniform(0.6, 0.97)
        values = np.where(is_zero, 0, rows.lognormal(6, 1.5, N_ROWS)).round()
        add(f"amount_{index}", values, ~is_zero, values > np.exp(7), scale=0.7)
    for index in range(8):
        values = 10 * rows.standard_t(2, N_ROWS)
        add(f"tail_{index}", values, np.tanh(values / 10), scale=0.3)
    numeric = [name for name in columns if not name.startswith("category")]
    for _ in range(12):
        first, second = effects.choice(numeric, 2, replace=False)
        is_high = columns[first] > np.median(columns[first])
        is_high &= columns[second] > np.quantile(columns[second], 0.6)
        logits += np.outer(is_high, effects.normal(scale=0.6, size=2))
    logits = 1.2 * (logits - logits.mean(axis=0)) / logits.std(axis=0)
    rates = 1 / (1 + np.exp([1.4, 1.2] - logits))
    happens = (rows.random((N_ROWS, 2)) < rates).cumprod(axis=1)
    return pd.DataFrame(columns), pd.DataFrame(happens, columns=["first", "second"])
