"""Parallel searches use no more threads than there are cores."""

import os
import subprocess
import sys

import pytest

SEARCH = """
import joblib, torch
from sklearn.model_selection import cross_validate
from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

def n_threads(model, X, Y):
    return torch.get_num_threads()

if __name__ == "__main__":
    data = make_ctr_cvr(200, ctr=0.5, cvr=0.5, random_state=0)
    model = MultiTaskCTRCVRClassifier(max_epochs=1)
    found = cross_validate(
        model, data.data, data.target, cv=2, n_jobs=2, scoring=n_threads
    )
    allowed = max(1, joblib.cpu_count() // 2)
    assert max(found["test_score"]) <= allowed, (found["test_score"], allowed)
"""


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_processes_share_the_cores(tmp_path):
    script = tmp_path / "search.py"
    script.write_text(SEARCH)
    # joblib does not change the number of threads if one of these is set.
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if k not in limits}
    subprocess.run([sys.executable, str(script)], env=environment, check=True)
