"""The private skorch net: the training loop and its history."""

import warnings
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback, EpochTimer, LRScheduler
from skorch.exceptions import DeviceWarning
from torch import Tensor, nn

from sk_pwiser._training._batch_samplers import BatchIterator
from sk_pwiser._training._callbacks import KeepOnInterrupt, asks_to_stop
from sk_pwiser._training._dataset import Batch, Impressions
from sk_pwiser._training._divergence import LAST_ROWS, LossCheck, changed_weights
from sk_pwiser._training._lazy_adam import (
    FLUSH_INTERVAL,
    TABLES,
    flush_tiny_values,
    sparse_tables,
)
from sk_pwiser._training._loop_state import LoopObserver, LoopState
from sk_pwiser._training._print_log import epoch_table
from sk_pwiser._training._progress_bar import BatchProgressBar
from sk_pwiser._training._records import RecordingNet
from sk_pwiser._training._schedules import begin_schedule, positions_of
from sk_pwiser._training._streamed import TrainingData, TrainingRows
from sk_pwiser._training._weight_average import WeightAverage
from sk_pwiser._utils import warn_user
from sk_pwiser.networks import Bags, NetworkOutput


class MultiTaskNet(RecordingNet):
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

    def get_iterator(self, dataset: TrainingRows, training: bool = False) -> Any:
        """Return an iterator over batches on the device of the network."""
        iterator = super().get_iterator(dataset, training=training)
        iterator.device = torch.device(self.device)
        return iterator

    def partial_fit(
        self,
        X: TrainingData,
        y: None = None,
        classes: None = None,
        *,
        checkpoints: LoopObserver | None = None,
    ) -> "MultiTaskNet":
        """Train; unlike in skorch, an interrupt propagates."""
        self.notify("on_train_begin", X=X, y=y)
        self.fit_loop(X, checkpoints=checkpoints)
        self.notify("on_train_end", X=X, y=y)
        self.schedules_ = positions_of(self.callbacks_)
        self._zero_grad_optimizer()  # the gradients' memory is free for others
        return self

    def fit_loop(
        self,
        X: TrainingData,
        y: None = None,
        epochs: int | None = None,
        *,
        checkpoints: LoopObserver | None = None,
    ) -> "MultiTaskNet":
        """Train for some epochs, or until a callback requests a stop.

        An interrupt propagates, unlike in skorch, unless `KeepOnInterrupt` is among
        the callbacks and an epoch is complete.
        """
        self.stop_training_ = False
        # In training only: predictions come with any number of rows, and each number
        # may be compiled anew.
        network: Any = self.module_
        if self.compile_mode is not None:
            network = torch.compile(network, mode=self.compile_mode)
        loop, keeper = self._loop_state(X), self._keeper()
        if checkpoints is not None:
            checkpoints.begin(self, loop)
            if keeper is not None and loop.n_complete:
                keeper.keep(self)
        n_earlier = len(self.history) - loop.n_complete
        n_epochs = self.max_epochs if epochs is None else epochs
        try:
            while loop.n_complete < n_epochs and not self.stop_training_:
                self._run_epoch(X, loop, keeper, network)
                if checkpoints is not None:
                    checkpoints.save(self, loop)
        except KeyboardInterrupt:
            if keeper is None or not keeper.restore(self):
                raise
            self._drop_rows(n_earlier + loop.n_complete)
            warn_user(
                "Training was interrupted. callbacks holds KeepOnInterrupt: the "
                f"{loop.n_complete} complete epochs are kept, and fit returns."
            )
        self._check_last_step(X.train.sample, loop.check)
        return self

    def _loop_state(self, X: TrainingData) -> LoopState:
        """Return the state before the first epoch."""
        average = check = None
        if self.average_decay:
            tables = sparse_tables(self.module_)
            average = WeightAverage(self.module_, self.average_decay, tables)
        if self.checks_losses:
            device = torch.device(self.device)
            check = LossCheck(self.criterion_, X.train.sample, device)
        return LoopState(average, check)

    def _run_epoch(
        self,
        X: TrainingData,
        loop: LoopState,
        keeper: KeepOnInterrupt | None,
        network: Any,
    ) -> None:
        """Train for an epoch, and compute its validation figures."""
        datasets = {"dataset_train": X.train, "dataset_valid": X.valid}
        self.notify("on_epoch_begin", **datasets)
        if loop.average is not None:
            loop.average.swap_out()
        self.run_single_epoch(
            self.get_iterator(X.train, training=True),
            True,
            "train",
            self.train_step,
            network=network,
            average=loop.average,
            check=loop.check,
        )
        if loop.average is not None:
            loop.average.swap_in()
        valid = None if X.valid is None else self.get_iterator(X.valid)
        self.run_single_epoch(valid, False, "valid", self.validation_step)
        if keeper is not None:
            keeper.keep(self)
        loop.n_complete += 1
        self.notify("on_epoch_end", **datasets)

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
        for n_steps, batch in enumerate(iterator, 1):
            self.notify("on_batch_begin", batch=batch, training=training)
            step = step_fn(batch, **fit_params)
            if average is not None:
                average.step()
            if training and n_steps % FLUSH_INTERVAL == 0:
                self._flush_tiny_values(average)
            if check is not None:
                check.observe(step["loss"])
            n_in_batch = self.n_rows_of(batch)
            total += step["loss"].detach() * n_in_batch
            n_rows += n_in_batch
            if not training:
                logits.append(step["y_pred"])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        if training:
            self._flush_tiny_values(average)
        loss = total.item() / n_rows
        self._check_loss(prefix, loss, check)
        self._record_loss(prefix, loss)
        self._record_missing(prefix, iterator.dataset)
        if not training:
            self._record_auc(iterator.dataset, torch.cat(logits))

    def _flush_tiny_values(self, average: WeightAverage | None) -> None:
        averages = [] if average is None else average.averages()
        flush_tiny_values(self.module_, self.optimizer_, averages)

    @property
    def n_products(self) -> int | None:
        """Products of a row and a weight per step on a CPU, embeddings left out."""
        if torch.device(self.device).type != "cpu":
            return None
        tables = {
            module.weight
            for module in self.module_.modules()
            if isinstance(module, TABLES)
        }
        dense = (p for p in self.module_.parameters() if p not in tables)
        return int(self.batch_size * sum(p.numel() for p in dense))

    def _check_loss(self, prefix: str, loss: float, check: LossCheck | None) -> None:
        if not np.isfinite(loss):
            raise self._diverged(f"the {prefix} loss is {loss}")
        excess = None if check is None else check.excess(loss)
        if excess is not None:
            raise self._diverged(f"the {prefix} loss is {excess}")

    def n_rows_of(self, batch: Batch) -> int:
        """Return the number of rows that the loss of a batch is computed from."""
        return len(batch[1])

    def criterion_inputs(
        self, output: NetworkOutput, batch: Batch
    ) -> tuple[NetworkOutput, Tensor, Tensor | None, Tensor | None]:
        """Return output, labels, weights and groups that the loss is computed from."""
        inputs, y = batch
        return output, y, inputs.get("sample_weight"), inputs.get("groups")

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch and its gradients."""
        self._set_training(True)
        output = self.infer(batch[0], **fit_params)
        loss = self.criterion_.backward(
            *self.criterion_inputs(output, batch),
            # An iterator: most weightings do not read the parameters.
            chain(self.module_.parameters(), self.criterion_.loss.parameters()),
        )
        return {"loss": loss, "y_pred": output.logits}

    def validation_step(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch, and the logits, without gradients."""
        self._set_training(False)
        with torch.no_grad():
            output = self.infer(batch[0])
            loss = self.criterion_(*self.criterion_inputs(output, batch))
        return {"loss": loss, "y_pred": output.logits.float()}

    def evaluation_step(self, batch: Batch, training: bool = False) -> Tensor:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
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
