"""The private skorch net: the training loop and its history."""

import warnings
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer, LRScheduler
from skorch.exceptions import DeviceWarning
from torch import Tensor, nn

from sk_pwiser._training._auc import task_aucs
from sk_pwiser._training._batch_samplers import BatchIterator
from sk_pwiser._training._callbacks import KeepOnInterrupt, asks_to_stop
from sk_pwiser._training._dataset import Batch, Impressions
from sk_pwiser._training._divergence import LAST_ROWS, LossCheck, changed_weights
from sk_pwiser._training._history import EpochHistory
from sk_pwiser._training._lazy_adam import sparse_tables
from sk_pwiser._training._print_log import epoch_table
from sk_pwiser._training._progress_bar import BatchProgressBar
from sk_pwiser._training._schedules import Position, begin_schedule, positions_of
from sk_pwiser._training._streamed import TrainingRows
from sk_pwiser._training._weight_average import WeightAverage
from sk_pwiser._utils import update_threads, warn_user
from sk_pwiser.networks import Bags, NetworkOutput


class TrainingData(NamedTuple):
    """The training rows and, with early stopping, the validation rows."""

    train: TrainingRows
    valid: TrainingRows | None = None

    def to(self, device: torch.device) -> "TrainingData":
        """Move the tensors to a device if they fit."""
        train = self.train.to(device)
        if self.valid is None:
            return TrainingData(train)
        if self.valid.rows is None or not isinstance(train, Impressions):
            return TrainingData(train, self.valid.to(device))
        # Both select rows of the same tensors, which are moved once.
        rows = self.valid.rows.to(train.codes.device)
        return TrainingData(train, train.at(rows))


class MultiTaskNet(NeuralNet):  # type: ignore[misc]
    """A skorch net over impressions, with per-task validation AUC in its history.

    Parameters
    ----------
    module : MultiTaskNetwork
        The network.
    criterion : MultiTaskCriterion
        Computes the loss, and its gradients.
    task_names : tuple of str
        Names of the tasks, for the history.
    precision : {"float32", "bfloat16"}
        Precision of the network's forward pass.
    compile_mode : str or None
        Mode of torch.compile for the network in training; None for eager execution.
    average_decay : float
        Decay of the average of the weights that evaluation uses; 0 for no average.
    advice : str
        What to change if training diverges, for messages.
    **kwargs : dict
        Parameters of :class:`skorch.NeuralNet`.
    """

    # Whether training raises if a finite loss is far above the one that it starts from.
    checks_losses = True

    def __init__(
        self,
        module: nn.Module,
        criterion: nn.Module,
        *,
        task_names: tuple[str, ...] = (),
        precision: str = "float32",
        compile_mode: str | None = None,
        average_decay: float = 0.0,
        advice: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(module, criterion=criterion, **kwargs)
        self.task_names = task_names
        self.precision = precision
        self.compile_mode = compile_mode
        self.average_decay = average_decay
        self.advice = advice

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is stored twice: skorch trains the module that it is given."""
        state: dict[str, Any] = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("module", "criterion")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, on the CPU if its device is not present."""
        # skorch itself checks only whether there is any CUDA device.
        if 0 < torch.cuda.device_count() <= (torch.device(state["device"]).index or 0):
            warnings.warn(
                f"There is no device {state['device']!r}; loading on the CPU instead.",
                DeviceWarning,
                stacklevel=2,
            )
            state = {**state, "device": "cpu"}
        super().__setstate__(state)
        self.__dict__.update(module=self.module_, criterion=self.criterion_)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        callbacks: list[tuple[str, Callback]] = [("epoch_timer", EpochTimer())]
        if self.verbose >= 2:
            callbacks.append(("progress_bar", BatchProgressBar()))
        if self.verbose:
            table = epoch_table(self.criterion, self.task_names)
            callbacks.append(("print_log", table))
        return callbacks

    def initialize_history(self) -> "MultiTaskNet":
        """Initialize the history, the best values of its columns, and schedules."""
        self.best_: dict[str, float] = {}
        self.schedules_: list[Position] = []
        self.history_ = EpochHistory()
        return self

    def on_batch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Add the row of batches to the history, and update the number of threads."""
        super().on_batch_begin(net, *args, **kwargs)
        update_threads()

    def get_iterator(self, dataset: TrainingRows, training: bool = False) -> Any:
        """Return an iterator over batches on the device of the network."""
        iterator = super().get_iterator(dataset, training=training)
        iterator.device = torch.device(self.device)
        return iterator

    def partial_fit(
        self, X: TrainingData, y: None = None, classes: None = None, **_: Any
    ) -> "MultiTaskNet":
        """Train; unlike in skorch, an interrupt propagates."""
        self.notify("on_train_begin", X=X, y=y)
        self.fit_loop(X)
        self.notify("on_train_end", X=X, y=y)
        self.schedules_ = positions_of(self.callbacks_)
        self._zero_grad_optimizer()  # the gradients' memory is free for others
        return self

    def fit_loop(
        self, X: TrainingData, y: None = None, epochs: int | None = None, **_: Any
    ) -> "MultiTaskNet":
        """Train for some epochs, or until a callback requests a stop.

        An interrupt propagates, unlike in skorch, unless `KeepOnInterrupt` is among
        the callbacks and an epoch is complete.
        """
        self.stop_training_, n_earlier = False, len(self.history)
        # In training only: predictions come with any number of rows, and each number
        # may be compiled anew.
        network: Any = self.module_
        if self.compile_mode is not None:
            network = torch.compile(network, mode=self.compile_mode)
        train = self.get_iterator(X.train, training=True)
        valid = None if X.valid is None else self.get_iterator(X.valid)
        average = None
        if self.average_decay:
            tables = sparse_tables(self.module_)
            average = WeightAverage(self.module_, self.average_decay, tables)
        datasets = {"dataset_train": X.train, "dataset_valid": X.valid}
        check, rows = None, X.train.sample
        if self.checks_losses:
            check = LossCheck(self.criterion_, rows, torch.device(self.device))
        keeper = self._keeper()
        n_complete = 0
        try:
            for _epoch in range(self.max_epochs if epochs is None else epochs):
                self.notify("on_epoch_begin", **datasets)
                if average is not None:
                    average.swap_out()
                self.run_single_epoch(
                    train,
                    True,
                    "train",
                    self.train_step,
                    network=network,
                    average=average,
                    check=check,
                )
                if average is not None:
                    average.swap_in()
                self.run_single_epoch(valid, False, "valid", self.validation_step)
                if keeper is not None:
                    keeper.keep(self)
                n_complete += 1
                self.notify("on_epoch_end", **datasets)
                if self.stop_training_:
                    break
        except KeyboardInterrupt:
            if keeper is None or not keeper.restore(self):
                raise
            self._drop_rows(n_earlier + n_complete)
            warn_user(
                "Training was interrupted. callbacks holds KeepOnInterrupt: the "
                f"{n_complete} complete epochs are kept, and fit returns."
            )
        self._check_last_step(rows, check)
        return self

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Run the callbacks.

        skorch's early stopping raises KeyboardInterrupt. Here that sets a flag, read
        after the epoch, so that the callbacks after it run, too.
        """
        getattr(self, method_name)(self, **kwargs)
        for _, callback in self.callbacks_:
            if method_name == "on_train_begin" and isinstance(callback, LRScheduler):
                begin_schedule(callback, self.optimizer_, self.schedules_)
                continue
            try:
                getattr(callback, method_name)(self, **kwargs)
            except KeyboardInterrupt:
                if method_name != "on_epoch_end" or not asks_to_stop(callback):
                    raise
                self.stop_training_ = True

    def _keeper(self) -> KeepOnInterrupt | None:
        """Return the callback that keeps complete epochs on interrupts, if any."""
        callbacks = (callback for _, callback in self.callbacks_)
        return next((c for c in callbacks if isinstance(c, KeepOnInterrupt)), None)

    def _drop_rows(self, n_epochs: int) -> None:
        """Leave an incomplete epoch out of the history and of the next figures."""
        if len(self.history) > n_epochs:
            del self.history[n_epochs:]
            self.criterion_.train().pop_epoch_record()

    def _check_last_step(self, rows: Impressions, check: LossCheck | None) -> None:
        """Raise a ValueError if training diverged in the last step.

        Its loss was computed before: read the weights, and predict the first rows.
        """
        n_rows = max(self.batch_size, LAST_ROWS)
        batches = BatchIterator(rows, n_rows, device=torch.device(self.device))
        step = self.validation_step(next(iter(batches)))
        self.criterion_.pop_epoch_record()
        with torch.no_grad():
            # A sum is not finite if an entry is not, and is faster to compute.
            weights = changed_weights(self.module_, self.optimizer_)
            sums = [values.sum() for values in (step["y_pred"], *weights)]
        if not bool(torch.stack(sums).isfinite().all()):
            raise self._diverged("its last step left non-finite weights")
        loss = step["loss"].item()
        excess = None if check is None else check.excess(loss, is_last=True)
        if excess is not None:
            raise self._diverged(f"the loss after the last step is {excess}")

    def _diverged(self, what: str) -> ValueError:
        epoch = self.history[-1, "epoch"]
        return ValueError(f"Training diverged in epoch {epoch}: {what}. {self.advice}")

    def run_single_epoch(
        self,
        iterator: BatchIterator | None,
        training: bool,
        prefix: str,
        step_fn: Any,
        average: WeightAverage | None = None,
        check: LossCheck | None = None,
        **fit_params: Any,
    ) -> None:
        """Iterate over the rows once; record the mean loss and, in validation, AUC.

        The losses are summed on the device: reading each of them would synchronise with
        the device in every batch.
        """
        if iterator is None:
            return
        total, n_rows, logits = torch.zeros((), device=self.device), 0, []
        for batch in iterator:
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            if average is not None:
                average.step()
            if check is not None:
                check.observe(step["loss"])
            total += step["loss"].detach() * len(batch[1])
            n_rows += len(batch[1])
            if not training:
                logits.append(step["y_pred"])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        self._record_loss(prefix, total.item() / n_rows, check)
        self._record_missing(prefix, iterator.dataset)
        if not training:
            self._record_auc(iterator.dataset, torch.cat(logits))

    def _record_loss(self, prefix: str, loss: float, check: LossCheck | None) -> None:
        if not np.isfinite(loss):
            raise self._diverged(f"the {prefix} loss is {loss}")
        excess = None if check is None else check.excess(loss)
        if excess is not None:
            raise self._diverged(f"the {prefix} loss is {excess}")
        self._record_best(f"{prefix}_loss", loss, lower_is_better=True)
        for name, value in self.criterion_.pop_epoch_record().items():
            self.history.record(f"{prefix}_{name}", value)

    def _record_missing(self, prefix: str, impressions: TrainingRows) -> None:
        """Record how many rows lack the label of a task, if any does."""
        if impressions.n_missing is not None:
            for task, count in zip(
                self.task_names[1:], impressions.n_missing, strict=True
            ):
                self.history.record(f"{prefix}_missing_{task}", count)

    def _record_auc(self, impressions: TrainingRows, logits: Tensor) -> None:
        aucs = list(task_aucs(impressions.labels(), logits, impressions.weights()))
        for task, auc in zip(self.task_names, aucs, strict=True):
            self._record_best(f"valid_auc_{task}", auc, lower_is_better=False)
        if len(aucs) > 1:
            known = [auc for auc in aucs if not np.isnan(auc)]
            mean = float(np.mean(known)) if known else np.nan
            self._record_best("valid_auc_mean", mean, lower_is_better=False)

    def _record_best(self, key: str, value: float, lower_is_better: bool) -> None:
        """Record a figure, and whether it is the best so far, which PrintLog marks."""
        sign = 1 if lower_is_better else -1
        is_best = sign * value < sign * self.best_.get(key, sign * np.inf)
        if is_best:
            self.best_[key] = value
        self.history.record(key, value)
        self.history.record(f"{key}_best", is_best)

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
            # An iterator: most weightings do not read the parameters.
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
        update_threads()
        with torch.set_grad_enabled(training):
            self._set_training(training)
            return self.infer(batch[0]).logits.float()

    def infer(
        self, x: dict[str, Tensor], network: Any = None, **fit_params: Any
    ) -> NetworkOutput:
        """Run the network, by default `module_`, on the inputs of a batch."""
        network = self.module_ if network is None else network
        # Until here codes are stored in the smallest type that holds them.
        codes = x["codes"].long()
        bags: tuple[Bags, ...] = ()
        if "bag_indices" in x:
            indices, weights = x["bag_indices"].long(), x.get("bag_weights")
            bags = (Bags(x["bag_offsets"], indices, weights),)
        with self._autocast():
            output: NetworkOutput = network(codes, x["numeric"], *bags)
        return output

    def _set_training(self, training: bool = True) -> None:
        """Set the mode of all modules if it changes; a single row takes longer."""
        if not self.module_.training == self.criterion_.training == training:
            super()._set_training(training)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            torch.device(self.device).type,
            dtype=torch.bfloat16,
            enabled=self.precision == "bfloat16",
        )

    def _zero_grad_optimizer(self, set_to_none: bool | None = None) -> None:
        super()._zero_grad_optimizer(set_to_none=True)
