"""Pruning of Optuna's trials by the figures of single epochs."""

from typing import Any

from skorch import NeuralNet
from skorch.callbacks import Callback


class OptunaPruning(Callback):  # type: ignore[misc]
    """End a trial of Optuna early if its validation figures are worse than others'.

    After each epoch, a figure of the history is reported to the trial. If the study's
    pruner decides against the trial, `fit` raises `optuna.TrialPruned`, which the study
    catches, and an earlier fit stays.

    The validation figures exist with early stopping or with `eval_set` only. The
    direction of the study must be that of the figure: "maximize" for the AUC,
    "minimize" for losses.

    Parameters
    ----------
    trial : optuna.trial.Trial
        The trial, which the objective function receives.
    monitor : str, default="valid_auc_mean"
        Column of `history_`, such as "valid_auc_mean", "valid_auc_<task>" or
        "valid_loss".

    Attributes
    ----------
    n_reported_ : int
        Number of epochs reported in this training. Figures that are NaN, such as the
        AUC of one class, are not reported.

    Raises
    ------
    ImportError
        If Optuna is not installed.
    ValueError
        In `fit`, if the history has no column `monitor`.

    Notes
    -----
    A clone of the estimator reports to the same trial. A trial has one sequence of
    figures. In a cross-validation within a trial, give the callback to the first fold
    only, or report the means of the folds without it.

    References
    ----------
    Takuya Akiba, Shotaro Sano, Toshihiko Yanase, Takeru Ohta, Masanori Koyama, "Optuna:
    A Next-generation Hyperparameter Optimization Framework", KDD 2019, arXiv
    1907.10902.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.callbacks import OptunaPruning
    >>> def objective(trial):
    ...     model = MultiTaskCTRCVRClassifier(
    ...         lr=trial.suggest_float("lr", 1e-4, 1e-2, log=True),
    ...         early_stopping="auc",
    ...         callbacks=[OptunaPruning(trial)],
    ...     )
    ...     return max(model.fit(X, Y).history_[:, "valid_auc_mean"])
    """

    n_reported_: int

    def __init__(self, trial: Any, monitor: str = "valid_auc_mean") -> None:
        self.trial = trial
        self.monitor = monitor

    def __deepcopy__(self, memo: dict[int, Any]) -> "OptunaPruning":
        # A copied trial would report to a copy of the study, whose pruner sees no
        # figures of other trials.
        return self.__sklearn_clone__()

    def __sklearn_clone__(self) -> "OptunaPruning":
        return type(self)(self.trial, self.monitor)

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Check that Optuna is installed.

        Parameters
        ----------
        net : NeuralNet
            The net that is trained.
        **kwargs : dict
            What skorch passes further.
        """
        _import_optuna()
        self.n_reported_ = 0

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Report the figure of the epoch, and end the trial if it is to be pruned.

        Parameters
        ----------
        net : NeuralNet
            The net that is trained.
        **kwargs : dict
            What skorch passes further.
        """
        row = net.history[-1]
        if self.monitor not in row:
            known = sorted(k for k, v in row.items() if isinstance(v, float))
            raise ValueError(
                f"monitor must be a column of the history, got {self.monitor!r}. "
                "Validation figures need early_stopping or eval_set. The columns are "
                f"{known}."
            )
        figure, epoch = float(row[self.monitor]), int(row["epoch"])
        if figure != figure:
            return
        self.trial.report(figure, step=epoch)
        self.n_reported_ += 1
        if self.trial.should_prune():
            raise _import_optuna().TrialPruned(
                f"Pruned after epoch {epoch}: {self.monitor} is {figure:.4g}."
            )


def _import_optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            'OptunaPruning needs optuna: pip install "sk_pwiser[optuna]"'
        ) from error
    return optuna
