"""Compare the losses on impressions: `python -m sk_pwiser`.

Fits the estimator with "bce" and "pwiser" on generated impressions and, if the
environment variable SK_PWISER_DATA names a folder with KuaiRand-Pure, on real ones.
Prints the AUC of each task.
"""

import argparse
import os
import time

import numpy as np

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand, make_ctr_cvr
from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    mean_log_loss_scorer,
)
from sk_pwiser.model_selection import funnel_holdout

LOSSES = ("bce", "pwiser")
SCORERS = {
    "click AUC": ctr_auc_scorer,
    "conversion AUC": ctcvr_auc_scorer,
    "CVR AUC of clicks": cvr_auc_scorer,
    "log loss": mean_log_loss_scorer,
}


def generated():
    """Return training and test parts of generated impressions with noisy clicks."""
    bunch = make_ctr_cvr(60_000, ctr=0.2, cvr=0.2, click_noise=0.3, random_state=0)
    train, test = funnel_holdout(bunch.target, test_size=0.5, random_state=0)
    X, Y = bunch.data, bunch.target
    return X.iloc[train], X.iloc[test], Y.iloc[train], Y.iloc[test]


def kuairand(path, second):
    """Return the training and test rows of KuaiRand-Pure."""
    train, test = (
        load_kuairand(path, second, subset=subset) for subset in ("train", "test")
    )
    return train.data, test.data, train.target, test.target


def sources():
    """Yield a title and a function that returns the data, for each data set."""
    yield "generated impressions", generated
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        print("\nSK_PWISER_DATA is not set, so real impressions are left out.")
        return
    for second in ("engage", "long"):
        yield f"KuaiRand, click and {second}", lambda s=second: kuairand(path, s)


def compare(title, load, seeds, params):
    """Fit with each loss and print the mean scores over the seeds as a table."""
    X, X_test, Y, Y_test = load()
    rates = ", ".join(f"{n} {r:.1%}" for n, r in zip(Y.columns, Y.mean(), strict=True))
    print(f"\n{title}: {len(X):,} training rows, {len(X_test):,} test rows; {rates}")
    rows = {}
    for loss in LOSSES:
        rows[loss] = []
        for seed in range(seeds):
            started = time.perf_counter()
            model = MultiTaskCTRCVRClassifier(loss=loss, random_state=seed, **params)
            model.fit(X, Y)
            seconds = time.perf_counter() - started
            print(
                f"  {loss}, seed {seed}: {model.n_iter_} epochs in {seconds:.1f} s",
                flush=True,
            )
            scores = [scorer(model, X_test, Y_test) for scorer in SCORERS.values()]
            rows[loss].append([*scores, seconds])
    print(f"{'loss':<8}" + "".join(f"{name:>19}" for name in [*SCORERS, "seconds"]))
    for loss, scores in rows.items():
        *means, log_loss, seconds = np.mean(scores, axis=0)
        means = "".join(f"{mean:>19.4f}" for mean in [*means, -log_loss])
        print(f"{loss:<8}{means}{seconds:>19.1f}", flush=True)


def main(argv=None):
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        prog="python -m sk_pwiser",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="number of fits per loss (default: 1)"
    )
    parser.add_argument(
        "--max-epochs", type=int, help="epochs per fit (default: that of the estimator)"
    )
    arguments = parser.parse_args(argv)
    params = {}
    if arguments.max_epochs is not None:
        params["max_epochs"] = arguments.max_epochs
    for title, load in sources():
        compare(title, load, arguments.seeds, params)


if __name__ == "__main__":
    main()
