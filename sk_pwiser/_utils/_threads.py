"""The number of threads of torch, and reading in a background thread."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeVar

import torch

from sk_pwiser._utils._checks import check_integer

# Products of a row and a weight, per step and thread. A second thread shortens a fit by
# a fifth with 5e7 products per step, and by a twentieth with 2e7.
PRODUCTS_PER_THREAD = 25_000_000

_requested: ContextVar[int | None] = ContextVar("requested threads", default=None)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Train and predict with a given number of threads of torch.

    By default, a fit on the CPU uses one thread per 25 million products of a row of the
    batch and a weight of the network's layers, but not more threads than torch is set
    to use. Predictions use all threads that torch is set to use. The number applies to
    the Python thread that enters the `with` block.

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
    """Set the threads of torch for a time, by `num_threads` or products per step."""
    with _SETTING:  # a thread that has not used torch yet begins with the usual number
        usual = torch.get_num_threads()
    n_threads = _requested.get()
    if n_threads is None and n_products is not None:
        n_threads = min(max(n_products // PRODUCTS_PER_THREAD, 1), usual)
    if n_threads is None or n_threads == usual:
        yield
        return
    _set_in_this_thread(n_threads)
    try:
        yield
    finally:
        _set_in_this_thread(usual)


_SETTING = Lock()


def _set_in_this_thread(n_threads: int) -> None:
    """Set the number of threads of torch for operations of this thread only.

    `torch.set_num_threads` also sets the number that every later thread begins with,
    and keeps: a web server would predict by one thread after a fit in the background.
    Another thread, whose own number does not matter, sets it back.
    """
    with _SETTING, ThreadPoolExecutor(1) as later:
        # At its first call in a thread, torch sets the usual number.
        torch.get_num_threads()
        usual = later.submit(torch.get_num_threads).result()
        try:
            torch.set_num_threads(n_threads)
        finally:
            later.submit(torch.set_num_threads, usual).result()


T = TypeVar("T")

_END: Any = object()


def in_background(items: Iterator[T]) -> Iterator[T]:
    """Yield items, or raise their errors, while a thread prepares the next one."""
    with ThreadPoolExecutor(
        1,
        thread_name_prefix="sk_pwiser-reader",
        initializer=_set_in_this_thread,
        initargs=(torch.get_num_threads(),),
    ) as pool:
        pending = pool.submit(next, items, _END)
        while (item := pending.result()) is not _END:
            pending = pool.submit(next, items, _END)
            yield item
            del item  # so that two items are in memory at a time, not three
