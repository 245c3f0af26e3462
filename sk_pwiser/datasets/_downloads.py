"""Downloaded logs: what all loaders share, and those of KuaiRand and Hillstrom."""

import csv
from contextlib import contextmanager
from inspect import getdoc
from itertools import chain
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._extras import import_extra

# The parts of the rows by `subset`.
PARTS = {"all": ["train", "test"], "train": ["train"], "test": ["test"]}


def parts_of(subset):
    return PARTS[check_choice("subset", subset, PARTS)]


def find_files(path, *forms, download):
    """Return the files of the first form that is complete.

    A form is a list of files, and each file a list of names to look for.
    """
    folder, missing = Path(path).expanduser(), []
    for form in forms:
        files = [
            next((folder / name for name in names if (folder / name).is_file()), None)
            for names in form
        ]
        if None not in files:
            return files
        missing.append(form[files.index(None)][0])
    raise FileNotFoundError(
        f"There is no {' and no '.join(missing)} in {str(path)!r} or its usual "
        f"subfolders. {download}"
    )


def as_bunch(loader, data, target, is_test, **others):
    """Return what all loaders return; the description is the loader's docstring."""
    return Bunch(
        data=data,
        target=target,
        task_names=list(target.columns),
        feature_names=list(data.columns),
        is_test=is_test,
        DESCR=getdoc(loader),
        **others,
    )


def check_columns(names, columns, source):
    missing = [name for name in columns if name not in names]
    if missing:
        raise ValueError(f"{source} lacks the column(s) {missing}.")


@np.errstate(over="ignore")  # too large numbers become infinite, and are found
def read_csv(pandas, file, dtypes, *, has_header=True, is_complete=False):
    """Read columns from a csv file.

    Text may be missing, and floats if the file is not complete.
    """
    names = list(dtypes)
    if has_header:
        with open_text(file) as lines:
            names = next(csv.reader(lines), [])
        check_columns(names, dtypes, file)
    types = {name: dtypes.get(name, "str") for name in names}
    try:
        # Not with `usecols`, for which pandas accepts lines with too many fields.
        with open_text(file) as lines:
            rows = pandas.read_csv(
                lines,
                header=None,
                names=names,
                skiprows=int(has_header),
                dtype=types,
                skip_blank_lines=False,
                keep_default_na=False,
                na_values=[""],
            )
    except (ValueError, OverflowError) as error:
        # pandas names neither the line nor the column, so a second pass looks for them.
        fault = _first_fault(file, types, has_header, is_complete)
        raise ValueError(fault or f"{file}: {error}") from error
    # A line with too many fields may turn the first column into an index. One with too
    # few has no value in the last column, which other lines may lack, too.
    is_suspect = not isinstance(rows.index, pandas.RangeIndex)
    is_suspect |= rows[names[-1]].isna().any()
    for name in names:
        if types[name].startswith("float"):
            known = rows[name] if is_complete else rows[name].dropna()
            is_suspect |= not np.isfinite(known).all()
    if is_suspect and (fault := _first_fault(file, types, has_header, is_complete)):
        raise ValueError(fault)
    return rows[list(dtypes)]


def check_flags(rows, columns, file, *, n_header_lines=1, values=(0, 1)):
    """Raise an error that names the first line or row with a value not in `values`."""
    rule = f"must contain {' or '.join(map(str, values))}"
    for name in columns:
        check_column(rows[name], ~rows[name].isin(values), rule, file, n_header_lines)


REPEATED = "must not repeat a value of an earlier line"  # a rule of check_column


def check_column(column, is_wrong, rule, file, n_header_lines=1):
    """Raise an error that names the first line that is wrong, or the first row."""
    if is_wrong.any():
        row = int(is_wrong.to_numpy().argmax())
        place = f"row {row}"
        if n_header_lines is not None:
            place = f"line {row + 1 + n_header_lines}"
        raise ValueError(
            f"{file}, {place}: column {column.name!r} {rule}, found "
            f"{column.iloc[row : row + 1].tolist()[0]!r} (in "
            f"{int(is_wrong.sum())} row(s))."
        )


@contextmanager
def open_text(file):
    """Open a csv file to read its lines."""
    if file.suffix == ".zip":
        raise ValueError(f"{file} is an archive; unpack it.")
    try:
        # Bytes that are not UTF-8 become characters that no text can be encoded of.
        with open(
            file, encoding="utf-8-sig", errors="surrogateescape", newline=""
        ) as f:
            yield f
    except csv.Error as error:
        raise ValueError(f"{file} is damaged: {error}.") from error


# What the fields of a dtype must contain.
EXPECTED = {
    "str": "UTF-8 text",
    "int64": "a whole number of 64 bits",
    **dict.fromkeys(["float32", "float64"], "a finite number"),
}


def _first_fault(file, types, has_header, is_complete):
    """Return a message about the first line that does not have the expected form."""
    with open_text(file) as lines:
        reader = csv.reader(lines)
        for cells in reader:
            if has_header and reader.line_num == 1:
                continue
            if len(cells) != len(types):
                found = f"expected {len(types)} fields, found {len(cells)}"
                return f"{file}, line {reader.line_num}: {found}."
            for cell, (name, kind) in zip(cells, types.items(), strict=True):
                if not _is_valid(cell, kind, is_complete):
                    return (
                        f"{file}, line {reader.line_num}: column {name!r} must contain "
                        f"{EXPECTED[kind]}, found {cell!r}."
                    )
    return None


def _is_valid(cell, kind, is_complete):
    may_be_missing = kind != "int64" and not is_complete
    try:
        cell.encode()
        if kind == "str" or (may_be_missing and not cell):
            return True
        return bool(np.isfinite(np.dtype(kind).type(cell)))
    except (OverflowError, ValueError):
        return False


USER_FILE = "user_features_pure.csv"
VIDEO_FILE = "video_features_basic_pure.csv"
IMPRESSION_FILES = {
    "train": "val_20220425_20220430.parquet",
    "test": "test_20220501_20220508.parquet",
}
# The publisher's file with the impressions of both parts, and the dates of the parts.
LOG_FILE = "log_standard_4_22_to_5_08_pure.csv"
DATES = {"train": (20220425, 20220430), "test": (20220501, 20220508)}
KUAIRAND_SOURCE = (
    "Download KuaiRand-Pure from https://zenodo.org/records/10439422; the files "
    f"{LOG_FILE}, {USER_FILE} and {VIDEO_FILE} are read. The impressions may also be "
    f"Parquet files, {IMPRESSION_FILES['train']} and {IMPRESSION_FILES['test']}."
)
REACTIONS = {name: f"is_{name}" for name in ("like", "follow", "comment", "forward")}
REACTIONS["profile"] = "is_profile_enter"
# A label after the click is 1 if the click and at least one of these columns are 1.
LATER_LABELS = {
    "engage": {"engage": [*REACTIONS.values()]},
    "long": {"long": ["long_view"]},
    "reactions": {name: [column] for name, column in REACTIONS.items()},
}
USER_COUNTS = ["follow_user_num", "fans_user_num", "friend_user_num", "register_days"]
COUNT_FEATURES = [*USER_COUNTS, "video_duration"]
USER_FEATURES = [
    *("user_active_degree", "is_lowactive_period", "is_live_streamer"),
    "is_video_author",
    *(count + suffix for count in USER_COUNTS for suffix in ("", "_range")),
    *(f"onehot_feat{number}" for number in range(18)),
]
VIDEO_FEATURES = [
    *("author_id", "video_type", "upload_type", "visible_status", "video_duration"),
    *("music_id", "tag"),
]


def load_kuairand(path, second="engage", *, subset="all"):
    """Load the KuaiRand-Pure short-video impressions and their clicks and reactions.

    Each row is an impression. The first task is the click, the second one an engagement
    or a long view after the click, or there are five reactions after it. Training and
    test rows are split by the published date; their times overlap by less than an hour.

    Parameters
    ----------
    path : str or os.PathLike
        The folder with the files, or the parent of a folder `kuairand_pure`, `data` or
        `KuaiRand-Pure/data` that contains them. The impressions are read from a Parquet
        file for the training rows and one for the test rows, if there are any, or from
        the publisher's csv file `log_standard_4_22_to_5_08_pure.csv`.
    second : {"engage", "long", "reactions"}, default="engage"
        The second task: `engage` is a click with a like, follow, comment, forward or
        visit of the author's profile; `long` is a click with a long view. With
        "reactions", these five are separate tasks, which presuppose only the click:
        `like`, `follow`, `comment`, `forward` and `profile`.
    subset : {"all", "train", "test"}, default="all"
        Which rows to return; `"all"` returns the training rows, then the test rows.

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with the following attributes.

        data : DataFrame of shape (n_samples, 41)
            The features: ids, codes, text and flags as `category`, whose categories are
            the values in the returned rows; counts and durations as floats. Empty
            fields are missing values; the publisher's text "UNKNOWN" is a category.
        target : DataFrame of shape (n_samples, n_tasks)
            The labels 0 and 1, columns `click` and the value of `second`, or the
            reactions.
        task_names, feature_names : list of str
            Names of the columns of `target` and of `data`.
        task_parents : dict
            The task that each later task presupposes: the click. It is the
            `task_parents` of :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` for
            "reactions".
        is_test : ndarray of shape (n_samples,)
            True in the test rows.
        time_ms : ndarray of shape (n_samples,)
            Time of each impression in milliseconds since 1970-01-01 UTC, for splits by
            time.
        DESCR : str
            This description.

    Raises
    ------
    FileNotFoundError
        If a file is not found.
    ValueError
        If a column is missing, a line cannot be read (the message names the file, line
        and column), a user or video occurs twice, a label is not 0 or 1, or `second` or
        `subset` is unknown.

    Notes
    -----
    Training rows have a `date` from 2022-04-25 to 2022-04-30, test rows from 2022-05-01
    to 2022-05-08. Earlier rows of the csv file are left out, and its rows are returned
    in the order of their time. Some rows occur more than once in the published files.
    All other feedback is left out, since it is only known after the impression. Licence
    of the data: CC BY-SA 4.0.

    References
    ----------
    Gao et al., "KuaiRand: An Unbiased Sequential Recommendation Dataset with Randomly
    Exposed Videos", CIKM 2022, arXiv 2208.08696.

    Examples
    --------
    >>> import os
    >>> from sk_pwiser.datasets import load_kuairand
    >>> folder = os.environ.get("SK_PWISER_DATA")  # contains the downloaded files
    >>> if folder:
    ...     train = load_kuairand(folder, "engage", subset="train")
    ...     X, Y = train.data, train.target
    """
    pandas = import_extra("pandas", "load_kuairand")
    import_extra("pyarrow", "load_kuairand")
    parts = parts_of(subset)
    check_choice("second", second, LATER_LABELS)
    # Look for all files before reading the first one.
    folders = ("", "kuairand_pure/", "data/", "KuaiRand-Pure/data/")
    candidates = [folder + USER_FILE for folder in folders]
    [users] = find_files(path, [candidates], download=KUAIRAND_SOURCE)
    files = [[VIDEO_FILE], *([IMPRESSION_FILES[part], LOG_FILE] for part in parts)]
    videos, *logs = find_files(users.parent, files, download=KUAIRAND_SOURCE)
    users = _read_table(pandas, users, "user_id", USER_FEATURES)
    videos = _read_table(pandas, videos, "video_id", VIDEO_FEATURES)
    logs = [
        _read_impressions(pandas, log, second, part)
        for log, part in zip(logs, parts, strict=True)
    ]
    rows = pandas.concat(logs, ignore_index=True)
    tasks = ["click", *LATER_LABELS[second]]
    return as_bunch(
        load_kuairand,
        _features(rows, users, videos),
        rows[tasks].copy(),
        np.repeat([part == "test" for part in parts], [len(x) for x in logs]),
        task_parents=dict.fromkeys(tasks[1:], "click"),
        time_ms=rows["time_ms"].to_numpy(copy=True),
    )


def _read_table(pandas, file, key, features):
    numbers = [name for name in features if name in COUNT_FEATURES]
    kinds = {key: "int64", **dict.fromkeys(features, "str")}
    table = read_csv(pandas, file, kinds | dict.fromkeys(numbers, "float64"))
    check_column(table[key], table[key].duplicated(), REPEATED, file)
    for name in set(features) - set(numbers):
        # Tags are text, since a tag such as "20,43" lists several topics.
        table[name] = _as_category(pandas, table[name], is_text=name == "tag")
    return table


def _as_category(pandas, column, is_text=False):
    """Return a column of text as `category`, with whole numbers as integers."""
    column = column.astype("category")
    texts = column.cat.categories
    try:
        numbers = texts if is_text else pandas.to_numeric(texts)
    except ValueError:
        return column
    if numbers.dtype.kind == "f":
        # Such as "0.0", to which pandas turns integers beside missing values.
        is_whole = (numbers == np.floor(numbers)) & (abs(numbers) < 2**53)
        numbers = numbers.astype("int64") if is_whole.all() else texts
    # Two texts may be the same number, such as "1" and "1.0".
    known, codes = np.unique(numbers, return_inverse=True)
    codes = np.append(codes, -1)[column.cat.codes]  # the code of missing values is -1
    return pandas.Categorical.from_codes(codes, categories=pandas.Index(known))


def _read_impressions(pandas, file, second, part):
    keys = ["user_id", "video_id", "tab", "hourmin", "time_ms"]
    later = LATER_LABELS[second]
    labels = ["is_click", *chain.from_iterable(later.values())]
    if file.name == LOG_FILE:
        rows = read_csv(pandas, file, dict.fromkeys(["date", *keys, *labels], "int64"))
        check_flags(rows, labels, file)
        rows = rows[rows["date"].between(*DATES[part])]
        # In the order of time, so that splits by position are splits by time.
        rows = rows.sort_values("time_ms", kind="stable", ignore_index=True)
    else:
        rows = pandas.read_parquet(file, engine="pyarrow")
        check_columns(rows.columns, [*keys, *labels], file.name)
        check_flags(rows, labels, file, n_header_lines=None)
    feedback = rows[labels].astype("int64")
    rows = rows[keys].astype("int64")
    rows["hour"] = rows["hourmin"] // 100
    rows["click"] = feedback["is_click"]
    for name, columns in later.items():
        # Some reactions come without a click; the task is a click with the reaction.
        rows[name] = feedback["is_click"] * feedback[columns].max(axis=1)
    return rows


def _features(rows, users, videos):
    context = ["user_id", "video_id", "tab", "hour"]
    # Left joins: a row keeps its labels even if its user or video is unknown.
    data = rows[context].merge(users, on="user_id", how="left", validate="m:1")
    data = data.merge(videos, on="video_id", how="left", validate="m:1")
    data = data.astype(dict.fromkeys(context, "category"))
    for name in data.columns.difference([*context, *COUNT_FEATURES]):
        data[name] = data[name].cat.remove_unused_categories()
    return data


FILE_NAME = (
    "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv"
)
HILLSTROM_SOURCE = (
    f"Download {FILE_NAME} from the MineThatData E-Mail Analytics And Data Mining "
    "Challenge, https://blog.minethatdata.com/2008/03/"
    "minethatdata-e-mail-analytics-and-data.html."
)
TASK_NAMES = ["visit", "conversion"]
FEATURES = ["recency", "history_segment", "history", "mens", "womens", "zip_code"]
FEATURES += ["newbie", "channel", "segment"]
# The others, text and flags, are categories.
NUMBERS = ["recency", "history"]


def load_hillstrom(path, *, subset="all"):
    """Load Hillstrom's e-mail campaign, a funnel of visit and purchase.

    Each row is a customer of a shop, who received an e-mail about men's or women's
    merchandise, or none (`segment`). The first task is a visit to the web site in the
    following two weeks, the second one a purchase there. The rows are in the order of
    the file. 30 % of them are test rows, selected at random with seed 0 and stratified
    by `visit + conversion`.

    Parameters
    ----------
    path : str or os.PathLike
        The csv file, its folder, or the parent of a folder `hillstrom` that contains
        the file.
    subset : {"all", "train", "test"}, default="all"
        Which rows to return.

    Returns
    -------
    sklearn.utils.Bunch
        Dictionary-like object with the following attributes.

        data : DataFrame of shape (n_samples, 9)
            The features: text and flags as `category`, `recency` (months) and `history`
            (US dollars) as floats. `spend` is an outcome and is left out.
        target : DataFrame of shape (n_samples, 2)
            The labels 0 and 1, columns `visit` and `conversion`.
        task_names, feature_names : list of str
            Names of the columns of `target` and of `data`.
        is_test : ndarray of shape (n_samples,)
            True in the test rows.
        DESCR : str
            This description.

    Raises
    ------
    FileNotFoundError
        If the file is not found.
    ValueError
        If a column is missing, a line cannot be read (the message names the file, line
        and column), a label is not 0 or 1, or `subset` is unknown.

    References
    ----------
    Kevin Hillstrom, "The MineThatData E-Mail Analytics And Data Mining Challenge",
    MineThatData blog, 2008.

    Examples
    --------
    >>> import os
    >>> from sk_pwiser.datasets import load_hillstrom
    >>> folder = os.environ.get("SK_PWISER_DATA")  # contains the downloaded files
    >>> if folder:
    ...     train = load_hillstrom(folder, subset="train")
    ...     X, Y = train.data, train.target
    """
    pandas = import_extra("pandas", "load_hillstrom")
    parts, file = parts_of(subset), Path(path).expanduser()
    if not file.is_file():
        form = [[FILE_NAME, f"hillstrom/{FILE_NAME}"]]
        [file] = find_files(path, form, download=HILLSTROM_SOURCE)
    types = dict.fromkeys(FEATURES, "str") | dict.fromkeys(NUMBERS, "float64")
    rows = read_csv(pandas, file, types | dict.fromkeys(TASK_NAMES, "int64"))
    check_flags(rows, TASK_NAMES, file)
    target = rows[TASK_NAMES]
    _, test = train_test_split(
        np.arange(len(target)),
        test_size=0.3,
        stratify=target.sum(axis=1),
        random_state=0,
    )
    is_test = np.isin(np.arange(len(target)), test)
    keep = np.where(is_test, "test" in parts, "train" in parts)
    data = rows.loc[keep, FEATURES].reset_index(drop=True)
    for name in set(FEATURES) - set(NUMBERS):
        data[name] = _as_category(pandas, data[name])
    target = target[keep].reset_index(drop=True)
    return as_bunch(load_hillstrom, data, target, is_test[keep])
