"""Model files of all released versions, which later versions must read.

`python tests/version_files.py` writes those of this version into the folders
`tests/_estimator/version_files` and `tests/export/version_files`; run it once per
release, and never change a file.
"""

import json
import re
import zipfile
from pathlib import Path

import pandas as pd

from sk_pwiser import MultiTaskCTRCVRClassifier, __version__
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.linear_model import CPMultiTaskLogistic, MultiTaskSparseLinear

FOLDER = Path(__file__).parent / "_estimator" / "version_files"
SKOPS_FOLDER = Path(__file__).parent / "export" / "version_files"
SMALL = {
    "network_params": {"bottom_units": (3,), "tower_units": ()},
    "embedding_dim": 2,
    "batch_size": 16,
    "lr": 0.03,
    "max_epochs": 3,
    "early_stopping": False,
    "random_state": 0,
    "device": "cpu",
}


def table():
    """Return a small table, the same for every version."""
    rows = range(64)
    X = pd.DataFrame(
        {
            "hour": [None if i % 11 == 0 else float(i % 7) for i in rows],
            "shop": [None if i % 13 == 0 else "abcd"[i * i % 4] for i in rows],
        }
    )
    clicks = [int(i % 7 > 3 or i % 5 == 0) for i in rows]
    sales = [int(clicks[i] and i % 3 == 0) for i in rows]
    return X, pd.DataFrame({"click": clicks, "sale": sales})


def train():
    """Return the model of the file of `save`."""
    X, Y = table()
    model = MultiTaskCTRCVRClassifier(target_encoding=["shop"], **SMALL)
    return model.fit(X, Y)


def table_with_value():
    """Return a table with an item, where it stood, and an amount per sale."""
    X, Y = table()
    items = [f"item {i * i % 9}" for i in range(len(X))]
    X = X.assign(item=items, place=[1 + i % 3 for i in range(len(X))])
    amounts = [10.0 + i % 7 if sale else 0.0 for i, sale in enumerate(Y["sale"])]
    return X, Y.assign(spend=amounts)


def train_with_value():
    """Return a model of an amount, with vectors and parents of items and a position."""
    X, Y = table_with_value()
    vectors = pd.DataFrame(
        [[k / 9, (k % 3) / 3] for k in range(9)], index=[f"item {k}" for k in range(9)]
    )
    return MultiTaskCTRCVRClassifier(
        value_tasks={"spend": "sale"},
        exposure_features=["place"],
        encoding_params={
            "vectors": {"item": vectors},
            "parents": {"item": "shop"},
            "grow_vocabulary": True,
            "forget_after": 5,
        },
        target_encoding=["shop", "item"],
        **SMALL,
    ).fit(X, Y)


def saved_models():
    """Return the models that `save` writes, and their tables, by the ends of names."""
    return {
        "": (train(), *table()),
        "_value": (train_with_value(), *table_with_value()),
    }


def tables_of_file(file):
    """Return the table and the labels of a file of `save`."""
    return table_with_value() if file.stem.endswith("_value") else table()


def table_of(name):
    """Return the table that an estimator of `serving_estimators` predicts."""
    X, _ = table()
    if name == "calibrator":
        return X
    shop = X["shop"].map({"a": 0, "b": 1, "c": 2, "d": 3})
    return X.assign(shop=shop).fillna(4.0).to_numpy()


def serving_estimators():
    """Return estimators whose files skops writes, by their names."""
    _, Y = table()
    unfitted = {
        "calibrator": FunnelCalibrator(train(), by="shop"),
        "cp_logistic": CPMultiTaskLogistic(random_state=0),
        "sparse_linear": MultiTaskSparseLinear(),
    }
    return {
        name: estimator.fit(table_of(name), Y) for name, estimator in unfitted.items()
    }


def write_predictions(path, predictions):
    """Write probabilities or amounts."""
    path.write_text(json.dumps(predictions.round(7).tolist()) + "\n", encoding="utf-8")


def amounts_of(file):
    """Return the path of the amounts that the model of a file predicts."""
    return file.with_name(f"{file.stem}_amounts.json")


def write():
    """Write the files of this version, and what the estimators in them predict."""
    import skops.io

    release = re.match(r"[0-9.]*[0-9]", __version__)[0]
    FOLDER.mkdir(exist_ok=True)
    for ending, (model, X, _) in saved_models().items():
        path = FOLDER / f"{release}{ending}.safetensors"
        model.save(path)
        write_predictions(path.with_suffix(".json"), model.predict_proba(X))
        if ending == "_value":
            write_predictions(amounts_of(path), model.predict_value(X))
    SKOPS_FOLDER.mkdir(exist_ok=True)
    for name, estimator in serving_estimators().items():
        path = SKOPS_FOLDER / f"{release}_{name}.skops"
        skops.io.dump(estimator, path, compression=zipfile.ZIP_DEFLATED)
        predictions = estimator.predict_proba(table_of(name))
        write_predictions(path.with_suffix(".json"), predictions)


if __name__ == "__main__":
    write()
