"""Interrupts by real signals, in a process of its own."""

import os
import signal
import subprocess
import sys

import pytest

PROGRAM = """
import time
from skorch.callbacks import Callback
from refusals import X, Y, small

class Waits(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            print("ready", flush=True)
            time.sleep(60)

model = small().fit(X, Y)
before = model.predict_proba(X)
model.set_params(callbacks=[Waits()], max_epochs=9)
try:
    model.fit(X, Y)
except KeyboardInterrupt:
    assert (model.predict_proba(X) == before).all()
    assert model.n_iter_ == 2
    print("unchanged", flush=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal")
def test_ctrl_c_leaves_the_earlier_fit():

    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=300)[0] == "unchanged\n"
    assert process.returncode == 0
