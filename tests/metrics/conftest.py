import numpy as np
import pytest
from fake_estimators import ReadsFeatures


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    X = rng.uniform(0.05, 0.95, size=(200, 3))
    click = rng.random(200) < X[:, 0]
    Y = np.column_stack([click, click & (rng.random(200) < 0.6)]).astype(int)
    return X, Y


@pytest.fixture
def model(data):
    return ReadsFeatures().fit(*data)
