"""With enough rows, every network learns the true probabilities."""

import pytest
from sklearn.metrics import roc_auc_score
from suites import fast_for

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.networks import NETWORKS

EXPERTS = {"expert_units": (32, 16), "tower_units": (16,)}
BOTTOM = {"bottom_units": (32,), "tower_units": (16,)}
TOWERS = {"tower_units": (32, 16)}
SMALL = {
    "aitm": TOWERS,
    "ctcl": BOTTOM,
    "dcmt": TOWERS,
    "ddpo": TOWERS,
    "escm2": TOWERS,
    "esmm": TOWERS,
    "fdn": {"expert_units": (32,)},
    "shared_bottom": BOTTOM,
    "single_task": BOTTOM,
}


@pytest.fixture(scope="module")
def data():
    data = make_ctr_cvr(
        100_000, n_numeric=4, n_categorical=2, ctr=0.3, cvr=0.3, random_state=0
    )
    rows = slice(0, 60_000), slice(60_000, None)
    return [
        (data.data.iloc[r], data.target.iloc[r], data.ctr[r], data.cvr[r]) for r in rows
    ]


@pytest.mark.parametrize("name", fast_for({"shared_bottom"}, NETWORKS))
def test_auc_comes_close_to_that_of_the_true_probabilities(name, data):
    (X, Y, _, _), (X_test, Y_test, ctr, cvr) = data
    model = MultiTaskCTRCVRClassifier(
        network=name,
        network_params=SMALL.get(name, EXPERTS),
        loss="bce",
        batch_size=1024,
        lr=0.005,
        max_epochs=5,
        early_stopping=False,
        random_state=0,
    )
    p = model.fit(X, Y).predict_proba(X_test)
    for k, truth in enumerate([ctr, ctr * cvr]):
        best = roc_auc_score(Y_test.iloc[:, k], truth)
        assert roc_auc_score(Y_test.iloc[:, k], p[:, k]) > best - 0.01
