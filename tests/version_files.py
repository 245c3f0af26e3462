"""Model files of all released versions, which later versions must read.

`python tests/version_files.py` writes that of this version into the folder
`tests/_estimator/version_files`; run it once per release, and never change a file.
"""

import json
import re
from pathlib import Path

import pandas as pd

from sk_pwiser import MultiTaskCTRCVRClassifier, __version__

FOLDER = Path(__file__).parent / "_estimator" / "version_files"


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


def write():
    """Write the file of this version, and what the model in it predicts."""
    X, Y = table()
    model = MultiTaskCTRCVRClassifier(
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
    release = re.match(r"[0-9.]*[0-9]", __version__)[0]
    FOLDER.mkdir(exist_ok=True)
    model.save(FOLDER / f"{release}.safetensors")
    expected = json.dumps(model.predict_proba(X).round(7).tolist())
    (FOLDER / f"{release}.json").write_text(expected + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
