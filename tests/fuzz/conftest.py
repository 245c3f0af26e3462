"""The count of calls at the end of a run."""

import pytest
from fuzz.oracle import Count
from fuzz.profiles import N_CALLS, PROFILE


def pytest_sessionfinish(session, exitstatus):
    is_whole = PROFILE == "long" and exitstatus == pytest.ExitCode.OK
    if is_whole and Count.calls < N_CALLS:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    least = f", of {N_CALLS} or more" if PROFILE == "long" else ""
    terminalreporter.write_line(
        f"The fuzzer called estimators {Count.calls} times{least}."
    )
