"""Two processes train a job to the same weights, without Ray."""

import pickle

import numpy as np
import pytest
import torch.distributed
from two_processes import run_jointly

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._settings import Settings
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.distributed._ray_fit import prepare_job

SMALL = {"bottom_units": (16,), "tower_units": ()}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not torch.distributed.is_gloo_available(), reason="torch was built without gloo"
    ),
]


def job_of(dataset, folder, eval_set=None, n_processes=2, **params):
    settings = Settings.of(vars(MultiTaskCTRCVRClassifier(**params)))
    names = {"n_processes": n_processes, "estimator_name": "Model"}
    return prepare_job(settings, dataset, eval_set, folder, **names)


def train_jointly(dataset, folder, eval_set=None, n_processes=2, **params):
    """Return what each of two processes found, or one alone."""
    params = {
        "network_params": SMALL,
        "max_epochs": 2,
        "batch_size": 256,
        "early_stopping": False,
        "random_state": 0,
        **params,
    }
    job = job_of(dataset, folder, eval_set, n_processes, **params)
    (folder / "job.pickle").write_bytes(pickle.dumps(job))
    return run_jointly("joint_training", folder, n_processes)


def valid_losses(found):
    return [row.get("valid_loss") for row in found["history"]]


@pytest.fixture
def three_stages(log, tmp_path):
    """Return a log with a third task."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(log.train.path_or_glob)[:6_000]
    chosen = np.random.default_rng(0).random(len(table)) < 0.5
    table["third"] = (table["conversion"] * chosen).astype(int)
    (tmp_path / "log").mkdir()
    table.to_parquet(tmp_path / "log" / "part.parquet")
    targets = ["click", "conversion", "third"]
    return ParquetImpressions(tmp_path / "log", log.features, targets)


FORMS = {
    # Both draw random numbers, the network its own and the weighting common ones.
    "a weighting that draws": {
        "weighting": "torchjd",
        "weighting_params": {"aggregator": "PCGrad"},
        "network_params": {**SMALL, "dropout": 0.5},
    },
    "early stopping": {"early_stopping": True, "max_epochs": 4, "n_iter_no_change": 1},
    "half precision, stratified": {
        "precision": "bfloat16",
        "stratified_batches": True,
        "batch_size": 64,
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_all_workers_end_with_the_same_weights(form, three_stages, tmp_path):
    if FORMS[form].get("weighting") == "torchjd":
        pytest.importorskip("torchjd")
    (tmp_path / "rows").mkdir()
    first, second = train_jointly(three_stages, tmp_path / "rows", **FORMS[form])
    assert "error" not in first, first["error"]
    for name in ("weights", "state"):
        for a, b in zip(first[name], second[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert valid_losses(first) == valid_losses(second)
    assert sum(first["n_rows"]) == 6_000


def test_workers_learn_amounts_after_the_events_to_the_same_weights(log, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(log.train.path_or_glob)[:6_000]
    amounts = np.random.default_rng(0).gamma(2.0, 10.0, len(table))
    table["spend"] = np.where(table["conversion"] == 1, amounts, 0)
    for name in ("log", "rows"):
        (tmp_path / name).mkdir()
    for part in range(2):
        rows = table[part * 3_000 : (part + 1) * 3_000]
        rows.to_parquet(tmp_path / "log" / f"{part}.parquet")
    targets = ["click", "conversion", "spend"]
    dataset = ParquetImpressions(tmp_path / "log", log.features, targets)
    params = {**FORMS["early stopping"], "value_tasks": {"spend": "conversion"}}
    first, second = train_jointly(dataset, tmp_path / "rows", **params)
    assert "error" not in first, first["error"]
    n_tensors = len(first["weights"])
    for a, b in zip(first["weights"], second["weights"], strict=True):
        np.testing.assert_array_equal(a, b)
    (tmp_path / "without").mkdir()
    params["early_stopping"] = False
    without, _ = train_jointly(dataset, tmp_path / "without", **params)
    assert len(without["weights"]) < n_tensors  # no network of values


def test_lists_with_attention_and_statistics_by_time_and_group(log, tmp_path):
    """Figures of the first weights, almost untrained, are those of one process."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(log.train.path_or_glob)[:1_000]
    category = next(name for name in log.features if name.startswith("category"))
    values = table[category].astype(str).tolist()
    table[category] = values
    table["last"] = [values[i : i + i % 4] for i in range(len(values))]
    table["age"] = [
        [float(i), np.nan, 1.0][: len(v)] for i, v in enumerate(table["last"])
    ]
    table["hour"] = np.arange(len(values)) / 10
    for name in ("log", "rows", "one"):
        (tmp_path / name).mkdir()
    table.to_parquet(tmp_path / "log" / "part.parquet")
    dataset = ParquetImpressions(
        tmp_path / "log",
        [category, "last", "age", "hour"],
        ["click", "conversion"],
        groups="user",
    )
    params = {
        "network_params": SMALL,
        "max_epochs": 1,
        "batch_size": 256,
        "lr": 1e-12,
        "early_stopping": "grouped_auc",
        "optimizer_params": {"lazy_embeddings": True},
        "encoding_params": {
            "list_pooling": "attention",
            "shared_embeddings": {"last": category},
            "list_ages": {"last": "age"},
            "list_target_encoding": True,
            "time_column": "hour",
        },
        "random_state": 0,
    }
    first, second = train_jointly(dataset, tmp_path / "rows", **params)
    assert "error" not in first, first["error"]
    for a, b in zip(first["weights"], second["weights"], strict=True):
        np.testing.assert_array_equal(a, b)
    (alone,) = train_jointly(dataset, tmp_path / "one", n_processes=1, **params)
    assert first["offset"].abs().max() > 0.01
    np.testing.assert_array_equal(first["offset"], second["offset"])
    np.testing.assert_allclose(first["offset"], alone["offset"], atol=1e-5)
    one, two = alone["history"][0], first["history"][0]
    figures = [name for name in one if name.startswith(("valid_loss", "valid_group"))]
    assert len(figures) > 3
    for name in figures:
        assert two[name] == second["history"][0][name]
        assert two[name] == pytest.approx(one[name], rel=1e-5), name


def test_fewer_validation_rows_than_workers(log, tmp_path):
    rows = log.X_test[:1], log.Y_test[:1]
    found = train_jointly(log.train, tmp_path, eval_set=rows, max_epochs=1)
    assert [each["n_rows"][1] for each in found] == [1, 1]
    assert valid_losses(found[0]) == valid_losses(found[1])


def test_a_diverged_fit_with_gradients_of_tasks(log, tmp_path):
    found = train_jointly(log.train, tmp_path, weighting="nash", lr=1e30)
    for each in found:
        assert each["error"].startswith("ValueError: Training diverged in epoch 1")


def test_the_rows_of_a_group_are_in_one_file(log, tmp_path):
    store = job_of(log.by_user, tmp_path, early_stopping=False).data.train.store
    assert len(store.sizes) >= 16
    groups = [set(store.read([n])["groups"]) for n in range(len(store.sizes))]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 3_000


def test_batch_normalisation_is_refused(log, tmp_path):
    from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput

    class WithNorm(MultiTaskNetwork):
        def __init__(self, spec):
            super().__init__(spec)
            self.norm = torch.nn.BatchNorm1d(self.width)
            self.head = torch.nn.Linear(self.width, self.n_tasks)

        def forward(self, codes, numeric):
            return NetworkOutput(self.head(self.norm(self.input_layer(codes, numeric))))

    with pytest.raises(ValueError, match="has a BatchNorm1d, which normalises by"):
        job_of(log.train, tmp_path, network=WithNorm)


def test_random_numbers_of_the_caller_stay(log, tmp_path):
    before = torch.random.get_rng_state()
    job_of(log.train, tmp_path, network_params={"dropout": 0.5}, random_state=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_workers_learn_the_terms_of_exposure(log, tmp_path):
    """Figures of the first weights, almost untrained, are those of one process."""
    pandas = pytest.importorskip("pandas")
    table = pandas.read_parquet(log.train.path_or_glob)[:2_000]
    rng = np.random.default_rng(0)
    table["item"] = rng.integers(0, 120, len(table)).astype(str)
    table["position"] = rng.integers(1, 5, len(table))
    for name in ("log", "rows", "one", "more"):
        (tmp_path / name).mkdir()
    table.to_parquet(tmp_path / "log" / "part.parquet", row_group_size=500)
    features = ["item", "position", log.features[0]]
    targets = ["click", "conversion"]
    dataset = ParquetImpressions(tmp_path / "log", features, targets)
    params = {"exposure_features": ["position"], "early_stopping": True}
    still = {**params, "lr": 1e-12, "max_epochs": 1}
    first, second = train_jointly(dataset, tmp_path / "rows", **still)
    assert "error" not in first, first["error"]
    (alone,) = train_jointly(dataset, tmp_path / "one", n_processes=1, **still)
    np.testing.assert_allclose(valid_losses(first), valid_losses(alone), rtol=1e-4)
    first, second = train_jointly(dataset, tmp_path / "more", **params)
    for a, b in zip(first["weights"], second["weights"], strict=True):
        np.testing.assert_array_equal(a, b)
