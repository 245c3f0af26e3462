"""Fits that are interrupted after a number of epochs, and resumed."""

import signal

import pytest
import torch
from skorch.callbacks import Callback
from small_model import X, Y, small

from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput


class Interrupted(Exception):
    pass


class WithDropout(MultiTaskNetwork):
    """A network of a user, whose dropout draws from torch's global generators."""

    def __init__(self, spec):
        super().__init__(spec)
        self.dropout = torch.nn.Dropout(0.5)
        self.head = torch.nn.Linear(self.width, self.n_tasks)

    def forward(self, codes, numeric):
        return NetworkOutput(self.head(self.dropout(self.input_layer(codes, numeric))))


class Orders(Callback):
    """Appends the rows of each batch to a list."""

    def __init__(self, orders):
        self.orders = orders

    def on_batch_end(self, net, batch, **kwargs):
        self.orders.append(batch[0]["numeric"][:, 0].tolist())


class NoisySGD(torch.optim.SGD):
    """Draws from torch's global generator in each step."""

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(torch.randn(p.shape).to(p), alpha=1e-3)


class InterruptsAfter(Callback):
    """Raises in the epoch after a number of complete ones, or at the end of them."""

    def __init__(self, n_epochs, event="on_batch_end", error=Interrupted):
        self.n_epochs, self.event, self.error = n_epochs, event, error

    def _at(self, event, net):
        n_complete = len(net.history) - (event != "on_train_end")
        if event == self.event and n_complete == self.n_epochs:
            if self.error is KeyboardInterrupt:  # by the signal of Ctrl-C
                signal.raise_signal(signal.SIGINT)
            raise self.error

    def on_epoch_begin(self, net, **kwargs):
        self._at("on_epoch_begin", net)

    def on_batch_end(self, net, training, **kwargs):
        self._at("on_batch_end" if training else "in_validation", net)

    def on_epoch_end(self, net, **kwargs):
        self._at("on_epoch_end", net)

    def on_train_end(self, net, **kwargs):
        self._at("on_train_end", net)


def interrupt(folder, n_epochs, *args, x=X, y=Y, callbacks=(), **params):
    """Train with checkpoints until the epoch after some complete ones."""
    stop = InterruptsAfter(n_epochs, *args)
    model = small(checkpoint_dir=folder, callbacks=[*callbacks, stop], **params)
    with pytest.raises(stop.error):
        model.fit(x, y)
    return model


def resume(folder, x=X, y=Y, **params):
    """Fit a new estimator, which resumes from a checkpoint of the folder."""
    return small(checkpoint_dir=folder, warm_start=True, **params).fit(x, y)


def names(folder):
    """Return the names of all files of a folder."""
    return sorted(path.name for path in folder.iterdir())


def weights(model):
    return model.net_.module_.state_dict()


def history(model):
    """Return the history without times."""
    return [
        {key: value for key, value in row.items() if key != "dur"}
        for row in model.history_
    ]
