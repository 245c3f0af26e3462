"""What a second training on all rows is worth, and cheaper forms of it.

    pip install ".[benchmark]"
    SK_PWISER_DATA=/path/to/data python benchmarks/refit.py

All forms begin with the default fit, which holds out a tenth of its rows to find the
length of training:

- "held out": the default fit;
- "refit=True": then a new network on all rows, for the epochs at the full learning rate
  and of its decay that led to the best weights;
- "decay on all rows": the decay of the learning rate begins with the best weights at
  the full rate, and takes as many epochs as planned, on all rows;
- "one more epoch": an epoch on all rows, in which the learning rate falls to 0, begins
  with the weights of the default fit.

MovieLens and the generated log with drift are in the order of time, which the fits get
as their `time_column`; KuaiRand is fitted without a time, and tested on its last
training day. A shift to the level of the last rows is that of the default fit in all
forms. The seconds are those of the processor, those of the default fit included.
"""

import copy
import os
import warnings

import numpy as np
import pandas as pd
from _harness import (
    aucs,
    begin,
    make_parser,
    mean_log_loss,
    processor_time,
    rates_of,
    seeds_of,
    spread,
    with_changes,
)
from _tables import BY_TIME, Tables, load_tables
from skorch.callbacks import Callback, LRScheduler
from torch.optim.lr_scheduler import LambdaLR

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

DATA = ("engage", "hillstrom", "oulad", "movielens", "flights", "adult", "drift")
FORMS = ("held out", "refit=True", "decay on all rows", "one more epoch")
N_DAYS = 60
QUICK_ROWS = 3_000


def drifting_log(part, seed, n_rows=60_000):
    """Return a log in the order of time, whose level moves at random from day to day.

    The last sixth is the test part, the sixth before it the validation part.
    """
    data = make_ctr_cvr(n_rows, ctr=0.15, cvr=0.25, random_state=seed)
    generator = np.random.default_rng(seed)
    day = np.arange(n_rows) * N_DAYS // n_rows
    move = generator.normal(scale=0.1, size=N_DAYS).cumsum()[day]
    true = np.column_stack([data.ctr, data.cvr])
    odds = true / (1 - true) * np.exp(move)[:, None]
    happens = generator.random((n_rows, 2)) < odds / (1 + odds)
    Y = pd.DataFrame(happens.cumprod(axis=1), columns=data.target.columns)
    X = data.data.assign(day=day.astype(float))
    last = n_rows if part == "test" else n_rows * 5 // 6
    n_train = last - n_rows // 6
    X_test, Y_test = X[n_train:last], Y[n_train:last]
    return Tables(X[:n_train], X_test, Y[:n_train], Y_test)


def load(name, part, seed):
    """Return the tables of a data set, and its column of times, if it has one."""
    if name == "drift":
        return drifting_log(part, seed), "day"
    if name == "movielens":
        X, Y, n_train = BY_TIME[name](part)
        X = X.drop(columns="time")
        return Tables(X[:n_train], X[n_train:], Y[:n_train], Y[n_train:]), "day"
    return load_tables(name, os.environ.get("SK_PWISER_DATA"), part, seed=seed), None


def some_rows(tables, n_rows, by_time, seed):
    """Return the tables with the last, or some random, training rows."""
    if n_rows is None or n_rows >= len(tables.X):
        return tables
    rows = np.arange(len(tables.X))[-n_rows:]
    if not by_time:
        drawn = np.random.default_rng(seed).permutation(len(tables.X))
        rows = np.sort(drawn[:n_rows])
    return tables._replace(X=tables.X.iloc[rows], Y=tables.Y.iloc[rows])


class BeginOfDecay(Callback):
    """Copies the weights with which the decay of the learning rate begins."""

    weights = None

    def on_epoch_end(self, net, **kwargs):
        if self.weights is None and not net.stopping.is_waiting:
            self.weights = copy.deepcopy(net.module_.state_dict())
            self.n_epochs = net.stopping.n_decay


def continued(model, weights, n_epochs, tables):
    """Return a copy of a model, trained on all rows while the learning rate falls to 0.

    Training begins with other weights, without the shift to the last rows, which is
    added at the end.
    """
    model = copy.deepcopy(model)
    network = model.net_.module_
    offset = network.level_offset
    network.level_offset = None
    network.load_state_dict(weights)
    n_steps = n_epochs * -(-len(tables.X) // model.batch_size)
    schedule = LRScheduler(
        LambdaLR,
        step_every="batch",
        lr_lambda=lambda step: max(0.0, 1 - (step + 0.5) / n_steps),
    )
    model.set_params(
        warm_start=True,
        early_stopping=False,
        max_epochs=n_epochs,
        callbacks=[schedule],
    )
    model.fit(tables.X, tables.Y)
    if offset is not None:
        model.net_.module_.shift_level(offset)
    return model


def fit_all(tables, time, seed):
    """Return the fits of all forms, each with its seconds."""
    params = {"random_state": seed, "encoding_params": {"time_column": time}}
    begin_of_decay = BeginOfDecay()
    model = MultiTaskCTRCVRClassifier(callbacks=[begin_of_decay], **params)
    seconds, _ = processor_time(model.fit, tables.X, tables.Y)
    fits = {"held out": (seconds, model)}
    both = MultiTaskCTRCVRClassifier(refit=True, **params)
    fits["refit=True"] = processor_time(both.fit, tables.X, tables.Y)
    weights, n_epochs = begin_of_decay.weights, begin_of_decay.n_epochs
    more, last = processor_time(continued, model, weights, n_epochs, tables)
    # The decay takes the place of that of the default fit.
    clock = model.net_.history[:, "dur"]
    decay = sum(clock[model.net_.stopping.n_held :]) / sum(clock)
    fits["decay on all rows"] = seconds * (1 - decay) + more, last
    weights = copy.deepcopy(model.net_.module_.state_dict())
    weights.pop("level_offset", None)
    more, last = processor_time(continued, model, weights, 1, tables)
    fits["one more epoch"] = seconds + more, last
    return fits


def figures(model, tables):
    """Return the AUC of each task, the log loss, and the least exact level."""
    p = model.predict_proba(tables.X_test).astype(float)
    y = tables.Y_test.to_numpy()
    return [*aucs(y, p), mean_log_loss(y, p)], p.mean(axis=0) / y.mean(axis=0)


def run(report, name, arguments):
    """Compare the forms on one data set."""
    found = {form: [] for form in FORMS}
    levels = {form: [] for form in FORMS}
    seconds = {form: [] for form in FORMS}
    for seed in seeds_of(arguments):
        tables, time = load(name, arguments.part, seed)
        tables = some_rows(tables, arguments.rows, time is not None, seed)
        for form, (cost, model) in fit_all(tables, time, seed).items():
            row, ratios = figures(model, tables)
            found[form].append(row)
            levels[form].append(ratios)
            seconds[form].append(cost)
        print(name, seed, {f: np.round(v[-1], 4).tolist() for f, v in found.items()})
    size = f"{len(tables.X):,} rows, {len(tables.X_test):,} held out"
    title = f"{name}: {size}; {rates_of(tables.Y)}; {arguments.seeds} seeds"
    report.text("", title)
    columns = []
    for task in (tables.Y.columns[0], tables.Y.columns[-1]):
        columns += [f"{task} AUC", "to first"]
    report.table([*columns, "log loss", "log loss to first", "pred/obs", "s"])
    base = np.array(found[FORMS[0]])[:, [0, -2, -1]]
    for form in FORMS:
        values = np.array(found[form])[:, [0, -2, -1]]
        level = spread(np.array(levels[form])[:, -1], digits=2)
        cost = f"{np.mean(seconds[form]):.1f}"
        report.row(form, [*with_changes(values, base), level, cost])


def main():
    parser = make_parser(__doc__, seeds=5, part="validation", data=DATA)
    parser.add_argument("--rows", type=int, help="training rows, the last ones in time")
    arguments, report = begin("refit", parser, data=["drift"], seeds=1, rows=QUICK_ROWS)
    report.text(
        "Differences are in thousandths, with the standard error over seeds; pred/obs "
        f"is that of the last task; part: {arguments.part}"
    )
    for name in arguments.data:
        try:
            run(report, name, arguments)
        except (FileNotFoundError, ImportError) as error:
            report.text("", f"{name} is left out: {error}")


if __name__ == "__main__":
    # Later rows have new values, and blocks of sorted files are random.
    warnings.filterwarnings("ignore", category=UserWarning)
    main()
