"""One pass of a net over the rows of an update."""

import torch

from sk_pwiser._fit._train import random_numbers
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._grown_tables import check_own_tables
from sk_pwiser._training._lazy_tables import LazyAdam
from sk_pwiser._training._level import follow_update
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import WEIGHT, default_weight
from sk_pwiser._training._value_level import follow_rows
from sk_pwiser._utils._random import Generators
from sk_pwiser._utils._threads import limited_threads

# Earlier rows with and without the event from which on their level is trusted.
TRUSTED_EVENTS = 100


def train_once(
    net: MultiTaskNet,
    data: EncodedData,
    *,
    generators: Generators,
    global_seed: int,
    device: torch.device,
    earlier_sizes: frozenset[int] | None = None,
) -> None:
    """Pass over the rows of an update once.

    `earlier_sizes` is what `FurtherRows.grow_tables` returns.
    """
    net.use_decay_of_updates(data.n_counted)
    threads = limited_threads(net.n_products)
    with random_numbers(net, generators, global_seed, device), threads:
        # An update in place keeps the device of the net.
        rows = data.to(torch.device(net.device))
        if earlier_sizes is not None:
            check_own_tables(net, rows.train, earlier_sizes)
        if net.settings.lr_schedule is not None:
            learn_rates(net, rows)
        net.partial_fit(rows, None)
        if net.criterion_.value_terms is not None:
            follow_rows(net, rows.train)


def learn_rates(net: MultiTaskNet, data: EncodedData) -> None:
    """Count the events of an update; what a small first call told is learnt again."""
    criterion = net.criterion_
    rows = data.train
    n_earlier_events = torch.minimum(
        criterion.n_events, criterion.n_rows - criterion.n_events
    )
    is_first = criterion.n_rows == 0
    criterion.count_rows(
        rows.column("y"), rows.column("sample_weight"), data.rows_per_weight
    )
    is_untrusted = n_earlier_events < TRUSTED_EVENTS
    if not is_first:
        net.module_.set_base_rates(criterion.rates_so_far())
    if not is_first and bool(is_untrusted.any()):
        # The steps of updates are short: without a single event in the first call,
        # probabilities would stay a hundred times too low for thousands of rows.
        follow_update(net, rows, n_earlier_events.where(is_untrusted, torch.inf))
    loss = criterion.loss
    if net.settings.pwiser_weight is not None:
        return
    # A user's loss may keep its weight under another name: that of the first call.
    if WEIGHT in loss.estimator_parameters and hasattr(loss, WEIGHT):
        _, largest_rates = criterion.possible_rates().tolist()
        ranked_rates = [largest_rates[head] for head in loss.heads]
        loss.pwiser_weight = default_weight(ranked_rates)


def close_logs(net: MultiTaskNet) -> None:
    """Let the optimiser log no more rows."""
    if isinstance(net.optimizer_, LazyAdam):
        net.optimizer_.logs = None
