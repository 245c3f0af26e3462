"""The way of a fit: read, check, encode, build, train."""

from sk_pwiser._fit._encode import encode
from sk_pwiser._fit._file_rows import FileRows, warn_about_corrupt
from sk_pwiser._fit._file_store import RowStore, StreamedImpressions
from sk_pwiser._fit._fit import (
    Plan,
    build,
    check,
    fit,
    name_eval_sets,
    one_eval_set,
    train,
)
from sk_pwiser._fit._refit import fit_twice, refuse_refit
from sk_pwiser._fit._time_column import take_time_column
