"""
Resuming a training after a crash
=================================

With `checkpoint_dir`, `fit` writes the state of training to a folder after every epoch.
If the process ends early, run the same program again to continue from there. This
example interrupts a fit, resumes it, and compares the result with an uninterrupted fit.
"""

# %%
# A program that can be run again
# -------------------------------
#
# With `warm_start=True` a new estimator resumes from the last checkpoint in the folder,
# or starts from the beginning if there is none.

import tempfile

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

data = make_ctr_cvr(12_000, ctr=0.2, cvr=0.2, random_state=0)
X, Y = data.data, data.target
folder = tempfile.TemporaryDirectory()
params = {
    "early_stopping": True,
    "n_iter_no_change": 6,
    "max_epochs": 12,
    "random_state": 0,
}


def run(callbacks=None):
    model = MultiTaskCTRCVRClassifier(
        checkpoint_dir=folder.name, warm_start=True, callbacks=callbacks, **params
    )
    return model.fit(X, Y)


# %%
# The crash
# ---------
#
# A callback raises an error in the sixth epoch, as if memory had run out.

from pathlib import Path

from skorch.callbacks import Callback


class Crash(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 6:
            raise MemoryError("The machine ran out of memory.")


try:
    run(callbacks=[Crash()])
except MemoryError as error:
    print(error)
print(sorted(path.name for path in Path(folder.name).iterdir()))

# %%
# The second run
# --------------
#
# The new estimator trains the remaining epochs only. Early stopping, the optimiser and
# the random numbers continue, so the result is the same as without the interruption.

resumed = run()
whole = MultiTaskCTRCVRClassifier(**params).fit(X, Y)
same = (resumed.predict_proba(X) == whole.predict_proba(X)).all()
print("Predictions equal to those of a fit without interruption:", bool(same))
folder.cleanup()

# %%
# The picture
# -----------
#
# The history of the resumed fit also contains the epochs before the crash, which are
# shown in grey. The sixth epoch, in which the crash happened, was trained again.

import matplotlib.pyplot as plt

from sk_pwiser.inspection import TrainingHistoryDisplay

display = TrainingHistoryDisplay.from_estimator(resumed)
for ax in display.axes_:
    ax.axvspan(0.5, 5.5, color="grey", alpha=0.15, linewidth=0)
    ax.set_xlim(0.5, 12.5)
plt.show()

# %%
# Both curves continue after the grey part as if the fit had not been interrupted.
