"""The check that a loss takes weights per row and task."""

from sk_pwiser.losses import MultiTaskLoss


def check_task_weights(
    loss: MultiTaskLoss,
    user: str = "Missing labels and sample_weight of shape (n_samples, n_tasks)",
) -> None:
    """Raise if a loss does not take weights per row and task, as missing labels are."""
    if not loss.takes_task_weights:
        raise ValueError(
            f"{user} require a loss with weights per row and task; loss "
            f"{type(loss).__name__} takes weights per row only. Support them in its "
            "forward, and set takes_task_weights = True."
        )
