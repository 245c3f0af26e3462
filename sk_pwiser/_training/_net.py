"""The private skorch net: the training loop, its history and its early stopping."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, PrintLog, ProgressBar
from skorch.utils import noop
from torch import Tensor, nn

from sk_pwiser._training._batch_samplers import BatchIterator
from sk_pwiser._training._dataset import Batch, Impressions
from sk_pwiser._training._device import can_fuse, evaluation_batch_size
from sk_pwiser.networks import NetworkOutput, as_funnel

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}


class TrainingData(NamedTuple):
    """The rows to learn from and those to watch, if any."""

    train: Impressions
    valid: Impressions | None = None


class StopQuietly(EarlyStopping):
    """Early stopping that lets the epoch's other callbacks have their turn.

    skorch's own interrupts the epoch, so that its last line is never printed.
    """

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Note that training is to stop, in place of interrupting it."""
        try:
            super().on_epoch_end(net, **kwargs)
        except KeyboardInterrupt:
            net.stop_training_ = True


class MultiTaskNet(NeuralNet):  # type: ignore[misc]
    """A skorch net over impressions, with per-task validation AUC in its history.

    Parameters
    ----------
    module : MultiTaskNetwork
        The network.
    criterion : MultiTaskCriterion
        What training minimises.
    task_names : sequence of str
        Names of the tasks, for the history.
    precision : {"float32", "bfloat16"}
        Precision of the network's forward pass.
    compile_mode : str or None
        Mode of torch.compile, by which training runs the network; None for not at all.
    task_space : {"entire", "conditional"}
        Whether the network's columns are tasks, or conditional heads of a chain.
    **kwargs : dict
        Parameters of :class:`skorch.NeuralNet`.
    """

    def __init__(
        self,
        module: nn.Module,
        criterion: nn.Module,
        *,
        task_names: Sequence[str] = (),
        precision: str = "float32",
        compile_mode: str | None = None,
        task_space: str = "entire",
        **kwargs: Any,
    ) -> None:
        super().__init__(module, criterion=criterion, **kwargs)
        self.task_names = task_names
        self.precision = precision
        self.compile_mode = compile_mode
        self.task_space = task_space

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is kept twice: skorch trains the very module it is given."""
        state: dict[str, Any] = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("module", "criterion")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take up a state, on the CPU where its device is not there."""
        super().__setstate__(state)
        self.__dict__.update(module=self.module_, criterion=self.criterion_)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        callbacks: list[tuple[str, Callback]] = [("epoch_timer", EpochTimer())]
        if self.verbose >= 2:
            callbacks.append(("progress_bar", ProgressBar(postfix_keys=[])))
        if self.verbose:
            # What a loss has to tell is kept, but would make the table too wide.
            loss, weights = self.criterion.loss, self.criterion.weight_names
            told = [*loss.pop_epoch_record(), *weights]
            unprinted = [
                f"{part}_{name}" for part in ("train", "valid") for name in told
            ]
            callbacks.append(("print_log", PrintLog(keys_ignored=unprinted)))
        return callbacks

    def fit_loop(
        self, X: TrainingData, y: None = None, epochs: int | None = None, **_: Any
    ) -> "MultiTaskNet":
        """Train for some epochs, or until a callback asks to stop."""
        self.stop_training_ = False
        # For training alone: rows to predict come in any number, and each new one may
        # compile anew.
        network: Any = self.module_
        if self.compile_mode is not None:
            network = torch.compile(network, mode=self.compile_mode)
        train = self.get_iterator(X.train, training=True)
        valid = None if X.valid is None else self.get_iterator(X.valid)
        datasets = {"dataset_train": X.train, "dataset_valid": X.valid}
        for _epoch in range(self.max_epochs if epochs is None else epochs):
            self.notify("on_epoch_begin", **datasets)
            self.run_single_epoch(
                train, True, "train", self.train_step, network=network
            )
            self.run_single_epoch(valid, False, "valid", self.validation_step)
            self.notify("on_epoch_end", **datasets)
            if self.stop_training_:
                break
        self._check_last_step(X.train)
        return self

    def _check_last_step(self, impressions: Impressions) -> None:
        """Refuse weights that the last step spoilt: its loss came before it."""
        rows = BatchIterator(
            impressions, self.batch_size, device=torch.device(self.device)
        )
        batch = next(iter(rows))
        finite = [self.evaluation_step(batch), *self.module_.parameters()]
        if not all(bool(values.isfinite().all()) for values in finite):
            raise ValueError(
                f"Training diverged in epoch {self.history[-1, 'epoch']}: its last "
                f"step left no finite predictions. Lower lr, which is {self.lr}."
            )

    def run_single_epoch(
        self,
        iterator: BatchIterator | None,
        training: bool,
        prefix: str,
        step_fn: Any,
        **fit_params: Any,
    ) -> None:
        """Go through the rows once and record the mean loss and the AUC.

        The losses add up on the device: reading each would stop the device at every
        batch.
        """
        if iterator is None:
            return
        total, n_rows, logits = torch.zeros((), device=self.device), 0, []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            total += step["loss"].detach() * len(batch[1])
            n_rows += len(batch[1])
            if not training:
                logits.append(step["y_pred"])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self._record_loss(prefix, total.item() / n_rows)
        if not training:
            self._record_auc(iterator.dataset, torch.cat(logits))

    def _record_loss(self, prefix: str, loss: float) -> None:
        if not np.isfinite(loss):
            raise ValueError(
                f"Training diverged in epoch {self.history[-1, 'epoch']}: the {prefix} "
                f"loss is {loss}. Lower lr, which is {self.lr}."
            )
        self._record_best(f"{prefix}_loss", loss, lower_is_better=True)
        for name, value in self.criterion_.pop_epoch_record().items():
            self.history.record(f"{prefix}_{name}", value)

    def _record_auc(self, impressions: Impressions, logits: Tensor) -> None:
        y, weights = impressions.labels(), impressions.weights()
        aucs = []
        for k, task in enumerate(self.task_names):
            aucs.append(_auc(y[:, k], logits[:, k], weights))
            self._record_best(f"valid_auc_{task}", aucs[-1], lower_is_better=False)
        if len(aucs) > 1:
            known = [auc for auc in aucs if not np.isnan(auc)]
            mean = float(np.mean(known)) if known else np.nan
            self._record_best("valid_auc_mean", mean, lower_is_better=False)

    def _record_best(self, key: str, value: float, lower_is_better: bool) -> None:
        # PrintLog marks a value as the best so far by its companion "_best".
        sign = 1 if lower_is_better else -1
        earlier = [sign * row[key] for row in self.history[:-1] if key in row]
        self.history.record(key, value)
        self.history.record(f"{key}_best", sign * value < min(earlier, default=np.inf))

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch and its gradients."""
        self._set_training(True)
        inputs, y = batch
        output = self.infer(inputs, **fit_params)
        loss = self.criterion_.backward(
            output,
            y,
            inputs.get("sample_weight"),
            inputs.get("groups"),
            # Lazily: most weightings never ask for them.
            chain(self.module_.parameters(), self.criterion_.loss.parameters()),
        )
        return {"loss": loss, "y_pred": output.logits}

    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch, and the logits, without gradients."""
        self._set_training(False)
        inputs, y = batch
        with torch.no_grad():
            output = self.infer(inputs)
            loss = self.criterion_(
                output, y, inputs.get("sample_weight"), inputs.get("groups")
            )
        return {"loss": loss, "y_pred": output.logits.float()}

    def evaluation_step(self, batch: Batch, training: bool = False) -> Tensor:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        self.check_is_fitted()
        with torch.set_grad_enabled(training):
            self._set_training(training)
            return self.infer(batch[0]).logits.float()

    def infer(
        self, x: dict[str, Tensor], network: Any = None, **fit_params: Any
    ) -> NetworkOutput:
        """Run the network, by default `module_`, on the inputs of a batch."""
        network = self.module_ if network is None else network
        # Codes lie in the smallest type that holds them until here.
        codes = x["codes"].long()
        with self._autocast():
            output: NetworkOutput = network(codes, x["numeric"])
        return as_funnel(output) if self.task_space == "conditional" else output

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            torch.device(self.device).type,
            dtype=torch.bfloat16,
            enabled=self.precision == "bfloat16",
        )

    def _zero_grad_optimizer(self, set_to_none: bool | None = None) -> None:
        super()._zero_grad_optimizer(set_to_none=True)


def _auc(y: Tensor, scores: Tensor, weights: Tensor | None) -> float:
    """Return the ROC AUC, or NaN where there is one class alone."""
    if y.min() == y.max():
        return float("nan")
    return float(
        roc_auc_score(
            y.cpu().numpy(),
            scores.cpu().numpy(),
            sample_weight=None if weights is None else weights.cpu().numpy(),
        )
    )


def make_net(
    network: nn.Module,
    criterion: nn.Module,
    *,
    optimizer: str | type[torch.optim.Optimizer],
    lr: float,
    weight_decay: float,
    batch_size: int,
    max_epochs: int,
    device: torch.device,
    callbacks: Sequence[Any],
    batch_plan: str,
    monitor: str | None,
    patience: int,
    verbose: int,
    **kwargs: Any,
) -> MultiTaskNet:
    """Build an initialised net.

    Weight decay spares biases and what a weighting learns. `monitor`, a column of the
    history, turns on early stopping after `patience` epochs without a better value;
    the best weights are restored in any case.
    """
    stopping = [] if monitor is None else [_early_stopping(monitor, patience)]
    if isinstance(optimizer, str):
        optimizer = OPTIMIZERS[optimizer]
        if can_fuse(optimizer, device):
            kwargs["optimizer__fused"] = True
    net = MultiTaskNet(
        network,
        criterion,
        optimizer=optimizer,
        optimizer__weight_decay=weight_decay,
        optimizer__param_groups=[
            (pattern, {"weight_decay": 0.0}) for pattern in ("*bias", "weighting.*")
        ],
        lr=lr,
        batch_size=batch_size,
        max_epochs=max_epochs,
        iterator_train=BatchIterator,
        iterator_train__plan=batch_plan,
        iterator_train__device=device,
        iterator_valid=BatchIterator,
        iterator_valid__batch_size=max(batch_size, evaluation_batch_size(device)),
        iterator_valid__device=device,
        train_split=None,
        predict_nonlinearity=torch.sigmoid,
        callbacks=[*stopping, *callbacks],
        device=str(device),
        verbose=verbose,
        **kwargs,
    )
    return net.initialize()


def check_loop(
    optimizer: str | type[torch.optim.Optimizer], callbacks: Sequence[Any] | None
) -> None:
    """Refuse what the training loop would stumble over, before it begins.

    Raises
    ------
    TypeError
        If a class is no optimiser, or a callback none of skorch.
    """
    if not isinstance(optimizer, str) and not issubclass(
        optimizer, torch.optim.Optimizer
    ):
        raise TypeError(
            "optimizer must be a name or a subclass of Optimizer of torch; got "
            f"{optimizer}."
        )
    for entry in callbacks or []:
        is_named = isinstance(entry, tuple) and len(entry) == 2
        callback = entry[1] if is_named else entry
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, Callback):
            raise TypeError(f"callbacks must hold callbacks of skorch; got {entry!r}.")


def _early_stopping(monitor: str, patience: int) -> tuple[str, Callback]:
    stopping = StopQuietly(
        monitor,
        patience=patience,
        threshold=0.0,
        lower_is_better=monitor == "valid_loss",
        load_best=True,
        sink=noop,
    )
    return "early_stopping", stopping
