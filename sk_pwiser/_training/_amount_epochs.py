"""Epochs of the values alone, after those of the events.

Few rows have an amount, so that the events have learnt what they can long before the
amounts have. Early stopping follows the events. The values then get a network of their
own, a copy with the same input layer, which is trained on the rows with an amount until
their loss on the validation rows is lowest. The events do not change to the bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser._rows._encoded_rows import Impressions, TrainingRows, fields_of
from sk_pwiser._training import _callbacks
from sk_pwiser._utils._integers import ceil_div
from sk_pwiser._utils._random import generator_on
from sk_pwiser._utils._warnings import warn_user

LEARNING_RATE = 2e-3  # of Adam, whatever trains the events
# Steps that an epoch has if the batches are neither the smallest nor the largest.
N_STEPS = 20
SMALLEST_BATCH = 64
MOST_EPOCHS = 200
PATIENCE = 20
# Validation rows with fewer amounts say nothing.
FEWEST_AMOUNTS = 5
# Rows with an amount that are in memory at a time.
MOST_ROWS = 1_000_000


def limit_amounts(net: Any, rows: TrainingRows) -> None:
    """Limit the amounts of a fit, so that none decides on the mean alone.

    An amount counts at most as much as moves the mean by its standard error, as the
    other amounts give it. Those of a heavy tail have others of their size beside them.
    """
    terms = net.criterion_.value_terms
    if terms.loss.reads_all_rows or bool(terms.largest_amounts.isfinite().any()):
        return
    sums = torch.zeros(2, len(terms.names), dtype=torch.float64)
    largest = torch.zeros(len(terms.names), dtype=torch.float64)
    for impressions in rows.parts(shuffled=False):
        amounts, weights = terms.targets(
            impressions.column("y"),
            impressions.column("sample_weight"),
            impressions.column("amounts"),
        )
        amounts = torch.where(weights > 0, amounts, 0.0).cpu().double()
        sums[0] += (weights > 0).sum(dim=0).cpu()
        sums[1] += amounts.square().sum(dim=0)
        largest = largest.maximum(amounts.amax(dim=0))
    sums[1] -= largest.square()
    n_amounts, squares = net.sum_over_workers(rows, sums)
    n_others = n_amounts - 1
    limits = (n_amounts * squares / n_others).sqrt()
    limits = torch.where((n_others > 0) & (squares > 0), limits, torch.inf)
    terms.largest_amounts.copy_(limits)


def learn_amounts(net: Any, train: TrainingRows, valid: TrainingRows | None) -> None:
    """Train the network of values of a net on the rows with an amount.

    The validation rows decide how long. Without any, or without enough amounts among
    them, nothing is learnt beyond the epochs of the events, unless a first stage has
    found the number of epochs.
    """
    terms = net.criterion_.value_terms
    net.n_amount_epochs_ = 0
    if terms.loss.reads_all_rows or net.is_interrupted_:
        return
    n_epochs = MOST_EPOCHS
    if net.first_stage is not None:
        n_epochs = net.first_stage.n_amount_epochs
        valid = None
    elif valid is None or _n_amounts(net, valid) < FEWEST_AMOUNTS:
        return
    n_amounts = _n_amounts(net, train)
    if n_epochs == 0 or n_amounts < FEWEST_AMOUNTS:
        return
    training = _AmountTraining(net, rows_with_amounts(train), n_amounts)
    if valid is None:
        for _ in range(n_epochs):
            training.run_epoch()
        net.n_amount_epochs_ = n_epochs
    else:
        _train_until_best(net, training, valid, rows_with_amounts(valid))
    net.optimize_new_parameters()


def _train_until_best(
    net: Any, training: "_AmountTraining", valid: TrainingRows, rows: Impressions
) -> None:
    """Train until the loss on the validation rows falls no more; restore the best."""
    network = net.module_.value_network
    lowest = _mean_loss(net, valid, rows)
    best = _copied(network)
    try:
        for epoch in range(1, MOST_EPOCHS + 1):
            training.run_epoch()
            loss = _mean_loss(net, valid, rows)
            if loss < lowest:
                lowest = loss
                best = _copied(network)
                net.n_amount_epochs_ = epoch
            elif epoch - net.n_amount_epochs_ == PATIENCE:
                break
    except KeyboardInterrupt:
        keepers = (_callbacks.KeepOnInterrupt,)
        if not any(isinstance(callback, keepers) for _, callback in net.callbacks_):
            raise
        net.is_interrupted_ = True
        warn_user(
            "Training was interrupted after the epochs of the events. callbacks holds "
            "KeepOnInterrupt: the amounts as learnt so far are kept, and fit returns."
        )
    network.load_state_dict(best)
    if net.settings.verbose:
        print(
            f"The amounts were learnt for {net.n_amount_epochs_} further epochs, until "
            f"their loss on the validation rows was lowest, {lowest:.4f}."
        )


def _copied(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


class _AmountTraining:
    """Trains the network of values on rows that each have an amount."""

    def __init__(self, net: Any, rows: Impressions, n_amounts: float) -> None:
        self.net = net
        self.rows = rows
        # Each worker has its own share of the rows of a step.
        size = max(SMALLEST_BATCH, ceil_div(int(n_amounts), N_STEPS))
        size = max(1, min(size, net.settings.batch_size))
        self.n_steps = max(1, round(n_amounts / size))
        self.n_amounts_per_step = n_amounts / self.n_steps
        network = net.module_.split_values()
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr=LEARNING_RATE)

    def run_epoch(self) -> None:
        """Pass over the rows once, in a random order."""
        self.net._set_training(True)
        generator = generator_on(torch.device("cpu"))
        order = torch.randperm(len(self.rows), generator=generator)
        for batch in order.tensor_split(self.n_steps):
            self.optimizer.zero_grad()
            # A worker may have no row of a step.
            if len(batch):
                losses = _losses(self.net, self.rows, batch)
                (losses.sum() / self.n_amounts_per_step).backward()
            self.net.sum_gradients(self.parameters)
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
        self.net._zero_grad_optimizer()


def _losses(net: Any, rows: Impressions, numbers: Tensor) -> Tensor:
    """Return the weighted losses of some rows, `(n_rows, n_values)`."""
    terms = net.criterion_.value_terms
    numbers = numbers.to(rows.device)
    if rows.rows is not None:
        numbers = rows.rows[numbers]
    inputs, y = rows.batch(numbers)
    device = torch.device(net.device)
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    amounts, weights = terms.targets(
        y.to(device), inputs.get("sample_weight"), inputs["amounts"]
    )
    scores = net.infer(inputs, network=net.module_.value_scores) + terms.log_moves
    return terms.loss.row_losses(scores, amounts) * weights


@torch.no_grad()
def _mean_loss(net: Any, valid: TrainingRows, rows: Impressions) -> float:
    """Return the loss of the validation rows per amount, summed over the values."""
    net._set_training(False)
    n_values = len(net.criterion_.value_terms.names)
    losses = torch.zeros(n_values, dtype=torch.float64)
    size = net.settings.batch_size
    for numbers in torch.arange(len(rows)).split(max(size, 2_048)):
        losses += _losses(net, rows, numbers).double().sum(dim=0).cpu()
    total = net.sum_over_workers(valid, losses).sum()
    return float(total) / max(_n_amounts(net, valid), 1.0)


def _n_amounts(net: Any, rows: TrainingRows) -> float:
    """Return the number of the amounts of rows, of all workers together."""
    counts = torch.zeros(1, dtype=torch.float64)
    for impressions in rows.parts(shuffled=False):
        counts += (~impressions.column("amounts").isnan()).any(dim=1).sum().cpu()
    return float(net.sum_over_workers(rows, counts))


def rows_with_amounts(rows: TrainingRows) -> Impressions:
    """Return the rows that have an amount, of those in files at most `MOST_ROWS`."""
    selected = []
    for impressions in rows.parts(shuffled=False):
        places = torch.nonzero(~impressions.column("amounts").isnan().all(dim=1))
        places = places.ravel()
        if impressions is not rows:
            n_most = ceil_div(MOST_ROWS * len(impressions), len(rows))
            if len(places) > n_most:
                chosen = torch.arange(n_most) * len(places) // n_most
                places = places[chosen.to(places.device)]
        if impressions.rows is not None:
            places = impressions.rows[places]
        if impressions is rows:
            return replace(impressions, rows=places)
        selected.append(impressions.batch(places))
    return _joined(selected)


def _joined(batches: Sequence[Any]) -> Impressions:
    """Return the rows of several batches as impressions."""
    tensors: dict[str, list[Tensor]] = {}
    n_entries = 0
    for inputs, y in batches:
        fields = {**inputs, "y": y}
        if "bag_offsets" in fields:
            offsets = fields["bag_offsets"] + n_entries
            n_entries = int(offsets[-1])
            # The end of the rows before is the first of these.
            fields["bag_offsets"] = offsets[1:] if tensors else offsets
        for name, tensor in fields.items():
            tensors.setdefault(name, []).append(tensor)
    return Impressions(**fields_of({k: torch.cat(t) for k, t in tensors.items()}))
