"""scikit-learn's own checks of the linear estimators."""

import pytest
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_param_validation,
    estimator_checks_generator,
)

from sk_pwiser.linear_model import (
    CPMultiTaskLogistic,
    MultiTaskSparseLinear,
    MultiTaskSparseLinearCV,
)

ESTIMATORS = {
    "cp": CPMultiTaskLogistic(),
    "cp als": CPMultiTaskLogistic(loss="squared_error", solver="als"),
    "sparse": MultiTaskSparseLinear(),
    "sparse regression": MultiTaskSparseLinear(task_types="regression"),
    "sparse cv": MultiTaskSparseLinearCV(alphas=4, cv=3, random_state=0),
    "sparse cv regression": MultiTaskSparseLinearCV(
        alphas=4, cv=3, task_types="regression", random_state=0
    ),
}
FAST = {"cp", "sparse cv"}


def cases():
    for label, estimator in ESTIMATORS.items():
        for instance, check in estimator_checks_generator(estimator, legacy=True):
            name = getattr(check, "func", check).__name__
            marks = () if label in FAST else pytest.mark.slow
            yield pytest.param(instance, check, id=f"{label}-{name}", marks=marks)


# The checks' labels are random: tasks are constant, and folds have few rows.
@pytest.mark.filterwarnings("ignore:Task .* in every row:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore:.*depth.*:UserWarning")
@pytest.mark.parametrize(("estimator", "check"), cases())
def test_check_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
@pytest.mark.parametrize(
    "check", [check_param_validation, check_dataframe_column_names_consistency]
)
def test_checks_that_scikit_learn_keeps_for_itself(estimator, check):
    check(type(estimator).__name__, estimator)
