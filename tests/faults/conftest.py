import os

import pytest


def pytest_generate_tests(metafunc):
    """Number the kills: a few, and 50 if SK_PWISER_STRESS is set."""
    if "kill" in metafunc.fixturenames:
        n_kills = 50 if os.environ.get("SK_PWISER_STRESS") else 5
        metafunc.parametrize("kill", range(n_kills))


@pytest.fixture(scope="session")
def processes():
    """Start processes from one that has imported the package, as Linux can."""
    import multiprocessing

    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("needs processes that can be forked")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sk_pwiser"])
    return context
