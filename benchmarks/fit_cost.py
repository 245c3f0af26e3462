"""Processor time of default fits on real tables, relative to LightGBM's.

    pip install ".[benchmark]"
    SK_PWISER_DATA=/path/to/data python benchmarks/fit_cost.py --threads 1
    python benchmarks/fit_cost.py --quick            # a smoke run

The tables and the settings of LightGBM are those of `real_auc.py`: one model per task,
which reads the category columns in its own way and stops early. Its table is converted
to the dtypes that it reads before the measurement; a fit of sk_pwiser includes the
encoding of the table. The models of a round alternate, in an order that differs between
the rounds, and the round is their seed. A ratio is the median over the rounds, followed
by the smallest and the largest.
"""

from functools import partial

import numpy as np
from _harness import begin, data_folder, interleave, make_parser
from _harness import processor_time as timed
from _peers import PerTask, peer
from _tables import load_tables
from real_auc import DATA
from sklearn.pipeline import Pipeline

from sk_pwiser import MultiTaskCTRCVRClassifier

LIGHTGBM = "LightGBM"
OWN = ("bce", "pwiser")


def prepared(X, y):
    """Return the table that LightGBM itself reads."""
    model = peer(LIGHTGBM)
    while isinstance(model, Pipeline):
        X, model = model[:-1].fit_transform(X, y), model[-1]
    return X


def fits(X, Y):
    """Return functions that fit the next seed and return the processor's seconds."""
    seeds = dict.fromkeys((LIGHTGBM, *OWN), -1)
    plain = prepared(X, Y.iloc[:, 0])

    def run(name):
        seed = seeds[name] = seeds[name] + 1
        if name == LIGHTGBM:
            model, table = peer(name, seed), plain
            while isinstance(model, Pipeline):
                model = model[-1]
            model = PerTask(model)
        else:
            table = X
            model = MultiTaskCTRCVRClassifier(loss=name, random_state=seed)
        return {"processor": timed(model.fit, table, Y)[0]}

    return {name: partial(run, name) for name in seeds}


def main():
    parser = make_parser(__doc__, rounds=5, device=False)
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    arguments, report = begin("fit_cost", parser, rounds=1, data=["hillstrom"])
    path = data_folder()
    report.text("", "Processor time of a default fit, over LightGBM's;")
    report.text("one thread each" if arguments.threads == 1 else "")
    report.table(["LightGBM", *OWN])
    medians = []
    for name in arguments.data:
        try:
            X, _, Y = load_tables(name, path)[:3]
        except (FileNotFoundError, ImportError) as error:
            report.text(f"{name} is left out: {error}")
            continue
        times = interleave(fits(X, Y), arguments.rounds, warm_ups=0)
        seconds = {k: parts["processor"] for k, parts in times.items()}
        ratios = [seconds[loss] / seconds[LIGHTGBM] for loss in OWN]
        medians.append(np.median(ratios, axis=1))
        cells = [f"{np.median(r):.2f} ({r.min():.2f}-{r.max():.2f})" for r in ratios]
        report.row(name, [f"{np.median(seconds[LIGHTGBM]):.2f} s", *cells])
    means = np.exp(np.mean(np.log(medians), axis=0))
    report.row("geometric mean", ["", *(f"{m:.2f}" for m in means)])
    largest = np.max(medians, axis=0)
    report.row("largest", ["", *(f"{m:.2f}" for m in largest)])
    report.save()


if __name__ == "__main__":
    main()
