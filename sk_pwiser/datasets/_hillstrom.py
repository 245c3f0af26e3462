"""The e-mail campaign of Kevin Hillstrom."""

import os
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch

from sk_pwiser._utils._extras import import_extra
from sk_pwiser.datasets._downloads import (
    as_bunch,
    as_category,
    check_flags,
    find_files,
    read_csv,
    splits_of,
)

FILE_NAME = (
    "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv"
)
HILLSTROM_SOURCE = (
    f"Download {FILE_NAME} from the MineThatData E-Mail Analytics And Data Mining "
    "Challenge, https://blog.minethatdata.com/2008/03/"
    "minethatdata-e-mail-analytics-and-data.html."
)
TASK_NAMES = ["visit", "conversion"]
FEATURES = [
    "recency",
    "history_segment",
    "history",
    "mens",
    "womens",
    "zip_code",
    "newbie",
    "channel",
    "segment",
]
# The other features, text and flags, are categories.
NUMBERS = ["recency", "history"]


def load_hillstrom(path: str | os.PathLike[str], *, subset: str = "all") -> Bunch:
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
    splits = splits_of(subset)
    file = Path(path).expanduser()
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
    is_returned = np.where(is_test, "test" in splits, "train" in splits)
    data = rows.loc[is_returned, FEATURES].reset_index(drop=True)
    for name in set(FEATURES) - set(NUMBERS):
        data[name] = as_category(pandas, data[name])
    target = target[is_returned].reset_index(drop=True)
    return as_bunch(load_hillstrom, data, target, is_test[is_returned])
