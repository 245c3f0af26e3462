"""The impressions of Ali-CCP, in the form of the publisher or a processed one."""

import os
from array import array
from collections.abc import Iterator, Mapping, MutableSequence, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import Bunch

from sk_pwiser._utils._extras import import_extra
from sk_pwiser.datasets import _downloads

TASK_NAMES = ["click", "conversion"]
USER_FIELDS = [
    "101",
    "109_14",
    "110_14",
    "127_14",
    "150_14",
    "121",
    "122",
    "124",
    "125",
    "126",
    "127",
    "128",
    "129",
]
ITEM_FIELDS = ["205", "206", "207", "210", "216"]
# Of the user and the item together.
PAIR_FIELDS = ["508", "509", "702", "853"]
CONTEXT_FIELDS = ["301"]
FIELDS = [*USER_FIELDS, *ITEM_FIELDS, *PAIR_FIELDS, *CONTEXT_FIELDS]
_FIELD_SET = frozenset(FIELDS)
_ADVICE = "If a field may have several values in a row, name it in multi_valued."
# The id of a field that a row lacks.
MISSING = -1
NO_IDS: npt.NDArray[np.int64] = np.empty(0, dtype=np.int64)
NO_IDS.flags.writeable = False  # shared by all rows without ids


MULTI_VALUED = ("109_14", "110_14", "127_14", "150_14", "210")
# Fields in the processed form, which only has fields with one value per row.
PROCESSED = [name for name in FIELDS if name not in MULTI_VALUED]
ALI_CCP_SOURCE = (
    "Download Ali-CCP from https://tianchi.aliyun.com/dataset/408 (the files "
    "sample_skeleton_train.csv, common_features_train.csv, sample_skeleton_test.csv "
    "and common_features_test.csv), or use a processed form, train.csv and test.csv."
)


def load_ali_ccp(
    path: str | os.PathLike[str],
    *,
    subset: str = "all",
    multi_valued: Sequence[str] = MULTI_VALUED,
) -> Bunch:
    """Load the Ali-CCP impressions of recommended items, a funnel of two tasks.

    Each row is an impression in the shop Taobao, the tasks are the click and the
    conversion, a purchase. Training and test rows are split by time. As
    :func:`load_aliexpress` does, this function reads the publisher's files, or the
    processed form that many publications use.

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
    splits = _downloads.splits_of(subset)
    # Look for all files before reading the first one.
    files_of_splits = [_find_files(path, split) for split in splits]
    if len({len(files) for files in files_of_splits}) > 1:
        first_files = ", ".join(str(files[0]) for files in files_of_splits)
        raise ValueError(
            f"The parts of Ali-CCP in {str(path)!r} have different forms: "
            f"{first_files}. Read one subset at a time."
        )
    if len(files_of_splits[0]) == 1:
        data, lists, target, sizes = _read_processed(pandas, files_of_splits)
    else:
        data, lists, target, sizes = _read_raw(pandas, files_of_splits, multi_valued)
    return _downloads.click_conversion_bunch(
        load_ali_ccp,
        data,
        target,
        _downloads.find_test_rows(splits, sizes),
        lists=lists,
    )


def _find_files(path: str | os.PathLike[str], split: str) -> list[Path]:
    """Return the file of the processed form, or the two of the publisher's."""
    processed = [f"{split}.csv", f"ali_ccp/{split}.csv"]
    skeleton = [
        f"sample_skeleton_{split}.csv",
        f"ali_ccp/sample_skeleton_{split}.csv",
    ]
    common = [f"common_features_{split}.csv", f"ali_ccp/common_features_{split}.csv"]
    return _downloads.find_files(
        path, [processed], [skeleton, common], download=ALI_CCP_SOURCE
    )


def _read_processed(
    pandas: Any, files_of_splits: Sequence[Sequence[Path]]
) -> tuple[Any, Any, Any, list[int]]:
    labels = ["click", "purchase"]
    tables = []
    for [file] in files_of_splits:
        columns = dict.fromkeys([*labels, *PROCESSED], "int64")
        tables.append(_downloads.read_csv(pandas, file, columns))
        _downloads.check_flags(tables[-1], labels, file)
    rows = pandas.concat(tables, ignore_index=True) if len(tables) > 1 else tables[0]
    target = rows[labels].rename(columns={"purchase": "conversion"})
    data = rows[PROCESSED].astype("category")
    return data, pandas.DataFrame(index=data.index), target, list(map(len, tables))


# The features of a row: the id of a field, or the ids of a field with several values.
Features = dict[str, Any]


def _read_raw(
    pandas: Any,
    files_of_splits: Sequence[Sequence[Path]],
    multi_valued: Sequence[str],
) -> tuple[Any, Any, Any, list[int]]:
    columns: dict[str, Any] = {
        name: [] if name in multi_valued else array("q") for name in FIELDS
    }
    labels = array("b")
    sizes = [
        read_split(skeleton, common, columns, labels, set(multi_valued))
        for skeleton, common in files_of_splits
    ]
    data = {}
    lists = {}
    for name, values in columns.items():
        if name in multi_valued:
            lists[name] = pandas.Series(values, dtype=object)
        else:
            ids = np.frombuffer(values, dtype=np.int64)
            categories = np.unique(ids[ids != MISSING])
            data[name] = pandas.Categorical(ids).set_categories(categories)
    data_frame = pandas.DataFrame(data)
    list_frame = pandas.DataFrame(lists, index=data_frame.index)
    label_rows = np.array(labels, dtype=np.int64).reshape(-1, 2)
    target = pandas.DataFrame(label_rows, columns=TASK_NAMES)
    return data_frame, list_frame, target, sizes


def read_split(
    skeleton: Path,
    common: Path,
    columns: Mapping[str, MutableSequence[Any]],
    labels: "array[int]",
    multi_valued: Set[str],
) -> int:
    """Add a split to columns and labels, and return its number of rows."""
    shared: dict[str, Features] = {}
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
        row_features = _parse(text, count, place, multi_valued)
        # A row has the features of its user and search, and others.
        features = _union(shared[index], row_features, multi_valued, place)
        for name, column in columns.items():
            missing = NO_IDS if name in multi_valued else MISSING
            column.append(features.get(name, missing))
    return (len(labels) - start) // 2


def _lines(file: Path, n_cells: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the place of each line, for messages, and its cells."""
    with _downloads.open_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            place = f"{file}, line {number}"
            cells = line.rstrip("\r\n").split(",", n_cells - 1)
            if len(cells) != n_cells:
                raise ValueError(
                    f"{place}: expected {n_cells} fields, found {len(cells)}."
                )
            yield place, cells


def _parse(text: str, count: str, place: str, multi_valued: Set[str]) -> Features:
    """Return the features of a list of features."""
    parsed: Features = {}
    features = text.split("\x01") if text else []
    if count != str(len(features)):
        raise ValueError(
            f"{place}: feature_num is {count!r}, but feature_list has {len(features)}."
        )
    for feature in features:
        name, *id_and_value = feature.replace("\x03", "\x02").split("\x02")
        id_text = id_and_value[0] if len(id_and_value) == 2 else ""
        if not id_text.isdecimal() or int(id_text) >= 2**63:
            raise ValueError(
                f"{place}: feature_list must contain field, id and value, with a whole "
                f"number of 64 bits as id, found {feature!r}."
            )
        if name not in _FIELD_SET:
            raise ValueError(
                f"{place}: feature_list contains the unknown field {name!r}."
            )
        if name in multi_valued:
            parsed.setdefault(name, []).append(int(id_text))
        elif name in parsed:
            raise ValueError(
                f"{place}: feature_list contains the field {name!r} twice. {_ADVICE}"
            )
        else:
            parsed[name] = int(id_text)
    # Arrays take a fifth of the memory of lists of integers.
    for name in multi_valued & parsed.keys():
        parsed[name] = np.array(parsed[name], dtype=np.int64)
    return parsed


def _union(
    common: Features, row_features: Features, multi_valued: Set[str], place: str
) -> Features:
    """Return the common features of a row and those of the row alone."""
    features = common | row_features
    for name in sorted(common.keys() & row_features.keys()):
        if name not in multi_valued:
            raise ValueError(
                f"{place}: feature_list contains the field {name!r}, which is also "
                f"among the common features of the row. {_ADVICE}"
            )
        features[name] = np.concatenate([common[name], row_features[name]])
    return features
