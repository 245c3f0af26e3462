"""Small problems with several tasks, and the objective written out in numpy."""

import numpy as np


def mixed_problem(n=150, p=12, seed=0, observed=0.6):
    """Return X and y: two binary tasks and one value on some of the rows."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p))
    W = np.zeros((p, 3))
    W[:3] = rng.normal(0, 0.8, (3, 3))
    linear = X @ W + [0.3, -0.5, 2.0] + rng.standard_normal((n, 3))
    y = np.column_stack([linear[:, 0] > 0, linear[:, 1] > 0, linear[:, 2]]).astype(
        float
    )
    y[rng.random(n) > observed, 2] = np.nan
    return X, y


MIXED = ("binary", "binary", "regression")


def smooth_gradient(X, y, coef, intercept, task_types, weight=None):
    """Return the gradients in coefficients (n_features, n_tasks) and intercepts.

    Of 2 * mean log(1 + exp(-s z)), s = -1 or 1, and of mean (z - y)^2 / 2, each over
    the labelled rows of its task.
    """
    columns, intercepts = [], []
    for k, kind in enumerate(task_types):
        rows = ~np.isnan(y[:, k])
        w = np.ones(rows.sum()) if weight is None else weight[rows]
        z = X[rows] @ coef[k] + intercept[k]
        if kind == "binary":
            s = 2 * y[rows, k] - 1
            residual = -2 * s / (1 + np.exp(s * z))
        else:
            residual = z - y[rows, k]
        columns.append(X[rows].T @ (w * residual) / w.sum())
        intercepts.append(np.sum(w * residual) / w.sum())
    return np.column_stack(columns), np.array(intercepts)


def least_empty_alpha(X, y, task_types):
    """Return max_j ||(x_j'y_k / n_k)_k|| with centred targets, -1 and 1 if binary."""
    products = []
    for k, kind in enumerate(task_types):
        rows = ~np.isnan(y[:, k])
        target = 2 * y[rows, k] - 1 if kind == "binary" else y[rows, k]
        products.append(X[rows].T @ (target - target.mean()) / rows.sum())
    return np.linalg.norm(products, axis=0).max()


def rare_problem(n, ctr, ctcvr, seed=0):
    """Return X of four columns, and clicks and conversions at about these rates."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4))
    click = logistic(X[:, 0] + np.log(ctr) - 0.4)
    cvr = logistic(0.7 * X[:, 1] + np.log(ctcvr / ctr) - 0.2)
    u = rng.random(n)
    return X, np.column_stack([u < click, u < click * cvr]).astype(int)


def logistic(x):
    return 1 / (1 + np.exp(-x))
