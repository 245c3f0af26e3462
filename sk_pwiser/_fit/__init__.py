"""The way of a fit: read, check, encode, build, train; and other ways beside it."""

from sk_pwiser._fit._encode import encode
from sk_pwiser._fit._eval_sets import name_eval_sets, one_eval_set
from sk_pwiser._fit._fit import build, fit
from sk_pwiser._fit._fit_plan import FitPlan, check
from sk_pwiser._fit._learn_columns import NewColumns, SharedColumns
from sk_pwiser._fit._refit import fit_twice, refuse_refit
from sk_pwiser._fit._resume import fit_further
from sk_pwiser._fit._time_column import take_time_column
from sk_pwiser._fit._train import train
from sk_pwiser._fit._update import update
from sk_pwiser._fit._weight_trial import try_weight
