"""One pass of a net over the rows of an update."""

import torch

from sk_pwiser._fit._train import random_numbers
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._grown_tables import check_own_tables
from sk_pwiser._training._lazy_tables import LazyAdam
from sk_pwiser._training._levels._levels import Levels, LevelsBefore
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._pwiser_weight import WEIGHT, default_weight, follows_rates
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
) -> LevelsBefore:
    """Pass over the rows of an update once; return the levels before the training.

    `earlier_sizes` is what `FurtherRows.grow_tables` returns.
    """
    net.use_decay_of_updates(data.n_counted)
    threads = limited_threads(net.n_products)
    with random_numbers(net, generators, global_seed, device), threads:
        # An update in place keeps the device of the net.
        rows = data.to(torch.device(net.device))
        if earlier_sizes is not None:
            check_own_tables(net, rows.train, earlier_sizes)
        levels = Levels(net)
        levels_before = levels.follow(rows)
        set_pwiser_weight(net, data)
        net.partial_fit(rows, None)
        levels.keep(rows, levels_before)
    return levels_before


def set_pwiser_weight(net: MultiTaskNet, data: EncodedData) -> None:
    """Set the default weight of the ranking loss by the rates of all rows so far."""
    if net.settings.lr_schedule is None:
        return
    if not follows_rates(net.settings, data.schema.weight_trial):
        return
    loss = net.criterion_.loss
    # A user's loss may keep its weight under another name: that of the first call.
    if WEIGHT in loss.estimator_parameters and hasattr(loss, WEIGHT):
        _, largest_rates = net.criterion_.possible_rates().tolist()
        ranked_rates = [largest_rates[head] for head in loss.heads]
        loss.pwiser_weight = default_weight(ranked_rates)


def close_logs(net: MultiTaskNet) -> None:
    """Let the optimiser log no more rows."""
    if isinstance(net.optimizer_, LazyAdam):
        net.optimizer_.logs = None
