"""Hashes of category values that are the same in every process and on every machine."""

from decimal import Decimal
from numbers import Real

import numpy as np
from sklearn.utils import murmurhash3_32


def hash_values(values):
    """Return a hash of each value; values that compare equal have equal hashes.

    Text is hashed as UTF-8, an integer by its 64 bits, and another number by the bits
    of its double. 1, 1.0, True and Decimal(1) are the same integer.

    Parameters
    ----------
    values : list
        Text, numbers and bools.

    Returns
    -------
    uint32 ndarray of shape (n_values,)

    Raises
    ------
    TypeError
        If a value is neither text nor a number.
    """
    kinds = set(map(type, values))
    if len(kinds) == 1 and kinds <= HASHES.keys():
        try:
            return HASHES[kinds.pop()](values)
        except OverflowError:
            pass  # integers of more than 64 bits
    values = list(map(_canonical, values))
    hashes = np.empty(len(values), dtype=np.uint32)
    for kind, hash_all in HASHES.items():
        places = [place for place, value in enumerate(values) if type(value) is kind]
        if places:
            hashes[places] = hash_all([values[place] for place in places])
    return hashes


def _canonical(value):
    """Return equal numbers as the same int, float or, if neither holds them, text."""
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, Real | Decimal | np.bool_):
        raise TypeError(
            f"hashing takes text and numbers; got {value!r}, a {type(value).__name__}"
        )
    whole = int(value)
    if whole == value:
        return whole if -(2**63) <= whole < 2**63 else str(whole)
    if float(value) == value:
        return float(value)
    return str(value.normalize() if isinstance(value, Decimal) else value)


def _hash_text(value):
    # Text of a file name may hold surrogates, which plain UTF-8 refuses.
    return murmurhash3_32(value.encode("utf-8", "surrogatepass"), positive=True)


def _hash_texts(values):
    return np.fromiter(map(_hash_text, values), dtype=np.uint32, count=len(values))


def _hash_integers(values):
    return _hash_bits(np.array(values, dtype=np.int64))


def _hash_floats(values):
    values = np.array(values, dtype=np.float64)
    hashes = _hash_bits(values.view(np.int64))
    is_whole = values == np.trunc(values)
    is_small = is_whole & (np.abs(values) < 2.0**63)
    hashes[is_small] = _hash_bits(values[is_small].astype(np.int64))
    is_large = is_whole & ~is_small
    hashes[is_large] = _hash_texts([str(int(value)) for value in values[is_large]])
    return hashes


def _hash_bits(values):
    """Hash int64 values: the low words, mixed with the hashes of the high words."""
    words = values.astype("<i8").view("<i4").reshape(-1, 2).astype(np.int32)
    low, high = np.ascontiguousarray(words.T)
    return murmurhash3_32(low ^ murmurhash3_32(high), positive=True)


HASHES = {
    str: _hash_texts,
    int: _hash_integers,
    bool: _hash_integers,
    float: _hash_floats,
}
