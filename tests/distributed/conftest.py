"""A log in Parquet files, and a Ray cluster on this machine."""

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr

TARGETS = ["click", "conversion"]


@pytest.fixture(scope="session")
def is_full():
    """Whether the long form of these tests was asked for."""
    return os.environ.get("SK_PWISER_DISTRIBUTED") == "full"


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    """Return a log of 24,000 rows in four files, and 40,000 rows to test on."""
    pytest.importorskip("pyarrow")
    data = make_ctr_cvr(
        64_000, ctr=0.3, cvr=0.4, n_categories=5, n_numeric=4, random_state=0
    )
    table = data.data.join(data.target)
    table["user"] = table.index // 8
    table["spend"] = table["conversion"] * np.exp(table["numeric_0"])
    folder = tmp_path_factory.mktemp("log")
    for part in range(4):
        rows = table[6_000 * part : 6_000 * (part + 1)]
        rows.to_parquet(folder / f"part-{part}.parquet", row_group_size=2_000)
    features = list(data.data)
    return SimpleNamespace(
        features=features,
        train=ParquetImpressions(folder, features, TARGETS),
        by_user=ParquetImpressions(folder, features, TARGETS, groups="user"),
        X_test=data.data[24_000:],
        Y_test=data.target[24_000:].to_numpy(),
    )


@pytest.fixture(scope="module")
def cluster():
    """Start Ray on this machine with two CPUs, and stop it at the end."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=2**28,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",
        # Workers import callbacks from the folder of the tests.
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}},
    )
    yield ray
    ray.shutdown()
