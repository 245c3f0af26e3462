"""Comparison of models on the same folds: losses, parameters and other packages."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing

from sk_pwiser._columns._frames import collected, selectable
from sk_pwiser._tasks import _amounts
from sk_pwiser._tasks._labels import names_of_columns, read_labels
from sk_pwiser.model_selection._cross_validation import cross_validate_models
from sk_pwiser.model_selection._estimator_variants import (
    EstimatorVariant,
    is_loss_class,
    variant_of_loss,
    with_value_tasks,
)
from sk_pwiser.model_selection._model_comparison import ModelComparison
from sk_pwiser.model_selection._package_models import (
    MODELS,
    THIS_PACKAGE,
    check_models,
    entries_by_name,
    multi_task_classifier,
    named_models,
)
from sk_pwiser.model_selection._value_models import (
    VALUE_MODEL_NAMES,
    named_value_models,
)


def compare_models(
    X: Any,
    Y: Any,
    *,
    models: str | Sequence[Any] | Mapping[str, Any] = "default",
    estimator: Any = None,
    value_tasks: Mapping[Any, Any] | None = None,
    cv: Any = 5,
    scoring: Any = None,
    groups: npt.ArrayLike | None = None,
    by: Any = None,
    params: dict[str, Any] | None = None,
    n_jobs: int | None = None,
    verbose: int = 0,
    random_state: int | np.random.RandomState | None = 0,
) -> ModelComparison:
    """Compare models by cross-validation on the same folds and with the same seeds.

    The models are losses of this package's estimator, the estimator with other
    parameters, models of other packages, or models of your own. All are fitted on the
    training rows of each fold with the same ``random_state``, and scored on its test
    rows. The result contains their differences to the first one, with confidence
    intervals.

    Parameters
    ----------
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions. Models of other packages read the category and numeric columns that
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` finds in them.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
        Labels, 0 or 1; the tasks in funnel order, the click first. Beside them the
        columns of amounts that `value_tasks` names, here or in the estimator.
    models : "default", sequence or dict of str to object, default="default"
        The models; differences are those to the first one. An entry of a sequence, or a
        value of a dict, whose keys are the names of the models, is

        - "sk_pwiser": the `estimator`;
        - the name of a loss, such as "bce" or "pwiser", or a class of losses: the
          `estimator` with it. The ``loss_params`` of the estimator are only used with
          its own loss;
        - "logistic_regression": on one-hot categories and standardised numbers, with
          C=0.1;
        - "hist_gradient_boosting": scikit-learn's boosted trees;
        - "lightgbm" and "catboost": those of the packages lightgbm and catboost;
        - "lightgbm_small_leaves": trees of at most 8 leaves of at least 100 rows, which
          are often ahead where labels are noisy or rare;
        - in a dict, parameters of the `estimator`, such as ``{"pwiser_weight": 1.0}``;
        - in a dict, a classifier whose `predict_proba` the scorers of
          :mod:`sk_pwiser.metrics` read.

        "default" is "sk_pwiser", and those models of other packages that are installed.
        All trees stop early on a tenth of the training rows: those of scikit-learn and
        LightGBM have a learning rate of 0.05 and stop after 20 of at most 500 trees
        without a gain, those of CatBoost after 50 of 1,000. Other parameters are the
        defaults. Models of other packages fit each task by itself. The trees of
        scikit-learn and LightGBM read category columns of at least 100 values as target
        statistics, by :class:`~sklearn.preprocessing.TargetEncoder`.

        With `value_tasks`, the models predict amounts per impression by their method
        `predict_value`. Beside losses, parameters and models of your own, there are

        - "sk_pwiser": the estimator with these `value_tasks`;
        - "mean_amount": its probabilities without them, times the mean amount;
        - "logistic_gamma": logistic regression of a positive amount times a gamma
          regression of its size, with equal penalties;
        - "lightgbm_log_amounts": boosted trees of a positive amount times those of its
          logarithm, with the smearing of Duan (1983);
        - "lightgbm_tweedie": boosted trees of the amounts of all rows.
    estimator : estimator object, default=None
        A classifier with the parameter ``loss``, or a Pipeline or search that contains
        one. It is cloned, not changed. None means
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` with its default parameters.
    value_tasks : dict or None, default=None
        Compares predicted amounts instead of events: columns of ``Y`` with amounts and
        the tasks under which they arise, as the parameter of
        :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`. An estimator with `value_tasks`
        of its own is compared by events and amounts.
    cv : int, splitter or iterable of (train, test), default=5
        An int is the number of folds of :class:`FunnelStratifiedKFold`, at least 2. A
        splitter, such as :class:`FunnelTimeSplit`, which tests on later periods, or
        ``RepeatedKFold``, or an iterable of row indices, or masks of rows, must give at
        least two splits.
    scoring : str, callable, list, tuple or dict, default=None
        Scores, as in :class:`~sklearn.model_selection.GridSearchCV`; larger is better.
        None means the ROC AUC of each task ("click AUC", "conversion AUC"), the ROC AUC
        of P(last task | first task) if there are several tasks ("CVR AUC"), and minus
        the mean log loss ("minus log loss"). With `value_tasks`, for each value, the
        normalised Gini coefficient of the predicted amounts ("spend Gini") and minus
        the relative error of their total ("minus spend total error"). If one of the
        models has a `negative_sampling_rate`, rows without a click count 1 / rate times
        in the default scores of all, as in the full log.
    groups : array-like of shape (n_samples,), default=None
        Group of each row, for splitters that use groups. To pass groups to losses, use
        ``params={"groups": groups}``.
    by : str or int, default=None
        A column of ``X`` with at most 100 values, such as the market. The scores are
        also computed on the test rows of each of its values, as metrics such as
        "click AUC, market=nl".
    params : dict, default=None
        Parameters of ``fit`` of all models, such as ``sample_weight``, which models of
        other packages refuse. Parameters of length n_samples are split like the rows.
    n_jobs : int, default=None
        Number of fits that run in parallel, by joblib. None means 1, unless there is a
        :class:`joblib.parallel_config` context; -1 means all processors.
    verbose : int, default=0
        1 prints one line after each fit.
    random_state : int, RandomState instance or None, default=0
        Seed of the folds, if ``cv`` is an int, and of the fits. Each fold has its own
        seed, which replaces every ``random_state`` and is the same for all models. With
        None, folds and seeds differ between calls.

    Returns
    -------
    ModelComparison
        The scores and their differences, as a table, in words and as a plot, with the
        seconds of fits and of scoring.

    Raises
    ------
    ValueError, TypeError
        If there are fewer than two models or splits, if a name is unknown, if the
        estimator does not accept a loss or parameters, if a model has no
        `predict_proba` or, with `value_tasks`, no `predict_value`, if labels are
        missing that models of other packages need, if ``scoring`` is unknown, or if
        ``by`` has more than 100 values. Errors of ``fit`` are raised unchanged.
    ImportError
        If the package of a named model is not installed, or pandas, which the models
        of other packages need.

    Warns
    -----
    UndefinedMetricWarning
        If a score is undefined on a fold, for example because its test rows contain no
        conversion. The comparison in this metric leaves out the fold.
    UserWarning
        If folds train on rows from after the start of their test part, although a model
        has a `time_column` or a :class:`~sk_pwiser.history.HistoryFeatures`, or ``X``
        columns of these. Warnings of the fits that differ in numbers only are issued
        once.

    See Also
    --------
    ModelComparison : The result, and how the intervals are computed.
    sklearn.model_selection.GridSearchCV : Selects parameters, without intervals.

    Notes
    -----
    Random folds give optimistic scores if the rows of a user or of a day are similar:
    use :class:`FunnelTimeSplit` or :class:`FunnelGroupKFold`. The difference of a
    parameter that was selected by this comparison is optimistic as well.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.model_selection import compare_models
    >>> data = make_ctr_cvr(600, ctr=0.4, cvr=0.4, random_state=0)
    >>> comparison = compare_models(
    ...     data.data,
    ...     data.target,
    ...     models={
    ...         "bce": "bce",
    ...         "weight 1": {"pwiser_weight": 1.0},
    ...         "logistic": "logistic_regression",
    ...     },
    ...     estimator=MultiTaskCTRCVRClassifier(max_epochs=2),
    ...     cv=2,
    ... )
    >>> comparison.candidates
    ['bce', 'weight 1', 'logistic']
    >>> list(comparison.verdicts)
    ['click AUC', 'conversion AUC', 'CVR AUC', 'minus log loss']
    """
    if estimator is None:
        estimator = multi_task_classifier()
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        raise TypeError(f"estimator must be an estimator object, got {estimator!r}.")
    X = collected(X)
    Y = collected(Y)
    names = VALUE_MODEL_NAMES if value_tasks else list(MODELS)
    entry_of_name = entries_by_name(models, names)
    variants = find_variants(entry_of_name, estimator, names)
    n_tasks = 0
    other_models = [
        entry for name, entry in entry_of_name.items() if name not in variants
    ]
    if other_models:
        is_named = any(isinstance(model, str) for model in other_models)
        Y, n_tasks = labels_for_others(X, Y, value_tasks, of_packages=is_named)
    base = estimator
    if value_tasks:
        base = with_value_tasks(estimator, value_tasks)
    model_of_name = entry_of_name | {
        name: variant.build(base, names) for name, variant in variants.items()
    }
    if value_tasks:
        model_of_name = named_value_models(
            model_of_name, value_tasks, classifier=estimator
        )
    else:
        model_of_name = named_models(model_of_name, n_tasks)
    check_models(model_of_name, "predict_value" if value_tasks else "predict_proba")
    comparison = cross_validate_models(
        model_of_name,
        X,
        Y,
        cv=cv,
        scoring=scoring,
        groups=groups,
        by=by,
        params=params,
        n_jobs=n_jobs,
        verbose=verbose,
        random_state=random_state,
    )
    if variants:
        comparison.params = [
            variants[name].params if name in variants else None
            for name in comparison.candidates
        ]
    return comparison


def find_variants(
    entry_of_name: Mapping[str, Any], estimator: Any, names: list[str]
) -> dict[str, EstimatorVariant]:
    """Return the models that are the estimator with other parameters, by name."""
    variants = {}
    for label, entry in entry_of_name.items():
        if entry == THIS_PACKAGE:
            variants[label] = EstimatorVariant(label=label, params={})
        elif isinstance(entry, Mapping):
            variants[label] = EstimatorVariant(label=label, params=dict(entry))
        elif is_loss_class(entry) or (isinstance(entry, str) and entry not in names):
            variants[label] = variant_of_loss(label, entry, estimator)
    return variants


def labels_for_others(
    X: Any, Y: Any, value_tasks: Mapping[Any, Any] | None, *, of_packages: bool
) -> tuple[Any, int]:
    """Return labels as models of other packages take them, and the number of tasks.

    If some are models `of_packages` that have names here, check X and Y for them.
    """
    events = Y
    if value_tasks:
        events, *_ = _amounts.split_columns(Y, value_tasks, names_of_columns(Y))
    labels, missing, _ = read_labels(events, "ignore", input_name="Y")
    n_tasks = labels.size // len(labels)
    if not value_tasks and n_tasks == 1 and np.ndim(Y) > 1:
        Y = _safe_indexing(selectable(Y), 0, axis=1)  # other packages warn of columns
    if of_packages and missing is not None and missing.any():
        raise ValueError(
            "Y must have all labels, since models of other packages have no missing "
            f"ones; {int(missing.sum())} are missing."
        )
    if of_packages and issparse(X):
        raise TypeError(
            "X must not be sparse, since models of other packages read its columns; "
            "pass X.toarray(), or pipelines of your own in a dict of models."
        )
    return Y, n_tasks
