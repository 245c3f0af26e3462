"""Invalid parameters and labels raise an error before the table is encoded."""

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import EarlyStopping
from small_model import N, X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"network_params": {"dropout": 2.0}}, ValueError, "dropout .* got 2"),
        ({"network_params": {"interaction": "dot"}}, ValueError, "interaction .*'dot'"),
        ({"encoding_params": {"category_dropout": 1}}, ValueError, "dropout .* got 1"),
        ({"loss_params": {"margins": -np.inf}}, ValueError, "margins.*inf"),
        ({"optimizer_params": {"lr": 0.1}}, ValueError, "estimator: set lr=0.1"),
        ({"optimizer_params": {"betas": (0.9, 2)}}, ValueError, r"betas.*\(0.9, 2\)"),
        (
            {"optimizer": torch.optim.LBFGS},
            ValueError,
            "LBFGS.* cannot train .*LBFGS doesn't support .*parameter groups",
        ),
        (
            {"optimizer": torch.optim.SparseAdam},
            ValueError,
            "SparseAdam.* cannot train .*dense gradients",
        ),
        *(
            (
                {"optimizer": torch.optim.Muon},
                ValueError,
                "Muon.* cannot train .*Muon only supports 2D parameters",
            )
            for _ in range(hasattr(torch.optim, "Muon"))  # from torch 2.9 on
        ),
        *(
            (
                {"callbacks": [callback]},
                ValueError,
                "holds EarlyStopping, whose monitor is 'valid_loss', .* no validation "
                "rows. Set early_stopping .* eval_set",
            )
            for callback in (EarlyStopping(), EarlyStopping, ("name", EarlyStopping()))
        ),
        *(
            (
                {"optimizer_params__lazy_embeddings": True, name: value},
                ValueError,
                f"lazy_embeddings=True is not supported with .*{name.split('__')[-1]}",
            )
            for name, value in {
                "optimizer": "sgd",
                "weighting": "nash",
                "optimizer_params__clip_grad_norm": 1.0,
            }.items()
        ),
        ({"optimizer_params": {"lazy_embeddings": 3}}, ValueError, "False; got 3"),
        ({"optimizer_params": {"lazy_embeddings": pd.NA}}, ValueError, "got <NA>"),
        (
            {"encoding_params": {"grow_vocabulary": 1}},
            TypeError,
            "grow_vocabulary must",
        ),
        ({"network_params": {"task_space": "clicked"}}, ValueError, "must be one of"),
        ({"optimizer_params": {"embedding_lr": 0.0}}, ValueError, "embedding_lr"),
        (
            {"optimizer_params": {"embedding_weight_decay": -1.0}},
            ValueError,
            "embedding_weight",
        ),
        (
            {
                "optimizer": torch.optim.Rprop,
                "optimizer_params": {"embedding_weight_decay": 0.1},
            },
            ValueError,
            "has no weight decay",
        ),
        (
            {"optimizer": torch.optim.Rprop, "weight_decay": 0.1},
            ValueError,
            "weight_decay=0.1, but .* set weight_d",
        ),
        ({"optimizer": dict}, TypeError, "optimizer must be .* <class 'dict'>"),
        ({"optimizer": torch.optim.Optimizer}, ValueError, "Optimizer"),
        ({"optimizer": "sgd", "optimizer_params": {"betas": 1}}, ValueError, "'betas'"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_values_of_parameters(encodings, params, error, message, method):
    with pytest.raises(error, match=message):
        getattr(small().set_params(**params), method)(X, Y)
    assert encodings == []


SUITABLE = {
    kind
    for kind in vars(torch.optim).values()
    if isinstance(kind, type)
    and issubclass(kind, torch.optim.Optimizer)
    and kind.__name__ not in ("LBFGS", "Muon", "Optimizer", "SparseAdam")
}


@pytest.mark.parametrize("weight_decay", ["auto", 0])
@pytest.mark.parametrize("kind", sorted(SUITABLE, key=lambda kind: kind.__name__))
def test_the_other_optimizers_of_torch_train(kind, weight_decay):
    model = small(optimizer=kind, weight_decay=weight_decay).fit(X, Y)
    assert np.isfinite(model.predict_proba(X)).all()


def test_callbacks_that_monitor_validation_rows_take_those_of_an_eval_set():
    for params, given in (({"early_stopping": True}, {}), ({}, {"eval_set": (X, Y)})):
        model = small(callbacks=[EarlyStopping(sink=len)], **params)
        assert model.fit(X, Y, **given).n_iter_ == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"Y": Y[:-1]}, "X has 300 rows, Y has 299"),
        ({"X": X[:-1]}, "X has 299 rows, Y has 300"),
        ({"X": X.iloc[:0]}, "X has 0 rows, Y has 300"),
        ({"X": None}, "Expected sequence or array-like, got .*NoneType"),
        ({"Y": None}, "target y is None"),
        ({"sample_weight": np.ones(N + 1)}, r"sample_weight must have shape \(300,\)"),
        ({"groups": np.ones(N + 1)}, r"groups must have shape \(300,\)"),
    ],
)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_numbers_of_rows(encodings, kwargs, message, method):
    data = {"X": X, "Y": Y, **kwargs}
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(small(), method)(**data)
    assert encodings == []


def test_a_query_does_not_run_before_labels_are_checked():
    polars = pytest.importorskip("polars")
    query = polars.LazyFrame({"a": [1, 2]}).map_batches(pytest.fail)
    with pytest.raises(ValueError, match="Labels must be 0 or 1"):
        small().fit(query, [[0, 3], [1, 0]])


@pytest.mark.parametrize("kind", ["table", "array"])
def test_errors_about_columns_name_the_estimator(kind):
    class Named(MultiTaskCTRCVRClassifier):
        pass

    table = X.select_dtypes("number")
    few, message = table.iloc[:, 1:], "Feature names seen at fit time, yet now missing"
    if kind == "array":
        table, few = table.to_numpy(), few.to_numpy()
        message = f"Named is expecting {table.shape[1]} features"
    model = Named(max_epochs=1, random_state=0).fit(table, Y)
    for call in (model.predict_proba, lambda few: model.partial_fit(few, Y)):
        with pytest.raises(ValueError, match=message) as caught:
            call(few)
        assert "TableEncoder" not in str(caught.value)


@pytest.mark.parametrize("params", [{"foreach": True}, {"fused": False}])
def test_arguments_that_exclude_a_fused_step(params):
    assert small(optimizer_params=params).fit(X, Y).n_iter_ == 2
