"""A store that stops after a number of writes, as after a kill or on a full disk."""

from collections import UserDict


class Stopped(Exception):
    pass


class StoppingStore(UserDict):
    """A dict that refuses all writes after a number of them."""

    n_left = 10**6

    def _count(self):
        if self.n_left == 0:
            raise Stopped
        self.n_left -= 1

    def __setitem__(self, name, record):
        self._count()
        super().__setitem__(name, record)

    def __delitem__(self, name):
        self._count()
        super().__delitem__(name)
