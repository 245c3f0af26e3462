"""Callbacks for the parameter `callbacks`, in addition to those of skorch."""

from sk_pwiser._training._callbacks import KeepOnInterrupt

__all__ = ["KeepOnInterrupt"]
