"""Training in a process that a test kills, or limits."""

import torch
from refusals import X, Y, small
from skorch.callbacks import Callback

# As in the process of the tests: sums over several threads differ in their last bits.
torch.set_num_threads(1)


def log_of(folder):
    """Return the file of the numbers of the epochs that have ended."""
    return folder / "epochs.log"


class Logs(Callback):
    """Writes the number of each epoch to a file when it ends."""

    def __init__(self, path):
        self.path = path

    def on_train_begin(self, net, **kwargs):
        self._log(0)

    def on_epoch_end(self, net, **kwargs):
        self._log(len(net.history))

    def _log(self, n_epochs):
        with open(self.path, "a") as file:
            file.write(f"{n_epochs} ")


class Limits(Callback):
    """Limits the size of the files of this process from the third epoch on."""

    def on_epoch_end(self, net, **kwargs):
        import resource  # not on Windows

        if len(net.history) == 3:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))


def fit(folder, params):
    """Train, or resume."""
    logs = Logs(log_of(folder))
    model = small(checkpoint_dir=folder, warm_start=True, callbacks=[logs], **params)
    model.fit(X, Y)


def fit_with_limit(folder, params, pipe):
    """Send the error that a limit of the size of files leads to."""
    logs = Logs(log_of(folder))
    earlier = small().fit(X, Y)
    before = earlier.predict_proba(X)
    earlier.set_params(**params, checkpoint_dir=folder)
    try:
        earlier.set_params(callbacks=[logs, Limits()]).fit(X, Y)
    except OSError as error:
        is_usable = bool((earlier.predict_proba(X) == before).all())
        pipe.send((error.errno, str(error), is_usable))
