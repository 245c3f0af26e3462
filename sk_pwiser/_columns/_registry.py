"""The kinds of columns."""

from sk_pwiser._columns._bins_and_scores import BinsAndScoresColumn
from sk_pwiser._columns._piecewise_linear import PiecewiseLinearColumn
from sk_pwiser._columns._quantile import QuantileColumn
from sk_pwiser._columns._standard import StandardColumn

NUMERIC_ENCODINGS = {
    "standard": StandardColumn,
    "quantile": QuantileColumn,
    "piecewise_linear": PiecewiseLinearColumn,
    "bins_and_scores": BinsAndScoresColumn,
}
