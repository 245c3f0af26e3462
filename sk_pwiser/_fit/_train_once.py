"""One pass of a net over the rows of an update."""

import torch
from torch import Tensor

from sk_pwiser._fit._train import random_numbers
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._grown_tables import check_own_tables
from sk_pwiser._training._lazy_tables import LazyAdam
from sk_pwiser._training._level import follow_update, keep_level
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import WEIGHT, default_weight, follows_rates
from sk_pwiser._training._value_level import follow_rows, log_means
from sk_pwiser._utils._random import Generators
from sk_pwiser._utils._threads import limited_threads


def train_once(
    net: MultiTaskNet,
    data: EncodedData,
    *,
    generators: Generators,
    global_seed: int,
    device: torch.device,
    earlier_sizes: frozenset[int] | None = None,
) -> Tensor | None:
    """Pass over the rows of an update once.

    `earlier_sizes` is what `FurtherRows.grow_tables` returns. Returns the logarithms of
    the mean predicted amounts that `keep_means` requires, or None.
    """
    net.use_decay_of_updates(data.n_counted)
    threads = limited_threads(net.n_products)
    with random_numbers(net, generators, global_seed, device), threads:
        # An update in place keeps the device of the net.
        rows = data.to(torch.device(net.device))
        if earlier_sizes is not None:
            check_own_tables(net, rows.train, earlier_sizes)
        probabilities = None
        if net.settings.lr_schedule is not None:
            probabilities = learn_rates(net, rows)
        earlier_log_means = None
        terms = net.criterion_.value_terms
        has_level = terms is not None and bool((terms.n_amounts > 0).any())
        if has_level:
            follow_rows(net, rows.train, data.rows_per_weight)
            earlier_log_means = log_means(net, rows.train)
        net.partial_fit(rows, None)
        if probabilities is not None:
            keep_level(net, rows.train, probabilities)
        if terms is not None and not has_level:
            follow_rows(net, rows.train, data.rows_per_weight)
    return earlier_log_means


def learn_rates(net: MultiTaskNet, data: EncodedData) -> Tensor | None:
    """Count the events of an update, and set the level of later predictions.

    Returns the probabilities of the rows at this level, or None in a first update.
    """
    criterion = net.criterion_
    rows = data.train
    n_earlier_events = torch.minimum(
        criterion.n_events, criterion.n_rows - criterion.n_events
    )
    is_first = bool(criterion.n_rows == 0)
    criterion.count_rows(
        rows.column("y"), rows.column("sample_weight"), data.rows_per_weight
    )
    probabilities = None
    if not is_first:
        net.module_.set_base_rates(criterion.rates_so_far())
        # The steps of updates are short: without a single event in the first call,
        # probabilities would stay a hundred times too low for thousands of rows.
        probabilities = follow_update(net, rows, n_earlier_events, data.rows_per_weight)
    loss = criterion.loss
    if not follows_rates(net.settings, data.schema.weight_trial):
        return probabilities
    # A user's loss may keep its weight under another name: that of the first call.
    if WEIGHT in loss.estimator_parameters and hasattr(loss, WEIGHT):
        _, largest_rates = criterion.possible_rates().tolist()
        ranked_rates = [largest_rates[head] for head in loss.heads]
        loss.pwiser_weight = default_weight(ranked_rates)
    return probabilities


def close_logs(net: MultiTaskNet) -> None:
    """Let the optimiser log no more rows."""
    if isinstance(net.optimizer_, LazyAdam):
        net.optimizer_.logs = None
