"""Linear models of several tasks: transparent, without PyTorch, dense or sparse."""

from sk_pwiser.linear_model._cp_logistic import CPMultiTaskLogistic
from sk_pwiser.linear_model._sparse_linear import (
    MultiTaskSparseLinear,
    MultiTaskSparseLinearCV,
    multi_task_sparse_path,
)

__all__ = [
    "CPMultiTaskLogistic",
    "MultiTaskSparseLinear",
    "MultiTaskSparseLinearCV",
    "multi_task_sparse_path",
]
