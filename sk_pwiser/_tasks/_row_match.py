"""Do a table and values per row match, in number and in their index."""

from numbers import Number

import numpy as np
from sklearn.utils.validation import _num_samples

from sk_pwiser._columns._frames import index_of
from sk_pwiser._utils._warnings import warn_user

# Ranges of labels that differ by at most this share of the rows are probably parts of
# one range, such as all rows but the first and all rows but the last.
LARGEST_SHIFT = 0.01


def check_match(X, n_samples, *, input_name="X", **values_by_name):
    """Raise if values per row do not match a table in number or in their index.

    Rows are matched by position. The same labels in another order are an error. Most
    labels in common, and these mostly in other rows, as if one table were shifted, is a
    warning.
    """
    if (n_rows := _num_samples(X)) != n_samples:
        raise ValueError(
            "X and Y have inconsistent numbers of samples: X has "
            f"{n_rows} rows, Y has {n_samples}."
        )
    index = index_of(X)
    for name, values in values_by_name.items():
        other = index_of(values)
        if index is None or other is None:
            continue
        if index.equals(other) or len(index) != len(other):
            continue
        row, n_moved = _compare_labels(index, other)
        if row is None:
            continue
        label = index[row : row + 1].tolist()[0]
        other_label = other[row : row + 1].tolist()[0]
        aligned = "equal orders"
        if index.is_unique and not n_moved:
            aligned = f"{name}.loc[{input_name}.index]"
        where = (
            f"row {row} is {label!r} in {input_name} and {other_label!r} in {name}. "
        )
        if n_moved:
            warn_user(
                f"{n_moved:,} of {len(index):,} rows of {input_name} have an index "
                f"label that {name} has in another row, as if one of them were "
                f"shifted: {where}Rows are matched by position. Select the same rows "
                f"of both, or pass {name}.to_numpy() if the positions are right."
            )
        else:
            raise ValueError(
                f"{input_name} and {name} have the same index labels in different "
                f"orders: {where}Pass {aligned} or, by position, {name}.to_numpy()."
            )


def _compare_labels(index, other):
    """Return the first row whose labels differ, and 0 if the labels are the same ones.

    Otherwise, return it with the number of labels in other rows if these are most; and
    None if the labels do not say that rows are in other places.
    """
    if index.dtype != other.dtype or index.nlevels != other.nlevels:
        index = index.to_flat_index().astype(object)
        other = other.to_flat_index().astype(object)
        # Most of these pairs have nothing in common, which one label tells fast.
        first = other[:1]
        if not (first.isna().any() or index.isin(first).any()):
            return None, 0
    if (shift := _shift_of_ranges(index, other)) is not None:
        n_common = len(index) - shift
        return (0, n_common) if shift <= LARGEST_SHIFT * len(index) else (None, 0)
    codes, labels = index.append(other).factorize(use_na_sentinel=False)
    index_codes, other_codes = np.split(codes, 2)
    differs = index_codes != other_codes
    if not differs.any():
        return None, 0
    row = int(differs.argmax())
    index_counts = np.bincount(index_codes, minlength=len(labels))
    other_counts = np.bincount(other_codes, minlength=len(labels))
    if index_counts.all() and other_counts.all():
        return row, 0
    # Numbers may count the rows of one table and not those of the other, after a
    # filter or a new index, and repeated labels name no row.
    is_name = not isinstance(labels[0], Number) and index_counts.max() == 1
    if not is_name or other_counts.max() > 1:
        return None, 0
    n_moved = int((differs & (other_counts[index_codes] > 0)).sum())
    return (row, n_moved) if 2 * n_moved > len(index) else (None, 0)


def _shift_of_ranges(index, other):
    """Return by how many rows two ranges of numbers are shifted, None for others."""
    steps = {getattr(labels, "step", None) for labels in (index, other)}
    if len(steps) > 1 or None in steps or index.dtype.kind not in "iu":
        return None
    shift, remainder = divmod(abs(index.start - other.start), abs(steps.pop()))
    return len(index) if remainder else shift
