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
time of an epoch relative to an epoch with the default batch size, the median over the
seeds. The fits of a seed run in succession, so that other load affects all of them
equally.
"""

from itertools import product

import numpy as np
from _harness import begin, data_folder, evaluate, make_parser, spread
from _tables import load_tables
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import LambdaLR

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS

OWN = MultiTaskCTRCVRClassifier()
RULES = {"kept": 0.0, "root": 0.5, "linear": 1.0}
COLUMNS = {"first AUC": 4, "second AUC": 4, "log loss": 4, "epochs": 1}


def warm_up(n_steps):
    """Return a callback that raises the learning rate linearly over some steps."""
    return LRScheduler(
        LambdaLR,
        lr_lambda=lambda step: min(1.0, (step + 1) / n_steps),
        step_every="batch",
    )


def cases(batches):
    """Yield the combinations of batch size, rule and warm-up that differ."""
    for size, rule, warms_up in product([OWN.batch_size, *batches], RULES, (0, 1)):
        if size != OWN.batch_size or rule == "kept":
            yield size, rule, warms_up


def learning_rate(size, rule):
    return OWN.lr * (size / OWN.batch_size) ** RULES[rule]


def fit(case, data, arguments, seed):
    """Fit one case; return the figures of `COLUMNS` and the seconds of an epoch."""
    size, rule, warms_up = case
    steps_of_half_an_epoch = max(1, round(0.45 * len(data[0]) / size))
    model = MultiTaskCTRCVRClassifier(
        network=arguments.network,
        loss=arguments.loss,
        batch_size=size,
        lr=learning_rate(size, rule),
        callbacks=[warm_up(steps_of_half_an_epoch)] if warms_up else None,
        random_state=seed,
    )
    first, second, _, log_loss, epochs, _ = evaluate(model, *data)
    return first, second, log_loss, epochs, np.median(model.history_[:, "dur"])


def main():
    parser = make_parser(__doc__, seeds=3)
    sets = ["engage", "long"]
    parser.add_argument("--data", nargs="+", choices=sets, default=sets)
    parser.add_argument("--network", choices=NETWORKS, default=OWN.network)
    parser.add_argument("--loss", choices=LOSSES, default=OWN.loss)
    sizes = [512, 1024, 2048, 4096, 8192]
    parser.add_argument("--batches", type=int, nargs="+", default=sizes)
    quick = {"data": sets[:1], "batches": [2048], "seeds": 1}
    arguments, report = begin("batch_size", parser, **quick)
    path = data_folder()
    for name in arguments.data:
        data = load_tables(name, path, "validation")[:4]
        if arguments.quick:
            data = [table[:5_000] for table in data]
        sizes = f"{len(data[0]):,} rows, {len(data[1]):,} held out"
        settings = f"{arguments.network}, {arguments.loss}, {arguments.seeds} seeds"
        report.text("", f"{name}: {sizes}; {settings}")
        report.table([*COLUMNS, "time"], label="batch, learning rate")
        found = {case: [] for case in cases(arguments.batches)}
        for seed, case in product(range(arguments.seeds), found):
            found[case].append(fit(case, data, arguments, seed))
        found = {case: np.array(rows).T for case, rows in found.items()}
        own = found[OWN.batch_size, "kept", 0][-1]
        for (size, rule, warms_up), rows in found.items():
            label = f"{size:,}, {learning_rate(size, rule):.4f} {rule}"
            label += ", warm-up" if warms_up else ""
            cells = map(spread, rows[:-1], COLUMNS.values())
            report.row(label, [*cells, f"{np.median(rows[-1] / own):.2f}"])
    report.save()


if __name__ == "__main__":
    main()
