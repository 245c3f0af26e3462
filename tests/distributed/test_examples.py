"""The examples that need a cluster run, each with a Ray of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "cluster"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ray_fit.py", "mean AUC 0."), ("ray_search.py", "AUC of conversion 0.")],
)
def test_an_example_runs(name, expected, is_full):
    pytest.importorskip("ray")
    if not is_full:
        pytest.skip("part of the long form: SK_PWISER_DISTRIBUTED=full")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
