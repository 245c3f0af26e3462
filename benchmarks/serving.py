"""Latency of one row: predict_proba, Scorer, ONNX, and gradient-boosted trees.

    python benchmarks/serving.py
    python benchmarks/serving.py --clock processor
    python benchmarks/serving.py --quick

Every program predicts click and conversion of the same rows, one row per call, on one
thread. For each row, all programs run in random order. The input of each program is
given in advance, and is not part of the time: a DataFrame with one row for
`predict_proba`; a dict of Python values for `Scorer`; one array per column, of text and
numbers, for "ONNX, raw"; a list of values for CatBoost. "ONNX, encoded" and LightGBM
take encoded arrays, so that their time includes no encoding. The networks are trained
for one epoch, and the trees are two models, one per task, which are not tuned: this is
a comparison of latency alone.

The figures are medians (p50) and 99 % quantiles (p99) of the calls of all rounds. The
ratio is the median within a round over that of `Scorer`: the median over the rounds,
and the quartiles. On a machine with other load, `--clock processor` measures
the time on the processor in place of the time that passes, most of which then belongs
to other programs.
"""

import random
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
from _harness import begin, make_parser
from _tables import SERVED, impressions
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.export import Scorer, to_onnx

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
NETWORKS = "shared_bottom", "mmoe"


def make_session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def raw_arrays(row):
    """Return the values of a row as the graph takes them."""
    is_text = {name: isinstance(value, str) for name, value in row.items()}
    return {
        name: np.array([[value]], dtype=object if is_text[name] else np.float64)
        for name, value in row.items()
    }


def programs_of(model, name, X):
    """Return functions of a row's number that predict with a fitted estimator."""
    frames = [X.iloc[i : i + 1] for i in range(len(X))]
    rows = X.astype(object).to_dict("records")
    encoded = model.encode(X)
    codes, numeric = encoded.codes.astype(np.int64), encoded.numeric
    arrays = [
        {"codes": codes[i : i + 1], "numeric": numeric[i : i + 1]}
        for i in range(len(X))
    ]
    raw, scorer = list(map(raw_arrays, rows)), Scorer(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        to_onnx(model, path)
        session = make_session(path)
        to_onnx(model, path, inputs="raw")
        raw_session = make_session(path)
    programs = {
        "predict_proba": lambda i: model.predict_proba(frames[i]),
        "Scorer": lambda i: scorer(rows[i]),
        "ONNX, encoded": lambda i: session.run(None, arrays[i])[0],
        "ONNX, raw": lambda i: raw_session.run(None, raw[i])[0],
    }
    expected = model.predict_proba(X)
    for program in programs.values():
        found = np.vstack([program(i) for i in range(len(X))])
        np.testing.assert_allclose(found, expected, atol=1e-5)
    return {f"{name}: {kind}": program for kind, program in programs.items()}


def trees(X, Y, rows, n_trees):
    """Return functions of a row's number that predict with two models of trees."""
    names = list(X.columns[X.dtypes == "category"])
    codes = X.assign(**{name: X[name].cat.codes for name in names})
    values, used = X.astype(dict.fromkeys(names, str)), codes.to_numpy(float)
    places = [X.columns.get_loc(name) for name in names]
    light, cat = [], []
    quiet = {"verbose": False, "allow_writing_files": False}
    for y in Y.T:
        model = LGBMClassifier(n_estimators=n_trees, n_jobs=1, verbose=-1)
        light.append(model.fit(used, y, categorical_feature=places).booster_)
        model = CatBoostClassifier(iterations=n_trees, thread_count=1, **quiet)
        cat.append(model.fit(values, y, cat_features=places))
    lists = values.iloc[rows].to_numpy(object).tolist()
    arrays = [used[i : i + 1] for i in rows]
    return {
        "LightGBM": lambda i: [m.predict(arrays[i], num_threads=1) for m in light],
        "CatBoost": lambda i: [
            m.predict_proba([lists[i]], thread_count=1) for m in cat
        ],
    }


def measure(programs, n_rows, rounds, clock):
    """Return the seconds of each program's calls, of shape (rounds, n_rows)."""
    seconds = {name: np.empty((rounds, n_rows)) for name in programs}
    for name in programs:  # the first calls allocate memory
        for i in range(n_rows):
            programs[name](i)
    for turn in range(rounds):
        for i in range(n_rows):
            order = random.Random(turn * n_rows + i).sample([*programs], len(programs))
            for name in order:
                started = clock()
                programs[name](i)
                seconds[name][turn, i] = clock() - started
    return seconds


def main():
    parser = make_parser(__doc__, rounds=10, device=False)
    parser.add_argument("--rows", type=int, default=100, help="calls per round")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.set_defaults(threads=1)
    arguments, report = begin("serving", parser, rounds=2, rows=5)
    n_train, n_trees = (500, 5) if arguments.quick else (10_000, 100)
    X, Y = impressions(n_train, *SERVED)
    rows = np.arange(arguments.rows)
    programs = {}
    for network in NETWORKS:
        model = MultiTaskCTRCVRClassifier(
            network=network, max_epochs=1, device="cpu", random_state=0
        )
        programs |= programs_of(model.fit(X, Y), network, X.iloc[rows])
    programs |= trees(X, Y, rows, n_trees)
    seconds = measure(programs, len(rows), arguments.rounds, CLOCKS[arguments.clock])
    report.section(
        f"{len(SERVED[0])} category and {SERVED[1]} numeric columns, "
        f"{n_train:,} training rows, {n_trees} trees per task, "
        f"{arguments.rounds} rounds of {len(rows)} calls",
        "p50 over that of Scorer",
    )
    scorer = np.median(seconds[f"{NETWORKS[0]}: Scorer"], axis=1)
    for name, calls in seconds.items():
        p50, p99 = np.quantile(calls, [0.5, 0.99]) * 1e3
        ratios = np.median(calls, axis=1) / scorer
        report.line(name, ratios, absolute=f"{p50:.2f}, {p99:.2f} ms")
    report.note(
        f"The times ({arguments.clock}) are p50 and p99; the ratios are to the Scorer "
        f"of {NETWORKS[0]}."
    )
    report.save()


if __name__ == "__main__":
    main()
