"""The private skorch net: the training loop and its history."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EarlyStopping, EpochTimer, LRScheduler
from torch import Tensor, nn

from sk_pwiser._rows import _encoded_rows
from sk_pwiser._rows._encoded_rows import Batch, Impressions, TrainingRows
from sk_pwiser._settings import Settings
from sk_pwiser._training import (
    _callbacks,
    _divergence,
    _embedding_tables,
    _epoch_history,
    _optimizers,
    _tiny_values,
    _validation_figures,
)
from sk_pwiser._training._callbacks import KeepOnInterrupt
from sk_pwiser._training._checkpoints import Checkpoints
from sk_pwiser._training._device import device_or_cpu
from sk_pwiser._training._early_stopping import BestEpochStopping, FirstStage
from sk_pwiser._training._embedding_tables import TABLES
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._graph import Step, graphed_steps
from sk_pwiser._training._weight_average import WeightAverage
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.networks import NetworkOutput

# Modes of torch.compile that use CUDA graphs.
MODES_WITH_GRAPHS = "reduce-overhead", "max-autotune"


class MultiTaskNet(NeuralNet):  # type: ignore[misc]
    """A skorch net over impressions, with per-task validation AUC in its history.

    `settings` are those of the estimator. With `average_decay=0` the weights are not
    averaged. `compile_mode` is None for eager execution and "graph" for graphs of the
    step. `stopping` is the callback among those of the net, if training may stop early.
    """

    is_joint = False  # trained together with the nets of other workers
    # During training only, the last two epochs with the lowest training loss so far and
    # their weights; and the epoch whose weights were restored, if not the last one.
    lowest_: tuple[tuple[int, dict[str, Any]], ...] = ()
    average_: WeightAverage | None = None  # during training only
    n_complete_ = 0  # epochs of this training
    kept_epoch_: int | None = None
    is_interrupted_ = False  # and has kept its epochs
    # Of a fit of two stages, if this is the net of the second one.
    first_stage: FirstStage | None = None
    n_amount_epochs_ = 0  # of the network of values, after those of the events
    # Mean probabilities before training, if it began with the weights of another net.
    start_rates_: tuple[list[float], ...] = ()

    def __init__(
        self,
        module: nn.Module,
        criterion: Any,
        *,
        settings: Settings,
        compile_mode: str | None,
        average_decay: float,
        stopping: BestEpochStopping | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(module, criterion=criterion, **kwargs)
        # Products of a row and a weight per step on a CPU, embeddings left out.
        self.n_products: int | None = None
        if torch.device(self.device).type == "cpu":
            layers = (m for m in module.modules() if not isinstance(m, TABLES))
            weights = (p for m in layers for p in m.parameters(recurse=False))
            self.n_products = self.batch_size * sum(p.numel() for p in weights)
        # Training rows that are checked, which fit into one batch of predictions.
        self.n_checked = max(self.batch_size, _divergence.CHECKED_ROWS)
        self.task_names: tuple[str, ...] = criterion.loss.task_names
        self.settings = settings
        self.compile_mode = compile_mode
        self.average_decay = average_decay
        self.stopping = stopping
        # The figure on which early stopping decides at first.
        self.monitor = "" if stopping is None else stopping.monitor
        self.history_ = _epoch_history.EpochHistory()
        self.schedules_: list[_callbacks.Position] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the attributes of skorch that hold the same module twice."""
        state: dict[str, Any] = super().__getstate__()
        return {k: v for k, v in state.items() if k not in ("module", "criterion")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, on the CPU if its device is not present."""
        # skorch itself checks only whether there is any CUDA device.
        device = str(device_or_cpu(state["device"]))
        devices = ("device", "iterator_train__device", "iterator_valid__device")
        super().__setstate__({**state, **dict.fromkeys(devices, device)})
        self.__dict__.update(module=self.module_, criterion=self.criterion_)

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        callbacks: list[tuple[str, Callback]] = [("epoch_timer", EpochTimer())]
        if self.verbose > 1:
            callbacks.append(("progress_bar", _callbacks.TrainingProgressBar()))
        if self.verbose:
            # Figures of the loss, weights and the log loss per task would make the
            # table too wide.
            criterion = self.criterion
            names = [*criterion.loss.pop_epoch_record(), *criterion.weight_names]
            if len(self.task_names) > 1:
                names += [f"log_loss_{task}" for task in self.task_names]
            prefixes = ("train", "valid")
            ignored = [f"{prefix}_{name}" for prefix in prefixes for name in names]
            # Of values, the loss of the validation rows says more.
            if criterion.value_terms is not None:
                values = criterion.value_terms.names
                ignored += [f"train_loss_{value}" for value in values]
            table = _callbacks.EpochTable(self.task_names, ignored)
            callbacks.append(("print_log", table))
        return callbacks

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> Any:
        """Return the arguments of the optimiser, with the groups of the parameters."""
        # skorch groups by names; kinds in their place do not depend on the names that
        # a network gives to its modules.
        kinds = _optimizers.parameter_kinds(self.module_, self.criterion_)
        with_kinds = (
            (kinds[parameter], parameter) for _, parameter in named_parameters
        )
        return super().get_params_for_optimizer(prefix, with_kinds)

    def use_decay_of_updates(self, n_new: float) -> None:
        """Set the weight decay of an update with a number of new rows.

        The net may have been built for fewer rows, for a fit, or for fewer values.
        """
        decay = _optimizers.base_decay(self.settings)
        n_rows = float(self.criterion_.n_rows) + n_new
        groups = _optimizers.parameter_groups(
            self.settings, self.module_.spec, n_rows, decay
        )
        decay_of_kind = {kind: values["weight_decay"] for kind, values in groups}
        kinds = _optimizers.parameter_kinds(self.module_, self.criterion_)
        for group in self.optimizer_.param_groups:
            if group["params"] and "weight_decay" in group:
                kind = kinds[group["params"][0]]
                group["weight_decay"] = decay_of_kind.get(kind, decay)

    def optimize_new_parameters(self) -> None:
        """Add parameters that the network has had since the optimiser was built."""
        groups = self.optimizer_.param_groups
        optimized = {p for group in groups for p in group["params"]}
        kinds = _optimizers.parameter_kinds(self.module_, self.criterion_)
        group_of_kind = {
            kinds[group["params"][0]]: group for group in groups if group["params"]
        }
        for parameter in self.module_.parameters():
            if parameter not in optimized:
                group = group_of_kind.get(kinds[parameter], groups[-1])
                group["params"].append(parameter)

    def partial_fit(self, X: EncodedData, checkpoints: Checkpoints | None) -> None:
        """Train on `X.train`, and measure the other rows after every epoch."""
        self.lowest_ = ()
        self.kept_epoch_ = None
        terms = getattr(self.module_, "exposure_terms", None)
        try:
            self.notify("on_train_begin", X=X, y=None)
            if terms is not None:
                parts = ((p.codes, p.exposure) for p in counted_parts(X.train))
                spec = self.module_.spec
                terms.count_rows(parts, spec.cardinalities, spec.unseen_code)
            if self.average_decay:
                self.average_ = WeightAverage(self.module_, self.average_decay)
            self.fit_loop(X, checkpoints)
            self.notify("on_train_end", X=X, y=None)
        finally:
            schedules = _callbacks.release(self.callbacks_)
            if terms is not None:
                terms.forget_rows()
        _divergence.check_end(self, X.train.spaced(self.n_checked))
        self.lowest_ = ()
        self.average_ = None
        self.schedules_ = schedules
        self._zero_grad_optimizer()  # releases the memory of the gradients

    def copy_network(self) -> "MultiTaskNet":
        """Return a net that predicts the same after this one has trained further."""
        copied = object.__new__(type(self))
        network = deepcopy(self.module_)
        copied.__dict__.update(
            vars(self),
            module=network,
            module_=network,
            average_=None,
            history_=deepcopy(self.history_),
        )
        return copied

    def fit_loop(self, X: EncodedData, checkpoints: Checkpoints | None) -> None:
        """Train until the last epoch or a stop; an interrupt propagates."""
        self.stop_training_ = False
        self.n_complete_ = 0
        self.is_interrupted_ = False
        # The next step shall reuse the memory that a step frees. glibc returns it to
        # the system above a limit: twice the size of the largest mapped block freed so
        # far, if that has at most 32 MiB. This line frees such a block, which was never
        # written to, and so raises the limit.
        torch.empty(2**25 - 2**13, dtype=torch.uint8)
        keepers = (c for _, c in self.callbacks_ if isinstance(c, KeepOnInterrupt))
        keeper = next(keepers, None)
        if checkpoints is not None:
            checkpoints.begin(self)
            if keeper is not None and self.n_complete_:
                keeper.weights_ = _callbacks.copy_states(self, "network", "criterion")
        n_earlier = len(self.history) - self.n_complete_
        steps: Any
        if self.compile_mode == "graph":
            steps = graphed_steps(self)
        else:
            # Only training is compiled: predictions have any number of rows, and torch
            # may compile the network again for each number.
            network: Any = self.module_
            if self.compile_mode is not None:
                network = torch.compile(network, mode=self.compile_mode)
            steps = nullcontext(partial(self.train_step, network=network))
        try:
            with steps as step:
                while self.n_complete_ < self.max_epochs and not self.stop_training_:
                    self._run_epoch(X, step)
                    if checkpoints is not None:
                        checkpoints.save(self)
        except KeyboardInterrupt:
            if keeper is None or keeper.weights_ is None:
                raise
            _callbacks.set_states(self, keeper.weights_)
            self.is_interrupted_ = True
            n_epochs = n_earlier + self.n_complete_
            if len(self.history) > n_epochs:
                # The incomplete epoch is in neither the history nor the next figures.
                del self.history[n_epochs:]
                self.criterion_.train().pop_epoch_record()
            warn_user(
                "Training was interrupted. callbacks holds KeepOnInterrupt: the "
                f"{self.n_complete_} complete epochs are kept, and fit returns."
            )

    def _run_epoch(self, X: EncodedData, step: Step) -> None:
        """Train for an epoch, and compute its validation figures."""
        datasets = {"dataset_train": X.train, "dataset_valid": X.valid}
        self.notify("on_epoch_begin", **datasets)
        self.run_single_epoch(X.train, True, "train", step)
        for name, rows in {**X.further, "valid": X.valid}.items():
            if rows is not None:
                self.run_single_epoch(rows, False, name, self.validation_step)
        for _, callback in self.callbacks_:
            if isinstance(callback, KeepOnInterrupt):
                callback.weights_ = _callbacks.copy_states(self, "network", "criterion")
        if X.valid is None and self.max_epochs > 1:
            self._keep_lowest()
        self.n_complete_ += 1
        self.notify("on_epoch_end", **datasets)

    def _keep_lowest(self) -> None:
        """Copy the weights of an epoch if its training loss is the lowest in this fit.

        Early stopping has its own copy, and an update has one epoch. Large tables are
        not copied.
        """
        lowest = np.inf
        if self.lowest_:
            lowest = self.history[self.lowest_[-1][0] - 1, "train_loss"]
        is_best = self.history[-1, "train_loss"] < lowest
        if is_best and not _embedding_tables.sparse_tables(self.module_):
            # The loss is the mean over the epoch, but its last steps may have made the
            # weights worse. The copy before the last one is therefore kept, too.
            copy = len(self.history), _callbacks.copy_states(self, "network")
            self.lowest_ = (*self.lowest_[-1:], copy)

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Run all callbacks, including those that follow skorch's early stopping.

        To stop, it raises KeyboardInterrupt. Here, this sets a flag that the training
        loop reads after the epoch.
        """
        getattr(self, method_name)(self, **kwargs)
        for _, callback in self.callbacks_:
            if method_name == "on_train_begin" and isinstance(callback, LRScheduler):
                _callbacks.begin_schedule(self, callback)
                continue
            try:
                getattr(callback, method_name)(self, **kwargs)
            except KeyboardInterrupt:
                is_stopping = isinstance(callback, EarlyStopping)
                if not (is_stopping and callback.misses_ == callback.patience):
                    raise
                self.stop_training_ = True

    def note_start(self, rows: TrainingRows) -> None:
        """Note the mean probabilities of given weights, before they are trained."""
        logits, *_ = _divergence.checked_logits(self, rows.spaced(self.n_checked))
        self.start_rates_ = (logits.sigmoid().mean(dim=0).tolist(),)

    def run_single_epoch(
        self, rows: TrainingRows, training: bool, prefix: str, step_fn: Any
    ) -> None:
        """Iterate over the rows once; record the mean loss and, in validation, AUC."""
        # Summed on the device: the host would wait for the device to read each loss.
        total = torch.zeros((), device=self.device)
        n_rows = 0
        logits = []
        n_missing = rows.n_missing or ()  # how many lack the label of a task
        average = self.average_ if training else None
        if average is not None and average.is_in_module:
            average.swap()
        iterator = self.get_iterator(rows, training=training)
        # Other devices are not slow with tiny values.
        flushes = training and torch.device(self.device).type == "cpu"
        for n_steps, batch in enumerate(iterator, 1):
            self.notify("on_batch_begin", batch=batch, training=training)
            # The loss of a joint step is that of the rows of all workers.
            n_in_batch = sum(iterator.sizes) or len(batch[1])
            step = step_fn(batch)
            if average is not None:
                average.step()
            if flushes and n_steps % _tiny_values.FLUSH_INTERVAL == 0:
                _tiny_values.flush_tiny_values(self.module_, self.optimizer_, average)
            total.add_(step["loss"].detach(), alpha=n_in_batch)
            n_rows += n_in_batch
            if not training:
                logits.append(step["y_pred"])
            self.notify("on_batch_end", batch=batch, training=training, **step)
        if flushes:
            _tiny_values.flush_tiny_values(self.module_, self.optimizer_, average)
        if average is not None:
            average.swap()
        loss = total.item() / n_rows
        if not np.isfinite(loss):
            raise _divergence.diverged(self, f"the {prefix} loss is {loss}")
        self._record_loss(prefix, loss)
        for task, count in zip(self.task_names, n_missing, strict=False):
            if count or task != self.task_names[0]:  # which is rarely missing
                self.history.record(f"{prefix}_missing_{task}", count)
        if not training:
            all_logits = iterator.in_row_order(torch.cat(logits))
            _validation_figures.record_validation(self, prefix, rows, all_logits)

    def _record_loss(self, prefix: str, loss: float) -> None:
        _epoch_history.record_best(self.history, f"{prefix}_loss", loss)
        for name, value in self.criterion_.pop_epoch_record().items():
            self.history.record(f"{prefix}_{name}", value)

    def criterion_inputs(
        self, output: NetworkOutput, batch: Batch
    ) -> tuple[NetworkOutput, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Return output, labels, weights, groups and amounts for the loss."""
        inputs, y = batch
        further = (inputs.get(name) for name in ("sample_weight", "groups", "amounts"))
        weights, groups, amounts = further
        return output, y, weights, groups, amounts

    def train_step_single(self, batch: Batch, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of a batch and its gradients."""
        self._set_training(True)
        output = self.infer(batch[0], **fit_params)
        # An iterator: most weightings do not read the parameters.
        parameters = chain(self.module_.parameters(), self.criterion_.loss.parameters())
        loss = self.criterion_(
            *self.criterion_inputs(output, batch), parameters=parameters
        )
        logits = output.logits
        if self.compile_mode in MODES_WITH_GRAPHS:  # whose next step overwrites it
            logits = logits.clone()
        return {"loss": loss, "y_pred": logits}

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

    def predict_heads(self, rows: TrainingRows) -> tuple[Tensor, Tensor]:
        """Return the logits of events and the scores of values, in row order."""
        iterator = self.get_iterator(rows)
        self._set_training(False)
        logits: list[Tensor] = []
        scores: list[Any] = []
        with torch.no_grad():
            for inputs, _ in iterator:
                output = self.infer(inputs)
                logits.append(output.logits.float())
                scores.append(output.value_scores)
        return (
            iterator.in_row_order(torch.cat(logits)).cpu(),
            iterator.in_row_order(torch.cat(scores)).cpu(),
        )

    def infer(
        self, x: dict[str, Tensor], network: Any = None, **fit_params: Any
    ) -> NetworkOutput:
        """Run the network, by default `module_`, on the inputs of a batch."""
        network = self.module_ if network is None else network
        # The rows store codes in the smallest type that holds them.
        inputs: list[Any] = [x["codes"].long(), x["numeric"]]
        if "bag_indices" in x:
            bags: Any = _encoded_rows.bags_of(x)
            inputs.append(bags._replace(indices=bags.indices.long()))
        shown: dict[str, Tensor] = {}
        if "exposure" in x:
            # Terms beside the network, which does not read how rows were shown.
            codes = x["codes"] if self.module_.training else None
            shown["exposure_offset"] = self.module_.exposure_terms(x["exposure"], codes)
        with torch.autocast(
            torch.device(self.device).type,
            dtype=torch.bfloat16,
            enabled=self.settings.precision == "bfloat16",
        ):
            output: NetworkOutput = network(*inputs, **shown)
        return output

    def sum_over_workers(self, rows: TrainingRows, sums: Tensor) -> Tensor:
        """Return sums over rows; over those of all workers, if they share the rows."""
        return sums

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients over all workers, if several train the network."""

    def _set_training(self, training: bool = True) -> None:
        """Set the mode of all modules if it changes: this slows down single rows."""
        if not self.module_.training == self.criterion_.training == training:
            super()._set_training(training)


def counted_parts(rows: TrainingRows) -> Iterator[Impressions]:
    """Yield the selected rows of the parts of training rows, in their order."""
    for part in rows.parts(shuffled=False):
        yield replace(
            part, codes=part.column("codes"), exposure=part.column("exposure")
        )


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Return P(Y_k = 1), inside (0, 1): float32 of the shape of the logits."""
    limits = torch.finfo(torch.float32)
    values = torch.sigmoid(torch.as_tensor(logits).double()).float()
    return values.clamp_(limits.tiny, 1 - limits.eps / 2).numpy()
