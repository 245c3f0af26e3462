"""Compares the results of forty configurations between two trees, to the bit.

    python tests/same_results.py --save before.json
    python tests/same_results.py --compare before.json

Digests depend on the build of torch and on the processor: both calls must run on one
machine.
"""

import argparse
import hashlib
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.linear_model import MultiTaskSparseLinear
from sk_pwiser.transfer import distill, fine_tune, merge_estimators

N_ROWS, N_TRAIN = 900, 700
SMALL_UNITS = {"bottom_units": (8,), "tower_units": (4,)}


def make_log():
    """Return rows with text, numbers and times, and their labels."""
    data = make_ctr_cvr(N_ROWS, ctr=0.4, cvr=0.4, n_categories=12, random_state=0)
    rng = np.random.default_rng(0)
    rows = data.data.assign(user=[f"u{i}" for i in rng.integers(0, 120, N_ROWS)])
    rows.loc[::7, "numeric_0"] = np.nan
    return rows, data.target


X, Y = make_log()
TRAIN, LATER = slice(0, N_TRAIN), slice(N_TRAIN, N_ROWS)
WEIGHTS = np.random.default_rng(1).random((N_TRAIN, 2)) + 0.5
GROUPS = np.arange(N_TRAIN) // 5
TIMED = X.assign(time=np.arange(N_ROWS))
BY_TIME = {"encoding_params": {"time_column": "time"}, "early_stopping": True}


def with_lists():
    """Return rows with a list column that shares the vocabulary of the users."""
    rng = np.random.default_rng(2)
    lists = [[f"u{i}" for i in rng.integers(0, 120, k % 4)] for k in range(N_ROWS)]
    return X.assign(last=lists)


def estimator(**params):
    """Return an estimator of two epochs."""
    defaults = {
        "batch_size": 200,
        "max_epochs": 2,
        "early_stopping": False,
        "random_state": 0,
    }
    return MultiTaskCTRCVRClassifier(**{**defaults, **params})


def digest(values):
    """Return the SHA-256 of an array's shape, dtype and bytes, or of JSON."""
    if isinstance(values, np.ndarray):
        values = np.ascontiguousarray(values)
        content = f"{values.shape} {values.dtype}".encode() + values.tobytes()
    else:
        content = json.dumps(values, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def results_of(model, rows=None):
    """Return the predictions of later rows, and the losses of all epochs."""
    rows = X[LATER] if rows is None else rows
    results = {"predictions": model.predict_proba(rows)}
    if hasattr(model, "history_"):
        results["losses"] = [
            {key: float(row[key]) for key in sorted(row) if "loss" in key}
            for row in model.history_
        ]
    return results


def fitted(table=X, labels=Y, fit_params=None, **params):
    """Fit a model to the first rows, and return its results on the later ones."""
    model = estimator(**params).fit(table[TRAIN], labels[TRAIN], **(fit_params or {}))
    return results_of(model, table[LATER])


def sparse(folder):
    import scipy.sparse as sp

    matrix = sp.random_array((N_ROWS, 30), density=0.1, format="csr", rng=0)
    model = estimator().fit(matrix[:N_TRAIN], Y[TRAIN])
    return results_of(model, matrix[N_TRAIN:])


def array(folder):
    numbers = X.filter(like="numeric").to_numpy(copy=True)
    return fitted(numbers, Y.to_numpy())


def missing_labels(folder):
    labels = Y.astype(float)
    labels.loc[::3, "conversion"] = np.nan
    return fitted(labels=labels, missing_labels="ignore")


def updates(folder):
    model = estimator(encoding_params={"grow_vocabulary": True, "min_frequency": 1})
    for start in range(0, N_TRAIN, 100):
        model.partial_fit(X[start : start + 100], Y[start : start + 100])
    return results_of(model)


def fit_and_update(folder):
    model = estimator().fit(X[:500], Y[:500])
    return results_of(model.partial_fit(X[500:N_TRAIN], Y[500:N_TRAIN]))


def warm_start(folder):
    model = estimator(warm_start=True).fit(X[TRAIN], Y[TRAIN])
    return results_of(model.fit(X[TRAIN], Y[TRAIN]))


def resume(folder):
    estimator(checkpoint_dir=folder).fit(X[TRAIN], Y[TRAIN])
    model = estimator(checkpoint_dir=folder, warm_start=True, max_epochs=4)
    return results_of(model.fit(X[TRAIN], Y[TRAIN]))


def fine_tuned(folder):
    source = estimator().fit(X[:500], Y[:500])
    return results_of(fine_tune(source, X[500:N_TRAIN], Y[500:N_TRAIN]))


def distilled(folder):
    teacher = estimator().fit(X[TRAIN], Y[TRAIN])
    return results_of(distill([teacher], X[TRAIN], student=estimator(random_state=1)))


def merged(folder):
    base = estimator().fit(X[:300], Y[:300])
    members = [
        fine_tune(base, X[start : start + 200], Y[start : start + 200], extend=False)
        for start in (300, 500)
    ]
    return results_of(merge_estimators(base, members, X[TRAIN], Y[TRAIN]))


def parquet(folder):
    X[TRAIN].join(Y[TRAIN]).to_parquet(folder / "rows.parquet", index=False)
    log = ParquetImpressions(folder, list(X), list(Y))
    return results_of(estimator().fit(log))


def calibrated(folder, **params):
    model = estimator().fit(X[:400], Y[:400])
    calibrator = FunnelCalibrator(model, method="sigmoid", **params)
    return results_of(calibrator.fit(X[400:N_TRAIN], Y[400:N_TRAIN]))


def calibrated_by(folder):
    return calibrated(folder, by="category_0")


def task_view(folder):
    return results_of(estimator().fit(X[TRAIN], Y[TRAIN]).task("conversion"))


def saved(folder):
    path = folder / "model.safetensors"
    estimator().fit(X[TRAIN], Y[TRAIN]).save(path)
    results = results_of(MultiTaskCTRCVRClassifier.load(path))
    return {**results, **content_of(path)}


def content_of(path):
    """Return the digests of a file's tensors of float32: others hold durations."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    weights = {k: digest(v) for k, v in tensors.items() if v.dtype == np.float32}
    return {"names": list(tensors), "weights": weights}


def skops(folder):
    import skops.io as sio

    content = sio.dumps(estimator().fit(X[TRAIN], Y[TRAIN]))
    trusted = sio.get_untrusted_types(data=content)
    return results_of(sio.loads(content, trusted=trusted))


def onnx_graph(folder, inputs):
    """Return the nodes and weights of a graph, without names of producers."""
    import onnx

    path = folder / "model.onnx"
    model = estimator().fit(X[TRAIN], Y[TRAIN])
    to_onnx(model, path, inputs=inputs)
    graph = onnx.load(path).graph
    graph.ClearField("doc_string")
    for node in graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    content = graph.SerializeToString(deterministic=True)
    return {"graph": hashlib.sha256(content).hexdigest()}


def onnx_encoded(folder):
    return onnx_graph(folder, "encoded")


def onnx_raw(folder):
    return onnx_graph(folder, "raw")


def scorer(folder):
    score = Scorer(estimator().fit(X[TRAIN], Y[TRAIN]))
    rows = X[LATER][:20].astype(object)
    records = rows.where(rows.notna(), None).to_dict("records")
    return {"predictions": np.asarray(score(records))}


def sparse_linear(folder):
    numbers = X.filter(like="numeric").fillna(0.0)
    model = MultiTaskSparseLinear().fit(numbers[TRAIN], Y[TRAIN])
    return {"predictions": np.asarray(model.predict_proba(numbers[LATER]))}


def histories(folder):
    history = HistoryFeatures(["user"], time="time")
    table = pd.DataFrame(history.fit_transform(TIMED, Y), index=X.index)
    return fitted(table)


LISTS = {"shared_embeddings": {"last": "user"}}
ATTENTION = {**LISTS, "list_pooling": {"last": "attention"}}
CONDITIONAL = {"network_params": {**SMALL_UNITS, "task_space": "conditional"}}
NETWORKS = (
    *("aitm", "ctcl", "dcmt", "ddpo", "escm2", "esmm", "fdn", "metaheac", "mmoe"),
    *("omoe", "ple", "single_task", "stem"),
)
FITS = {
    "default": {},
    "early stopping": {"early_stopping": True, "max_epochs": 4},
    **{f"network {name}": {"network": name} for name in NETWORKS},
    **{f"loss {name}": {"loss": name} for name in ("bce", "combined_pair", "focal")},
    "loss jrc": {"loss": "jrc", "fit_params": {"groups": GROUPS}},
    **{
        f"weighting {name}": {"weighting": name}
        for name in ("dwa", "ema", "nash", "uncertainty")
    },
    "conditional": CONDITIONAL,
    "no statistics": {"target_encoding": False, "embedding_dim": "auto"},
    "statistics": {"target_encoding": True, "numeric_encoding": "quantile"},
    "lists": {"table": with_lists(), "encoding_params": LISTS},
    "attention": {"table": with_lists(), "encoding_params": ATTENTION},
    "times": {"table": TIMED, **BY_TIME},
    "groups": {"early_stopping": True, "fit_params": {"groups": GROUPS}},
    "weights": {"fit_params": {"sample_weight": WEIGHTS[:, 0]}},
    "weights per task": {"fit_params": {"sample_weight": WEIGHTS}},
    "sampled": {"negative_sampling_rate": 0.5},
    "lazy adam": {"optimizer_params": {"lazy_embeddings": True}},
}
OTHERS = (
    *(sparse, array, missing_labels, updates, fit_and_update, warm_start, resume),
    *(fine_tuned, distilled, merged, parquet, calibrated, calibrated_by, task_view),
    *(saved, skops, onnx_encoded, onnx_raw, scorer, sparse_linear, histories),
)
CONFIGURATIONS = {
    **{
        name: lambda folder, params=params: fitted(**params)
        for name, params in FITS.items()
    },
    **{function.__name__.replace("_", " "): function for function in OTHERS},
}


def run(names=None):
    """Return the digests of the configurations, or the error of each that fails."""
    digests = {}
    for name in CONFIGURATIONS if names is None else names:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                results = CONFIGURATIONS[name](Path(folder))
            except Exception as error:
                digests[name] = {"error": f"{type(error).__name__}: {error}"[:200]}
                continue
        digests[name] = {key: digest(value) for key, value in results.items()}
    return digests


def differences(before, after):
    """Return a line per configuration whose digests differ."""
    lines = []
    for name in {**before, **after}:
        first, second = before.get(name, {}), after.get(name, {})
        keys = sorted(k for k in {**first, **second} if first.get(k) != second.get(k))
        if keys:
            lines.append(f"{name}: {', '.join(keys)}")
    return lines


def main(arguments=None):
    """Save the digests, or compare them with saved ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--save", type=Path, metavar="FILE")
    action.add_argument("--compare", type=Path, metavar="FILE")
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, metavar="NAME")
    options = parser.parse_args(arguments)
    digests = run(options.only)
    failed = [f"{name}: {d['error']}" for name, d in digests.items() if "error" in d]
    if options.save:
        options.save.write_text(json.dumps(digests, indent=1), encoding="utf-8")
        print("\n".join(failed) or f"{len(digests)} configurations saved")
        return int(bool(failed))
    before = json.loads(options.compare.read_text(encoding="utf-8"))
    if options.only:
        before = {name: before[name] for name in options.only}
    lines = [*failed, *differences(before, digests)]
    print("\n".join(lines) or f"{len(digests)} configurations are equal")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
