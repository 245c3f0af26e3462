"""Threads that predict while another one fits, with the same estimator."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from small_model import X, Y, small

pytestmark = pytest.mark.slow

N_READERS, N_FITS = 16, 3


def test_every_prediction_is_that_of_one_fit():
    tables = [X.iloc[start:] for start in (0, 100, 150, 200)]
    labels = [Y.iloc[start:] for start in (0, 100, 150, 200)]
    # Each fit has another encoding: other vocabularies, bins and statistics.
    pairs = list(zip(tables, labels, strict=True))
    expected = [small().fit(*pair).predict_proba(X) for pair in pairs]
    model = small().fit(*pairs[0])
    has_ended = threading.Event()

    def read():
        found = [model.predict_proba(X)]
        while not has_ended.is_set():
            found.append(model.predict_proba(X))
        return found

    with ThreadPoolExecutor(N_READERS) as pool:
        readers = [pool.submit(read) for _ in range(N_READERS)]
        try:
            for pair in pairs[1 : N_FITS + 1]:
                model.fit(*pair)
        finally:
            has_ended.set()
        found = [p for reader in readers for p in reader.result()]
    for p in found:
        assert any(np.array_equal(p, each) for each in expected)
    assert np.array_equal(model.predict_proba(X), expected[N_FITS])
