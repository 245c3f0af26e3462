"""The net of a worker: losses of the joined batch, gradients summed over workers."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser._training import MultiTaskNet, sparse_tables
from sk_pwiser._utils import (
    Generators,
    active,
    at_least_float32,
    draws_globally,
    generator_on,
    global_states,
    set_global_states,
    widest,
)
from sk_pwiser.distributed._exchange import JointIterator, Shard, Workers
from sk_pwiser.networks import Labels, NetworkOutput

CPU = torch.device("cpu")
LEFT_OUT = ("workers", "tables", "_steps")

# Output, labels, weights and groups.
Inputs = tuple[NetworkOutput, Tensor, Tensor | None, Tensor | None]
Term = Tensor | Callable[[Labels], Tensor]


class NetworkSums:
    """Sums the gradients of the trained parameters of a network over the workers."""

    def __init__(self, workers: Workers, trained: list[nn.Parameter]) -> None:
        self.workers = workers
        self.trained = trained

    def __call__(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the sums of gradients; those of a loss come from all rows already."""
        n = len(self.trained)
        return [
            *self.workers.sum_tensors(gradients[:n], self.trained),
            *gradients[n:],
        ]

    def __deepcopy__(self, memo: object) -> "NetworkSums":
        """Return itself: the criterion is copied to compute losses only."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Store None: a loaded weighting belongs to one process."""
        return type(None), ()


class WorkerNet(MultiTaskNet):
    """A net that is trained together with the nets of other workers.

    Outputs and labels of all workers are joined, so that the loss equals that of one
    process on the joined batch. Each worker computes the gradients through its own
    rows; their sum is the gradient of this loss, and all workers take the same step.
    """

    is_joint = True
    workers: Workers
    seed: int = 0
    generators: Generators
    tables: Sequence[Tensor] = ()  # with sparse gradients
    draws_globally: bool = False
    _steps: JointIterator | None = None
    _own_states: list[Tensor] | None = None  # of torch's global generators

    def join(self, workers: Workers, seed: int) -> None:
        """Connect the net to the nets of the other workers; all draw by one seed."""
        self.workers, self.seed = workers, seed
        self.tables = sparse_tables(self.module_)
        is_compiled = self.compile_mode not in (None, "graph")
        self.draws_globally = is_compiled or draws_globally(self.module_)
        self.generators = Generators(_seed(seed, -1, workers.rank))
        weighting = self.criterion_.weighting
        if weighting.needs_task_gradients:
            trained = [p for p in self.module_.parameters() if p.requires_grad]
            # These weightings combine gradients, so the sums must come before the
            # combination.
            weighting.join_gradients = NetworkSums(workers, trained)
        # One start for all, whatever machine has built the network.
        workers.copy_from_first([*self.module_.parameters(), *self._buffers()])

    def _buffers(self) -> Iterable[Tensor]:
        states = [*self.module_.buffers(), *self.criterion_.state_dict().values()]
        return [each for each in states if isinstance(each, Tensor)]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the connections, which cannot be stored."""
        state = super().__getstate__()
        return {k: v for k, v in state.items() if k not in LEFT_OUT}

    def get_iterator(self, dataset: Any, training: bool = False) -> Any:
        """Return an iterator over the batches of this worker."""
        batches = super().get_iterator(dataset, training=training)
        if not isinstance(dataset, Shard):
            # Every worker has these rows, such as the start of a check, for itself.
            return batches
        batches.batch_size = dataset.batch_rows(
            batches.batch_size,
            batches.sampler != "sequential",
            least=2 if batches.sampler == "stratified" else 1,
        )
        return JointIterator(batches, self.workers, self.generators)

    def infer(self, *args: Any, **kwargs: Any) -> NetworkOutput:
        """Run the network on rows of this worker, with the worker's random numbers."""
        with active(self.generators), self._own_global_generators():
            return super().infer(*args, **kwargs)

    @contextmanager
    def _own_global_generators(self) -> Iterator[None]:
        """Use this worker's own states of torch's global generators."""
        if not self.draws_globally:
            yield
            return
        device = torch.device(self.device)
        # User modules may draw from torch's global generators; other parts of the step
        # must draw equal numbers in all workers.
        common = global_states(device)
        if self._own_states is None:
            torch.manual_seed(self.generators.seed)
        else:
            set_global_states(self._own_states, device)
        yield
        self._own_states = global_states(device)
        set_global_states(common, device)

    def _run_epoch(self, X: Any, loop: Any, *args: Any) -> None:
        """Train for an epoch; all losses and weightings draw the same numbers."""
        # Seeds depend on the epoch alone: training that resumes draws the same numbers.
        epoch = X.train.clock.epoch = loop.n_complete
        common = _seed(self.seed, epoch)
        for device in {CPU, torch.device(self.device)}:
            generator = generator_on(device)
            if generator is not None:
                generator.manual_seed(common)
        torch.manual_seed(common)
        self.generators = Generators(_seed(self.seed, epoch, self.workers.rank))
        self._own_states = None
        super()._run_epoch(X, loop, *args)
        # Running statistics come from the rows of one worker: those of the first count.
        self.workers.copy_from_first(self._buffers())
        self._check_equal(epoch + 1)
        # If a callback stops one worker, all stop: the others would wait for it.
        self.stop_training_ = bool(
            max(stop for (stop,) in self.workers.gather_numbers(self.stop_training_))
        )

    def _check_equal(self, epoch: int) -> None:
        """Raise if the workers no longer have the same weights or learning rates."""
        sums = [widest(p.detach()).sum() for p in self.module_.parameters()]
        rates = [group["lr"] for group in self.optimizer_.param_groups]
        # A digest of the bits, since equal steps give equal weights to the last bit.
        bits = torch.stack([*sums, *sums[0].new_tensor(rates)]).cpu().numpy().tobytes()
        digest = int.from_bytes(hashlib.sha256(bits).digest()[:7], "little")
        if len({found for (found,) in self.workers.gather_numbers(digest)}) > 1:
            raise RuntimeError(
                f"After epoch {epoch} the workers have different weights or learning "
                "rates. A callback, loss or weighting must not depend on the worker, "
                "on its rows alone or on random numbers of its own."
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
        # Weightings of gradients have summed them already, see `join`.
        if not weighting.uses_task_gradients:
            self.workers.sum_gradients(self.module_.parameters(), self.tables)
        return step

    def heads(self, iterator: Any) -> tuple[Tensor, bool]:
        """Return the logits of the rows of all workers; see `MultiTaskNet.heads`."""
        self._steps = iterator
        try:
            own, is_conditional = super().heads(iterator)
        finally:
            self._steps = None
        return self._joined(own), is_conditional

    def _own_rows(self, logits: Tensor) -> Tensor:
        """Return the logits without that of a row that does not count."""
        if self._steps is None:
            return logits
        return logits[: self._sizes[self.workers.rank]]

    def _record_loss(self, prefix: str, loss: float) -> None:
        super()._record_loss(prefix, self.workers.of_first(loss))

    def _record_validation(self, prefix: str, impressions: Any, logits: Tensor) -> None:
        super()._record_validation(prefix, impressions, self._joined(logits))

    def _joined(self, logits: Tensor) -> Tensor:
        sizes = [n for (n,) in self.workers.gather_numbers(len(logits))]
        return self.workers.join(logits, sizes)


def _seed(*parts: int) -> int:
    """Return a seed of 63 bits that depends on all parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def join(own: Inputs, workers: Workers, sizes: Sequence[int], n_weights: int) -> Inputs:
    """Join the outputs and labels of all workers, and average extra losses.

    `n_weights` is the number of weights per row, 0 without any. With stratified
    batches, only some of the workers may have weights in a step.
    """
    output, y, sample_weight, groups = own
    columns = {"logits": output.logits}
    columns |= {f"aux {k}": head for k, head in enumerate(output.aux_logits)}
    for name, head in (
        ("conditional_logits", output.conditional_logits),
        ("sampled_logits", output.sampled_logits),
    ):
        if head is not None:
            columns[name] = head
    columns["y"] = y
    if n_weights:
        given = torch.ones_like(y[:, :1]) if sample_weight is None else sample_weight
        columns["weight"] = given.view(len(y), -1).expand(-1, n_weights)
    found = _join_columns(columns, workers, sizes)
    joined = output._replace(
        logits=found["logits"],
        aux_logits=[found[f"aux {k}"] for k in range(len(output.aux_logits))],
        extra_losses={
            name: _averaged(term, y, sample_weight, workers, sizes)
            for name, term in output.extra_losses.items()
        },
        conditional_logits=found.get("conditional_logits"),
        sampled_logits=found.get("sampled_logits"),
    )
    weight = found.get("weight")
    if weight is not None and (sample_weight is None or sample_weight.dim() == 1):
        weight = weight.squeeze(1)
    if groups is not None:
        groups = workers.join(groups, sizes)
    return joined, found["y"], weight, groups


def _join_columns(
    columns: dict[str, Tensor], workers: Workers, sizes: Sequence[int]
) -> dict[str, Tensor]:
    """Join tensors of shape `(n_rows, n_columns)`, in float32 or above."""
    # All columns travel in one exchange, which has one dtype.
    kind = at_least_float32(columns["logits"]).dtype
    packed = torch.cat([each.to(kind) for each in columns.values()], dim=1)
    widths = [each.shape[1] for each in columns.values()]
    parts = workers.join(packed, sizes).split(widths, dim=1)
    return dict(zip(columns, parts, strict=True))


def _averaged(
    term: Term,
    y: Tensor,
    sample_weight: Tensor | None,
    workers: Workers,
    sizes: Sequence[int],
) -> Term:
    """Return an extra loss that is averaged over the workers."""
    # Extra losses must be means over rows, as `extra_losses_are_means` says.
    if isinstance(term, Tensor):
        return workers.mean(term, sizes)

    def average(labels: Labels) -> Tensor:
        own = term(Labels(y, sample_weight, labels.row_losses))
        return workers.mean(own, sizes)

    return average
