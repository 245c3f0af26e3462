"""The net of a worker: losses of the joined batch, gradients summed over workers."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._training import MultiTaskNet, sparse_tables
from sk_pwiser._utils import generator_on
from sk_pwiser.distributed._joined import Inputs, join
from sk_pwiser.distributed._shards import JointIterator, Shard
from sk_pwiser.distributed._workers import Workers
from sk_pwiser.networks import NetworkOutput

CPU = torch.device("cpu")


class WorkerNet(MultiTaskNet):
    """A net that is trained together with those of other workers.

    Every worker runs the network on its own rows. The outputs and labels are joined, so
    that the loss, with its pairs of rows, is that of one process on the joined batch.
    The gradients of a worker are those through its own rows; their sum over the workers
    is the gradient of that loss. All workers then take the same step.
    """

    workers: Workers
    seed: int = 0
    _steps: JointIterator | None = None

    def join(self, workers: Workers, seed: int) -> None:
        """Connect the net to those of the other workers.

        Parameters
        ----------
        workers : Workers
            The workers.
        seed : int
            Seed of the random numbers of all of them.
        """
        self.workers, self.seed = workers, seed
        weighting = self.criterion_.weighting
        if weighting.needs_task_gradients:
            weighting.join_gradients = self._sum_of_network
        workers.copy_from_first([*self.module_.parameters(), *self._buffers()])

    def _buffers(self) -> Iterable[Tensor]:
        states = [*self.module_.buffers(), *self.criterion_.state_dict().values()]
        return [each for each in states if isinstance(each, Tensor)]

    def _sum_of_network(self, gradients: Any) -> list[Tensor | None]:
        """Sum the gradients of the network; those of the loss are those of all rows."""
        trained = [p for p in self.module_.parameters() if p.requires_grad]
        sums = self.workers.sum_tensors(gradients[: len(trained)], trained)
        return [*sums, *gradients[len(trained) :]]

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return an iterator over the batches of this worker."""
        batches = super().get_iterator(dataset, training=training)
        if not isinstance(dataset, Shard):  # a table of its own, for checks
            return batches
        batches.batch_size = dataset.batch_rows(
            batches.batch_size, batches.sampler != "sequential"
        )
        return JointIterator(batches, self.workers)

    def _run_epoch(self, X: Any, loop: Any, *args: Any) -> None:
        """Train for an epoch, with random numbers of this worker and epoch."""
        epoch = loop.n_complete
        for device in {CPU, torch.device(self.device)}:
            generator = generator_on(device)
            seed = _seed(self.seed, epoch, self.workers.rank)
            if generator is not None:
                generator.manual_seed(seed)
        torch.manual_seed(seed)
        super()._run_epoch(X.of_epoch(epoch), loop, *args)
        self.workers.copy_from_first(self._buffers())
        self.stop_training_ = bool(
            max(stop for (stop,) in self.workers.gather_numbers(self.stop_training_))
        )

    def run_single_epoch(self, iterator: Any, *args: Any, **kwargs: Any) -> None:
        """Iterate over the rows once, in steps of all workers."""
        self._steps = iterator
        try:
            super().run_single_epoch(iterator, *args, **kwargs)
        finally:
            self._steps = None

    def n_rows_of(self, batch: Any) -> int:
        """Return the number of rows of all workers in the current step."""
        return super().n_rows_of(batch) if self._steps is None else sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        assert self._steps is not None
        return self._steps.sizes

    def criterion_inputs(self, output: NetworkOutput, batch: Any) -> Inputs:
        """Return output, labels, weights and groups of the rows of all workers."""
        own = super().criterion_inputs(output, batch)
        if self._steps is None:  # a check after training
            return own
        return join(own, self.workers, self._sizes, self._steps.n_weights)

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of the joined batch and the gradients of all its rows."""
        step = super().train_step_single(batch, **fit_params)
        weighting = self.criterion_.weighting
        if not weighting.needs_task_gradients or weighting.n_tasks == 1:
            tables = sparse_tables(self.module_)
            self.workers.sum_gradients(self.module_.parameters(), tables)
        return step

    def validation_step(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of the joined batch, and the logits of this worker's."""
        step = super().validation_step(batch, **fit_params)
        if self._steps is not None:
            own = self._sizes[self.workers.rank]
            step["y_pred"] = step["y_pred"][:own]
        return step

    def _record_loss(self, prefix: str, loss: float) -> None:
        super()._record_loss(prefix, self.workers.of_first(loss))

    def _record_auc(self, impressions: Any, logits: Tensor) -> None:
        sizes = [n for (n,) in self.workers.gather_numbers(len(logits))]
        super()._record_auc(impressions, self.workers.join(logits, sizes))


def _seed(*parts: int) -> int:
    """Return a seed of 63 bits that depends on all parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
