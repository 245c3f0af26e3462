"""Callbacks for the parameter `callbacks`, in addition to those of skorch."""

from sk_pwiser._training import KeepOnInterrupt

__all__ = ["KeepOnInterrupt"]
