"""A policy over a pool, learnt by policy gradient: which members are drawn together."""

import numpy as np

# Of Adam, the optimiser of the paper.
BETAS, EPSILON = (0.9, 0.999), 1e-12


def softmax(scores):
    """Return the probabilities of scores, (n,)."""
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()


def draw(p, size, random_state):
    """Draw members one after the other without replacement, in proportion to `p`."""
    # The largest of log p plus Gumbel noise have this distribution, also if the
    # probabilities of some members have vanished.
    with np.errstate(divide="ignore"):
        keys = np.log(p) + random_state.gumbel(size=len(p))
    return np.argsort(-keys)[:size]


def log_probability_gradient(p, drawn):
    """Differentiate the log-probability of a draw with respect to the scores.

    Parameters
    ----------
    p : ndarray of shape (n_members,)
        The probabilities, a softmax of the scores.
    drawn : sequence of int
        The members in the order in which they were drawn, without replacement.

    Returns
    -------
    ndarray of shape (n_members,)
        For each draw, 1 for the member minus its probability among those not drawn
        before; summed over the draws.
    """
    gradient, left = np.zeros(len(p)), p.astype(float)
    for member in drawn:
        total = left.sum()
        if total > 0:
            gradient -= left / total
        gradient[member] += 1.0
        left[member] = 0.0
    return gradient


def learn_policy(reward, n_members, size, *, lr, n_iter, random_state):
    """Learn the probabilities of members from the rewards of subsets.

    Ascends the expected reward by Adam on the scores, along
    ``(reward - baseline) * gradient of the log-probability of the draw``. The baseline
    is the mean of the rewards so far. It does not change the expected step, only its
    variance.

    Parameters
    ----------
    reward : callable
        Maps a sorted tuple of members to a number.
    n_members, size : int
        Number of members, and of those drawn together.
    lr : float
        Learning rate.
    n_iter : int
        Number of draws.
    random_state : RandomState
        Draws the members.

    Returns
    -------
    ndarray of shape (n_members,)
        The probabilities.
    """
    scores, first, second = (
        np.zeros(n_members),
        np.zeros(n_members),
        np.zeros(n_members),
    )
    baseline = 0.0
    for step in range(1, n_iter + 1):
        p = softmax(scores)
        drawn = draw(p, size, random_state)
        found = reward(tuple(sorted(drawn.tolist())))
        baseline += (found - baseline) / step
        gradient = (found - baseline) * log_probability_gradient(p, drawn)
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        slope = first / (1 - BETAS[0] ** step)
        scale = np.sqrt(second / (1 - BETAS[1] ** step)) + EPSILON
        scores = scores + lr * slope / scale
    return softmax(scores)
