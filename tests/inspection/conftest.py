import pytest


@pytest.fixture(autouse=True)
def pyplot():
    """`matplotlib.pyplot`, without a window, whose figures are closed after a test."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")
