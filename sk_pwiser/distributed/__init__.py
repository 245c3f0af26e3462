"""Training on several processes or machines, with Ray."""

from sk_pwiser.distributed._ray_fit import fit

__all__ = ["fit"]
