"""Numbers as positions among bins and as normal scores."""

from sk_pwiser._columns._piecewise_linear import PiecewiseLinearColumn


class BinsAndScoresColumn(PiecewiseLinearColumn):
    """Encodes a column as positions among bins, also to be read as normal scores."""

    encoding_name = "bins_and_scores"
    has_scores = True

    @property
    def bin_scale(self) -> float:
        """Factor of the components of the bins, half of it for quantile bins."""
        # The scores represent the smooth effects of quantile bins.
        return 0.5 if self.n_bins_ > 1 and self.has_quantiles_ else 1.0

    @property
    def words(self) -> str:
        """How numbers that differ are encoded, in a few words."""
        return f"{self.n_bins_} bins, score" if self.n_bins_ > 1 else "1 bin"
