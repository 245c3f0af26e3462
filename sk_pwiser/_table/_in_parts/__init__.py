"""Datasets that are read in parts: checked, summed up, learnt and counted."""

from sk_pwiser._table._in_parts._blocks import BlockCounts, Blocks, TimeEdges
from sk_pwiser._table._in_parts._chunks import Chunk, iter_chunks, named_place
from sk_pwiser._table._in_parts._learner import TableLearner
from sk_pwiser._table._in_parts._row_summary import RowSummary

__all__ = [
    "BlockCounts",
    "Blocks",
    "Chunk",
    "RowSummary",
    "TableLearner",
    "TimeEdges",
    "iter_chunks",
    "named_place",
]
