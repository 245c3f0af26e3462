"""The log of each pair of rates, whose fits all tests of this folder share."""

import pytest
from rates_log import RATES, Fits, make_log


@pytest.fixture(
    scope="session",
    params=[pytest.param("2 %, 0.1 %", marks=pytest.mark.slow), "10 %, 1 %"],
)
def fits(request, _estimators_on_device):
    return Fits(make_log(*RATES[request.param]))
