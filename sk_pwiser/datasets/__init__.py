"""Data sets of impressions: a generator with known probabilities, and real logs."""

from sk_pwiser.datasets._alibaba import load_ali_ccp, load_aliexpress
from sk_pwiser.datasets._downloads import load_hillstrom, load_kuairand
from sk_pwiser.datasets._generated import make_ctr_cvr
from sk_pwiser.datasets._parquet import ParquetImpressions

__all__ = [
    "ParquetImpressions",
    "load_ali_ccp",
    "load_aliexpress",
    "load_hillstrom",
    "load_kuairand",
    "make_ctr_cvr",
]
