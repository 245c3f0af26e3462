"""Helpers of the readers of downloaded files: imports, paths, columns, labels."""

import warnings
from pathlib import Path


def import_pandas(user, *, parquet=False):
    """Import pandas, or raise an error that names the extra.

    Parameters
    ----------
    user : str
        The function or parameter that needs pandas, for the message.
    parquet : bool, default=False
        Whether to import pyarrow too, which reading parquet files needs.

    Returns
    -------
    module
        The module pandas.

    Raises
    ------
    ImportError
        If a package is not installed.
    """
    try:
        import pandas

        if parquet:
            import pyarrow  # noqa: F401
    except ImportError as error:
        needs = "pandas and pyarrow" if parquet else "pandas"
        raise ImportError(
            f'{user} needs {needs}: pip install "sk_pwiser[pandas]"'
        ) from error
    return pandas


def find_file(folder, name, *, inside, download):
    """Find a file in a folder or in its sub-folder with the conventional name.

    Parameters
    ----------
    folder : str or os.PathLike
        The folder that holds the file, or its parent.
    name : str
        Name of the file.
    inside : str
        Name of the sub-folder to search if `folder` does not contain the file.
    download : str
        Where to download the file, for the message.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    FileNotFoundError
        If neither folder contains the file.
    """
    folder = Path(folder).expanduser()
    for candidate in (folder / name, folder / inside / name):
        if candidate.is_file():
            return candidate
    raise FileNotFoundError(
        f"{name!r} is neither in {str(folder)!r} nor in its sub-folder {inside!r}. "
        f"{download}"
    )


def find_first(path, candidates):
    """Return the first of some files that exists in a folder, None if none does.

    Parameters
    ----------
    path : str or os.PathLike
        The folder.
    candidates : iterable of str
        Paths relative to the folder.

    Returns
    -------
    pathlib.Path or None
        The file.
    """
    folder = Path(path).expanduser()
    return next((folder / c for c in candidates if (folder / c).is_file()), None)


def warn_unclicked(target, user):
    """Count and report the rows with a conversion and without a click.

    Parameters
    ----------
    target : DataFrame of shape (n_samples, 2)
        Labels, columns `click` and `conversion`.
    user : str
        The public function that calls this one, for the message.

    Returns
    -------
    int
        Number of such rows.
    """
    n_unclicked = int((target["conversion"] > target["click"]).sum())
    if n_unclicked:
        # Above the loader is the frame of `validate_params`, then the user's.
        warnings.warn(
            f"{user}: {n_unclicked} rows have a conversion and no click. They are "
            "kept with these labels.",
            UserWarning,
            stacklevel=4,
        )
    return n_unclicked


def check_columns(frame, columns, source):
    """Raise ValueError if `frame`, read from the file `source`, lacks columns."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ValueError(f"{source} lacks the column(s) {missing}.")


def binary_labels(frame, columns, source):
    """Return the label columns as int64 after checking that they hold 0 and 1.

    Parameters
    ----------
    frame : DataFrame
        Rows read from `source`.
    columns : list of str
        The label columns.
    source : str
        Name of the file, for the message.

    Returns
    -------
    DataFrame of shape (n_samples, n_labels)
        Labels, each 0 or 1.

    Raises
    ------
    ValueError
        If a label is missing or is not 0 or 1.
    """
    for name in columns:
        wrong = ~frame[name].isin((0, 1))
        if wrong.any():
            raise ValueError(
                f"Column {name!r} of {source} must hold 0 or 1, found "
                f"{frame[name][wrong].iloc[0]!r} in {int(wrong.sum())} row(s)."
            )
    return frame[columns].astype("int64")
