"""Seconds of `task_importances` and of scikit-learn's `permutation_importance`.

    python benchmarks/importance.py

Both compute the AUC of two tasks for the same permutations of 20 numeric and 20
category columns of generated impressions. scikit-learn's function takes both scorers in
one call, so that they share their predictions. The runs alternate. A figure is the time
on the processor, of one thread; "difference" is the largest difference between the
importances.
"""

import numpy as np
from _harness import at_least, begin, make_parser, processor_time, quartiles
from sklearn.inspection import permutation_importance

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import task_importances
from sk_pwiser.metrics import ctcvr_auc_scorer, ctr_auc_scorer

SCORERS = {"click": ctr_auc_scorer, "conversion": ctcvr_auc_scorer}
COLUMNS = {"n_numeric": 20, "n_categorical": 20}
RATES = {"ctr": 0.2, "cvr": 0.2}


def by_sk_pwiser(model, X, Y, **options):
    return task_importances(model, X, Y, **options).importances


def by_scikit_learn(model, X, Y, **options):
    found = permutation_importance(model, X, Y, scoring=SCORERS, **options)
    return np.stack([each.importances for each in found.values()], axis=1)


def main():
    parser = make_parser(__doc__, rounds=3, device=False)
    parser.set_defaults(threads=1)
    arguments, report = begin("importance", parser, rounds=1)
    sizes, n_repeats = ([300], 2) if arguments.quick else ([1_000, 5_000], 5)
    options = {"n_repeats": n_repeats, "random_state": 0}
    data = make_ctr_cvr(10_000, **COLUMNS, **RATES, random_state=0)
    X, Y = data.data, data.target
    model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0).fit(X, Y)
    report.text(
        "",
        f"{X.shape[1]} columns, 2 tasks, {n_repeats} repeats: seconds of "
        "permutation_importance",
    )
    columns = ["s", "s, permutation_importance", "over task_importances", ""]
    report.table(columns)
    differences = []
    for n in sizes:
        rows, times = (model, X[:n], Y[:n]), []
        for _ in range(arguments.rounds):
            own, found = processor_time(by_sk_pwiser, *rows, **options)
            theirs, expected = processor_time(by_scikit_learn, *rows, **options)
            times.append((own, theirs))
        own, theirs = np.transpose(times)
        seconds = [f"{np.median(times):.2f}" for times in (own, theirs)]
        verdict = at_least(2).verdict(np.median(theirs / own))
        report.row(f"{n:,} rows", [*seconds, quartiles(theirs / own, 2), verdict])
        differences.append(np.abs(found - expected).max())
    report.text(f"The largest difference is {max(differences):.0e}.")


if __name__ == "__main__":
    main()
