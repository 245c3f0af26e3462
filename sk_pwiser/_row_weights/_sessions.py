"""Rows in sessions: their order, and sums over what follows in a session."""

import numpy as np
from scipy.linalg import solve_banded
from sklearn.utils import check_consistent_length, column_or_1d


class Sessions:
    """The order of rows within sessions.

    Parameters
    ----------
    groups : array-like of shape (n_samples,)
        Session of each row.
    order : array-like of shape (n_samples,), default=None
        Numbers or times that order the rows of a session; rows with equal values, and
        all rows by default, are in the order in which they are given.

    Attributes
    ----------
    rows : ndarray of int of shape (n_samples,)
        Indices of the rows, session by session in order.
    continues : ndarray of bool of shape (n_samples,)
        Whether another row of the session follows, in the order of `rows`.
    """

    def __init__(self, groups, order=None):
        session = np.unique(column_or_1d(groups), return_inverse=True)[1]
        keys = [session]
        if order is not None:
            check_consistent_length(groups, order)
            keys.insert(0, column_or_1d(order))
        self.rows = np.lexsort(keys)  # a stable sort, by the last key first
        session = session[self.rows]
        self.continues = np.append(session[1:] == session[:-1], False)

    def discounted_sums(self, rewards, gamma):
        """Return the reward of each row plus the discounted ones that follow it.

        Parameters
        ----------
        rewards : ndarray of shape (n_samples, n_tasks)
            Rewards.
        gamma : float
            Discount per row.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks)
            The solution of G_t = r_t + gamma G_{t+1}, with 0 after a session's end.
        """
        bands = np.ones((2, len(rewards)))
        bands[0] = -gamma * np.append(0, self.continues[:-1])
        sums = np.empty_like(rewards)
        sums[self.rows] = solve_banded((0, 1), bands, rewards[self.rows])
        return sums

    def next_values(self, values):
        """Return the values of the next row of the session, 0 for its last row.

        Parameters
        ----------
        values : ndarray of shape (n_samples, n_tasks)
            Values of the rows.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks)
            Values of their successors.
        """
        following = np.zeros_like(values)
        is_before = self.rows[self.continues]
        following[is_before] = values[np.roll(self.rows, -1)[self.continues]]
        return following
