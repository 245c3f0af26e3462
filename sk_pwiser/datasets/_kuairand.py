"""The short-video impressions of KuaiRand-Pure."""

import os
from itertools import chain
from pathlib import Path
from typing import Any

from sklearn.utils import Bunch

from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.datasets._downloads import (
    REPEATED,
    as_bunch,
    as_category,
    check_column,
    check_columns,
    check_flags,
    find_files,
    find_test_rows,
    read_csv,
    splits_of,
)

USER_FILE = "user_features_pure.csv"
VIDEO_FILE = "video_features_basic_pure.csv"
IMPRESSION_FILES = {
    "train": "val_20220425_20220430.parquet",
    "test": "test_20220501_20220508.parquet",
}
# The publisher's file with the impressions of both splits, and their dates.
LOG_FILE = "log_standard_4_22_to_5_08_pure.csv"
DATES = {"train": (20220425, 20220430), "test": (20220501, 20220508)}
KUAIRAND_SOURCE = (
    "Download KuaiRand-Pure from https://zenodo.org/records/10439422; the files "
    f"{LOG_FILE}, {USER_FILE} and {VIDEO_FILE} are read. The impressions may also be "
    f"Parquet files, {IMPRESSION_FILES['train']} and {IMPRESSION_FILES['test']}."
)
REACTIONS = {
    "like": "is_like",
    "follow": "is_follow",
    "comment": "is_comment",
    "forward": "is_forward",
    "profile": "is_profile_enter",
}
# A label after the click is 1 if the click and at least one of these columns are 1.
LATER_LABELS = {
    "engage": {"engage": [*REACTIONS.values()]},
    "long": {"long": ["long_view"]},
    "reactions": {name: [column] for name, column in REACTIONS.items()},
}
USER_COUNTS = ["follow_user_num", "fans_user_num", "friend_user_num", "register_days"]
COUNT_FEATURES = [*USER_COUNTS, "video_duration"]
USER_FEATURES = [
    "user_active_degree",
    "is_lowactive_period",
    "is_live_streamer",
    "is_video_author",
    *(count + suffix for count in USER_COUNTS for suffix in ("", "_range")),
    *(f"onehot_feat{number}" for number in range(18)),
]
VIDEO_FEATURES = [
    "author_id",
    "video_type",
    "upload_type",
    "visible_status",
    "video_duration",
    "music_id",
    "tag",
]


def load_kuairand(
    path: str | os.PathLike[str], second: str = "engage", *, subset: str = "all"
) -> Bunch:
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
    splits = splits_of(subset)
    check_choice("second", second, LATER_LABELS)
    # Look for all files before reading the first one.
    folders = ("", "kuairand_pure/", "data/", "KuaiRand-Pure/data/")
    candidates = [folder + USER_FILE for folder in folders]
    [user_file] = find_files(path, [candidates], download=KUAIRAND_SOURCE)
    names = [[VIDEO_FILE], *([IMPRESSION_FILES[split], LOG_FILE] for split in splits)]
    video_file, *log_files = find_files(
        user_file.parent, names, download=KUAIRAND_SOURCE
    )
    users = _read_table(pandas, user_file, "user_id", USER_FEATURES)
    videos = _read_table(pandas, video_file, "video_id", VIDEO_FEATURES)
    logs = [
        _read_impressions(pandas, file, second, split)
        for file, split in zip(log_files, splits, strict=True)
    ]
    rows = pandas.concat(logs, ignore_index=True)
    tasks = ["click", *LATER_LABELS[second]]
    return as_bunch(
        load_kuairand,
        _features(rows, users, videos),
        rows[tasks].copy(),
        find_test_rows(splits, [len(log) for log in logs]),
        task_parents=dict.fromkeys(tasks[1:], "click"),
        time_ms=rows["time_ms"].to_numpy(copy=True),
    )


def _read_table(pandas: Any, file: Path, key: str, features: list[str]) -> Any:
    numbers = [name for name in features if name in COUNT_FEATURES]
    kinds = {key: "int64", **dict.fromkeys(features, "str")}
    table = read_csv(pandas, file, kinds | dict.fromkeys(numbers, "float64"))
    check_column(table[key], table[key].duplicated(), REPEATED, file)
    for name in set(features) - set(numbers):
        # Tags are text, since a tag such as "20,43" lists several topics.
        table[name] = as_category(pandas, table[name], is_text=name == "tag")
    return table


def _read_impressions(pandas: Any, file: Path, second: str, split: str) -> Any:
    keys = ["user_id", "video_id", "tab", "hourmin", "time_ms"]
    later = LATER_LABELS[second]
    labels = ["is_click", *chain.from_iterable(later.values())]
    if file.name == LOG_FILE:
        rows = read_csv(pandas, file, dict.fromkeys(["date", *keys, *labels], "int64"))
        check_flags(rows, labels, file)
        rows = rows[rows["date"].between(*DATES[split])]
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


def _features(rows: Any, users: Any, videos: Any) -> Any:
    context = ["user_id", "video_id", "tab", "hour"]
    # Left joins: a row keeps its labels even if its user or video is unknown.
    data = rows[context].merge(users, on="user_id", how="left", validate="m:1")
    data = data.merge(videos, on="video_id", how="left", validate="m:1")
    data = data.astype(dict.fromkeys(context, "category"))
    for name in data.columns.difference([*context, *COUNT_FEATURES]):
        data[name] = data[name].cat.remove_unused_categories()
    return data
