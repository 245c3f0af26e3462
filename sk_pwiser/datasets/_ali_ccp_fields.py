"""Parser of the publisher's files of Ali-CCP: features as lists of field, id, value."""

from array import array

import numpy as np

from sk_pwiser.datasets._csv import open_text

# Fields of the user, of the item, of their combination and of the context.
USER_FIELDS = ["101", "109_14", "110_14", "127_14", "150_14"]
USER_FIELDS += ["121", "122", "124", "125", "126", "127", "128", "129"]
FIELDS = [*USER_FIELDS, "205", "206", "207", "210", "216"]
FIELDS += ["508", "509", "702", "853", "301"]
MISSING = -1
NO_IDS = np.empty(0, dtype=np.int64)
NO_IDS.flags.writeable = False  # Shared by all rows without ids.


class FieldTable:
    """Rows of fields, collected line by line.

    Parameters
    ----------
    multi_valued : collection of str
        Fields that may occur several times in a row.
    """

    def __init__(self, multi_valued):
        self.multi_valued = set(multi_valued)
        singles = [name for name in FIELDS if name not in self.multi_valued]
        self.ids = {name: array("q") for name in singles}
        self.lists = {name: [] for name in FIELDS if name in self.multi_valued}
        self.n_rows = 0

    def append(self, features):
        """Add a row.

        Parameters
        ----------
        features : dict
            The id of each field with one value, the array of ids of each other one.
        """
        for name, column in self.ids.items():
            column.append(features.get(name, MISSING))
        for name, column in self.lists.items():
            column.append(features.get(name, NO_IDS))
        self.n_rows += 1


def read_part(skeleton, common, table, labels, *, n_rows=None):
    """Read the impressions of a part into a table, line by line.

    With `n_rows` only the common features of these rows are kept in memory.

    Parameters
    ----------
    skeleton, common : pathlib.Path
        The files `sample_skeleton_*.csv` and `common_features_*.csv`.
    table : FieldTable
        Receives the features.
    labels : array.array
        Receives click and conversion of each row, one after the other.
    n_rows : int, default=None
        Number of lines of the skeleton to read; None reads all.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    ValueError
        If a line cannot be read; the message names the file, the line and the field.
    """
    multi_valued = table.multi_valued
    wanted = None
    if n_rows is not None:
        wanted = {cells[3] for _, cells in _lines(skeleton, 6, n_rows)}
    shared = _read_common(common, wanted, multi_valued)
    start = table.n_rows
    for place, cells in _lines(skeleton, 6, n_rows):
        labels.append(_flag(cells[1], place, "click"))
        labels.append(_flag(cells[2], place, "conversion"))
        index = cells[3]
        if index not in shared:
            raise ValueError(
                f"{place}: common_feature_index {index!r} is not in {common}."
            )
        own = _parse(cells[5], cells[4], place, multi_valued)
        table.append(_union(shared[index], own, multi_valued, place))
    return table.n_rows - start


_ADVICE = "If a field may have several values in a row, name it in multi_valued."


def _lines(file, n_cells, n_rows=None):
    """Yield the place and the cells of each line."""
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


def _flag(cell, place, name):
    """Return a label as an integer."""
    if cell not in ("0", "1"):
        raise ValueError(f"{place}: {name} must be 0 or 1, found {cell!r}.")
    return int(cell)


def _parse(text, count, place, multi_valued):
    """Return the ids of a feature list by field."""
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
                f"{place}: feature_list must hold field, id and value, with a whole "
                f"number as id, found {feature!r}."
            )
        if name not in _KNOWN:
            raise ValueError(f"{place}: feature_list holds the unknown field {name!r}.")
        if name in multi_valued:
            parsed.setdefault(name, []).append(int(rest[0]))
        elif name in parsed:
            raise ValueError(
                f"{place}: feature_list holds the field {name!r} twice. {_ADVICE}"
            )
        else:
            parsed[name] = int(rest[0])
    # Arrays take a fifth of the memory of lists of integers.
    for name in multi_valued & parsed.keys():
        parsed[name] = np.array(parsed[name], dtype=np.int64)
    return parsed


_KNOWN = frozenset(FIELDS)


def _read_common(file, wanted, multi_valued):
    """Return the common features by index, all or those that are wanted."""
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
    """Return the common features and those of the row."""
    both = common | own
    if len(both) < len(common) + len(own):
        for name in sorted(common.keys() & own.keys()):
            if name not in multi_valued:
                raise ValueError(
                    f"{place}: feature_list holds the field {name!r}, which is also "
                    f"among the common features of the row. {_ADVICE}"
                )
            both[name] = np.concatenate([common[name], own[name]])
    return both


def as_category(pandas, ids):
    """Return ids as a `category` Series, -1 as missing."""
    values, codes = np.unique(np.frombuffer(ids, dtype=np.int64), return_inverse=True)
    n_missing = int(len(values) > 0 and values[0] == MISSING)
    return pandas.Series(
        pandas.Categorical.from_codes(codes - n_missing, values[n_missing:])
    )
