"""Fits on two workers of a Ray cluster on this machine."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from callbacks_of_workers import KillOnce
from sklearn.metrics import roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.distributed import fit
from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput

# Ray leaves sockets and processes to the end.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("cluster"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def make_model(**params):
    return MultiTaskCTRCVRClassifier(
        **{
            "network_params": {"bottom_units": (32,), "tower_units": ()},
            "max_epochs": 4,
            "batch_size": 256,
            "early_stopping": False,
            "random_state": 0,
            **params,
        }
    )


def fit_on_two(model, dataset, folder, **params):
    return fit(model, dataset, num_workers=2, storage_path=folder, **params)


def aucs(model, log):
    p = model.predict_proba(log.X_test)
    return [roc_auc_score(log.Y_test[:, k], p[:, k]) for k in range(p.shape[1])]


def test_two_workers_rank_as_one_process(log, tmp_path):
    two = fit_on_two(make_model(), log.train, tmp_path)
    one = make_model().fit(log.train)
    np.testing.assert_allclose(aucs(two, log), aucs(one, log), atol=0.002)
    assert two.n_iter_ == one.n_iter_ == 4
    assert two.task_names_ == ["click", "conversion"]
    assert two.get_params()["device"] == "auto"
    # Checkpoints and encoded rows are gone.
    assert list(tmp_path.iterdir()) == []


def test_two_workers_learn_values(log, tmp_path):
    dataset = ParquetImpressions(
        log.train.path_or_glob, log.features, ["click", "conversion", "spend"]
    )
    model = make_model(value_tasks={"spend": "conversion"}, max_epochs=2)
    two = fit_on_two(model, dataset, tmp_path)
    one = make_model(value_tasks={"spend": "conversion"}, max_epochs=2).fit(dataset)
    values = two.predict_value(log.X_test, given_event=True)
    expected = one.predict_value(log.X_test, given_event=True)
    assert np.corrcoef(values, expected)[0, 1] > 0.9
    # The level is that of the rows of both workers.
    table = pd.concat(
        pd.read_parquet(path) for path in sorted(Path(log.train.path_or_glob).iterdir())
    )
    bought = table["conversion"] == 1
    predicted = two.predict_value(table[log.features], given_event=True)[bought].sum()
    np.testing.assert_allclose(predicted, table["spend"].sum(), rtol=1e-3)


def test_rows_in_a_folder_of_their_own(log, tmp_path):
    """A network of a script trains, and nothing is left in either folder."""
    for name in ("cache", "runs"):
        (tmp_path / name).mkdir()
    dataset = ParquetImpressions(
        log.train.path_or_glob,
        log.features,
        ["click", "conversion"],
        cache_dir=tmp_path / "cache",
    )

    class Linear(MultiTaskNetwork):  # cannot be imported by a worker
        def __init__(self, spec):
            super().__init__(spec)
            self.head = torch.nn.Linear(self.width, self.n_tasks)

        def forward(self, codes, numeric):
            return NetworkOutput(self.head(self.input_layer(codes, numeric)))

    model = make_model(network=Linear, network_params=None, max_epochs=1)
    fit_on_two(model, dataset, tmp_path / "runs", max_failures=0)
    assert type(model.net_.module_) is Linear
    assert [list((tmp_path / n).iterdir()) for n in ("cache", "runs")] == [[], []]


def test_a_killed_worker_is_replaced(log, tmp_path):
    """Training resumes from the checkpoint, and gives the result to the bit."""
    (tmp_path / "marks").mkdir()
    killer = KillOnce(str(tmp_path / "marks"))
    survived = fit_on_two(make_model(callbacks=[killer]), log.train, tmp_path)
    assert (tmp_path / "marks" / "killed").exists()
    whole = fit_on_two(make_model(), log.train, tmp_path)
    np.testing.assert_array_equal(
        survived.predict_proba(log.X_test), whole.predict_proba(log.X_test)
    )
    assert survived.history_[:, "epoch"] == [1, 2, 3, 4]


def test_a_diverged_fit_raises_once_and_keeps_the_earlier_one(log, tmp_path):
    model = make_model(max_epochs=1).fit(log.train)
    before = model.predict_proba(log.X_test)
    model.set_params(lr=1e30)
    with pytest.raises(ValueError, match="Training diverged in epoch 1"):
        fit_on_two(model, log.train, tmp_path)
    np.testing.assert_array_equal(model.predict_proba(log.X_test), before)


def test_early_stopping_sees_all_validation_rows(log, tmp_path):
    """Its figures are those of the whole table, which is not divided by files."""
    rows = log.X_test[:5_000], log.Y_test[:5_000]
    model = make_model(early_stopping=True, n_iter_no_change=2, max_epochs=20)
    fit_on_two(model, log.train, tmp_path, eval_set=rows)
    p = model.predict_proba(rows[0])
    best = model.history_[model.best_epoch_ - 1]
    for k, task in enumerate(model.task_names_):
        expected = roc_auc_score(rows[1][:, k], p[:, k])
        assert best[f"valid_auc_{task}"] == pytest.approx(expected, abs=1e-6)
