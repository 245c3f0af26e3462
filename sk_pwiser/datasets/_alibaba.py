"""The data sets of Alibaba: Ali-CCP and AliExpress, each in two forms."""

from array import array

import numpy as np

from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._extras import import_extra
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.datasets import _downloads

TASK_NAMES = ["click", "conversion"]
# Fields of users, of items, of users and items together, and of the context.
USER_FIELDS = ["101", "109_14", "110_14", "127_14", "150_14"]
USER_FIELDS += ["121", "122", "124", "125", "126", "127", "128", "129"]
FIELDS = [*USER_FIELDS, "205", "206", "207", "210", "216"]
FIELDS += ["508", "509", "702", "853", "301"]
_KNOWN = frozenset(FIELDS)
_ADVICE = "If a field may have several values in a row, name it in multi_valued."
MISSING = -1
NO_IDS = np.empty(0, dtype=np.int64)
NO_IDS.flags.writeable = False  # shared by all rows without ids


MULTI_VALUED = ("109_14", "110_14", "127_14", "150_14", "210")
# Fields in the processed form, which only has fields with one value per row.
PROCESSED = [name for name in FIELDS if name not in MULTI_VALUED]
ALI_CCP_SOURCE = (
    "Download Ali-CCP from https://tianchi.aliyun.com/dataset/408 (the files "
    "sample_skeleton_train.csv, common_features_train.csv, sample_skeleton_test.csv "
    "and common_features_test.csv), or use a processed form, train.csv and test.csv."
)


def load_ali_ccp(path, *, subset="all", multi_valued=MULTI_VALUED):
    """Load the Ali-CCP impressions of recommended items, a funnel of two tasks.

    Each row is an impression in the shop Taobao, the tasks are the click and the
    conversion, a purchase. Training and test rows are split by time. The files are the
    publisher's or a processed form that many publications use, which is read if the
    folder contains both.

    Parameters
    ----------
    path : str or os.PathLike
        The folder with the files, or its parent if the folder is called `ali_ccp`. The
        processed form consists of `train.csv` and `test.csv`, with a header, the
        columns `click` and `purchase` and the fields with one value per row. The
        publisher's files are `sample_skeleton_train.csv`, `common_features_train.csv`
        and the same for `test`.
    subset : {"all", "train", "test"}, default="all"
        Which rows to return; `"all"` returns the training rows, then the test rows.
    multi_valued : sequence of str, default=("109_14", "110_14", "127_14", "150_14", \
"210")
        Fields of the publisher's files that may have several values in a row. A second
        value of any other field is an error. Not used for the processed form.

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with the following attributes.

        data : DataFrame of shape (n_samples, n_features)
            The fields with one value per row, as `category`. In the publisher's files,
            a field may be missing in a row; in the processed form, 0 stands for rare
            and missing ids.
        lists : DataFrame of shape (n_samples, n_fields)
            The fields with several values: an integer array of ids per row, empty if
            the row lacks the field. Rows with the same common features share one array,
            which must not be changed. It has no columns for the processed form.
        target : DataFrame of shape (n_samples, 2)
            The labels 0 and 1, columns `click` and `conversion`.
        task_names, feature_names : list of str
            Names of the columns of `target` and of `data`.
        is_test : ndarray of shape (n_samples,)
            True in the test rows.
        n_unclicked_conversions : int
            Number of rows with a conversion but no click. These rows are kept.
        DESCR : str
            This description.

    Raises
    ------
    FileNotFoundError
        If a file is not found.
    ValueError
        If a line cannot be read (the message names the file, the line and the field),
        a field occurs twice in a row without being named in `multi_valued`, a label is
        not 0 or 1, or a parameter has an unknown value.

    Warns
    -----
    UserWarning
        If rows have a conversion but no click.

    Notes
    -----
    The fields are ids of the user and of the user's attributes (101, 121 to 129), of
    earlier behaviour (109_14, 110_14, 127_14, 150_14), of the item (205 to 216), of
    user and item together (508, 509, 702, 853) and of the context (301).

    In the publisher's files, which are read line by line, each id has a value, such as
    the logarithm of a count, which is left out. The ids, and the common features of the
    rows that are read, stay in memory until all rows are read.

    References
    ----------
    Ma et al., "Entire Space Multi-Task Model: An Effective Approach for Estimating
    Post-Click Conversion Rate", SIGIR 2018, arXiv 1804.07931.

    Examples
    --------
    >>> import os
    >>> from pathlib import Path
    >>> from sk_pwiser.datasets import load_ali_ccp
    >>> folder = Path(os.environ.get("SK_PWISER_DATA", ".")) / "ali_ccp"
    >>> if folder.is_dir():  # contains the downloaded files
    ...     train = load_ali_ccp(folder, subset="train")
    ...     X, Y = train.data, train.target
    """
    pandas = import_extra("pandas", "load_ali_ccp")
    multi_valued = [str(name) for name in multi_valued]
    if unknown := sorted(set(multi_valued) - set(FIELDS)):
        raise ValueError(
            f"multi_valued must contain fields of Ali-CCP, {FIELDS}; got {unknown}."
        )
    parts = _downloads.parts_of(subset)
    # Look for all files before reading the first one.
    files = [_find_ali_ccp(path, part) for part in parts]
    if len({len(found) for found in files}) > 1:
        raise ValueError(
            f"The parts of Ali-CCP in {str(path)!r} have different forms: "
            f"{', '.join(str(found[0]) for found in files)}. Read one subset at a time."
        )
    if len(files[0]) == 1:
        data, lists, target, sizes = _read_processed(pandas, files)
    else:
        data, lists, target, sizes = _read_raw(pandas, files, multi_valued)
    return _as_bunch(load_ali_ccp, data, target, parts, sizes, lists=lists)


def _find_ali_ccp(path, part):
    stems = part, f"sample_skeleton_{part}", f"common_features_{part}"
    processed, *raw = ([f"{stem}.csv", f"ali_ccp/{stem}.csv"] for stem in stems)
    return _downloads.find_files(path, [processed], raw, download=ALI_CCP_SOURCE)


def _read_processed(pandas, files):
    labels = ["click", "purchase"]
    tables = []
    for [file] in files:
        columns = dict.fromkeys([*labels, *PROCESSED], "int64")
        tables.append(_downloads.read_csv(pandas, file, columns))
        _downloads.check_flags(tables[-1], labels, file)
    rows = pandas.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    target = rows[labels].rename(columns={"purchase": "conversion"})
    data = rows[PROCESSED].astype("category")
    return data, pandas.DataFrame(index=data.index), target, list(map(len, tables))


def _read_raw(pandas, files, multi_valued):
    columns = {name: [] if name in multi_valued else array("q") for name in FIELDS}
    labels = array("b")
    sizes = [
        read_part(skeleton, common, columns, labels, set(multi_valued))
        for skeleton, common in files
    ]
    data, lists = {}, {}
    for name, values in columns.items():
        if name in multi_valued:
            lists[name] = pandas.Series(values, dtype=object)
        else:
            ids = np.frombuffer(values, dtype=np.int64)
            known = np.unique(ids[ids != MISSING])
            data[name] = pandas.Categorical(ids).set_categories(known)
    data = pandas.DataFrame(data)
    target = np.array(labels, dtype=np.int64).reshape(-1, 2)
    target = pandas.DataFrame(target, columns=TASK_NAMES)
    return data, pandas.DataFrame(lists, index=data.index), target, sizes


def read_part(skeleton, common, columns, labels, multi_valued):
    """Add a part to columns and labels, and return its number of rows."""
    shared = {}
    for place, (index, count, text) in _lines(common, 3):
        if index in shared:
            raise ValueError(
                f"{place}: common_feature_index {index!r} occurs in an earlier line."
            )
        shared[index] = _parse(text, count, place, multi_valued)
    start = len(labels)
    for place, (_, *flags, index, count, text) in _lines(skeleton, 6):
        for name, flag in zip(TASK_NAMES, flags, strict=True):
            if flag not in ("0", "1"):
                raise ValueError(f"{place}: {name} must be 0 or 1, found {flag!r}.")
            labels.append(int(flag))
        if index not in shared:
            raise ValueError(
                f"{place}: common_feature_index {index!r} is not in {common}."
            )
        own = _parse(text, count, place, multi_valued)
        # A row has the features of its user and search, and its own.
        features = _union(shared[index], own, multi_valued, place)
        for name, column in columns.items():
            missing = NO_IDS if name in multi_valued else MISSING
            column.append(features.get(name, missing))
    return (len(labels) - start) // 2


def _lines(file, n_cells):
    with _downloads.open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{file}, line {number}"
            cells = line.rstrip("\r\n").split(",", n_cells - 1)
            if len(cells) != n_cells:
                raise ValueError(
                    f"{place}: expected {n_cells} fields, found {len(cells)}."
                )
            yield place, cells


def _parse(text, count, place, multi_valued):
    parsed = {}
    features = text.split("\x01") if text else []
    if count != str(len(features)):
        raise ValueError(
            f"{place}: feature_num is {count!r}, but feature_list has {len(features)}."
        )
    for feature in features:
        name, *rest = feature.replace("\x03", "\x02").split("\x02")
        if len(rest) != 2 or not rest[0].isdecimal() or int(rest[0]) >= 2**63:
            raise ValueError(
                f"{place}: feature_list must contain field, id and value, with a whole "
                f"number of 64 bits as id, found {feature!r}."
            )
        if name not in _KNOWN:
            raise ValueError(
                f"{place}: feature_list contains the unknown field {name!r}."
            )
        if name in multi_valued:
            parsed.setdefault(name, []).append(int(rest[0]))
        elif name in parsed:
            raise ValueError(
                f"{place}: feature_list contains the field {name!r} twice. {_ADVICE}"
            )
        else:
            parsed[name] = int(rest[0])
    # Arrays take a fifth of the memory of lists of integers.
    for name in multi_valued & parsed.keys():
        parsed[name] = np.array(parsed[name], dtype=np.int64)
    return parsed


def _union(common, own, multi_valued, place):
    both = common | own
    for name in sorted(common.keys() & own.keys()):
        if name not in multi_valued:
            raise ValueError(
                f"{place}: feature_list contains the field {name!r}, which is also "
                f"among the common features of the row. {_ADVICE}"
            )
        both[name] = np.concatenate([common[name], own[name]])
    return both


COUNTRIES = ("ES", "FR", "NL", "RU", "US")
CATEGORICAL = [f"categorical_{number}" for number in range(1, 17)]
NUMERICAL = [f"numerical_{number}" for number in range(1, 64)]
FEATURES = [*CATEGORICAL, *NUMERICAL]
# Positions, counted from 1, of the features in the publisher's files, and of those that
# are categories. The first column of both files is the search.
USER_FEATURES, USER_CATEGORIES = range(2, 34), (*range(2, 9), 32, 33)
ITEM_FEATURES, ITEM_CATEGORIES = range(2, 49), (19, 34, 35, 36, 40, 41, 42)
ALIEXPRESS_SOURCE = (
    "Download AliExpress from https://tianchi.aliyun.com/dataset/74690, and unpack "
    "XX_user_train, XX_item_train, XX_user_test and XX_item_test for the country XX; "
    "or its processed form (a folder AliExpress_XX with train.csv and test.csv) from "
    "https://github.com/easezyc/Multitask-Recommendation-Library."
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
    parts = _downloads.parts_of(subset)
    check_choice("country", country, COUNTRIES)
    # Look for all files before reading the first one.
    files = [_find_aliexpress(path, country, part) for part in parts]
    tables = [_read_aliexpress(pandas, found) for found in files]
    sizes = [len(table) for table in tables]
    rows = pandas.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    del tables
    data = rows[FEATURES].astype(dict.fromkeys(CATEGORICAL, "category"))
    search_id = rows["search_id"].to_numpy(copy=True)
    target = rows[TASK_NAMES].copy()
    return _as_bunch(load_aliexpress, data, target, parts, sizes, search_id=search_id)


def _find_aliexpress(path, country, part):
    folders = (f"AliExpress_{country}/", f"aliexpress/AliExpress_{country}/", "")
    names = [f"{code}_{{table}}_{part}.csv" for code in (country, country.lower())]
    raw = [
        [folder + name.format(table=table) for folder in folders for name in names]
        for table in ("user", "item")
    ]
    processed = [[f"{folder}{part}.csv" for folder in folders]]
    return _downloads.find_files(path, processed, raw, download=ALIEXPRESS_SOURCE)


def _read_aliexpress(pandas, files):
    if len(files) > 1:
        return _join_items_and_users(pandas, *files)
    columns = {
        "search_id": "int64",
        **dict.fromkeys(CATEGORICAL, "int64"),
        **dict.fromkeys(NUMERICAL, "float32"),
        **dict.fromkeys(TASK_NAMES, "int64"),
    }
    rows = _downloads.read_csv(pandas, files[0], columns, is_complete=True)
    _downloads.check_flags(rows, TASK_NAMES, files[0])
    return rows


def _join_items_and_users(pandas, user_file, item_file):
    names = iter(CATEGORICAL), iter(NUMERICAL)  # those of the user file come first
    columns = {"search_id": "str", **_types(USER_FEATURES, USER_CATEGORIES, *names)}
    users = _downloads.read_csv(pandas, user_file, columns, has_header=False)
    columns = {"search_id": "str", **_types(ITEM_FEATURES, ITEM_CATEGORIES, *names)}
    columns["label"] = "int64"
    items = _downloads.read_csv(pandas, item_file, columns, has_header=False)
    for table, file in ((users, user_file), (items, item_file)):
        search, rule = table["search_id"], "must not be missing"
        _downloads.check_column(search, search.isna(), rule, file, 0)
    searches, rule = users["search_id"], _downloads.REPEATED
    _downloads.check_column(searches, searches.duplicated(), rule, user_file, 0)
    _downloads.check_flags(
        items, ["label"], item_file, n_header_lines=0, values=(0, 1, 2)
    )
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
    types = {}
    for position in features:
        is_category = position in categories
        name = next(category_names if is_category else number_names)
        types[name] = "str" if is_category else "float32"
    return types


def _as_bunch(loader, data, target, parts, sizes, **others):
    """Return the `Bunch` of a loader, and warn about conversions without a click."""
    n_unclicked = int((target["conversion"] > target["click"]).sum())
    if n_unclicked:
        warn_user(
            f"{loader.__name__}: {n_unclicked} rows have a conversion and no click. "
            "They are kept with these labels."
        )
    is_test = np.repeat([part == "test" for part in parts], sizes)
    others["n_unclicked_conversions"] = n_unclicked
    return _downloads.as_bunch(loader, data, target, is_test, **others)
