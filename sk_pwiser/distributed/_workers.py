"""Workers that train one net: what they read, exchange and compute in a step."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser._rows._encoded_rows import Batch
from sk_pwiser._rows._streamed_rows import StreamedImpressions
from sk_pwiser._training._embedding_tables import sparse_tables
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._utils import _precision, _random
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser.networks import Labels, NetworkOutput

CPU = torch.device("cpu")
# Entries of gradients that are sent together.
BUCKET = 2**22
# Attributes of a net that cannot be stored: its connections.
LEFT_OUT = ("workers", "tables", "_steps")

# Output, labels, weights and groups.
Inputs = tuple[NetworkOutput, Tensor, Tensor | None, Tensor | None, Tensor | None]
Term = Tensor | Callable[[Labels], Tensor]


class LostWorkerError(RuntimeError):
    """Another worker does not answer; training can resume without an error."""


def exchange(collective: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call a collective operation; raise LostWorkerError if a process has ended."""
    try:
        collective(*args, **kwargs)
    except RuntimeError as error:
        raise LostWorkerError(str(error)) from error


def gather_rows(local_rows: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the rows of all processes, by rank; `sizes` has their numbers."""
    # all_gather takes tensors of one shape.
    padded = local_rows.new_zeros(max(sizes), *local_rows.shape[1:])
    padded[: len(local_rows)] = local_rows
    gathered = [torch.empty_like(padded) for _ in sizes]
    exchange(dist.all_gather, gathered, padded)
    return [rows[:size] for rows, size in zip(gathered, sizes, strict=True)]


class Workers:
    """The processes of a fit, which call its methods together and in the same order."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        # A separate group, on the CPU, sends the numbers that the host reads: the host
        # need not wait for the GPU's queue.
        self._control = dist.new_group(backend="gloo")

    def __deepcopy__(self, memo: object) -> "Workers":
        """Return itself: a connection cannot be copied."""
        return self

    def gather_numbers(self, *numbers: int) -> list[list[int]]:
        """Return the integers of every process, by rank."""
        local_numbers = torch.tensor(numbers)
        gathered = [torch.empty_like(local_numbers) for _ in range(self.size)]
        exchange(dist.all_gather, gathered, local_numbers, group=self._control)
        return [numbers_of_rank.tolist() for numbers_of_rank in gathered]

    def of_first(self, number: float) -> float:
        """Return the number of the process of rank 0."""
        value = torch.tensor(number, dtype=torch.float64)
        exchange(dist.broadcast, value, 0, group=self._control)
        return value.item()

    def sum_numbers(self, numbers: Tensor) -> Tensor:
        """Return the sums over the processes of numbers that the host has."""
        gathered = [torch.empty_like(numbers) for _ in range(self.size)]
        exchange(dist.all_gather, gathered, numbers, group=self._control)
        # In the order of the ranks: equal sums in all processes.
        return torch.stack(gathered).sum(dim=0)

    def join(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return `sizes[rank]` rows of each process.

        Only the rows of this process have a gradient. The other processes compute
        theirs; `sum_gradients` adds them up.
        """
        local_rows = rows[: sizes[self.rank]]
        rows_by_rank = gather_rows(local_rows.detach(), sizes)
        rows_by_rank[self.rank] = local_rows
        return torch.cat(rows_by_rank)

    def mean(self, value: Tensor, sizes: Sequence[int]) -> Tensor:
        """Return the mean over all rows, from the mean of each process.

        Only the mean of this process has a gradient.
        """
        summand = value * (sizes[self.rank] / sum(sizes))
        total = summand.detach().clone()
        exchange(dist.all_reduce, total)
        # The value of the total, with the gradient of this process's summand.
        return summand + (total - summand.detach())

    def sum_gradients(
        self, parameters: Iterable[nn.Parameter], tables: Iterable[Tensor]
    ) -> None:
        """Replace gradients by their sums over the processes.

        The gradients of `tables` are sparse.
        """
        sparse = {id(table) for table in tables}
        trained = [p for p in parameters if p.requires_grad]
        dense = [p for p in trained if id(p) not in sparse]
        gradients = self.sum_tensors([p.grad for p in dense], dense)
        for p, gradient in zip(dense, gradients, strict=True):
            p.grad = gradient
        for p in trained:
            if id(p) in sparse:
                p.grad = self._sum_sparse(p.grad, p)

    def _sum_sparse(self, gradient: Tensor | None, table: Tensor) -> Tensor:
        """Return the coalesced sum of sparse gradients of a table; None counts as 0."""
        if gradient is None:
            # A process without a gradient must take part as well: the others wait for
            # it.
            rows = torch.zeros(0, dtype=torch.int64, device=table.device)
            values = table.new_zeros(0, table.shape[1])
        else:
            gradient = gradient.coalesce()
            rows = gradient.indices()[0]
            values = gradient.values()
        sizes = [n_rows for (n_rows,) in self.gather_numbers(len(rows))]
        rows = torch.cat(gather_rows(rows, sizes))
        values = torch.cat(gather_rows(values, sizes))
        joined = torch.sparse_coo_tensor(rows.unsqueeze(0), values, table.shape)
        return joined.coalesce()

    def sum_tensors(
        self, tensors: Sequence[Tensor | None], like: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """Return the sums of tensors that have the shapes of `like`; None means 0."""
        sums: list[Tensor | None] = []
        for bucket in _buckets(like):
            sums += _sum_bucket(tensors[len(sums) :][: len(bucket)], bucket)
        return sums

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by the tensors of the process of rank 0."""
        with torch.no_grad():
            for tensor in tensors:
                value = tensor.detach().to(self.device).contiguous()
                exchange(dist.broadcast, value, 0)
                tensor.copy_(value)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Split tensors into runs of one type and about `BUCKET` entries."""
    numbers = []
    n_entries = 0
    for tensor in tensors:
        numbers.append(n_entries // BUCKET)
        n_entries += tensor.numel()
    pairs = zip(numbers, tensors, strict=True)
    for _, run in groupby(pairs, key=lambda pair: (pair[0], pair[1].dtype)):
        yield [tensor for _, tensor in run]


def _sum_bucket(
    tensors: Sequence[Tensor | None], like: Sequence[Tensor]
) -> list[Tensor | None]:
    """Sum tensors in one exchange, together with whether any process has them."""
    # A tensor that no process has stays None, as in a fit of one process.
    is_present = like[0].new_tensor([tensor is not None for tensor in tensors])
    summands = [
        torch.zeros_like(template) if tensor is None else tensor
        for tensor, template in zip(tensors, like, strict=True)
    ]
    flat = torch.cat([is_present, *(summand.reshape(-1) for summand in summands)])
    exchange(dist.all_reduce, flat)
    n_tensors = len(tensors)
    pieces = flat[n_tensors:].split([template.numel() for template in like])
    sums = [
        piece.view_as(template) for piece, template in zip(pieces, like, strict=True)
    ]
    if all(tensor is not None for tensor in tensors):
        return list(sums)  # the host need not wait for the flags
    n_holders = flat[:n_tensors].tolist()  # processes that have each tensor
    return [total if n else None for total, n in zip(sums, n_holders, strict=True)]


@dataclass
class Clock:
    """The epoch, which determines the order of the files, and a seed for all epochs."""

    seed: int
    epoch: int = 0


@dataclass(frozen=True, kw_only=True)
class Shard(StreamedImpressions):
    """The share of the stored files that a worker reads; another in each epoch."""

    rank: int
    n_workers: int
    clock: Clock

    def _order(self, shuffled: bool) -> Sequence[int]:
        order = np.arange(len(self.store.sizes))
        if shuffled:
            seeds = self.clock.seed, self.clock.epoch
            # All workers draw the same order of files and take every n-th part of it.
            order = np.random.default_rng(seeds).permutation(order)
        return self.deal(order.tolist(), self.n_workers)[self.rank]

    def batch_rows(self, batch_size: int, shuffled: bool, least: int = 1) -> int:
        """Return this worker's rows per batch, so that all have as many batches."""
        n_local_rows = sum(self.store.sizes[file] for file in self._order(shuffled))
        n_batches = ceil_div(len(self), batch_size)
        return max(least, ceil_div(n_local_rows, n_batches))


class JointIterator:
    """Iterates over the batches of a worker until the last worker has finished.

    A worker without further batches takes part in the steps with a row that does not
    count, since the others wait for it.
    """

    def __init__(
        self, batches: BatchIterator, workers: Workers, generators: _random.Generators
    ) -> None:
        self.batches = batches
        self.workers = workers
        self.generators = generators
        self.sizes: list[int] = []  # rows of the workers in the current step
        self.n_weights = 0  # weights per row
        self.n_local_rows = 0  # rows of this worker in the last pass

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of one epoch."""
        local_batches = iter(self.batches)
        self.n_local_rows = 0
        while True:
            with _random.active(self.generators):
                batch = next(local_batches, None)
            n_rows = 0 if batch is None else len(batch[1])
            weight = None if batch is None else batch[0].get("sample_weight")
            n_weights = 0 if weight is None else weight[:1].numel()
            # One exchange per step tells all workers how many rows each one has, and
            # when to stop.
            counts = self.workers.gather_numbers(n_rows, n_weights)
            self.sizes = [n_rows_of_rank for n_rows_of_rank, _ in counts]
            self.n_weights = max(n_weights_of_rank for _, n_weights_of_rank in counts)
            if not any(self.sizes):
                return
            self.n_local_rows += n_rows
            yield batch or self._filler

    def in_row_order(self, values: Tensor) -> Tensor:
        """Return the values of all workers, without fillers, in the order of rows."""
        local_values = self.batches.in_row_order(values[: self.n_local_rows])
        counts = self.workers.gather_numbers(len(local_values))
        return self.workers.join(local_values, [n_rows for (n_rows,) in counts])

    @cached_property
    def _filler(self) -> Batch:
        """A row that does not count."""
        inputs, y = self.batches.dataset.spaced(1).batch(slice(0, 1))
        device = self.batches.device
        return {name: t.to(device) for name, t in inputs.items()}, y.to(device)


class NetworkSums:
    """Sums the gradients of the trained parameters of a network over the workers."""

    def __init__(self, workers: Workers, network: nn.Module) -> None:
        self.workers = workers
        self.network = network

    def __call__(self, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return the sums of gradients; those of a loss come from all rows already."""
        # A callback may freeze some.
        trained = [p for p in self.network.parameters() if p.requires_grad]
        n_trained = len(trained)
        sums = self.workers.sum_tensors(gradients[:n_trained], trained)
        return [*sums, *gradients[n_trained:]]

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
    generators: _random.Generators
    tables: Sequence[Tensor] = ()  # with sparse gradients
    draws_globally: bool = False
    _steps: JointIterator | None = None
    _own_states: list[Tensor] | None = None  # of torch's global generators

    def join(self, workers: Workers, seed: int) -> None:
        """Connect the net to the nets of the other workers; all draw by one seed."""
        self.workers = workers
        self.seed = seed
        self.tables = sparse_tables(self.module_)
        is_compiled = self.compile_mode not in (None, "graph")
        self.draws_globally = is_compiled or _random.draws_globally(self.module_)
        self.generators = _random.Generators(_seed(seed, -1, workers.rank))
        weighting = self.criterion_.weighting
        if weighting.needs_task_gradients:
            # These weightings combine gradients, so the sums must come before the
            # combination.
            weighting.join_gradients = NetworkSums(workers, self.module_)
        # One start for all, whatever machine has built the network.
        workers.copy_from_first([*self.module_.parameters(), *self._buffers()])

    def _buffers(self) -> Iterable[Tensor]:
        states = [*self.module_.buffers(), *self.criterion_.state_dict().values()]
        return [state for state in states if isinstance(state, Tensor)]

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
        self._steps = JointIterator(batches, self.workers, self.generators)
        return self._steps

    def sum_over_workers(self, rows: Any, sums: Tensor) -> Tensor:
        """Return sums over the rows of all workers, unless each of them has all."""
        return self.workers.sum_numbers(sums) if isinstance(rows, Shard) else sums

    def sum_gradients(self, parameters: Any) -> None:
        """Sum gradients over all workers."""
        self.workers.sum_gradients(parameters, ())

    def infer(self, *args: Any, **kwargs: Any) -> NetworkOutput:
        """Run the network on rows of this worker, with the worker's random numbers."""
        with _random.active(self.generators), self._own_global_generators():
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
        common = _random.global_states(device)
        if self._own_states is None:
            torch.manual_seed(self.generators.seed)
        else:
            _random.set_global_states(self._own_states, device)
        yield
        self._own_states = _random.global_states(device)
        _random.set_global_states(common, device)

    def _run_epoch(self, X: Any, step: Any) -> None:
        """Train for an epoch; all losses and weightings draw the same numbers."""
        # Seeds depend on the epoch alone: training that resumes draws the same numbers.
        epoch = self.n_complete_
        X.train.clock.epoch = epoch
        common = _seed(self.seed, epoch)
        for device in {CPU, torch.device(self.device)}:
            generator = _random.generator_on(device)
            if generator is not None:
                generator.manual_seed(common)
        torch.manual_seed(common)
        self.generators = _random.Generators(_seed(self.seed, epoch, self.workers.rank))
        self._own_states = None
        super()._run_epoch(X, step)
        # Running statistics come from the rows of one worker: those of the first count.
        self.workers.copy_from_first(self._buffers())
        self._check_equal(epoch + 1)
        # If a callback stops one worker, all stop: the others would wait for it.
        self.stop_training_ = bool(
            max(stop for (stop,) in self.workers.gather_numbers(self.stop_training_))
        )

    def _check_equal(self, epoch: int) -> None:
        """Raise if the workers no longer have the same weights or learning rates."""
        sums = [_precision.widest(p.detach()).sum() for p in self.module_.parameters()]
        rates = [group["lr"] for group in self.optimizer_.param_groups]
        # A digest of the bits, since equal steps give equal weights to the last bit.
        bits = torch.stack([*sums, *sums[0].new_tensor(rates)]).cpu().numpy().tobytes()
        digest = int.from_bytes(hashlib.sha256(bits).digest()[:7], "little")
        digests = {other for (other,) in self.workers.gather_numbers(digest)}
        if len(digests) > 1:
            raise RuntimeError(
                f"After epoch {epoch} the workers have different weights or learning "
                "rates. A callback, loss or weighting must not depend on the worker, "
                "on its rows alone or on random numbers of its own."
            )

    def run_single_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Iterate over the rows once, in steps of all workers."""
        try:
            super().run_single_epoch(*args, **kwargs)
        finally:
            self._steps = None

    def criterion_inputs(self, output: NetworkOutput, batch: Any) -> Inputs:
        """Return output, labels, weights and groups of the rows of all workers."""
        local_inputs = super().criterion_inputs(output, batch)
        steps = self._steps
        if steps is None:  # a check after training
            return local_inputs
        return join(local_inputs, self.workers, steps.sizes, steps.n_weights)

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Compute the loss of the joined batch and the gradients of all its rows."""
        step = super().train_step_single(batch, **fit_params)
        weighting = self.criterion_.weighting
        # Weightings of gradients have summed them already, see `join`.
        if not weighting.needs_task_gradients:
            self.workers.sum_gradients(self.module_.parameters(), self.tables)
        return step

    def _record_loss(self, prefix: str, loss: float) -> None:
        super()._record_loss(prefix, self.workers.of_first(loss))


def _seed(*numbers: int) -> int:
    """Return a seed of 63 bits that depends on all numbers."""
    digest = hashlib.sha256(repr(numbers).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def join(
    local_inputs: Inputs, workers: Workers, sizes: Sequence[int], n_weights: int
) -> Inputs:
    """Join the outputs and labels of all workers, and average extra losses.

    `n_weights` is the number of weights per row, 0 without any. With stratified
    batches, only some of the workers may have weights in a step.
    """
    output, y, sample_weight, groups, amounts = local_inputs
    weight = None
    if n_weights:
        weight = torch.ones_like(y[:, :1]) if sample_weight is None else sample_weight
        weight = weight.view(len(y), -1).expand(-1, n_weights)
    optional_columns = {
        "logits": output.logits,
        **{f"aux {k}": head for k, head in enumerate(output.aux_logits)},
        "conditional_logits": output.conditional_logits,
        "sampled_logits": output.sampled_logits,
        "value_scores": output.value_scores,
        "y": y,
        "weight": weight,
        "amounts": amounts,
    }
    columns = {
        k: tensor for k, tensor in optional_columns.items() if tensor is not None
    }
    # All columns travel in one exchange, which has one dtype, float32 or above.
    dtype = _precision.at_least_float32(output.logits).dtype
    packed = torch.cat([tensor.to(dtype) for tensor in columns.values()], dim=1)
    widths = [tensor.shape[1] for tensor in columns.values()]
    split_columns = workers.join(packed, sizes).split(widths, dim=1)
    joined_columns = dict(zip(columns, split_columns, strict=True))

    def averaged(term: Term) -> Term:
        # Extra losses must be means over rows, as `extra_losses_are_means` says.
        if isinstance(term, Tensor):
            return workers.mean(term, sizes)

        def average(labels: Labels) -> Tensor:
            local_labels = replace(labels, y=y, sample_weight=sample_weight)
            return workers.mean(term(local_labels), sizes)

        return average

    joined = output._replace(
        logits=joined_columns["logits"],
        aux_logits=[joined_columns[f"aux {k}"] for k in range(len(output.aux_logits))],
        extra_losses={k: averaged(term) for k, term in output.extra_losses.items()},
        conditional_logits=joined_columns.get("conditional_logits"),
        sampled_logits=joined_columns.get("sampled_logits"),
        value_scores=joined_columns.get("value_scores"),
    )
    weight = joined_columns.get("weight")
    if weight is not None and (sample_weight is None or sample_weight.dim() == 1):
        weight = weight.squeeze(1)
    if groups is not None:
        groups = workers.join(groups, sizes)
    joined_y = joined_columns["y"]
    return joined, joined_y, weight, groups, joined_columns.get("amounts")
