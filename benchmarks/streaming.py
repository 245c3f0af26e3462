"""Memory, speed and AUC of training on Parquet files that are larger than memory.

    python benchmarks/streaming.py                        # 2 * 10^7 rows
    TMPDIR=/disk/with/space python benchmarks/streaming.py --rows 1e8

A log of `--rows` rows is written to a temporary folder, in files of at most 10^6 rows.
It has 60 features: 40 numbers, and 20 text categories with 100 to 10^6 values. The
printed sizes belong to the log that was written, all files together.

- **The whole log.** A new process trains one epoch on it. "peak memory" is the largest
  resident memory of that process, and "above imports" its part that came after all
  imports. "as a table" is the memory that the rows take as an Arrow table.
- **A part that fits** (10^6 rows, the first file). A fit on the files and a fit on
  the same rows in memory, reading included, alternate; each trains one epoch. "rows /
  s" is the number of rows over the time of the whole fit, in relation to the fit in
  memory. "AUC" is the difference of the AUC on further rows, with mean and standard
  deviation over seeds.

Apart from its epoch, a fit on files spends its time on the two passes that learn the
columns and encode the rows.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from _harness import (
    MIB,
    aucs,
    begin,
    count,
    in_fresh_process,
    interleave,
    make_parser,
    peak_bytes,
)

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions

N_NUMERIC = 40
SIZES = [100] * 8 + [1_000] * 4 + [10_000] * 4 + [100_000] * 2 + [1_000_000] * 2
FEATURES = [
    *(f"number_{k}" for k in range(N_NUMERIC)),
    *(f"category_{k}" for k in range(len(SIZES))),
]
TARGETS = ["click", "conversion"]
FILE_ROWS, QUICK_FILE_ROWS = 1_000_000, 20_000


def make_rows(n_rows, seed):
    """Return an Arrow table; some numbers and categories decide on the labels."""
    generator = np.random.default_rng(seed)
    columns, logits = {}, np.zeros((2, n_rows))
    for k in range(N_NUMERIC):
        values = generator.normal(size=n_rows).astype(np.float32)
        logits += 0.2 * values if k < 8 else 0
        columns[f"number_{k}"] = values
    for k, size in enumerate(SIZES):
        codes = (size * generator.random(n_rows) ** 3).astype(np.int64)
        effects = np.random.default_rng(k).normal(0, 0.4, size=(2, size))
        logits += effects[:, codes]
        columns[f"category_{k}"] = pa.array(codes).cast(pa.string())
    chances = 1 / (1 + np.exp([[3.0], [2.0]] - logits))
    happened = generator.random((2, n_rows)) < chances
    columns["click"] = happened[0].astype(np.int8)
    columns["conversion"] = (happened[0] & happened[1]).astype(np.int8)
    return pa.table(columns)


def write_log(folder, n_rows, file_rows):
    """Write files; return the bytes of the files, and of the rows as Arrow tables."""
    folder.mkdir()
    in_files = as_table = 0
    for number, first in enumerate(range(0, n_rows, file_rows)):
        table = make_rows(min(file_rows, n_rows - first), number)
        path = folder / f"part-{number:05d}.parquet"
        pq.write_table(table, path, row_group_size=file_rows // 10)
        in_files += path.stat().st_size
        as_table += table.nbytes
    return in_files, as_table


def make_model(seed):
    return MultiTaskCTRCVRClassifier(
        loss="bce",
        batch_size=2_048,
        max_epochs=1,
        early_stopping=False,
        random_state=seed,
    )


def fit_whole(folder, cache):
    """Train on all files; return the peak of memory, before and after, and seconds."""
    before, started = peak_bytes(), time.perf_counter()
    log = ParquetImpressions(folder, FEATURES, TARGETS, cache_dir=cache)
    model = make_model(0).fit(log)
    seconds = time.perf_counter() - started
    return before, peak_bytes(), seconds, model.history_[-1, "dur"]


def fit_files(paths, cache, seed=0):
    log = ParquetImpressions(paths, FEATURES, TARGETS, cache_dir=cache)
    return make_model(seed).fit(log)


def fit_memory(paths, seed=0):
    table = pq.read_table(*paths)
    Y = table.select(TARGETS).to_pandas()
    return make_model(seed).fit(table.select(FEATURES), Y)


def report_whole(report, arguments, folder, cache, as_table):
    before, peak, seconds, epoch = in_fresh_process(
        fit_whole, str(folder), str(cache), threads=arguments.threads
    )
    report.section(f"the whole log, {arguments.rows:,} rows, one epoch", "of the table")
    for what, n_bytes in (
        ("as a table", as_table),
        ("peak memory", peak),
        ("peak memory, above imports", peak - before),
    ):
        absolute = f"{n_bytes / MIB:,.0f} MiB"
        report.line(what, [n_bytes / as_table], absolute=absolute)
    report.line("rows / s, whole fit", absolute=f"{arguments.rows / seconds:,.0f}")
    report.line("share of the epoch in the time", [epoch / seconds])


def report_part(report, arguments, folder, cache, test):
    paths = [str(min(folder.iterdir()))]
    n_rows = pq.read_metadata(*paths).num_rows
    runs = {
        "files": lambda: fit_files(paths, cache) and None,
        "memory": lambda: fit_memory(paths) and None,
    }
    times = interleave(runs, arguments.rounds, warm_ups=0)
    report.section(f"a part that fits, {n_rows:,} rows", "of the fit in memory")
    own, other = times["files"]["all"], times["memory"]["all"]
    absolute = f"{n_rows / np.median(own):,.0f}"
    report.line("rows / s, fit on files", other / own, absolute=absolute)
    X, Y = test.select(FEATURES), test.select(TARGETS).to_pandas()
    differences = []
    for seed in range(arguments.seeds):
        models = fit_files(paths, cache, seed), fit_memory(paths, seed)
        pair = [aucs(Y, model.predict_proba(X)) for model in models]
        differences.append(np.subtract(*pair))
    for task, values in zip(TARGETS, np.transpose(differences), strict=True):
        text = f"{values.mean():+.4f} +- {values.std():.4f}"
        report.line(f"AUC of {task}, minus that in memory", absolute=text)


def main():
    parser = make_parser(__doc__, rounds=3, seeds=3, device=False)
    parser.add_argument("--rows", type=count, default=2 * 10**7)
    quick = {"rows": 60_000, "rounds": 1, "seeds": 1}
    arguments, report = begin("streaming", parser, **quick)
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "log", Path(name) / "cache"
        cache.mkdir()
        file_rows = QUICK_FILE_ROWS if arguments.quick else FILE_ROWS
        on_disk, as_table = write_log(folder, arguments.rows, file_rows)
        report.section("the log")
        report.line("rows", absolute=f"{arguments.rows:,}")
        report.line("Parquet files", absolute=f"{on_disk / MIB:,.0f} MiB")
        report_whole(report, arguments, folder, cache, as_table)
        test = make_rows(file_rows, seed=10**6)
        report_part(report, arguments, folder, cache, test)


if __name__ == "__main__":
    main()
