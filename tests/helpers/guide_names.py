"""What the pages of the user guide leave to the reader: data, and a fitted model."""

from unittest.mock import MagicMock

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV, CalibrationDisplay
from sklearn.ensemble import StackingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import PartialDependenceDisplay, permutation_importance
from sklearn.metrics import RocCurveDisplay
from sklearn.model_selection import GridSearchCV, cross_val_score

from sk_pwiser import MultiTaskCTRCVRClassifier, transfer
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.linear_model import CPMultiTaskLogistic, MultiTaskSparseLinearCV
from sk_pwiser.metrics import grouped_auc, mean_auc_scorer

N_ROWS = 400


def impressions(seed=0):
    """Return a table of impressions of two markets, and labels of a funnel."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(
        {
            "shop": [f"shop {i}" for i in rng.integers(0, 9, N_ROWS)],
            "hour": rng.integers(0, 24, N_ROWS).astype(float),
            "price": rng.lognormal(size=N_ROWS),
            "user_age": np.where(rng.random(N_ROWS) < 0.1, np.nan, 30.0),
        }
    )
    click = rng.random(N_ROWS) < 0.2 + 0.4 * (X["price"] < 1)
    conversion = click & (rng.random(N_ROWS) < 0.4)
    Y = pd.DataFrame({"click": click, "conversion": conversion}).astype(int)
    return X, Y


def names_for(page):
    """Return the names that the code of a page refers to without defining them."""
    X, Y = impressions()
    names = {
        **_CLASSES,
        "X": X,
        "Y": Y,
        "model": MultiTaskCTRCVRClassifier(random_state=0),
    }
    later = impressions(seed=1)
    for part in ("early", "late", "later", "old", "new", "all", "held_out"):
        names[f"X_{part}"], names[f"Y_{part}"] = later
    return names | _OF_PAGE.get(page, lambda *_: {})(X, Y)


_CLASSES = {
    each.__name__: each
    for each in (
        *(CalibratedClassifierCV, CalibrationDisplay, FrozenEstimator, GridSearchCV),
        *(PartialDependenceDisplay, RocCurveDisplay, StackingClassifier),
        *(cross_val_score, permutation_importance),
        *(CPMultiTaskLogistic, FunnelCalibrator, MultiTaskSparseLinearCV, grouped_auc),
        *(getattr(transfer, name) for name in transfer.__all__),
    )
} | {
    "MultiTaskCTRCVRClassifier": MultiTaskCTRCVRClassifier,
    "mean_auc_scorer": mean_auc_scorer,
    "np": np,
    # No dependencies of the tests; others of the tests run what they can import.
    "SummaryWriter": MagicMock(),
    "mlflow": MagicMock(),
}


def _fitted(X, Y):
    return MultiTaskCTRCVRClassifier(random_state=0).fit(X, Y)


def _after_fit(X, Y):
    session = np.arange(N_ROWS) // 4
    names = {"X_new": X[:3], "X_sample": X[20:40]}
    return {"model": _fitted(X, Y), "session": session, **names}


def _inputs(X, Y):
    times = pd.date_range("2026-01-01", periods=N_ROWS, freq="h")
    return {"X": X.assign(time=times, stay=times - times[0])}


def _new_items(X, Y):
    return {"table": pd.DataFrame({"size": [1.0, 2.0]}, index=["shop 1", "shop 2"])}


def _related_methods(X, Y):
    return {"session": np.arange(N_ROWS) // 4, "time": np.arange(N_ROWS)}


def _serving(X, Y):
    rows = X[:2].to_dict("records")
    columns = ("shop", "hour", "price", "user_age")
    shops, hours, prices, ages = (X[column].to_numpy() for column in columns)
    return {
        "model": _fitted(X, Y),
        "row_1": rows[0],
        "row_2": rows[1],
        "candidates": [{"shop": shop, "price": 1.0} for shop in shops[:3]],
        "user": rows[0],
        "shops": shops,
        "hours": hours,
        "prices": prices,
        "ages": ages,
        "X_sample": X[20:32],
        "yesterday": _fitted(X[:300], Y[:300]),
    }


def _transfer(X, Y):
    markets = [impressions(seed) for seed in (1, 2, 3)]
    base = _fitted(X, Y)
    pool = [transfer.fine_tune(base, *market, extend=False) for market in markets]
    return {"markets": markets, "base": base, "pool": pool}


def _values(X, Y):
    spend = np.where(Y["conversion"] == 1, X["price"].abs() + 1, 0)
    amounts = Y.assign(spend=spend)
    return {
        "Y": amounts,
        "X_new": X[:3],
        "X_sample": X[20:32],
        "X_test": X[:50],
        "Y_test": amounts[:50],
        "X_later": X[50:].assign(market=np.arange(len(X) - 50) % 2),
        "Y_later": amounts[50:],
    }


_OF_PAGE = {
    "after_fit": _after_fit,
    "inputs": _inputs,
    "new_items": _new_items,
    "related_methods": _related_methods,
    "serving": _serving,
    "transfer": _transfer,
    "values": _values,
}
