"""Which values of a category column have codes of their own, and their hashes."""

from decimal import Decimal
from numbers import Real
from typing import NamedTuple

import numpy as np
from sklearn.utils import murmurhash3_32

MIN_FREQUENCY = 2


# Every bucket has a code, even if it is not used.
MAX_BUCKETS = 2**31 - 1


class Vocabulary(NamedTuple):
    """Which values of a category column have codes of their own."""

    min_frequency: int = MIN_FREQUENCY  # values in fewer rows share a code
    # Largest number of codes, the shared one included.
    max_categories: int | None = None
    # Codes over which all other values are distributed by their hashes.
    n_hash_buckets: int | None = None

    @property
    def max_values(self):
        """Largest number of values with their own code; None for no limit."""
        if self.max_categories is None:
            return None if self.n_hash_buckets is None else 0
        return self.max_categories - 1


DEFAULT = Vocabulary()


def hash_values(values):
    """Return a hash of each value, uint32; values that compare equal have equal hashes.

    1, 1.0, True and Decimal(1) are the same integer, which is hashed by its 64 bits.
    """
    # Most columns hold text or integers of 64 bits, which have one form already.
    kinds = set(map(type, values))
    if kinds == {str}:
        return _hash_texts(values)
    if kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        return _hash_bits(values, int)
    values = list(map(_canonical, values))
    hashes = np.empty(len(values), dtype=np.uint32)
    for kind in (str, int, float):
        places = [place for place, value in enumerate(values) if type(value) is kind]
        if places:
            same_kind = [values[place] for place in places]
            if kind is str:
                hashes[places] = _hash_texts(same_kind)
            else:
                hashes[places] = _hash_bits(same_kind, kind)
    return hashes


def _canonical(value):
    """Return the same object for equal numbers: an int, a float, or otherwise text."""
    if isinstance(value, str):
        return str(value)
    if type(value) is not int and not isinstance(value, Real | Decimal | np.bool_):
        raise TypeError(
            f"hashing takes text and numbers; got {value!r}, a {type(value).__name__}"
        )
    whole = int(value)
    if whole == value:
        return whole if -(2**63) <= whole < 2**63 else str(whole)
    if float(value) == value:
        return float(value)
    return str(value.normalize() if isinstance(value, Decimal) else value)


def _hash_texts(values):
    # Text such as a file name may contain surrogates, which plain UTF-8 cannot encode.
    texts = (value.encode("utf-8", "surrogatepass") for value in values)
    hashes = (murmurhash3_32(text, positive=True) for text in texts)
    return np.fromiter(hashes, dtype=np.uint32, count=len(values))


def _hash_bits(values, kind):
    """Hash 64 bits by their low words, mixed with the hashes of the high words."""
    bits = np.array(values, dtype=kind).view(np.int64)
    words = bits.astype("<i8").view("<i4").reshape(-1, 2).astype(np.int32)
    low, high = np.ascontiguousarray(words.T)
    return murmurhash3_32(low ^ murmurhash3_32(high), positive=True)
