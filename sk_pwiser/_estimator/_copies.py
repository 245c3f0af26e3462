"""What copies of the estimator hold: those of pickle and copy, and those of skops."""

import copyreg
from contextvars import ContextVar

from sk_pwiser._files import FORMAT_VERSION, check_version, join, split

# Whether pickle or copy asks for a state. They call `__reduce__`, which skops's form
# cannot come from: skops calls `__getstate__` directly.
_keeps_all = ContextVar("keeps_all", default=False)


class Copies:
    """The estimator's states.

    pickle, joblib and copy keep all attributes, such as callbacks and classes of the
    user. skops gets arrays of numbers alone, with the same content as the file of
    `save`, since what it could write of a net contains a pickle.
    """

    def __reduce__(self):
        token = _keeps_all.set(True)
        try:
            state = self.__getstate__()
        finally:
            _keeps_all.reset(token)
        return copyreg.__newobj__, (type(self),), state

    def __getstate__(self):
        if _keeps_all.get():
            return super().__getstate__()
        return {"sk_pwiser": FORMAT_VERSION, "arrays": join(*self._to_plain())}

    def __setstate__(self, state):
        if "sk_pwiser" not in state:
            super().__setstate__(state)
            return
        name = "The state"
        check_version(state["sk_pwiser"], name)
        plain = split(state.get("arrays"))
        self.__dict__.update(vars(self._from_plain(*plain, name)))
