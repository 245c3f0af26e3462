"""The Ali-CCP data set."""

from array import array
from inspect import getdoc
from numbers import Integral

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, validate_params

from sk_pwiser._utils import import_extra
from sk_pwiser.datasets._downloads import (
    PARAMETERS,
    check_flags,
    find_files,
    open_text,
    read_csv,
    warn_unclicked,
)

# Fields of users, of items, of users and items together, and of the context.
USER_FIELDS = ["101", "109_14", "110_14", "127_14", "150_14"]
USER_FIELDS += ["121", "122", "124", "125", "126", "127", "128", "129"]
FIELDS = [*USER_FIELDS, "205", "206", "207", "210", "216"]
FIELDS += ["508", "509", "702", "853", "301"]
MISSING = -1
NO_IDS = np.empty(0, dtype=np.int64)
NO_IDS.flags.writeable = False  # shared by all rows without ids


def read_part(skeleton, common, columns, labels, multi_valued, n_rows=None):
    """Add a part to columns and labels, and return its number of rows."""
    wanted = None
    if n_rows is not None:
        # The common features of all rows fill many GB: only those of the rows to read
        # are kept.
        wanted = {cells[3] for _, cells in _lines(skeleton, 6, n_rows)}
    shared = _read_common(common, wanted, multi_valued)
    start = len(labels)
    for place, (_, *flags, index, count, text) in _lines(skeleton, 6, n_rows):
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


_ADVICE = "If a field may have several values in a row, name it in multi_valued."


def _lines(file, n_cells, n_rows=None):
    with open_text(file) as lines:
        for number, line in enumerate(lines):
            if n_rows is not None and number >= n_rows:
                return
            place = f"{file}, line {number + 1}"
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
            f"{place}: feature_num is {count!r}, but feature_list has "
            f"{len(features)} features."
        )
    for feature in features:
        name, *rest = feature.replace("\x03", "\x02").split("\x02")
        if len(rest) != 2 or not rest[0].isdecimal():
            raise ValueError(
                f"{place}: feature_list must contain field, id and value, with a whole "
                f"number as id, found {feature!r}."
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


_KNOWN = frozenset(FIELDS)


def _read_common(file, wanted, multi_valued):
    """Return the common features by index; with `wanted`, only these indices."""
    shared = {}
    for place, (index, count, text) in _lines(file, 3):
        if wanted is not None and index not in wanted:
            continue
        if index in shared:
            raise ValueError(
                f"{place}: common_feature_index {index!r} occurs in an earlier line."
            )
        shared[index] = _parse(text, count, place, multi_valued)
    return shared


def _union(common, own, multi_valued, place):
    both = common | own
    if len(both) < len(common) + len(own):
        for name in sorted(common.keys() & own.keys()):
            if name not in multi_valued:
                raise ValueError(
                    f"{place}: feature_list contains the field {name!r}, which is also "
                    f"among the common features of the row. {_ADVICE}"
                )
            both[name] = np.concatenate([common[name], own[name]])
    return both


def as_category(pandas, ids):
    """Return ids as a `category` Series, -1 as missing."""
    values, codes = np.unique(np.frombuffer(ids, dtype=np.int64), return_inverse=True)
    # Categories get the code -1 for a missing id, as pandas expects.
    n_missing = int(len(values) > 0 and values[0] == MISSING)
    return pandas.Series(
        pandas.Categorical.from_codes(codes - n_missing, values[n_missing:])
    )


TASK_NAMES = ["click", "conversion"]
MULTI_VALUED = ("109_14", "110_14", "127_14", "150_14", "210")
# Fields in the processed form, which only has fields with one value per row.
PROCESSED = [name for name in FIELDS if name not in MULTI_VALUED]
DOWNLOAD = (
    "Download Ali-CCP from https://tianchi.aliyun.com/dataset/408 (the files "
    "sample_skeleton_train.csv, common_features_train.csv, sample_skeleton_test.csv "
    "and common_features_test.csv), or use a processed form, train.csv and test.csv."
)


@validate_params(
    {
        **PARAMETERS,
        "multi_valued": ["array-like"],
        "n_rows": [Interval(Integral, 1, None, closed="left"), None],
    },
    prefer_skip_nested_validation=True,
)
def load_ali_ccp(path, *, subset="all", multi_valued=MULTI_VALUED, n_rows=None):
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
    n_rows : int, default=None
        Number of rows to read from the start of each part; None reads all rows, about
        42 million per part.

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
    ...     train = load_ali_ccp(folder, subset="train", n_rows=10**6)
    ...     X, Y = train.data, train.target
    """
    pandas = import_extra("pandas", "load_ali_ccp")
    multi_valued = [str(name) for name in multi_valued]
    if unknown := sorted(set(multi_valued) - set(FIELDS)):
        raise ValueError(
            f"multi_valued must contain fields of Ali-CCP, {FIELDS}; got {unknown}."
        )
    parts = ["train", "test"] if subset == "all" else [subset]
    # Look for all files before reading the first one.
    files = [_find_part(path, part) for part in parts]
    if len({len(found) for found in files}) > 1:
        raise ValueError(
            f"The parts of Ali-CCP in {str(path)!r} have different forms: "
            f"{', '.join(str(found[0]) for found in files)}. Read one subset at a time."
        )
    if len(files[0]) == 1:
        data, lists, target, sizes = _read_processed(pandas, files, n_rows)
    else:
        data, lists, target, sizes = _read_raw(pandas, files, multi_valued, n_rows)
    return Bunch(
        data=data,
        lists=lists,
        target=target,
        task_names=list(TASK_NAMES),
        feature_names=list(data.columns),
        is_test=np.repeat([part == "test" for part in parts], sizes),
        n_unclicked_conversions=warn_unclicked(target, "load_ali_ccp"),
        DESCR=getdoc(load_ali_ccp),
    )


def _find_part(path, part):
    stems = part, f"sample_skeleton_{part}", f"common_features_{part}"
    processed, *raw = ([f"{stem}.csv", f"ali_ccp/{stem}.csv"] for stem in stems)
    return find_files(path, [processed], raw, download=DOWNLOAD)


def _read_processed(pandas, files, n_rows):
    labels = ["click", "purchase"]
    tables = []
    for [file] in files:
        columns = dict.fromkeys([*labels, *PROCESSED], "int64")
        tables.append(read_csv(pandas, file, columns, n_rows=n_rows))
        check_flags(tables[-1], labels, file)
    rows = pandas.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    target = rows[labels].rename(columns={"purchase": "conversion"})
    data = rows[PROCESSED].astype("category")
    return data, pandas.DataFrame(index=data.index), target, list(map(len, tables))


def _read_raw(pandas, files, multi_valued, n_rows):
    columns = {name: [] if name in multi_valued else array("q") for name in FIELDS}
    labels = array("b")
    sizes = [
        read_part(skeleton, common, columns, labels, set(multi_valued), n_rows)
        for skeleton, common in files
    ]
    data = pandas.DataFrame(
        {n: as_category(pandas, columns[n]) for n in FIELDS if n not in multi_valued}
    )
    lists = {
        name: pandas.Series(columns[name], dtype=object, index=data.index)
        for name in FIELDS
        if name in multi_valued
    }
    target = pandas.DataFrame(
        np.array(labels, dtype=np.int64).reshape(-1, 2), columns=TASK_NAMES
    )
    return data, pandas.DataFrame(lists, index=data.index), target, sizes
