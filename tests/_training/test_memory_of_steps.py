"""Memory that a step of training frees is kept for the next one."""

import platform
import subprocess
import sys

import pytest

PAGES_OF_STEPS = """
import resource
import sys

import torch

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if sys.argv[1] == "kept":
    log = make_ctr_cvr(200, ctr=0.3, random_state=0)
    MultiTaskCTRCVRClassifier(max_epochs=1).fit(log.data, log.target)
for _ in range(3):
    [torch.ones(2**22) for _ in range(3)]
before = faults()
for _ in range(10):
    blocks = [torch.ones(2**22) for _ in range(3)]
    del blocks
print(faults() - before)
"""


def page_faults(which: str) -> int:
    """Count the pages that ten steps with three blocks of 16 MiB touch anew."""
    done = subprocess.run(
        [sys.executable, "-c", PAGES_OF_STEPS, which],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept() -> None:
    assert page_faults("kept") < page_faults("returned") / 5
