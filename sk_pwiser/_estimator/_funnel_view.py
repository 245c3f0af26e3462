"""What views of one task and of one value share: a fitted estimator, or a clone."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags, metadata_routing
from sklearn.utils.validation import _is_fitted

from sk_pwiser._utils._doc_links import DocLink

# What to do if y and tasks do not fit together, in messages.
ADVICE = "pass y=Y, the labels of all tasks, to tools that draw or permute y."


class FunnelView(DocLink, MetaEstimatorMixin, BaseEstimator):
    """Base class of views of an estimator, fitted or not, whose `fit` trains a clone.

    A class defines `_shown`, the name of what the view shows, for messages.
    """

    # Always needed, so that routing passes them without being told.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"tasks": True}

    estimator: Any

    @property
    def _shown(self) -> Any:
        raise NotImplementedError

    def _check_unfitted(self) -> None:
        """Raise if the view is one of a fitted estimator."""
        if _is_fitted(self.estimator):
            name = type(self.estimator).__name__
            raise ValueError(
                f"This view shows a fitted {name} and cannot be fitted itself. Fit the "
                f"{name} on all tasks, fit sklearn.base.clone(view), which trains a "
                "new estimator, or pass FrozenEstimator(view) to a tool."
            )

    def _fit_clone(
        self,
        X: Any,
        Y: Any,
        sample_weight: npt.ArrayLike | None,
        fit_params: dict[str, Any],
    ) -> Any:
        """Return a clone of the estimator, fitted to the labels of all tasks."""
        if sample_weight is not None:
            fit_params["sample_weight"] = sample_weight
        if get_config()["enable_metadata_routing"]:
            routed = metadata_routing.process_routing(self, "fit", **fit_params)
            fit_params = routed.estimator.fit
        return clone(self.estimator).fit(X, Y, **fit_params)

    def get_metadata_routing(self) -> Any:
        """Return the metadata that the view and its estimator request.

        Returns
        -------
        MetadataRouter
            The requests of `fit` and `score`.
        """
        router = metadata_routing.MetadataRouter(owner=type(self).__name__)
        mapping = metadata_routing.MethodMapping().add(caller="fit", callee="fit")
        router.add(estimator=self.estimator, method_mapping=mapping)
        return router.add_self_request(self)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_") or _is_fitted(self.estimator)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    @property
    def _fitted(self) -> Any:
        """The fitted estimator, or a NotFittedError, which is an AttributeError too."""
        if hasattr(self, "estimator_"):
            return self.estimator_
        if not _is_fitted(self.estimator):
            raise NotFittedError(
                f"This view of {self._shown!r} is not fitted: fit it, or its estimator."
            )
        return self.estimator

    @property
    def n_features_in_(self) -> int:
        """Number of columns of `X`."""
        return self._fitted.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns, if the estimator has them."""
        return self._fitted.feature_names_in_
