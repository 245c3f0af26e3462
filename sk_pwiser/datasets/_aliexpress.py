"""The AliExpress data set: search results, clicks and conversions in five countries."""

from inspect import getdoc

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import StrOptions, validate_params

from sk_pwiser._utils import import_extra, warn_user
from sk_pwiser.datasets._downloads import (
    PARAMETERS,
    check_flags,
    find_files,
    read_csv,
    warn_unclicked,
)

COUNTRIES = ("ES", "FR", "NL", "RU", "US")
TASK_NAMES = ["click", "conversion"]
CATEGORICAL = [f"categorical_{number}" for number in range(1, 17)]
NUMERICAL = [f"numerical_{number}" for number in range(1, 64)]
FEATURES = [*CATEGORICAL, *NUMERICAL]
# Positions, counted from 1, of the features in the publisher's files, and of those that
# are categories. The first column of both files is the search.
USER_FEATURES, USER_CATEGORIES = range(2, 34), (*range(2, 9), 32, 33)
ITEM_FEATURES, ITEM_CATEGORIES = range(2, 49), (19, 34, 35, 36, 40, 41, 42)
DOWNLOAD = (
    "Download AliExpress from https://tianchi.aliyun.com/dataset/74690 (files "
    "XX_user_train, XX_item_train, XX_user_test and XX_item_test for the country XX), "
    "or its processed form (a folder AliExpress_XX with train.csv and test.csv) from "
    "https://github.com/easezyc/Multitask-Recommendation-Library."
)


@validate_params(
    {**PARAMETERS, "country": [StrOptions(set(COUNTRIES))]},
    prefer_skip_nested_validation=True,
)
def load_aliexpress(path, country, *, subset="all"):
    """Load the AliExpress search results of a country, a funnel of two tasks.

    Each row is an item in the results of a search. The first task is the click, the
    second one the conversion, a purchase of the item. Training and test rows are split
    by time; the meaning of the features is not published. The files are the publisher's
    or a processed form that most publications use, which is read if the folder contains
    both.

    Parameters
    ----------
    path : str or os.PathLike
        The folder of the country, or its parent. The processed form consists of
        `train.csv` and `test.csv`, in a folder `AliExpress_NL` (or another country) or
        `aliexpress/AliExpress_NL`. The publisher's files are `NL_user_train` and so on,
        as `.csv` or `.zip`.
    country : {"ES", "FR", "NL", "RU", "US"}
        The country.
    subset : {"all", "train", "test"}, default="all"
        Which rows to return; `"all"` returns the training rows, then the test rows.

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with the following attributes.

        data : DataFrame of shape (n_samples, 79)
            The features: `categorical_1`, ... as `category`, `numerical_1`, ... as
            float32. The search is not a feature.
        target : DataFrame of shape (n_samples, 2)
            The labels 0 and 1, columns `click` and `conversion`.
        task_names, feature_names : list of str
            Names of the columns of `target` and of `data`.
        is_test : ndarray of shape (n_samples,)
            True in the test rows.
        search_id : ndarray of shape (n_samples,)
            The search of each row, for splits by groups. Training and test rows may
            use the same number for different searches.
        n_unclicked_conversions : int
            Number of rows with a conversion but no click. These rows are kept.
        DESCR : str
            This description.

    Raises
    ------
    FileNotFoundError
        If a file is not found.
    ValueError
        If a column is missing, a field cannot be read (the message names the file, line
        and column), a label is not 0 or 1, or `country` or `subset` is unknown.

    Warns
    -----
    UserWarning
        If rows have a conversion but no click, or if rows of an item file are left out
        because their search is not in the user file.

    Notes
    -----
    Categories are integers in the processed form. In the publisher's files they are
    text, and empty fields are missing values. The columns of the publisher's files are
    numbered in their order, those in the user file first; the processed form may number
    them differently.

    References
    ----------
    Li et al., "Improving Multi-Scenario Learning to Rank in E-commerce by Exploiting
    Task Relationships in the Label Space", CIKM 2020, doi 10.1145/3340531.3412713.

    Examples
    --------
    >>> import os
    >>> from pathlib import Path
    >>> from sk_pwiser.datasets import load_aliexpress
    >>> folder = Path(os.environ.get("SK_PWISER_DATA", ".")) / "AliExpress_NL"
    >>> if folder.is_dir():  # contains the downloaded files
    ...     train = load_aliexpress(folder, "NL", subset="train")
    ...     X, Y = train.data, train.target
    """
    pandas = import_extra("pandas", "load_aliexpress")
    parts = ["train", "test"] if subset == "all" else [subset]
    # Look for all files before reading the first one.
    files = [_find_part(path, country, part) for part in parts]
    tables = [_read(pandas, found) for found in files]
    sizes = [len(table) for table in tables]
    rows = pandas.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    del tables
    target = rows[TASK_NAMES].copy()
    data = rows[FEATURES].astype(dict.fromkeys(CATEGORICAL, "category"))
    return Bunch(
        data=data,
        target=target,
        task_names=list(TASK_NAMES),
        feature_names=list(FEATURES),
        is_test=np.repeat([part == "test" for part in parts], sizes),
        search_id=rows["search_id"].to_numpy(copy=True),
        n_unclicked_conversions=warn_unclicked(target, "load_aliexpress"),
        DESCR=getdoc(load_aliexpress),
    )


def _find_part(path, country, part):
    folders = (f"AliExpress_{country}/", f"aliexpress/AliExpress_{country}/", "")
    names = [
        f"{code}_{{table}}_{part}.{suffix}"
        for code in (country, country.lower())
        for suffix in ("csv", "zip")
    ]
    raw = [
        [folder + name.format(table=table) for folder in folders for name in names]
        for table in ("user", "item")
    ]
    processed = [[f"{folder}{part}.csv" for folder in folders]]
    return find_files(path, processed, raw, download=DOWNLOAD)


def _read(pandas, files):
    if len(files) > 1:
        return _read_raw(pandas, *files)
    columns = {
        "search_id": "int64",
        **dict.fromkeys(CATEGORICAL, "int64"),
        **dict.fromkeys(NUMERICAL, "float32"),
        **dict.fromkeys(TASK_NAMES, "int64"),
    }
    rows = read_csv(pandas, files[0], columns)
    check_flags(rows, TASK_NAMES, files[0])
    return rows


def _read_raw(pandas, user_file, item_file):
    names = iter(CATEGORICAL), iter(NUMERICAL)  # those of the user file come first
    columns = {"search_id": "str", **_types(USER_FEATURES, USER_CATEGORIES, *names)}
    users = read_csv(pandas, user_file, columns, has_header=False)
    columns = {"search_id": "str", **_types(ITEM_FEATURES, ITEM_CATEGORIES, *names)}
    columns["label"] = "int64"
    items = read_csv(pandas, item_file, columns, has_header=False)
    repeated = users["search_id"].duplicated()
    if repeated.any():
        line = int(repeated.argmax()) + 1
        raise ValueError(
            f"{user_file}, line {line}: the search {users['search_id'][line - 1]!r} "
            "occurs in an earlier line."
        )
    check_flags(items, ["label"], item_file, n_header_lines=0, values=(0, 1, 2))
    # Inner, as in the processed form; the lost rows are counted in a warning.
    rows = items.merge(users, on="search_id", how="inner", validate="m:1")
    if lost := len(items) - len(rows):
        warn_user(
            f"{lost} rows of {item_file} are left out, because their search is not in "
            f"{user_file}."
        )
    label = rows.pop("label")
    # A label of 2 is a click with a conversion.
    rows["click"] = (label >= 1).astype("int64")
    rows["conversion"] = (label == 2).astype("int64")
    return rows


def _types(features, categories, category_names, number_names):
    return {
        next(category_names if is_category else number_names): (
            "str" if is_category else "float32"
        )
        for is_category in (position in categories for position in features)
    }
