"""The way of a fit: read, check, encode, build, train."""

from sk_pwiser._fit._check import Plan, check
from sk_pwiser._fit._encode import encode
from sk_pwiser._fit._fit import build, fit, train
from sk_pwiser._fit._read import name_eval_sets, read_files
