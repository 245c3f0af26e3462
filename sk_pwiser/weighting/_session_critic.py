"""Weights of rows from critics, which predict the losses of the rest of a session."""

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_banded
from scipy.special import logit
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, TargetEncoder
from sklearn.utils import (
    _safe_indexing,
    check_array,
    check_consistent_length,
    check_random_state,
    column_or_1d,
)
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_pwiser._columns._frames import selectable
from sk_pwiser._responses import check_targets, positive_probabilities
from sk_pwiser._tasks._groups import sort_groups
from sk_pwiser._tasks._labels import find_missing
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._utils._checks import (
    accept_any_case_of_y,
    check_choice,
    check_integer,
    check_number,
)
from sk_pwiser._utils._doc_links import DocLink
from sk_pwiser._utils._warnings import warn_user

# Limits of probabilities, so that the rewards of certain predictions are finite.
LOWEST = 1e-4
HIGHEST = 1 - LOWEST

Floats = npt.NDArray[np.float64]


class SessionCriticWeights(DocLink, BaseEstimator):
    r"""Weights per row and task, from the losses expected in the rest of the session.

    A first model predicts the probability p_k of task k in each row. Its reward there
    is the negative cross-entropy,

    .. math:: r_{tk} = y_{tk} \log p_{tk} + (1 - y_{tk}) \log (1 - p_{tk}),

    and a critic per task learns the discounted sum of rewards from row t to the end of
    the session,

    .. math:: Q_k(x_t, p_{tk}) \approx
        \mathbb{E} \Big[ \sum_{s \ge t} \gamma^{s - t} r_{sk} \Big] \le 0.

    Here p_k is at least 0.0001 and at most 0.9999, so that rewards are finite. The
    weight of a row is :math:`1 - \lambda Q_k \ge 1`: rows whose sessions the first
    model predicts badly count more when a second model is fitted with these weights.

    The critics learn from rows that the first model was not trained on: the sessions
    are divided into `cv` parts, and the rewards of each part are those of a model
    trained on the others. See :ref:`session-weights`.

    Parameters
    ----------
    base_estimator : estimator
        The first model, with `fit(X, Y)` and `predict_proba`. Clones of it are fitted.
        `predict_proba` returns an array of shape `(n_samples, n_tasks)`, `(n_samples,
        2)` for 1-D labels, or a list of such arrays, one per task. A model that is
        fitted already, wrapped in :class:`~sklearn.frozen.FrozenEstimator`, is neither
        cloned nor divided into parts: fit it to other rows.
    gamma : float, default=0.9
        Discount per row, in [0, 1]. With 0 the critic predicts the cross-entropy of the
        row itself, and sessions have no influence.
    lam : float, default=0.5
        Strength of the weights, >= 0; with 0 all are 1.
    target : {"bootstrap", "return"}, default="bootstrap"
        Target of the critics: the reward plus the discounted value that the critic
        itself predicts for the next row, until it no longer changes ("bootstrap", as in
        RMTL), or the discounted sum of the observed rewards, in a single fit
        ("return"). With a `gamma` of 0 the two are the same.
    critic : regressor, default=None
        A regressor of scikit-learn, cloned per task. It receives a float array: the
        codes of the category columns, the numeric columns, and the log-odds of p_k.
        Missing values, and categories that were not in `fit`, are NaN. By default
        gradient boosting with small trees, on the mean targets of categories and on the
        other columns.
    cv : int, default=5
        Number of parts of whole sessions for the rewards, at least 2.
    max_iter : int, default=20
        Largest number of fits of each critic with `target="bootstrap"`.
    tol : float, default=0.1
        The critics are not fitted again if their targets have changed by at most this
        share of their size, both as means of absolute values. Regressors that depend on
        single rows do not converge to much smaller changes.
    random_state : int, RandomState instance or None, default=None
        Seed of the default critic. A given `critic` and `base_estimator` have their
        own.

    Attributes
    ----------
    base_estimator_ : estimator
        The first model, fitted to all rows.
    critics_ : list of regressor
        One fitted critic per task.
    n_iter_ : int
        Number of fits of each critic.
    n_features_in_ : int
        Number of columns of `X`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` has column names that are all strings.

    Notes
    -----
    Category columns are the columns of a DataFrame that are not numeric. `fit` trains
    the critics, and `weights` applies them to any rows, which need no sessions. With
    `gamma=0` a row has a larger weight if similar rows are hard to predict, not because
    of its own label, as in the focal loss.

    The form follows the code released with the paper, in which the first model does not
    change while the critics learn, unlike in a figure of the paper. It differs in four
    points. The rewards are those of rows that the model was not trained on. The critics
    are regressors fitted to all rows at once (fitted Q iteration), instead of networks
    with target networks and noise. The weights are applied to a second fit, not to a
    continued one. And there is the target "return".

    References
    ----------
    Liu et al. (2023). Multi-Task Recommendations with Reinforcement Learning. WWW.
    :arxiv:`2302.03328`

    D. Ernst, P. Geurts and L. Wehenkel (2005). Tree-Based Batch Mode Reinforcement
    Learning. Journal of Machine Learning Research 6, 503-556.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LinearRegression, LogisticRegression
    >>> from sklearn.multioutput import MultiOutputClassifier
    >>> from sk_pwiser.weighting import SessionCriticWeights
    >>> rng = np.random.default_rng(0)
    >>> X, Y = rng.normal(size=(300, 2)), rng.integers(0, 2, size=(300, 2))
    >>> maker = SessionCriticWeights(
    ...     MultiOutputClassifier(LogisticRegression()), critic=LinearRegression()
    ... )
    >>> maker.fit(X, Y, groups=np.arange(300) // 3).weights(X).shape
    (300, 2)
    """

    base_estimator_: Any
    critics_: list[Any]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: npt.NDArray[Any]

    def __init__(
        self,
        base_estimator: Any,
        *,
        gamma: float = 0.9,
        lam: float = 0.5,
        target: str = "bootstrap",
        critic: Any = None,
        cv: int = 5,
        max_iter: int = 20,
        tol: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.base_estimator = base_estimator
        self.gamma = gamma
        self.lam = lam
        self.target = target
        self.critic = critic
        self.cv = cv
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    @accept_any_case_of_y
    def fit(self, X: Any, Y: Any, *, groups: Any, order: Any = None) -> Self:
        """Fit the first model and the critics.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Features.
        Y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            Labels, 0 or 1.
        groups : array-like of shape (n_samples,)
            Session of each row: numbers or strings.
        order : array-like of shape (n_samples,), default=None
            Numbers or times that order the rows of a session. Rows with equal values,
            and all rows by default, keep the order in which they are given.

        Returns
        -------
        SessionCriticWeights
            The fitted object itself.

        Raises
        ------
        ValueError
            If a parameter is out of range, there are fewer sessions than `cv`, labels
            are missing or not 0 and 1, lengths differ, indexes have the same labels in
            different orders, or `predict_proba` of the first model has another shape
            than `Y`.
        TypeError
            If `order` is text.

        Warns
        -----
        ConvergenceWarning
            If the targets of the critics still change after `max_iter` fits.
        """
        check_number("gamma", self.gamma, at_least=0, at_most=1)
        check_number("lam", self.lam, at_least=0)
        check_choice("target", self.target, ("bootstrap", "return"))
        check_integer("cv", self.cv, at_least=2)
        check_integer("max_iter", self.max_iter, at_least=1)
        check_number("tol", self.tol, at_least=0)
        X = selectable(X)
        Y = selectable(Y)
        labels, _, _ = check_targets(Y)
        check_consistent_length(X, labels, groups, order)
        check_match(X, len(labels), Y=Y, groups=groups, order=order)
        groups = sort_groups(groups, len(labels))
        sessions = Sessions(groups, order)
        encoder, n_categories = state_encoder(X)
        p = self._left_out_probabilities(X, Y, groups, labels.shape[1])
        rewards = labels * np.log(p) + (1 - labels) * np.log1p(-p)
        critic = self._critic(n_categories)
        critics, n_iter = self._fit_critics(
            critic, encoder.transform(X), p, rewards, sessions
        )
        self.base_estimator_ = clone(self.base_estimator).fit(X, Y)
        self._encoder = encoder
        self.critics_ = critics
        self.n_iter_ = n_iter
        validate_data(self, X, skip_check_array=True)  # sets the names of the columns
        return self

    def weights(self, X: Any) -> Floats:
        """Return the weights of rows.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks)
            1 - `lam` times the values of the rows; at least 1.
        """
        return 1 - self.lam * self.values(X)

    def values(self, X: Any) -> Floats:
        """Return the expected rewards in the rest of the session of each row.

        Parameters
        ----------
        X : DataFrame or array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks)
            Discounted sums of rewards, at most 0.
        """
        check_is_fitted(self)
        X = selectable(X)
        validate_data(self, X, skip_check_array=True, reset=False)
        p = probabilities(self.base_estimator_, X, len(self.critics_))
        return _values(self.critics_, self._encoder.transform(X), p)

    def _left_out_probabilities(
        self, X: Any, Y: Any, groups: npt.NDArray[Any], n_tasks: int
    ) -> Floats:
        """Return the probabilities of each session by a model that did not see it."""
        if isinstance(self.base_estimator, FrozenEstimator):
            return probabilities(self.base_estimator, X, n_tasks)
        p = np.empty((len(groups), n_tasks))
        for train, left_out in GroupKFold(self.cv).split(p, groups=groups):
            model = clone(self.base_estimator)
            model.fit(_safe_indexing(X, train), _safe_indexing(Y, train))
            p[left_out] = probabilities(model, _safe_indexing(X, left_out), n_tasks)
        return p

    def _critic(self, n_categories: int) -> Any:
        if self.critic is not None:
            return self.critic
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        means = ("means", _target_encoder(seed), list(range(n_categories)))
        return make_pipeline(
            ColumnTransformer([means], remainder="passthrough"),
            # Small trees, since a critic that fits noise adds it to its next targets.
            HistGradientBoostingRegressor(
                max_iter=50,
                max_leaf_nodes=8,
                min_samples_leaf=50,
                early_stopping=False,
                random_state=seed,
            ),
        )

    def _fit_critics(
        self,
        critic: Any,
        states: Floats,
        p: Floats,
        rewards: Floats,
        sessions: "Sessions",
    ) -> tuple[list[Any], int]:
        targets = sessions.discounted_sums(rewards, self.gamma)
        n_fits = self.max_iter if self.target == "bootstrap" else 1
        for n_iter in range(1, n_fits + 1):
            critics = [
                clone(critic).fit(_with_action(states, task_p), target)
                for task_p, target in zip(p.T, targets.T, strict=True)
            ]
            following = sessions.next_values(_values(critics, states, p))
            updated = rewards + self.gamma * following
            change = np.abs(updated - targets).mean(axis=0)
            if (change <= self.tol * np.abs(updated).mean(axis=0)).all():
                return critics, n_iter
            targets = updated
        if self.target == "bootstrap":
            warn_user(
                f"The critics' targets still changed after max_iter={self.max_iter} "
                f"fits, by {change.max():.2g} on average. Increase max_iter or tol.",
                ConvergenceWarning,
            )
        return critics, n_iter


def _target_encoder(seed: int) -> Any:
    """Return an encoder of categories by mean targets, cross-fitted at random."""
    if TargetEncoder().random_state is None:  # scikit-learn before 1.9
        return TargetEncoder(target_type="continuous", random_state=seed)
    folds = KFold(5, shuffle=True, random_state=seed)
    return TargetEncoder(target_type="continuous", cv=folds)


def probabilities(model: Any, X: Any, n_tasks: int) -> Floats:
    p: Floats = positive_probabilities(model, X, n_tasks)
    return np.clip(p, LOWEST, HIGHEST)


def _with_action(states: Floats, p: Floats) -> Floats:
    return np.column_stack([states, logit(p)])


def _values(critics: list[Any], states: Floats, p: Floats) -> Floats:
    """Return the values of the rows, shape `(n_samples, n_tasks)`, at most 0."""
    pairs = zip(critics, p.T, strict=True)
    values = [critic.predict(_with_action(states, task_p)) for critic, task_p in pairs]
    return np.minimum(np.column_stack(values), 0)


class Sessions:
    """The order of rows within sessions, and whether there is a next row."""

    def __init__(self, groups: Any, order: Any = None) -> None:
        _, session = np.unique(column_or_1d(groups), return_inverse=True)
        keys = [session]
        if order is not None:
            order = column_or_1d(order)
            missing = find_missing(order)
            if missing is not None:
                raise ValueError(f"order is missing in row {missing.argmax()}.")
            # Sorted as text, "10" would come before "9".
            if isinstance(order[0], str):
                raise TypeError(f"order must be numbers or times; got {order[0]!r}.")
            keys.insert(0, order)
        self.rows = np.lexsort(keys)  # a stable sort, by the last key first
        session = session[self.rows]
        self.continues = np.append(session[1:] == session[:-1], False)

    def discounted_sums(self, rewards: Floats, gamma: float) -> Floats:
        """Solve G_t = r_t + gamma G_{t+1}, with G of 0 after the end of a session."""
        bands = np.ones((2, len(rewards)))
        bands[0] = -gamma * np.append(0, self.continues[:-1])
        sums = np.empty_like(rewards)
        sums[self.rows] = solve_banded((0, 1), bands, rewards[self.rows])
        return sums

    def next_values(self, values: Floats) -> Floats:
        """Return the values of the next row of the session, 0 for its last row."""
        following = np.zeros_like(values)
        is_before = self.rows[self.continues]
        following[is_before] = values[np.roll(self.rows, -1)[self.continues]]
        return following


def state_encoder(X: Any) -> tuple[Any, int]:
    """Return an encoder of tables as floats, codes first, and the number of codes."""
    names = list(X.columns) if hasattr(X, "columns") else []
    category_columns = [
        j for j, name in enumerate(names) if not _is_number(X[name].dtype)
    ]
    codes = make_pipeline(
        FunctionTransformer(_with_nan),
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan),
    )
    floats = {"dtype": np.float64, "ensure_all_finite": "allow-nan"}
    numbers = FunctionTransformer(check_array, kw_args=floats)
    encoder = ColumnTransformer([("codes", codes, category_columns)], remainder=numbers)
    return encoder.fit(X), len(category_columns)


def _is_number(dtype: Any) -> bool:
    kind = getattr(dtype, "kind", None)
    return bool(dtype.is_numeric()) if kind is None else kind in "iuf"


def _with_nan(X: Any) -> npt.NDArray[Any]:
    """Return category columns as objects, in which all missing values are NaN."""
    values = np.array(X, dtype=object)
    missing = find_missing(values)
    if missing is not None:
        values[missing] = np.nan
    return values
