"""Data sets of impressions: a generator with known probabilities, and real logs."""

from sk_pwiser.datasets._ali_ccp import load_ali_ccp
from sk_pwiser.datasets._aliexpress import load_aliexpress
from sk_pwiser.datasets._generated import make_ctr_cvr
from sk_pwiser.datasets._hillstrom import load_hillstrom
from sk_pwiser.datasets._kuairand import load_kuairand
from sk_pwiser.datasets._parquet import ParquetImpressions

__all__ = [
    "ParquetImpressions",
    "load_ali_ccp",
    "load_aliexpress",
    "load_hillstrom",
    "load_kuairand",
    "make_ctr_cvr",
]
