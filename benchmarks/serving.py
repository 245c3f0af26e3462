"""Latency of requests: predict_proba, Scorer, ONNX Runtime, and gradient-boosted trees.

    python benchmarks/serving.py
    python benchmarks/serving.py --clock processor

Every program predicts click and conversion of the same requests, on one thread: of one
row, and of 100 candidates of one user, which share half of their fields. For each
request, all programs run in random order. The input of each program is given in
advance, and is not part of the time: a DataFrame for `predict_proba`; a dict of Python
values for `Scorer`, or a list of dicts and one of shared values; one array per column,
of text and numbers, for "ONNX, raw"; lists of values for CatBoost. "ONNX, encoded", a
bare call of ONNX Runtime, and LightGBM take encoded arrays, so that their time includes
no encoding. The networks are trained for one epoch, and the trees are two models, one
per task, which are not tuned: this is a comparison of latency alone. LightGBM and
CatBoost are left out if they are not installed.

The figures are medians (p50) and 99 % quantiles (p99) of the calls of all rounds. The
ratio is the median within a round over that of `Scorer`: the median over the rounds,
and the quartiles. On a machine with other load, `--clock processor` measures
the time on the processor in place of the time that passes, most of which then belongs
to other programs.
"""

import random
import tempfile
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
from _harness import begin, make_parser, quartiles
from _tables import SERVED, as_text, impressions

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.export import Scorer, to_onnx

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
NETWORKS = "shared_bottom", "mmoe", "esmm"
N_CANDIDATES = 100


def make_requests(X, n_requests, n_rows):
    """Return tables of `n_rows` rows that share every second column."""
    shared = X.columns[::2]
    requests = []
    for i in range(n_requests):
        rows = X.iloc[i * n_rows : (i + 1) * n_rows].copy()
        for name in shared:
            rows[name] = pd.Series(
                rows[name].iloc[[0] * n_rows].array, rows.index, rows[name].dtype
            )
        requests.append(rows)
    return requests, list(shared)


def make_session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options)


def raw_arrays(rows):
    """Return the values of rows as the graph takes them."""
    texts = {name: isinstance(rows[name].iloc[0], str) for name in rows}
    return {
        name: rows[[name]].to_numpy(object if is_text else np.float64)
        for name, is_text in texts.items()
    }


def as_dicts(rows, shared):
    """Return the arguments of a scorer: one row, or rows and what they share."""
    dicts = rows.astype(object).to_dict("records")
    if len(dicts) == 1:
        return dicts
    own = [{k: v for k, v in row.items() if k not in shared} for row in dicts]
    return own, {name: dicts[0][name] for name in shared}


def programs_of(model, kind, requests, shared):
    """Return functions of a request's number that predict with a fitted estimator."""
    encoded = [model.encode(rows) for rows in requests]
    arrays = [
        {"codes": e.codes.astype(np.int64), "numeric": e.numeric} for e in encoded
    ]
    raw = list(map(raw_arrays, requests))
    dicts = [as_dicts(rows, shared) for rows in requests]
    scorers = [Scorer(model, runtime=runtime) for runtime in ("onnx", "torch")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        to_onnx(model, path)
        session = make_session(path)
        to_onnx(model, path, inputs="raw")
        raw_session = make_session(path)
    programs = {
        "predict_proba": lambda i: model.predict_proba(requests[i]),
        "Scorer": lambda i: scorers[0](*dicts[i]),
        "Scorer, torch": lambda i: scorers[1](*dicts[i]),
        "ONNX, encoded": lambda i: session.run(None, arrays[i])[0],
        "ONNX, raw": lambda i: raw_session.run(None, raw[i])[0],
    }
    for i, rows in enumerate(requests):
        expected = model.predict_proba(rows)
        for program in programs.values():
            np.testing.assert_allclose(program(i), expected, rtol=0, atol=1e-6)
    return {f"{kind}: {name}": program for name, program in programs.items()}


def with_codes(X):
    """Return the table with the codes of category columns, and as numbers."""
    names = X.columns[X.dtypes == "category"]
    return X.assign(**{name: X[name].cat.codes for name in names}).to_numpy(float)


def fit_trees(X, Y, n_trees):
    """Return functions that make programs, of two models of trees each, of requests."""
    names = X.columns[X.dtypes == "category"]
    places = [X.columns.get_loc(name) for name in names]
    makers = {}
    with suppress(ImportError):
        from lightgbm import LGBMClassifier

        light = LGBMClassifier(n_estimators=n_trees, n_jobs=1, verbose=-1).fit
        used = with_codes(X)
        light = [light(used, y, categorical_feature=places)._Booster for y in Y.T]
        calls = [partial(model.predict, num_threads=1) for model in light]
        makers["LightGBM"] = partial(program, calls, with_codes)
    with suppress(ImportError):
        from catboost import CatBoostClassifier

        quiet = {"verbose": False, "allow_writing_files": False, "thread_count": 1}
        cat = [
            CatBoostClassifier(iterations=n_trees, **quiet).fit(
                as_text(X), y, cat_features=places
            )
            for y in Y.T
        ]
        calls = [partial(model.predict_proba, thread_count=1) for model in cat]
        makers["CatBoost"] = partial(
            program, calls, lambda rows: as_text(rows).to_numpy(object).tolist()
        )
    return makers


def program(calls, prepare, requests):
    """Return a function of a request's number that calls all models of a kind."""
    inputs = list(map(prepare, requests))
    return lambda i: [call(inputs[i]) for call in calls]


def measure(programs, n_calls, rounds, clock):
    """Return the seconds of each program's calls, of shape (rounds, n_calls)."""
    seconds = {name: np.empty((rounds, n_calls)) for name in programs}
    for name in programs:  # the first calls allocate memory
        for i in range(n_calls):
            programs[name](i)
    for turn in range(rounds):
        for i in range(n_calls):
            order = random.Random(turn * n_calls + i).sample([*programs], len(programs))
            for name in order:
                started = clock()
                programs[name](i)
                seconds[name][turn, i] = clock() - started
    return seconds


def main():
    parser = make_parser(__doc__, rounds=10, device=False)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.set_defaults(threads=1)
    arguments, report = begin("serving", parser, rounds=2)
    n_train, n_trees, n_calls = (500, 5, 3) if arguments.quick else (10_000, 100, 50)
    X, Y = impressions(n_train, *SERVED)
    models = {
        network: MultiTaskCTRCVRClassifier(
            network=network, max_epochs=1, device="cpu", random_state=0
        ).fit(X, Y)
        for network in NETWORKS
    }
    makers = fit_trees(X, Y, n_trees)
    for n_rows in (1, N_CANDIDATES):
        what = "one row" if n_rows == 1 else f"{n_rows} candidates of one user"
        requests, shared = make_requests(X, min(n_calls, n_train // n_rows), n_rows)
        programs = {}
        for network, model in models.items():
            programs |= programs_of(model, network, requests, shared)
        programs |= {name: make(requests) for name, make in makers.items()}
        clock = CLOCKS[arguments.clock]
        seconds = measure(programs, len(requests), arguments.rounds, clock)
        report.text(
            "",
            f"{what}: {len(SERVED[0])} category and {SERVED[1]} numeric columns, "
            f"{n_train:,} training rows, {n_trees} trees per task, "
            f"{arguments.rounds} rounds of {len(requests)} calls",
        )
        report.table(["p50 ms", "p99 ms", "p50 over that of Scorer"])
        scorer = np.median(seconds[f"{NETWORKS[0]}: Scorer"], axis=1)
        for name, calls in seconds.items():
            p50, p99 = np.quantile(calls, [0.5, 0.99]) * 1e3
            ratios = np.median(calls, axis=1) / scorer
            report.row(name, [f"{p50:.3f}", f"{p99:.3f}", quartiles(ratios, 2)])
        report.text(
            f"The times ({arguments.clock}) are p50 and p99; the ratios are to the "
            f"Scorer of {NETWORKS[0]}."
        )


if __name__ == "__main__":
    main()
