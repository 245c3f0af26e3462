"""Numbers as positions among bins and as normal scores."""

from sk_pwiser._columns._piecewise_linear import PiecewiseLinearColumn


class BinsAndScoresColumn(PiecewiseLinearColumn):
    """Encodes a column as positions among bins, also to be read as normal scores."""

    has_scores = True

    @property
    def _words(self):
        return f"{self.n_bins_} bins, score" if self.n_bins_ > 1 else "1 bin"
