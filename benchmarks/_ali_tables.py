"""Readers of AliExpress and Ali-CCP in the processed form of earlier publications.

Both are csv files with a header. AliExpress: a folder `AliExpress_XX` per country with
`train.csv` and `test.csv`, columns `search_id`, `categorical_1` to `categorical_16`,
`numerical_1` to `numerical_63`, `click` and `conversion`. Ali-CCP: a folder `ali_ccp`
with `train.csv` and `test.csv`, columns `click`, `purchase` and the fields of the
publisher that have one value per row.
"""

from pathlib import Path

import numpy as np
import pandas as pd

ALI_COUNTRIES = ("FR", "NL", "ES", "US")
CATEGORICAL = [f"categorical_{number}" for number in range(1, 17)]
NUMERICAL = [f"numerical_{number}" for number in range(1, 64)]
# Fields of the user, of the item, of their combination and of the context.
FIELDS = [
    *("101", "121", "122", "124", "125", "126", "127", "128", "129"),
    *("205", "206", "207", "216"),
    *("508", "509", "702", "853"),
    "301",
]


def load_aliexpress(path, country):
    """Return `X, Y, X_test, Y_test` of a country; the search is not a feature."""
    labels = ["click", "conversion"]
    columns = {
        **dict.fromkeys(CATEGORICAL, np.int32),
        **dict.fromkeys(NUMERICAL, np.float32),
        **dict.fromkeys(labels, np.int8),
    }
    return _load(path, f"AliExpress_{country}", columns, CATEGORICAL, labels)


def load_ali_ccp(path):
    """Return `X, Y, X_test, Y_test`; the code 0 stands for rare and missing values."""
    labels = ["click", "purchase"]
    columns = {**dict.fromkeys(FIELDS, np.int32), **dict.fromkeys(labels, np.int8)}
    return _load(path, "ali_ccp", columns, FIELDS, labels)


def _load(path, folder, columns, categories, labels):
    parts = []
    for part in ("train", "test"):
        file = find(path, folder, f"{part}.csv")
        parts += _read(file, columns, categories, labels)
    return tuple(parts)


def find(path, folder, name):
    """Return the file in the folder, which may also stand inside `aliexpress`."""
    root = Path(path or ".").expanduser()
    for parent in (root, root / "aliexpress"):
        file = parent / folder / name
        if file.is_file():
            return file
    raise FileNotFoundError(f"{folder}/{name} is not in the folder of the data sets")


def _read(file, columns, categories, labels):
    """Return features and labels of a file.

    A purchase without a click is no conversion after a click: the row is kept, its
    second label becomes 0, and the number of such rows is printed.
    """
    header = pd.read_csv(file, nrows=0).columns
    missing = [name for name in columns if name not in header]
    if missing:
        raise ValueError(f"{file} lacks the columns {', '.join(missing)}")
    rows = pd.read_csv(file, usecols=list(columns), dtype=columns)
    Y = pd.DataFrame({name: rows.pop(name).astype(np.int64) for name in labels})
    if not Y.isin([0, 1]).all(axis=None):
        raise ValueError(f"{file}: the columns {' and '.join(labels)} must be 0 or 1")
    click, deeper = labels
    broken = int((Y[deeper] > Y[click]).sum())
    if broken:
        print(f"{file}: {broken:,} rows with {deeper} = 1 and {click} = 0")
        Y[deeper] *= Y[click]
    # The order of the file must not decide the order of the features.
    features = [name for name in columns if name not in labels]
    X = rows[features].astype(dict.fromkeys(categories, "category"))
    return X, Y
