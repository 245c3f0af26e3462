"""Compare the losses on impressions: `python -m sk_pwiser`.

Fits on generated impressions and, with the environment variable SK_PWISER_DATA set to
a folder that holds KuaiRand-Pure, on real ones; prints the AUC of each task.
"""

import argparse
import os
import time

import numpy as np
from sklearn.model_selection import train_test_split

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand, make_ctr_cvr
from sk_pwiser.metrics import (
    ctcvr_auc_scorer,
    ctr_auc_scorer,
    cvr_auc_scorer,
    mean_log_loss_scorer,
)
from sk_pwiser.model_selection import funnel_depth

SCORERS = {
    "click AUC": ctr_auc_scorer,
    "conversion AUC": ctcvr_auc_scorer,
    "CVR AUC of clicks": cvr_auc_scorer,
    "log loss": mean_log_loss_scorer,
}


def generated():
    """Return train and test parts of generated impressions with noisy clicks."""
    bunch = make_ctr_cvr(60_000, ctr=0.2, cvr=0.2, click_noise=0.3, random_state=0)
    depth = funnel_depth(bunch.target)
    return train_test_split(
        bunch.data, bunch.target, test_size=0.5, stratify=depth, random_state=0
    )


def kuairand(path, second):
    """Return the train and test files of KuaiRand-Pure."""
    train, test = (
        load_kuairand(path, second, subset=subset) for subset in ("train", "test")
    )
    return train.data, test.data, train.target, test.target


def sources():
    """Yield a title and a function that returns the data, for each data set."""
    yield "generated impressions", generated
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        print("SK_PWISER_DATA is not set: no real impressions.")
        return
    for second in ("engage", "long"):
        yield f"KuaiRand, click and {second}", lambda s=second: kuairand(path, s)


def compare(title, load, seeds):
    """Fit with each loss and print a table of mean scores over the seeds."""
    X, X_test, Y, Y_test = load()
    tasks = ", ".join(f"{n} {r:.1%}" for n, r in zip(Y.columns, Y.mean(), strict=True))
    print(
        f"\n{title}: {len(X):,} rows to train on, {len(X_test):,} to test on; {tasks}"
    )
    rows = {}
    for loss in ("bce", "pwiser"):
        rows[loss] = []
        for seed in range(seeds):
            started = time.perf_counter()
            model = MultiTaskCTRCVRClassifier(loss=loss, random_state=seed).fit(X, Y)
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


def main():
    """Run the comparison."""
    parser = argparse.ArgumentParser(prog="python -m sk_pwiser", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="fits a loss (default 1)")
    arguments = parser.parse_args()
    for title, load in sources():
        compare(title, load, arguments.seeds)


if __name__ == "__main__":
    main()
