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
    return MultiTaskCTRCVRClassifier(
        network_params={"bottom_units": (3,), "tower_units": ()},
        target_encoding=["shop"],
        embedding_dim=2,
        batch_size=16,
        lr=0.03,
        max_epochs=3,
        early_stopping=False,
        random_state=0,
        device="cpu",
    ).fit(X, Y)


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


def write_predictions(path, estimator, X):
    """Write what an estimator predicts."""
    expected = json.dumps(estimator.predict_proba(X).round(7).tolist())
    path.write_text(expected + "\n", encoding="utf-8")


def write():
    """Write the files of this version, and what the estimators in them predict."""
    import skops.io

    release = re.match(r"[0-9.]*[0-9]", __version__)[0]
    FOLDER.mkdir(exist_ok=True)
    model = train()
    model.save(FOLDER / f"{release}.safetensors")
    write_predictions(FOLDER / f"{release}.json", model, table()[0])
    SKOPS_FOLDER.mkdir(exist_ok=True)
    for name, estimator in serving_estimators().items():
        path = SKOPS_FOLDER / f"{release}_{name}.skops"
        skops.io.dump(estimator, path, compression=zipfile.ZIP_DEFLATED)
        write_predictions(path.with_suffix(".json"), estimator, table_of(name))


if __name__ == "__main__":
    write()
