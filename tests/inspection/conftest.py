import pytest


@pytest.fixture(autouse=True)
def pyplot():
    """`matplotlib.pyplot`, without a window."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
