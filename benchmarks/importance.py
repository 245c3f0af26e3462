"""Seconds of `task_importances` and of scikit-learn's `permutation_importance`.

    python benchmarks/importance.py
    python benchmarks/importance.py --rows 1000 5000

Both compute the AUC of two tasks for the same permutations of 20 numeric and 20
category columns of generated impressions. scikit-learn's function takes both scorers in
one call, so that they share their predictions. The runs alternate. A figure is the time
on the processor, of one thread; "difference" is the largest difference between the
importances.
"""

import numpy as np
from _harness import at_least, begin, count, make_parser, processor_time
from sklearn.inspection import permutation_importance

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import task_importances
from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer

SCORERS = {"click": ctr_auc_scorer, "conversion": ctcvr_auc_scorer}
COLUMNS = {"n_numeric": 20, "n_categorical": 20}
RATES = {"ctr": 0.2, "cvr": 0.2}
TARGET = at_least(2)


def by_sk_pwiser(model, X, Y, n_repeats):
    options = {"n_repeats": n_repeats, "random_state": 0}
    return task_importances(model, X, Y, **options).importances


def by_scikit_learn(model, X, Y, n_repeats):
    options = {"n_repeats": n_repeats, "random_state": 0}
    found = permutation_importance(model, X, Y, scoring=SCORERS, **options)
    return np.stack([each.importances for each in found.values()], axis=1)


def main():
    parser = make_parser(__doc__, rounds=3, device=False)
    parser.add_argument("--rows", type=count, nargs="+", default=[1_000, 5_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.set_defaults(threads=1)
    arguments, report = begin("importance", parser, rounds=1, rows=[300], repeats=2)
    n_rows = max([10_000, *arguments.rows])
    data = make_ctr_cvr(n_rows, **COLUMNS, **RATES, random_state=0)
    X, Y = data.data, data.target
    model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0).fit(X, Y)
    report.section(
        f"{X.shape[1]} columns, 2 tasks, {arguments.repeats} repeats: seconds of "
        "permutation_importance",
        "over task_importances",
    )
    for n in arguments.rows:
        rows = model, X[:n], Y[:n], arguments.repeats
        times = []
        for _ in range(arguments.rounds):
            own, found = processor_time(by_sk_pwiser, *rows)
            theirs, expected = processor_time(by_scikit_learn, *rows)
            times.append((own, theirs))
        own, theirs = np.transpose(times)
        report.line(
            f"{n:,} rows",
            theirs / own,
            absolute=f"{np.median(own):.2f}, {np.median(theirs):.2f} s",
            target=TARGET,
        )
        report.text(f"difference {np.abs(found - expected).max():.0e}")
    report.text("The seconds are those of task_importances and permutation_importance.")
    report.save()


if __name__ == "__main__":
    main()
