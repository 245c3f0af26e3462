"""Weights of rows from critics, which predict the losses of the rest of a session."""

import warnings

import numpy as np
from scipy.special import logit
from sklearn.base import BaseEstimator, clone
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import TargetEncoder
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sk_pwiser._row_weights._sessions import Sessions
from sk_pwiser._row_weights._states import StateEncoder
from sk_pwiser._table import read_labels, zero_one_labels
from sk_pwiser._utils import check_choice, check_integer, check_number


class SessionCriticWeights(BaseEstimator):
    r"""Weights per row and task, from the losses expected in the rest of the session.

    A first model is fitted, and predicts probability p_k of task k in each row. Its
    reward there is minus its cross-entropy,

    .. math:: r_{tk} = y_{tk} \log p_{tk} + (1 - y_{tk}) \log (1 - p_{tk}),

    and a critic per task learns what a session will still bring from row t on,

    .. math:: Q_k(x_t, p_{tk}) \approx
        \mathbb{E} \Big[ \sum_{s \ge t} \gamma^{s - t} r_{sk} \Big] \le 0,

    a sum that ends with the session. The weight of a row is
    :math:`1 - \lambda Q_k \ge 1`: rows whose sessions the first model predicts badly
    count more when a second model is fitted with these weights.

    Parameters
    ----------
    base_estimator : estimator
        The first model, with `fit(X, Y)` and `predict_proba`. A clone of it is fitted;
        a model that is fitted already, in scikit-learn's `FrozenEstimator`, is not.
        `predict_proba` returns an array of shape `(n_samples, n_tasks)`, or what
        scikit-learn's classifiers return: `(n_samples, 2)` for 1-D labels, or a list of
        such arrays.
    gamma : float, default=0.9
        Discount per row, in [0, 1]. With 0, the critic predicts the cross-entropy of
        the row itself; sessions then have no influence.
    lam : float, default=0.5
        Strength of the weights, >= 0; with 0, all are 1.
    target : {"bootstrap", "return"}, default="bootstrap"
        What the critics learn: the reward plus the discounted value that the critic
        itself predicts for the next row, until it no longer changes ("bootstrap", as in
        RMTL); or the discounted sum of rewards that was observed, in a single fit
        ("return"). If `gamma` is 0, the two are the same.
    critic : regressor, default=None
        A regressor of scikit-learn, cloned per task. It reads a float array: codes of
        the category columns, then the numeric columns, then the log-odds of p_k.
        Missing values, and categories that were not in `fit`, are NaN. By default,
        gradient boosting with small trees, on the mean targets of categories and on the
        other columns.
    max_iter : int, default=20
        Largest number of fits of each critic with `target="bootstrap"`.
    tol : float, default=0.1
        The critics are not fitted again if their targets have changed by at most this,
        relative to their size: both are means of absolute values. Regressors that
        depend on single rows do not settle at much smaller values.
    min_probability : float, default=0.0001
        Smallest value of p_k and of 1 - p_k, in (0, 0.5].
    random_state : int, RandomState instance or None, default=None
        Seed of the default critic. A given `critic` and `base_estimator` have their
        own.

    Attributes
    ----------
    base_estimator_ : estimator
        The first model.
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
    Category columns are those of a DataFrame that are not numbers. A session of one row
    ends with it: its value is its own expected reward, as with a `gamma` of 0. If all
    sessions have one row, `gamma` has no effect.

    With `gamma=0`, the best critic is minus the cross-entropy of the true and the
    predicted probability given the features. Other than in the focal loss, a row is
    then not heavier because of its own label, but because rows like it are hard.

    This is not an estimator that predicts labels: `fit` prepares the critics, and
    `weights` applies them to any rows, which need no sessions.

    The form follows the code released with the paper, in which the first model stays
    fixed while the critics learn. It differs in three points. The critics are
    regressors that are fitted to all rows at once (fitted Q iteration), from the
    observed sums on, instead of networks trained by steps with target networks and
    noise. The weights are applied to a second fit, not to a continued one. And there is
    the target "return". The figure in the paper shows critics that train the first
    model as well, which the code does not do.

    References
    ----------
    Z. Liu, J. Tian, Q. Cai, X. Zhao, J. Gao, S. Liu, D. Chen, T. He, D. Zheng, P. Jiang
    and K. Gai (2023). Multi-Task Recommendations with Reinforcement Learning. WWW.
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

    def __init__(
        self,
        base_estimator,
        *,
        gamma=0.9,
        lam=0.5,
        target="bootstrap",
        critic=None,
        max_iter=20,
        tol=0.1,
        min_probability=1e-4,
        random_state=None,
    ):
        self.base_estimator = base_estimator
        self.gamma = gamma
        self.lam = lam
        self.target = target
        self.critic = critic
        self.max_iter = max_iter
        self.tol = tol
        self.min_probability = min_probability
        self.random_state = random_state

    def fit(self, X, Y, *, groups, order=None):
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
            and all rows by default, are in the order in which they are given.

        Returns
        -------
        SessionCriticWeights
            The fitted object itself.

        Raises
        ------
        TypeError
            If a parameter has the wrong type.
        ValueError
            If a parameter is out of range, labels are missing or not 0 and 1, lengths
            differ, or
            `predict_proba` of the first model has another shape than `Y`.
        """
        self._check_parameters()
        read = read_labels(Y)
        labels = zero_one_labels(
            read.values.reshape(len(read.values), -1), read.columns
        ).astype(np.float64)
        check_consistent_length(X, labels, groups)
        sessions = Sessions(groups, order)
        model = clone(self.base_estimator).fit(X, Y)
        p = self._probabilities(model, X)
        if p.shape != labels.shape:
            raise ValueError(
                "base_estimator must predict one probability per row and task, here "
                f"of shape {labels.shape}; got {p.shape}."
            )
        rewards = labels * np.log(p) + (1 - labels) * np.log1p(-p)
        encoder = StateEncoder(X)
        critic = self._critic(encoder.n_categories)
        critics, n_iter = self._fit_critics(critic, encoder(X), p, rewards, sessions)
        self.base_estimator_, self._encoder = model, encoder
        self.critics_, self.n_iter_ = critics, n_iter
        validate_data(self, X, skip_check_array=True)  # sets the names of the columns
        return self

    def weights(self, X):
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

    def values(self, X):
        """Return what the critics expect of the rest of the rows' sessions.

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
        validate_data(self, X, skip_check_array=True, reset=False)
        p = self._probabilities(self.base_estimator_, X)
        return _values(self.critics_, self._encoder(X), p)

    def _check_parameters(self):
        check_number("gamma", self.gamma, at_least=0, at_most=1)
        check_number("lam", self.lam, at_least=0)
        check_choice("target", self.target, ("bootstrap", "return"))
        check_integer("max_iter", self.max_iter, at_least=1)
        check_number("tol", self.tol, at_least=0)
        check_number("min_probability", self.min_probability, above=0, at_most=0.5)

    def _probabilities(self, model, X):
        """Return the probability of the label 1, clipped, one column per task."""
        p = model.predict_proba(X)
        if isinstance(p, list):
            p = np.column_stack([of_task[:, 1] for of_task in p])
        elif np.ndim(getattr(model, "classes_", [[]])) == 1:
            p = p[:, 1:]
        smallest = self.min_probability
        return np.clip(np.asarray(p, dtype=np.float64), smallest, 1 - smallest)

    def _critic(self, n_categories):
        if self.critic is not None:
            return self.critic
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        means = _target_encoder(seed)
        columns = list(range(n_categories))
        return make_pipeline(
            ColumnTransformer([("means", means, columns)], remainder="passthrough"),
            # Small trees: a critic that fits noise passes it on to its next targets.
            HistGradientBoostingRegressor(
                max_iter=50,
                max_leaf_nodes=8,
                min_samples_leaf=50,
                early_stopping=False,
                random_state=seed,
            ),
        )

    def _fit_critics(self, critic, states, p, rewards, sessions):
        """Fit one critic per task, again and again if they bootstrap."""
        targets = sessions.discounted_sums(rewards, self.gamma)
        n_fits = self.max_iter if self.target == "bootstrap" else 1
        for n_iter in range(1, n_fits + 1):
            critics = [
                clone(critic).fit(_with_action(states, p[:, k]), targets[:, k])
                for k in range(p.shape[1])
            ]
            following = sessions.next_values(_values(critics, states, p))
            updated = rewards + self.gamma * following
            change = np.abs(updated - targets).mean(axis=0)
            if (change <= self.tol * np.abs(updated).mean(axis=0)).all():
                return critics, n_iter
            targets = updated
        if self.target == "bootstrap":
            warnings.warn(
                f"The critics' targets still changed after max_iter={self.max_iter} "
                f"fits, by {change.max():.2g} on average. Increase max_iter or tol.",
                ConvergenceWarning,
                stacklevel=3,
            )
        return critics, n_iter


def _target_encoder(seed):
    """Return an encoder of categories by mean targets, with shuffled parts."""
    if TargetEncoder().random_state is None:  # scikit-learn before 1.9
        return TargetEncoder(target_type="continuous", random_state=seed)
    parts = KFold(5, shuffle=True, random_state=seed)
    return TargetEncoder(target_type="continuous", cv=parts)


def _with_action(states, p):
    """Append the log-odds of one task to the states."""
    return np.column_stack([states, logit(p)])


def _values(critics, states, p):
    """Return the values of the rows, shape `(n_samples, n_tasks)`, at most 0."""
    values = [
        critic.predict(_with_action(states, p[:, k]))
        for k, critic in enumerate(critics)
    ]
    return np.minimum(np.column_stack(values), 0)
