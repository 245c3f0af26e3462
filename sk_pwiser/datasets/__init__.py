"""Impressions: a generator with known probabilities, and readers of real logs."""

from sk_pwiser.datasets._generated import make_ctr_cvr
from sk_pwiser.datasets._hillstrom import load_hillstrom
from sk_pwiser.datasets._kuairand import load_kuairand

__all__ = ["load_hillstrom", "load_kuairand", "make_ctr_cvr"]
