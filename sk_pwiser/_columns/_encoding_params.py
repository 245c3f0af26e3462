"""Checks of the entries of `encoding_params` about columns."""

from collections.abc import Mapping

from sk_pwiser._columns import _vocabulary
from sk_pwiser._columns._choice import LIST_MAPPINGS
from sk_pwiser._columns._combination import MOST_SOURCES
from sk_pwiser._columns._list import POOLINGS
from sk_pwiser._utils._checks import check_boolean, check_choice, check_integer

# The least values of integers among `encoding_params`.
LEAST = {"target_encoding_blocks": 2, "target_encoding_min_values": 1, "max_bins": 1}


def check_encoding_params(params):
    """Check what can be refused without a table."""
    for name in (*_vocabulary.Vocabulary._fields, "list_pooling"):
        by_column = isinstance(params[name], Mapping)
        values = params[name] if by_column else {None: params[name]}
        for column, value in values.items():
            place = f"{name}[{column!r}]" if by_column else name
            if name == "list_pooling":
                check_choice(place, value, POOLINGS)
            elif value is not None or by_column or name == "min_frequency":
                check_integer(place, value, at_least=1)
            if name == "n_hash_buckets" and (value or 0) > _vocabulary.MAX_BUCKETS:
                raise ValueError(
                    f"{place} must be at most {_vocabulary.MAX_BUCKETS}; got {value}."
                )
    for name, least in LEAST.items():
        check_integer(name, params[name], at_least=least)
    for name in ("grow_vocabulary", "time_feature"):
        check_boolean(name, params[name])
    if params["forget_after"] is not None:
        check_integer("forget_after", params["forget_after"], at_least=1)
        if not params["grow_vocabulary"]:
            raise ValueError(
                f"forget_after must be None without grow_vocabulary=True; got "
                f"{params['forget_after']}."
            )
    for name in (*LIST_MAPPINGS, "parents"):
        if not isinstance(params[name], dict | None):
            raise TypeError(
                f"{name} must be None or a dict of columns; got {params[name]!r}."
            )
    vectors = params["vectors"]
    if not isinstance(vectors, dict | None):
        raise TypeError(
            "vectors must be None or a dict of columns and their tables; got "
            f"{type(vectors).__name__}."
        )
    check_combinations(params["combinations"])
    monotone = params["exposure_monotone"]
    if not isinstance(monotone, bool | list | tuple):
        raise TypeError(
            f"exposure_monotone must be a bool or a list of names; got {monotone!r}."
        )
    chosen = params["list_target_encoding"]
    if not isinstance(chosen, bool | list | tuple):
        raise TypeError(
            f"list_target_encoding must be a bool or a list of names; got {chosen!r}."
        )


def check_combinations(combinations):
    """Check what can be refused of `combinations` without a table."""
    if combinations is None or isinstance(combinations, list):
        for names in combinations or ():
            if not isinstance(names, tuple | list):
                raise TypeError(
                    "combinations must hold tuples of names or indices of columns; got "
                    f"{names!r}."
                )
            if not 2 <= len(names) <= MOST_SOURCES or len(set(names)) < len(names):
                raise ValueError(
                    f"Each of combinations must have 2 to {MOST_SOURCES} different "
                    f"columns; got {tuple(names)!r}."
                )
    elif isinstance(combinations, str):
        check_choice("combinations", combinations, ("auto",))
    elif isinstance(combinations, bool | float):
        raise TypeError(
            'combinations must be "auto", None, a list of tuples of columns, or a '
            f"largest number; got {combinations!r}."
        )
    else:
        check_integer("combinations", combinations, at_least=1)
