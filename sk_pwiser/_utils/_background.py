"""Iteration whose next item is prepared in a thread."""

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


def in_background(items: Iterator[T], pool: Executor) -> Iterator[T]:
    """Yield items, while a thread prepares the next one.

    An exception of the thread is raised where its item would be.

    Parameters
    ----------
    items : iterator
        What is iterated over, by the thread alone.
    pool : Executor
        A pool of one thread. The caller ends it, and with it an iteration that was not
        completed.
    """
    pending = pool.submit(next, items, _END)
    while (item := pending.result()) is not _END:
        pending = pool.submit(next, items, _END)
        yield item
        del item  # two items are in memory at a time, not three
