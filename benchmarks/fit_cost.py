"""Processor time of default fits on real tables, relative to LightGBM's.

    pip install ".[benchmark]"
    SK_PWISER_DATA=/path/to/data python benchmarks/fit_cost.py --threads 1

The tables and the settings of LightGBM are those of `real_auc.py`: one model per task,
which reads the category columns in its own way and stops early. Its table is converted
to the dtypes that it reads before the measurement; a fit of sk_pwiser includes the
encoding of the table. The models of a round alternate, in an order that differs between
the rounds, and the round is their seed. A ratio is the median over the rounds, followed
by the smallest and the largest.
"""

from functools import partial
from itertools import count

import numpy as np
from _harness import begin, data_folder, interleave, make_parser, processor_time
from _peers import PerTask, peer
from _tables import read_tables
from real_auc import DATA
from scipy.stats import gmean

from sk_pwiser import MultiTaskCTRCVRClassifier

LIGHTGBM = "LightGBM"
OWN = ("bce", "pwiser")


def fits(X, Y):
    """Return functions that fit the next seed and return the processor's seconds."""
    seeds = {name: count() for name in (LIGHTGBM, *OWN)}
    # The steps before the last ones make the table that LightGBM itself reads.
    before, (within, _) = peer(LIGHTGBM)
    plain = within.fit_transform(before.fit_transform(X), Y.iloc[:, 0])

    def run(name):
        seed, table = next(seeds[name]), X
        if name == LIGHTGBM:
            model, table = PerTask(peer(name, seed)[-1][-1]), plain
        else:
            model = MultiTaskCTRCVRClassifier(loss=name, random_state=seed)
        return {"processor": processor_time(model.fit, table, Y)[0]}

    return {name: partial(run, name) for name in seeds}


def main():
    parser = make_parser(__doc__, rounds=5, device=False, data=DATA)
    arguments, report = begin("fit_cost", parser, rounds=1, data=["hillstrom"])
    data_folder()  # exits without it
    report.text("", "Processor time of a default fit, over LightGBM's;")
    report.text("one thread each" if arguments.threads == 1 else "")
    report.table(["LightGBM", *OWN])
    medians = []
    for name, tables in read_tables(report, arguments.data):
        runs = fits(tables.X, tables.Y)
        times = interleave(runs, arguments.rounds, warm_ups=0)
        seconds = {k: parts["processor"] for k, parts in times.items()}
        ratios = [seconds[loss] / seconds[LIGHTGBM] for loss in OWN]
        medians.append(np.median(ratios, axis=1))
        cells = [f"{np.median(r):.2f} ({r.min():.2f}-{r.max():.2f})" for r in ratios]
        report.row(name, [f"{np.median(seconds[LIGHTGBM]):.2f} s", *cells])
    for label, of_tables in {"geometric mean": gmean, "largest": np.max}.items():
        report.row(label, ["", *(f"{r:.2f}" for r in of_tables(medians, axis=0))])


if __name__ == "__main__":
    main()
