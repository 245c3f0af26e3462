"""Compare losses on impressions: `python -m sk_pwiser`.

Cross-validates the estimator with "bce" and "pwiser" on the same folds and with the
same seeds: on generated impressions and, if the environment variable SK_PWISER_DATA
names a folder with KuaiRand-Pure, on real ones; with --data, on a file instead. Prints
a table of the differences with 95 % intervals, and a verdict for each metric.
"""

import argparse
import os
import time
from pathlib import Path

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import load_kuairand, make_ctr_cvr
from sk_pwiser.model_selection import compare_losses

LOSSES = ("bce", "pwiser")


def main(argv=None):
    """Run the comparison."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if (arguments.data is None) != (arguments.targets is None):
        parser.error("--data and --targets must be given together")
    if arguments.data is None and arguments.categorical:
        parser.error("--categorical must be given with --data")
    if arguments.folds < 2:
        parser.error(f"--folds must be an int >= 2, got {arguments.folds}")
    if arguments.data is None:
        sources = example_sources()
    else:
        try:
            X, Y = read(arguments.data, arguments.targets, arguments.categorical)
        except (ImportError, OSError, ValueError) as error:
            parser.error(str(error))
        sources = [(arguments.data.name, lambda: (X, Y))]
    for title, load in sources:
        compare(title, *load(), arguments)


def make_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sk_pwiser",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data",
        type=Path,
        metavar="FILE",
        help="a CSV or Parquet file of impressions, instead of the examples",
    )
    add(
        "--targets",
        nargs="+",
        metavar="COLUMN",
        help="columns of the file that hold the labels 0 and 1, in funnel order, "
        "for example: click conversion",
    )
    add(
        "--categorical",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="columns of the file to treat as categories; text columns always are",
    )
    add(
        "--weights",
        nargs="+",
        type=float,
        metavar="WEIGHT",
        help="values of pwiser_weight to compare (default: that of the estimator)",
    )
    add("--folds", type=int, default=5, help="number of folds (default: 5)")
    add("--seed", type=int, default=0, help="seed of folds and fits (default: 0)")
    add(
        "--jobs",
        type=int,
        default=-1,
        help="number of parallel fits (default: -1, one per processor)",
    )
    add(
        "--max-epochs",
        type=int,
        help="largest number of epochs per fit (default: that of the estimator)",
    )
    return parser


def example_sources():
    """Yield a title and a function that returns X and Y, for each data set."""
    yield "generated impressions", generated
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        print("\nSK_PWISER_DATA is not set, so real impressions are left out.")
        return
    for second in ("engage", "long"):
        yield f"KuaiRand, click and {second}", lambda s=second: kuairand(path, s)


def generated():
    """Return generated impressions with noisy clicks."""
    bunch = make_ctr_cvr(50_000, ctr=0.2, cvr=0.2, click_noise=0.3, random_state=0)
    return bunch.data, bunch.target


def kuairand(path, second):
    """Return the training rows of KuaiRand-Pure."""
    bunch = load_kuairand(path, second, subset="train")
    return bunch.data, bunch.target


def read(path, targets, categorical):
    """Return the features and the labels in a CSV or Parquet file.

    Parameters
    ----------
    path : Path
        The file; its suffix is .csv, .csv.gz or .parquet.
    targets : list of str
        Columns of the labels.
    categorical : list of str
        Columns to convert to categories.

    Returns
    -------
    X, Y : DataFrame
        The other columns, and the columns of the labels.

    Raises
    ------
    ImportError
        If pandas is not installed.
    OSError
        If the file cannot be read.
    ValueError
        If the file has another suffix or lacks a column.
    """
    try:
        import pandas as pd
    except ImportError as error:
        message = '--data needs pandas: pip install "sk_pwiser[pandas]"'
        raise ImportError(message) from error
    if path.name.endswith((".csv", ".csv.gz")):
        frame = pd.read_csv(path)
    elif path.suffix == ".parquet":
        frame = pd.read_parquet(path)
    else:
        raise ValueError(f"--data must end in .csv, .csv.gz or .parquet, got {path}")
    for option, columns in (("--targets", targets), ("--categorical", categorical)):
        if missing := [name for name in columns if name not in frame.columns]:
            raise ValueError(
                f"{option} must name columns of {path.name}, got {missing}; its "
                f"columns are {list(frame.columns)}"
            )
    X = frame.drop(columns=targets)
    return X.astype(dict.fromkeys(categorical, "category")), frame[targets]


def compare(title, X, Y, arguments):
    """Compare the losses on one data set and print the result."""
    rates = ", ".join(f"{n} {r:.2%}" for n, r in zip(Y.columns, Y.mean(), strict=True))
    print(
        f"\n{title}: {len(X):,} rows, {X.shape[1]} features; {rates}\n"
        f"{arguments.folds} folds stratified by funnel depth, seed {arguments.seed}",
        flush=True,
    )
    model = MultiTaskCTRCVRClassifier()
    if arguments.max_epochs is not None:
        model.set_params(max_epochs=arguments.max_epochs)
    started = time.perf_counter()
    comparison = compare_losses(
        model,
        X,
        Y,
        losses=LOSSES,
        weights=arguments.weights,
        cv=arguments.folds,
        n_jobs=arguments.jobs,
        verbose=1,
        random_state=arguments.seed,
    )
    print(comparison)
    print(
        f"Seeds of the folds: {comparison.seeds.tolist()}. "
        f"{time.perf_counter() - started:.0f} s, "
        f"{comparison.fit_times.mean():.1f} s per fit.",
        flush=True,
    )


if __name__ == "__main__":
    main()
