"""The search results of AliExpress, as the publisher's files or in a processed form."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sklearn.utils import Bunch

from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._extras import import_extra
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.datasets import _downloads

TASK_NAMES = ["click", "conversion"]
COUNTRIES = ("ES", "FR", "NL", "RU", "US")
CATEGORICAL = [f"categorical_{number}" for number in range(1, 17)]
NUMERICAL = [f"numerical_{number}" for number in range(1, 64)]
FEATURES = [*CATEGORICAL, *NUMERICAL]
# Positions, counted from 1, of the features in the publisher's files, and of those that
# are categories. The first column of both files is the search.
USER_POSITIONS = range(2, 34)
USER_CATEGORIES = (*range(2, 9), 32, 33)
ITEM_POSITIONS = range(2, 49)
ITEM_CATEGORIES = (19, 34, 35, 36, 40, 41, 42)
ALIEXPRESS_SOURCE = (
    "Download AliExpress from https://tianchi.aliyun.com/dataset/74690, and unpack "
    "XX_user_train, XX_item_train, XX_user_test and XX_item_test for the country XX; "
    "or its processed form (a folder AliExpress_XX with train.csv and test.csv) from "
    "https://github.com/easezyc/Multitask-Recommendation-Library."
)


def load_aliexpress(
    path: str | os.PathLike[str], country: str, *, subset: str = "all"
) -> Bunch:
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
        `aliexpress/AliExpress_NL`. The publisher's files are `NL_user_train.csv` and
        so on.
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
        If a column is missing, a line cannot be read (the message names the file, line
        and column), a search has no id or occurs twice in a user file, a label is not 0
        or 1, or `country` or `subset` is unknown.

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
    splits = _downloads.splits_of(subset)
    check_choice("country", country, COUNTRIES)
    # Look for all files before reading the first one.
    files_of_splits = [_find_files(path, country, split) for split in splits]
    tables = [_read_split(pandas, files) for files in files_of_splits]
    sizes = [len(table) for table in tables]
    rows = pandas.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    del tables
    data = rows[FEATURES].astype(dict.fromkeys(CATEGORICAL, "category"))
    search_id = rows["search_id"].to_numpy(copy=True)
    target = rows[TASK_NAMES].copy()
    return _downloads.click_conversion_bunch(
        load_aliexpress,
        data,
        target,
        _downloads.find_test_rows(splits, sizes),
        search_id=search_id,
    )


def _find_files(path: str | os.PathLike[str], country: str, split: str) -> list[Path]:
    """Return the file of the processed form, or the two of the publisher's."""
    folders = (f"AliExpress_{country}/", f"aliexpress/AliExpress_{country}/", "")
    names = [f"{code}_{{table}}_{split}.csv" for code in (country, country.lower())]
    raw = [
        [folder + name.format(table=table) for folder in folders for name in names]
        for table in ("user", "item")
    ]
    processed = [[f"{folder}{split}.csv" for folder in folders]]
    return _downloads.find_files(path, processed, raw, download=ALIEXPRESS_SOURCE)


def _read_split(pandas: Any, files: Sequence[Path]) -> Any:
    if len(files) > 1:
        user_file, item_file = files
        return _join_items_and_users(pandas, user_file, item_file)
    columns = {
        "search_id": "int64",
        **dict.fromkeys(CATEGORICAL, "int64"),
        **dict.fromkeys(NUMERICAL, "float32"),
        **dict.fromkeys(TASK_NAMES, "int64"),
    }
    [file] = files
    rows = _downloads.read_csv(pandas, file, columns, is_complete=True)
    _downloads.check_flags(rows, TASK_NAMES, file)
    return rows


def _join_items_and_users(pandas: Any, user_file: Path, item_file: Path) -> Any:
    # The names of the features in the user file come first.
    category_names = iter(CATEGORICAL)
    number_names = iter(NUMERICAL)
    user_columns = {
        "search_id": "str",
        **_types(USER_POSITIONS, USER_CATEGORIES, category_names, number_names),
    }
    users = _downloads.read_csv(pandas, user_file, user_columns, has_header=False)
    item_columns = {
        "search_id": "str",
        **_types(ITEM_POSITIONS, ITEM_CATEGORIES, category_names, number_names),
        "label": "int64",
    }
    items = _downloads.read_csv(pandas, item_file, item_columns, has_header=False)
    for table, file in ((users, user_file), (items, item_file)):
        is_missing = table["search_id"].isna()
        _downloads.check_column(
            table["search_id"], is_missing, "must not be missing", file, 0
        )
    _downloads.check_column(
        users["search_id"],
        users["search_id"].duplicated(),
        _downloads.REPEATED,
        user_file,
        0,
    )
    _downloads.check_flags(
        items, ["label"], item_file, n_header_lines=0, values=(0, 1, 2)
    )
    # Inner, as in the processed form; the lost rows are counted in a warning.
    rows = items.merge(users, on="search_id", how="inner", validate="m:1")
    if n_lost := len(items) - len(rows):
        warn_user(
            f"{n_lost} rows of {item_file} are left out, because their search is not "
            f"in {user_file}."
        )
    label = rows.pop("label")
    # A label of 2 is a click with a conversion.
    rows["click"] = (label >= 1).astype("int64")
    rows["conversion"] = (label == 2).astype("int64")
    return rows


def _types(
    positions: Iterable[int],
    categories: Collection[int],
    category_names: Iterator[str],
    number_names: Iterator[str],
) -> dict[str, str]:
    """Return the dtypes of the features of a file by their names."""
    types = {}
    for position in positions:
        is_category = position in categories
        name = next(category_names if is_category else number_names)
        types[name] = "str" if is_category else "float32"
    return types
