"""A table in memory is a data set of one part: fits on both are the same."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from small_model import small

from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr

pytest.importorskip("pyarrow")

TARGETS = ["click", "conversion"]


def make_log(n=900, seed=0):
    """Return rows whose users come back, in the order of coarse times."""
    data = make_ctr_cvr(n, ctr=0.4, cvr=0.3, n_categories=30, random_state=seed)
    log = data.data.iloc[:, [0, 1, 8, 9]].copy()
    for name in log.columns[2:]:  # Parquet keeps text, not the category dtype
        log[name] = log[name].astype(int).map("v{}".format)
    rng = np.random.default_rng(seed)
    return log.assign(
        **data.target.astype(float),
        time=np.sort(rng.integers(0, 40, n)).astype(float),
        user=rng.integers(0, 150, n),
        weight=rng.gamma(2.0, size=n) * rng.integers(0, 5, n),
        both=rng.integers(0, 3, n) / 2,
    )


LOG = make_log()
FEATURES = list(LOG.columns[:4])
CASES = {
    "plain": {},
    "by time": {"time_column": "time"},
    "no target statistics": {"target_encoding": False},
    "weights": {"sample_weight": "weight"},
    "weights per task": {"sample_weight": ["weight", "both"]},
    "groups": {"groups": "user"},
    "groups by time": {"groups": "user", "time_column": "time"},
    "sorted by labels": {"order": TARGETS},
    "sorted by a column": {"order": [FEATURES[-1]]},
    "missing labels": {"missing": True},
    "a warm start": {"warm_start": True},
}
FAST = {"weights per task", "groups by time", "sorted by labels", "a warm start"}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(value, marks=() if value in FAST else pytest.mark.slow)
        for value in CASES
    ],
)
@pytest.mark.filterwarnings("ignore:The rows are sorted", "ignore:Labels of task")
def test_one_file_gives_the_fit_of_the_table_to_the_bit(case, tmp_path):
    options = CASES[case]
    log, time = LOG, options.get("time_column")
    if "order" in options:
        log = LOG.sort_values(options["order"], kind="stable", ignore_index=True)
    if "missing" in options:
        hidden = np.random.default_rng(1).random(len(log)) < 0.2
        log = log.assign(conversion=log["conversion"].mask(hidden))
    log.to_parquet(tmp_path / "log.parquet")
    features = [*FEATURES, time] if time else FEATURES
    columns = {k: options[k] for k in ("sample_weight", "groups") if k in options}
    params = {
        "max_epochs": 3,
        "early_stopping": True,
        "missing_labels": "ignore",
        "target_encoding": options.get("target_encoding", "auto"),
        "warm_start": "warm_start" in options,
        "encoding_params": {"target_encoding_min_values": 20, "time_column": time},
    }
    in_file, in_memory = small(**params), small(**params)
    dataset = ParquetImpressions(tmp_path, features, TARGETS, **columns)
    given = {name: log[column] for name, column in columns.items()}
    for _ in range(1 + params["warm_start"]):
        in_file.fit(dataset)
        in_memory.fit(log[features], log[TARGETS], **given)
    expected = in_memory.predict_proba(log[features])
    assert_array_equal(in_file.predict_proba(log[features]), expected)
    for name in ("train_loss", "valid_loss"):
        assert in_file.history_[:, name] == in_memory.history_[:, name]
