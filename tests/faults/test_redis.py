"""A history in Redis, and a process that changes it and is killed at random moments."""

import random
import shutil
import socket
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from served_history import N_BATCHES, PERIOD, RedisStore, batch, begin, make, operate

from sk_pwiser.history import StoredHistory

redis = pytest.importorskip("redis")
N_KILLS = 20


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Return the port of a server of Redis on this machine."""
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    command = ["redis-server", "--port", str(number), "--bind", "127.0.0.1"]
    command += ["--save", "", "--dir", str(tmp_path_factory.mktemp("redis"))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    client = redis.Redis(port=number)
    for _ in range(200):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    yield number
    process.terminate()
    process.wait()


def test_nothing_is_lost_or_counted_twice(port, processes):
    store = RedisStore(redis.Redis(port=port))
    StoredHistory.write(begin(), store)
    delays, n_killed = random.Random(0), 0
    while True:
        process = processes.Process(target=operate, args=(port,))
        process.start()
        process.join(delays.uniform(0.02, 0.15) if n_killed < N_KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            n_killed += 1
            continue
        assert process.exitcode == 0
        break
    assert n_killed == N_KILLS
    parts = [batch(number) for number in range(N_BATCHES)]
    X, y = zip(*parts, strict=True)
    history = make().fit(pd.concat(X, ignore_index=True), np.concatenate(y))
    stored = StoredHistory(store)
    assert stored.end_ == history.end_
    for user in range(20):
        for item in (0, 5):
            row = {"user": user, "item": item, "t": (N_BATCHES + 3) * PERIOD}
            found, expected = stored.transform_row(row), history.transform_row(row)
            own, other = list(found.values()), list(expected.values())
            assert_allclose(own, other, rtol=2e-7, atol=1e-9)
