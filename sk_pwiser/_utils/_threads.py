"""The number of threads of torch in a fit or a prediction.

The threads of one operation wait for each other, and small operations end before a
second thread has started. The number of threads is therefore chosen once per fit, by
the size of a step. It does not depend on what else the machine does, because sums over
another number of threads round differently: equal fits have equal results.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from sk_pwiser._utils._checks import check_integer

# Products of a row and a weight per step and thread. With 5e7 per step a second thread
# shortens a fit by a fifth, with 2e7 by a twentieth.
PRODUCTS_PER_THREAD = 25_000_000

_requested: ContextVar[int | None] = ContextVar("requested threads", default=None)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Train and predict with a given number of threads of torch.

    Without it, a fit on the CPU uses one thread per 25 million products of a row of the
    batch and a weight of the network's layers, and at most the threads that torch is
    set to use. Predictions use all of these.

    Parameters
    ----------
    n : int
        Number of threads, >= 1.

    Yields
    ------
    None

    Raises
    ------
    TypeError or ValueError
        If `n` is not an integer >= 1.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier, num_threads
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> data = make_ctr_cvr(1_000, ctr=0.3, random_state=0)
    >>> with num_threads(1):
    ...     model = MultiTaskCTRCVRClassifier(max_epochs=1).fit(data.data, data.target)
    """
    check_integer("n", n, at_least=1)
    token = _requested.set(n)
    try:
        yield
    finally:
        _requested.reset(token)


@contextmanager
def limited_threads(n_products: int | None = None) -> Iterator[None]:
    """Set the number of threads of torch, and restore it afterwards.

    Parameters
    ----------
    n_products : int, default=None
        Number of products of a row and a weight per step, which determines the number
        of threads unless `num_threads` does; None for no limit.
    """
    before = torch.get_num_threads()
    n_threads = _requested.get()
    if n_threads is None and n_products is not None:
        n_threads = min(max(n_products // PRODUCTS_PER_THREAD, 1), before)
    if n_threads is None or n_threads == before:
        yield
        return
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
