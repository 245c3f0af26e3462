"""How much time has passed since the rows before, as a share of the first fit."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

# An update after a longer time, or of more rows, drifts no farther.
LONGEST = 10.0


class TimeSpan(NamedTuple):
    """The first and the last time of some rows."""

    first: float
    last: float


class Clock(nn.Module):
    """Measures the time between updates where the rows have times, and else by rows.

    The unit is what the first fit, or the first update, spans.
    """

    def __init__(self) -> None:
        super().__init__()
        # The bits of float64 numbers, which not every device has: the rows and the span
        # of time of the first fit, and the last time so far; NaN if they are not known.
        self.bits = nn.Buffer(_to_bits([math.nan, math.nan, math.nan]))

    def _load_from_state_dict(self, state_dict, prefix, *args):  # type: ignore[no-untyped-def]
        # Files of earlier versions have no clock.
        unknown = _to_bits([math.nan, math.nan, math.nan])
        state_dict.setdefault(f"{prefix}bits", unknown)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def start(self, n_rows: float, times: TimeSpan | None) -> None:
        """Take the rows of a fit, or of a first update, as the unit."""
        span = math.nan
        last = math.nan
        if times is not None:
            span = times.last - times.first
            last = times.last
        self._set(n_rows, span, last)

    def advance(
        self, n_rows: float, times: TimeSpan | None, n_earlier_rows: float
    ) -> float:
        """Return the time of the rows of an update since the rows before."""
        first_rows, span, last = self.bits.cpu().view(torch.float64).tolist()
        if math.isnan(first_rows):
            # A fit of an earlier version, or a first update.
            first_rows = max(n_earlier_rows, n_rows)
        elapsed = n_rows / max(first_rows, 1.0)
        if times is not None:
            if span > 0:
                elapsed = (times.last - last) / span
            elif times.last > times.first:
                # The first rows with times: their span says how long the unit is.
                span = (times.last - times.first) / max(elapsed, 1e-9)
            last = times.last if math.isnan(last) else max(last, times.last)
        self._set(first_rows, span, last)
        return min(max(elapsed, 0.0), LONGEST)

    def _set(self, n_rows: float, span: float, last: float) -> None:
        self.bits.copy_(_to_bits([n_rows, span, last]))


def _to_bits(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64).view(torch.int64)
