"""The MineThatData e-mail campaign: visits and purchases."""

from inspect import getdoc
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import Bunch
from sklearn.utils._param_validation import validate_params

from sk_pwiser._utils import import_extra
from sk_pwiser.datasets._downloads import (
    PARAMETERS,
    check_columns,
    check_flags,
    find_files,
)

FILE_NAME = (
    "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv"
)
DOWNLOAD = (
    f"Download {FILE_NAME} from the MineThatData E-Mail Analytics And Data Mining "
    "Challenge, https://blog.minethatdata.com/2008/03/"
    "minethatdata-e-mail-analytics-and-data.html."
)
TASK_NAMES = ["visit", "conversion"]
FEATURES = ["recency", "history_segment", "history", "mens", "womens", "zip_code"]
FEATURES += ["newbie", "channel", "segment"]
# The others, text and flags, are categories.
NUMBERS = ["recency", "history"]


@validate_params(PARAMETERS, prefer_skip_nested_validation=True)
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
        If a column is missing, a label is not 0 or 1, or `subset` is unknown.

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
    file = Path(path).expanduser()
    if not file.is_file():
        form = [[FILE_NAME, f"hillstrom/{FILE_NAME}"]]
        [file] = find_files(path, form, download=DOWNLOAD)
    rows = pandas.read_csv(file)
    check_columns(rows, [*FEATURES, *TASK_NAMES], file.name)
    check_flags(rows, TASK_NAMES, file)
    target = rows[TASK_NAMES].astype("int64")
    _, test = train_test_split(
        np.arange(len(target)),
        test_size=0.3,
        stratify=target.sum(axis=1),
        random_state=0,
    )
    is_test = np.isin(np.arange(len(target)), test)
    keep = (subset == "all") | (is_test == (subset == "test"))
    data = rows.loc[keep, FEATURES].reset_index(drop=True)
    dtypes = dict.fromkeys(FEATURES, "category") | dict.fromkeys(NUMBERS, "float64")
    return Bunch(
        data=data.astype(dtypes),
        target=target[keep].reset_index(drop=True),
        task_names=list(TASK_NAMES),
        feature_names=list(FEATURES),
        is_test=is_test[keep],
        DESCR=getdoc(load_hillstrom),
    )
