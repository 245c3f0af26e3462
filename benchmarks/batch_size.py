"""AUC on real impressions for larger batches, with several rules for the learning rate.

    python benchmarks/batch_size.py                       # KuaiRand, both labels
    python benchmarks/batch_size.py --data long --batches 512 4096 --seeds 5
    python benchmarks/batch_size.py --network mmoe --loss bce

The data are read from the folder that SK_PWISER_DATA names. Only the training part is
used; it is split by time once more, as by `real_auc.py --part validation`.

With batches k times as large, an epoch has a k-th of the steps. Three rules set the
learning rate: `kept` leaves it unchanged, `root` multiplies it by the square root of k,
`linear` by k, relative to the default batch size of the estimator. With `warm-up` it
rises linearly over the first half of the first epoch, through skorch's `LRScheduler` in
`callbacks`. All other parameters have their defaults, early stopping included.

A cell is the mean over the seeds, followed by the standard deviation. `time` is the
time of an epoch relative to that with the default batch size, the median over the
seeds. The fits of a seed run in succession, so that other load affects all of them
equally.
"""

import argparse
import os
import platform
from itertools import product

import numpy as np
import torch
from real_auc import evaluate, load
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import LambdaLR

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS

OWN = MultiTaskCTRCVRClassifier()
RULES = {"kept": 0.0, "root": 0.5, "linear": 1.0}
COLUMNS = ("first AUC", "second AUC", "log loss", "epochs")


def warm_up(n_steps):
    """Return a callback that raises the learning rate linearly over some steps."""
    return LRScheduler(
        LambdaLR,
        lr_lambda=lambda step: min(1.0, (step + 1) / n_steps),
        step_every="batch",
    )


def cases(batches):
    """Yield the combinations of batch size, rule and warm-up that differ."""
    for size, rule, warms_up in product(batches, RULES, (False, True)):
        if size != OWN.batch_size or rule == "kept":
            yield size, rule, warms_up


def fit(case, data, arguments, seed):
    """Fit one case; return the figures of `COLUMNS` and the seconds of an epoch."""
    size, rule, warms_up = case
    steps_of_half_an_epoch = max(1, round(0.45 * len(data[0]) / size))
    model = MultiTaskCTRCVRClassifier(
        network=arguments.network,
        loss=arguments.loss,
        batch_size=size,
        lr=OWN.lr * (size / OWN.batch_size) ** RULES[rule],
        callbacks=[warm_up(steps_of_half_an_epoch)] if warms_up else None,
        random_state=seed,
    )
    first, second, _, log_loss, epochs, _ = evaluate(model, *data)
    return (first, second, log_loss, epochs), np.median(model.history_[:, "dur"])


def run(name, arguments, path):
    """Print the table of one data set."""
    data = load(name, path, "validation")
    print(f"\n{name}: {len(data[0]):,} rows, {len(data[1]):,} held out;", end=" ")
    print(f"{arguments.network}, {arguments.loss}, {arguments.seeds} seeds")
    print(f"{'batch  lr':<32}" + "".join(f"{column:>17}" for column in COLUMNS), end="")
    print(f"{'time':>8}", flush=True)
    found = {case: [] for case in cases(arguments.batches)}
    own = (OWN.batch_size, "kept", False)
    found.setdefault(own, [])
    for seed in range(arguments.seeds):
        for case in found:
            found[case].append(fit(case, data, arguments, seed))
    epochs_of_own = np.array([seconds for _, seconds in found[own]])
    for (size, rule, warms_up), fits in found.items():
        figures = np.array([figures for figures, _ in fits])
        times = np.array([seconds for _, seconds in fits]) / epochs_of_own
        lr = OWN.lr * (size / OWN.batch_size) ** RULES[rule]
        label = f"{size:>6,}  {lr:.4f} {rule}{', warm-up' if warms_up else ''}"
        print(f"{label:<32}" + "".join(map(cell, COLUMNS, figures.T)), end="")
        print(f"{np.median(times):>8.2f}", flush=True)


def cell(column, values):
    digits = 1 if column == "epochs" else 4
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    return f"{f'{values.mean():.{digits}f} ({spread:.{digits}f})':>17}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = ["engage", "long"]
    parser.add_argument("--data", nargs="+", choices=sets, default=sets)
    parser.add_argument("--network", choices=NETWORKS, default=OWN.network)
    parser.add_argument("--loss", choices=LOSSES, default=OWN.loss)
    sizes = [512, 1024, 2048, 4096, 8192]
    parser.add_argument("--batches", type=int, nargs="+", default=sizes)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        raise SystemExit("Set SK_PWISER_DATA to the folder of the data sets.")
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} thread(s)"
    )
    for name in arguments.data:
        run(name, arguments, path)


if __name__ == "__main__":
    main()
