"""How much do more rows buy? Fits on 10^5, 10^6 and 10^7 rows whose truth is known.

    pip install ".[benchmark]"
    python benchmarks/large_log.py --save
    TMPDIR=/disk/with/space python benchmarks/large_log.py --rows 1e6 1e7

A generated log (`make_ctr_cvr`) is written to Parquet files of 10^6 rows: 8 numbers and
6 text categories with 100 to 10^6 values, 2 % of clicks and 0.1 % of conversions, the
only signal of most values being their own events. Each model is fitted in a new process
on the first rows of the log: this package with its defaults on the files themselves,
LightGBM on the rows in memory, with small leaves and scikit-learn's TargetEncoder.
Neither has a setting for the size. One seed: on 10^7 rows the fits of several seeds
would differ by less than what the rows buy.

All are measured on the same further rows (5 * 10^5) of the log, against the true
probabilities, which no model reaches. "AUC" is that of the true probabilities of an
event or none in each row, "less" its difference to the AUC of the truth. "excess" is
the mean divergence of the predictions from the truth, which is what the log loss has
above that of the truth, in 10^-5. "pred/obs" is the mean prediction over the mean true
probability. "memory" is the peak of the process above its imports, "seconds" are those
of all processors.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from _harness import (
    MIB,
    begin,
    count,
    expected_auc,
    expected_log_loss,
    in_fresh_process,
    make_parser,
    peak_bytes,
)
from _peers import SMALL, peer_models

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr

TARGETS = ["click", "conversion"]
SIZES = [100, 1_000, 10_000, 100_000, 300_000, 1_000_000]
CTR, CVR = 0.02, 0.05
N_TEST = 500_000
FILE_ROWS = 1_000_000
# Both columns of a model's figures, for each task.
FIGURES = ["AUC", "less", "excess", "pred/obs"]
LIGHTGBM = f"LightGBM, TargetEncoder, {SMALL}"


def write_log(folder, n_rows, n_test):
    """Write the rows in files of at most `FILE_ROWS`, and the test rows with the truth.

    The test rows are the first ones of a shuffled log, so that every number of training
    rows has the same.
    """
    log = make_ctr_cvr(
        n_test + n_rows,
        n_categorical=len(SIZES),
        n_categories=SIZES,
        ctr=CTR,
        cvr=CVR,
        random_state=0,
    )
    X = log.data
    numbers = X.columns.difference(categories_of(X), sort=False)
    X[numbers] = X[numbers].astype(np.float32)
    truth = np.column_stack([log.ctr, log.ctr * log.cvr])
    np.save(folder / "truth.npy", truth[:n_test])
    write_part(folder / "test.parquet", X[:n_test], log.target[:n_test])
    train = folder / "train"
    train.mkdir()
    for number, start in enumerate(range(n_test, n_test + n_rows, FILE_ROWS)):
        rows = slice(start, min(start + FILE_ROWS, n_test + n_rows))
        write_part(train / f"part-{number:05d}.parquet", X[rows], log.target[rows])


def categories_of(X):
    return [name for name in X if isinstance(X[name].dtype, pd.CategoricalDtype)]


def write_part(path, X, Y):
    """Write rows; the categories are texts, as in logs."""
    columns = {
        name: pa.array(X[name].astype(str) if name in categories_of(X) else X[name])
        for name in X
    }
    columns |= {task: pa.array(Y[task].astype(np.int8)) for task in TARGETS}
    pq.write_table(pa.table(columns), path, row_group_size=FILE_ROWS // 10)


def first_rows(folder, n_rows):
    """Return the first rows of the log as a folder of files."""
    whole = Path(folder) / "train"
    part = Path(folder) / f"train-{n_rows}"
    if not part.exists():
        part.mkdir()
        for file in sorted(whole.iterdir()):
            rows = pq.read_table(file).slice(0, n_rows)
            pq.write_table(rows, part / file.name, row_group_size=FILE_ROWS // 10)
            n_rows -= len(rows)
            if n_rows <= 0:
                break
    return part


def features_of(folder):
    return [
        name
        for name in pq.read_schema(Path(folder) / "test.parquet").names
        if name not in TARGETS
    ]


def fit_own(folder, rows):
    """Fit this package to files; return the predictions, seconds and bytes."""
    features = features_of(folder)
    test = pq.read_table(Path(folder) / "test.parquet", columns=features)
    with tempfile.TemporaryDirectory() as cache:
        before, started = peak_bytes(), time.process_time()
        log = ParquetImpressions(rows, features, TARGETS, cache_dir=cache)
        model = MultiTaskCTRCVRClassifier(random_state=0).fit(log)
        seconds, peak = time.process_time() - started, peak_bytes()
    p = model.predict_proba(test.to_pandas())
    return p, seconds, peak - before, model.n_iter_


def fit_lightgbm(folder, rows):
    """Fit LightGBM to rows in memory; return the predictions, seconds and bytes."""
    features = features_of(folder)
    [model] = peer_models(LIGHTGBM, [0])
    before, started = peak_bytes(), time.process_time()
    table = pq.read_table(rows, columns=[*features, *TARGETS]).to_pandas()
    texts = table.select_dtypes(exclude="number").columns
    categories = {name: table[name].astype("category").dtype for name in texts}
    X = table[features].astype(categories)
    model.fit(X, table[TARGETS])
    seconds, peak = time.process_time() - started, peak_bytes()
    test = pq.read_table(Path(folder) / "test.parquet", columns=features).to_pandas()
    return model.predict_proba(test.astype(categories)), seconds, peak - before, np.nan


MODELS = {"sk_pwiser": fit_own, LIGHTGBM: fit_lightgbm}


def figures_of(truth, p):
    """Return the figures of one task."""
    best = expected_auc(truth, truth)
    auc = expected_auc(truth, p)
    excess = expected_log_loss(truth, p) - expected_log_loss(truth, truth)
    return [
        f"{auc:.4f}",
        f"{auc - best:+.4f}",
        f"{1e5 * excess:.2f}",
        f"{p.mean() / truth.mean():.3f}",
    ]


def main():
    parser = make_parser(__doc__, device=False, models=MODELS)
    sizes = [10**5, 10**6, 10**7]
    parser.add_argument("--rows", type=count, nargs="+", default=sizes)
    quick = {"rows": [10_000, 20_000], "models": ["sk_pwiser"]}
    arguments, report = begin("large_log", parser, **quick)
    n_test = 20_000 if arguments.quick else N_TEST
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In a process of its own, whose memory is given back.
        largest = max(arguments.rows)
        in_fresh_process(write_log, folder, largest, n_test, threads=1)
        truth = np.load(folder / "truth.npy")
        report.text(
            "",
            f"{n_test:,} test rows; true AUC: "
            + ", ".join(
                f"{task} {expected_auc(values, values):.4f}"
                for task, values in zip(TARGETS, truth.T, strict=True)
            ),
        )
        titles = [f"{task} {figure}" for task in TARGETS for figure in FIGURES]
        report.table([*titles, "seconds", "memory, MiB", "epochs"])
        for n_rows in arguments.rows:
            rows = first_rows(folder, n_rows)
            report.text(f"{n_rows:,} rows")
            for model in arguments.models:
                p, seconds, n_bytes, epochs = in_fresh_process(
                    MODELS[model], folder, rows, threads=arguments.threads
                )
                tasks = zip(truth.T, np.asarray(p, dtype=float).T, strict=True)
                cells = [cell for pair in tasks for cell in figures_of(*pair)]
                cells += [f"{seconds:,.0f}", f"{n_bytes / MIB:,.0f}"]
                cells += ["" if np.isnan(epochs) else f"{epochs:.0f}"]
                report.row(model, cells)


if __name__ == "__main__":
    main()
