"""Arguments of the estimator's fits, with metadata routing and without it."""

import numpy as np
import pytest
import sklearn
from fake_estimators import ReadsFeatures
from numpy.testing import assert_array_equal
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GroupKFold, cross_validate
from small_model import N, small
from small_model import X as IMPRESSIONS
from small_model import Y as LABELS

from sk_pwiser import TaskView
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.metrics import mean_log_loss_scorer
from sk_pwiser.model_selection import FunnelGroupKFold

RNG = np.random.default_rng(0)
GROUPS = RNG.integers(0, 20, N)
X = np.column_stack([RNG.uniform(0.2, 0.8, (N, 2)), np.arange(N)])
Y = LABELS.to_numpy()
FITS = []


class Records(ReadsFeatures):
    """Records the rows and the arguments of each fit."""

    def fit(self, X, Y, sample_weight=None, groups=None, X_val=None, plan=None):
        rows = np.asarray(X)[:, 2].astype(int)
        FITS.append((rows, sample_weight, groups, X_val, plan))
        return super().fit(X, Y)


@pytest.fixture(params=[False, True], ids=["without routing", "with routing"])
def routes(request):
    """Return whether routing is enabled."""
    with sklearn.config_context(enable_metadata_routing=request.param):
        yield request.param


def requesting(estimator, routes, **requests):
    return estimator.set_fit_request(**requests) if routes else estimator


@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
@pytest.mark.parametrize("kind", [list, np.asarray])
def test_each_fit_gets_the_entries_of_its_rows(routes, kind):
    requests = dict.fromkeys(("sample_weight", "groups", "X_val", "plan"), True)
    calibrator = FunnelCalibrator(
        requesting(Records(), routes, **requests), cv=GroupKFold(3), method="sigmoid"
    )
    requesting(calibrator, routes, sample_weight=True)
    weight, X_val, plan = kind(np.arange(N) + 1.0), X[::-1], {"a": 1}
    FITS.clear()
    arguments = {"groups": kind(GROUPS), "X_val": X_val, "plan": plan}
    calibrator.fit(X, Y, sample_weight=weight, **arguments)
    assert [len(rows) for rows, *_ in FITS][3:] == [N]
    for rows, *found in FITS:
        assert_array_equal(found[0], rows + 1)
        assert_array_equal(found[1], GROUPS[rows])
        assert found[2] is X_val  # of as many rows, but others
        assert found[3] is plan
        others = np.setdiff1d(np.arange(N), rows)
        assert not np.isin(GROUPS[others], GROUPS[rows]).any()


@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
@pytest.mark.filterwarnings("ignore:The group .* rows, too many:UserWarning")
def test_a_loss_within_groups(routes):
    model = small(loss="jrc", early_stopping="grouped_auc")
    requesting(model, routes, groups=True)
    cv = FunnelGroupKFold(2, random_state=0)
    calibrator = FunnelCalibrator(model, cv=cv, method="sigmoid")
    calibrator.fit(IMPRESSIONS, LABELS, groups=GROUPS)
    expected = model.fit(IMPRESSIONS, LABELS, groups=GROUPS)
    assert_array_equal(
        calibrator.estimator_.predict_proba(IMPRESSIONS),
        expected.predict_proba(IMPRESSIONS),
    )
    if routes:
        options = {"cv": GroupKFold(2), "scoring": mean_log_loss_scorer}
        options |= {"params": {"groups": GROUPS}, "error_score": "raise"}
        found = cross_validate(calibrator, IMPRESSIONS, LABELS, **options)
        assert np.isfinite(found["test_score"]).all()
        model.set_fit_request(groups=None)
        with pytest.raises(UnsetMetadataPassedError, match="groups"):
            calibrator.fit(IMPRESSIONS, LABELS, groups=GROUPS)


@pytest.mark.filterwarnings("ignore:In the calibration rows:UserWarning")
def test_views_get_the_labels_of_all_tasks(routes):
    view = TaskView(small(), "conversion")
    calibrator = FunnelCalibrator(view, cv=2, method="sigmoid")
    calibrator.fit(IMPRESSIONS, LABELS["conversion"], tasks=LABELS)
    expected = small().fit(IMPRESSIONS, LABELS).predict_proba(IMPRESSIONS)
    found = calibrator.estimator_.predict_proba(IMPRESSIONS)
    assert_array_equal(found[:, 1], expected[:, 1])


def test_arguments_without_effect_are_refused(routes):
    fitted = ReadsFeatures().fit(X, Y)
    with pytest.raises(ValueError, match=r"groups, X_val: .* no effect with cv=None"):
        FunnelCalibrator(fitted).fit(X, Y, groups=GROUPS, X_val=X)
    with pytest.raises(TypeError, match="unexpected"):
        FunnelCalibrator(ReadsFeatures(), cv=2).fit(X, Y, plan=1)
