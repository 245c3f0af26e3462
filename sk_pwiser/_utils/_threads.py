"""How many threads torch uses while other programs keep cores busy.

The threads of one operation wait for each other. If one of them has no core, all wait,
and training with two threads takes many times as long as with one. So the number of
threads is that of the cores that are free.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import joblib
import torch

from sk_pwiser._utils._checks import check_integer
from sk_pwiser._utils._warn import warn_user

# Seconds of the first measurement, in which one thread is used, and of the later ones.
# The system counts in units of 0.01 s.
FIRST_SECONDS, SECONDS = 0.1, 1.0
# A core counts as free if it was free for this share of the time.
FREE_SHARE = 0.75

_requested: ContextVar[int | None] = ContextVar("requested threads", default=None)
# The control of the current fit or prediction, and those of all threads.
_current: ContextVar["ThreadControl | None"] = ContextVar("control", default=None)
_active: set["ThreadControl"] = set()


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Train and predict with a given number of threads of torch.

    Without it, fits and predictions on the CPU use at most the threads that torch is
    set to use, and fewer while other programs keep cores busy.

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
def controlled_threads(is_on_cpu: bool) -> Iterator[None]:
    """Let `update_threads` set the number of threads of torch, and restore it.

    Parameters
    ----------
    is_on_cpu : bool
        Whether the work is done on the CPU; otherwise nothing is set.
    """
    limit = torch.get_num_threads()
    requested = _requested.get()
    if not is_on_cpu or (requested is None and limit == 1):
        yield
        return
    control = ThreadControl(limit) if requested is None else None
    token = _current.set(control)
    try:
        if control is not None:
            _active.add(control)
        else:
            torch.set_num_threads(requested or limit)
        yield
    finally:
        _current.reset(token)
        _active.discard(control)
        torch.set_num_threads(limit)


def update_threads() -> None:
    """Set the number of threads by the cores that were free; call it once per batch."""
    control = _current.get()
    if control is not None:
        control.update()


class Usage(NamedTuple):
    """Seconds since some point in time.

    Parameters
    ----------
    wall : float
        The time that passed.
    idle : float
        Idle time of the cores that the process may use, summed.
    own : float
        Time of the process on them, of all of its threads.
    """

    wall: float
    idle: float
    own: float


def read_usage() -> Usage | None:
    """Return the usage of the cores, or None where the system does not tell it."""
    try:
        cores = os.sched_getaffinity(0)
        with open("/proc/stat", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("cpu")]
    except (AttributeError, OSError):
        return None
    names = {f"cpu{core}" for core in cores}
    # The fourth and the fifth number are the idle time, and that of waiting for a disk.
    ticks = sum(int(line[4]) + int(line[5]) for line in lines if line[0] in names)
    idle = ticks / os.sysconf("SC_CLK_TCK")
    return Usage(time.perf_counter(), idle, time.process_time())


def free_cores(before: Usage, now: Usage) -> float:
    """Return how many cores were idle or used by this process, on average."""
    return (now.idle - before.idle + now.own - before.own) / (now.wall - before.wall)


class ThreadControl:
    """The number of threads of one fit or prediction.

    Parameters
    ----------
    limit : int
        The largest number of threads.
    """

    def __init__(self, limit: int) -> None:
        self.limit = min(limit, joblib.cpu_count())
        self.has_warned = False
        self.usage = read_usage()
        if self.usage is not None:
            self.next_at = self.usage.wall + FIRST_SECONDS
            torch.set_num_threads(1)

    def update(self) -> None:
        """Measure, once per second, and set the number of threads."""
        if self.usage is None or time.perf_counter() < self.next_at:
            return
        now = read_usage()
        if now is None:
            return
        n_fits = max(len(_active), 1)
        free = free_cores(self.usage, now) / n_fits
        self.usage, self.next_at = now, now.wall + SECONDS
        n_threads = min(max(int(free + 1 - FREE_SHARE), 1), self.limit)
        torch.set_num_threads(n_threads)
        if n_threads < self.limit and n_fits == 1 and not self.has_warned:
            self.has_warned = True
            warn_user(
                f"Other programs keep cores busy: {n_threads} of {self.limit} threads "
                "are used as long as this is so, since threads that wait for a core "
                "make training many times slower. sk_pwiser.num_threads(n) sets their "
                "number."
            )
