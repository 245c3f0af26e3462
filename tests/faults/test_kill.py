"""Training in processes that are killed at random moments, or may write no more."""

import multiprocessing
import os
import random
import signal
import time

import pytest
from checkpointed import names, resume
from killed import fit, log_of
from numpy.testing import assert_array_equal
from small_model import X, Y, small

pytestmark = pytest.mark.slow

PARAMS = {"max_epochs": 12, "early_stopping": True, "n_iter_no_change": 12}
N_KILLS = 50 if os.environ.get("SK_PWISER_STRESS") else 5


@pytest.fixture(scope="module")
def processes():
    """Start processes from one that has imported the package, as Linux can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs processes that can be forked")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sk_pwiser"])
    return context


@pytest.fixture(scope="module")
def unbroken(processes, tmp_path_factory):
    """Return the predictions of an unbroken fit, and the seconds it takes."""
    folder = tmp_path_factory.mktemp("unbroken")
    process = processes.Process(target=fit, args=(folder, PARAMS))
    process.start()
    wait_for_start(process, folder)
    start = time.monotonic()
    process.join()
    seconds = time.monotonic() - start
    assert process.exitcode == 0
    return small(**PARAMS).fit(X, Y).predict_proba(X), seconds


def wait_for_start(process, folder):
    while not log_of(folder).exists():
        assert process.is_alive()
        time.sleep(0.001)


def last_epoch(folder):
    found = [name for name in names(folder) if name.startswith("checkpoint-")]
    return int(found[-1].split("-")[1].split(".")[0]) if found else 0


@pytest.mark.parametrize("kill", range(N_KILLS))
def test_a_killed_training_resumes_to_the_bit(processes, unbroken, tmp_path, kill):
    expected, seconds = unbroken
    delays = random.Random(kill)
    n_killed = 0
    while True:
        process = processes.Process(target=fit, args=(tmp_path, PARAMS))
        log_of(tmp_path).unlink(missing_ok=True)
        process.start()
        wait_for_start(process, tmp_path)
        process.join(delays.uniform(0, seconds))
        process.kill()
        process.join()
        ended = log_of(tmp_path).read_text().split()
        # The epoch whose checkpoint was being written, at most.
        assert last_epoch(tmp_path) >= int(ended[-1]) - 1
        n_killed += process.exitcode == -signal.SIGKILL
        if n_killed == 2 or process.exitcode == 0:
            break
    model = resume(tmp_path, **PARAMS)
    assert_array_equal(model.predict_proba(X), expected)
    assert model.n_iter_ == 12
    assert [name for name in names(tmp_path) if name.endswith(".tmp")] == []
