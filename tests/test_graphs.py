"""Fits whose steps are graphs, which the simulated device records and replays."""

import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from checkpointed import Interrupted, InterruptsAfter
from numpy.testing import assert_allclose, assert_array_equal
from simulated_device import counts
from simulated_device.recorded_graph import RecordedGraph
from skorch.callbacks import Callback, LRScheduler
from small_model import X, Y, small
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._rows._batches import BatchIndices, BatchIterator
from sk_pwiser._training._graph import WARM_UP
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import LOSSES, MultiTaskLoss
from sk_pwiser.networks import NETWORKS, SharedBottom
from sk_pwiser.weighting import WEIGHTINGS, TaskWeighting

pytestmark = pytest.mark.usefixtures("simulated")

# 10 batches per epoch, of 31 and of 30 rows.
N = 303
ROWS = np.arange(N) % len(X)
DATA, TARGETS = X.iloc[ROWS].reset_index(drop=True), Y.iloc[ROWS].reset_index(drop=True)


def graphed(**params):
    """Return an estimator with 10 steps per epoch, which draw random numbers."""
    defaults = {
        "network_params": {"bottom_units": (8,), "tower_units": (4,), "dropout": 0.2},
        "batch_size": 32,
        "max_epochs": 3,
        # Graphs hold the learning rate in float32. This one is not rounded, which
        # would move activations across the kink of ReLU.
        "lr": 2**-9,
        "compile": "graph",
    }
    return small(**{**defaults, **params})


def fit(data=DATA, targets=TARGETS, fit_params=None, **params):
    return graphed(**params).fit(data, targets, **(fit_params or {}))


def agree(one, other, data=DATA, atol=1e-6):
    """Assert that two fits agree, in their predictions and in their histories."""
    assert_allclose(one.predict_proba(data), other.predict_proba(data), atol=atol)
    assert one.n_iter_ == other.n_iter_
    for name in ("train_loss", "train_batches_without_pairs", "train_weight_click"):
        if name in one.history_[-1]:
            found, expected = one.history_[:, name], other.history_[:, name]
            assert_allclose(found, expected, atol=10 * atol)


def compare(**params):
    """Fit with and without graphs, compare the fits and count the replays."""
    eager = fit(**{**params, "compile": False})
    before = RecordedGraph.n_replays
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit(**params)
    n_replays = RecordedGraph.n_replays - before
    agree(model, eager)
    assert n_replays > 0
    return model, n_replays


class TestRecordings:
    """A graph of the simulated device has the faults of one that is not general."""

    @pytest.fixture
    def record(self, simulated):
        def record(function, *generators):
            graph = torch.sim.CUDAGraph()
            for generator in generators:
                graph.register_generator_state(generator)
            with torch.sim.graph(graph):
                result = function()
            return graph, result

        return record

    def test_a_recording_computes_nothing(self, simulated, record):
        x = torch.ones(3, device=simulated)
        graph, (result,) = record(lambda: [x.add_(1).sum()])
        assert x.sum() == 3
        assert result.isnan()
        graph.replay()
        graph.replay()
        assert x.sum() == result == 9

    def test_numbers_of_the_host_are_constants(self, simulated, record):
        numbers = {"float": 1.0, "tensor": torch.tensor(1.0)}
        x = torch.zeros(2, device=simulated)
        graph, _ = record(lambda: x.add_(numbers["float"]).add_(numbers["tensor"]))
        numbers["float"] = 5.0
        numbers["tensor"].fill_(5.0)
        graph.replay()
        assert x.sum() == 4

    def test_gradients_and_random_numbers(self, simulated, record):
        generator = torch.Generator(simulated).manual_seed(0)
        weight = torch.ones(50, device=simulated, requires_grad=True)

        def step():
            weight.grad = None
            drawn = torch.empty_like(weight).uniform_(generator=generator)
            (weight * drawn).sum().backward()
            return weight.grad

        expected = [step().clone() for _ in range(3)]
        generator.manual_seed(0)
        graph, found = record(step, generator)
        for gradient in expected:
            graph.replay()
            assert_array_equal(found.cpu(), gradient.cpu())

    def test_what_cannot_be_recorded(self, simulated, record):
        x = torch.ones(3, device=simulated)
        generator = torch.Generator(simulated)
        for call in (
            lambda: x.sum().item(),
            lambda: x.nonzero(),
            lambda: x[[0, 1]],
            lambda: torch.tensor(1.0, device=simulated),
            lambda: torch.ones(3).to(simulated, non_blocking=True),
            lambda: torch.empty_like(x).uniform_(generator=generator),
        ):
            with pytest.raises(RuntimeError, match=r"waits|permitted|not registered"):
                record(call)


class TestWholeFits:
    """Fits by graphs equal ordinary ones."""

    def test_all_steps_but_the_first_ones_are_replays(self):
        model, n_replays = compare(max_epochs=4)
        assert n_replays == 4 * 10 - 2 * WARM_UP  # two sizes of batches
        assert model.get_params()["compile"] == "graph"

    @pytest.mark.parametrize(
        "params",
        [
            {"early_stopping": True, "n_iter_no_change": 1, "max_epochs": 6},
            {"fit_params": {"sample_weight": 1 + np.arange(N) % 3}},
            {"precision": "bfloat16"},
            {"stratified_batches": True},
            {"loss_params": {"pairs": "funnel", "tasks": "all"}},
            {"network_params": {"task_space": "conditional", "dropout": 0.1}},
            {"network_params": {"monotonicity_weight": 1.0, "interaction": "cross"}},
            {"optimizer_params": {"clip_grad_norm": 0.1}, "weight_decay": 0.1},
            {"optimizer_params": {"average_decay": 0.0}},
            {"optimizer_params": {"average_decay": 0.9, "embedding_lr": 0.1}},
            {"optimizer_params": {"lazy_embeddings": True}, "weight_decay": 0.1},
            {"optimizer": "adamw"},
            {"optimizer": "sgd", "optimizer_params": {"momentum": 0.9}},
            {"optimizer": torch.optim.NAdam},
            {"optimizer": torch.optim.RMSprop},
        ],
        ids=lambda params: "sample_weight" if "fit_params" in params else str(params),
    )
    def test_parameters(self, params):
        compare(**params)

    @pytest.mark.parametrize("network", NETWORKS)
    def test_networks(self, network):
        compare(network=network, network_params={"dropout": 0.1}, loss="bce")

    @pytest.mark.parametrize("loss", LOSSES)
    def test_losses(self, loss):
        compare(loss=loss)

    @pytest.mark.parametrize(
        "weighting",
        [name for name, kind in WEIGHTINGS.items() if not kind.needs_task_gradients],
    )
    def test_weightings_of_losses(self, weighting):
        params = {"weights": [1.0, 2.0]} if weighting == "fixed" else {}
        compare(weighting=weighting, weighting_params=params)

    def test_rare_conversions(self):
        rows = make_ctr_cvr(3_000, ctr=0.02, cvr=0.05, random_state=0)
        assert 0 < rows.target["conversion"].sum() < 10
        params = {"batch_size": 100, "max_epochs": 2, "early_stopping": True}
        model, _ = compare(data=rows.data, targets=rows.target, **params)
        assert all(n > 0 for n in model.history_[:, "train_batches_without_pairs"])

    def test_missing_labels(self):
        labels = TARGETS.astype(float)
        labels.loc[::3, "conversion"] = np.nan
        compare(targets=labels, missing_labels="ignore")

    def test_no_step_waits(self):
        class Counts(Callback):
            def on_epoch_begin(self, net, **kwargs):
                self.counts = []

            def on_batch_end(self, net, training=False, **kwargs):
                self.counts.append(counts())

        compare(callbacks=[last := Counts()])
        assert len(last.counts) == 10
        assert not (last.counts[-1] - last.counts[0]).synchronisations

    @pytest.mark.parametrize(
        "schedule",
        [
            {"policy": "StepLR", "step_size": 1, "gamma": 0.1},
            {"policy": "ExponentialLR", "gamma": 0.8, "step_every": "batch"},
            {"policy": "WarmRestartLR"},
        ],
        ids=str,
    )
    def test_schedules_of_the_learning_rate(self, schedule):
        model, _ = compare(callbacks=[LRScheduler(**schedule)], lr=0.05)
        assert all(type(g["lr"]) is float for g in model.net_.optimizer_.param_groups)

    def test_the_schedule_of_the_estimator(self):
        model, _ = compare(lr_schedule="warmup_stable_decay", lr=0.05)
        assert model.history_[-1, "lr"] < 0.05

    def test_terms_of_exposure(self):
        position = np.arange(N) % 5
        data = DATA.assign(position=position, item=(np.arange(N) % 101).astype(str))
        params = {"exposure_features": ["position"], "lr": 2**-6}
        model, eager = (fit(data, compile=each, **params) for each in ("graph", False))
        agree(model, eager, data, atol=1e-5)
        agree(model.as_shown(), eager.as_shown(), data, atol=1e-5)
        assert np.ptp(
            model.as_shown().predict_logits(data) - model.predict_logits(data)
        )

    def test_callbacks_keep_the_results_of_steps(self):
        class Losses(Callback):
            def on_train_begin(self, net, **kwargs):
                self.losses, self.logits = [], []

            def on_batch_end(self, net, training, loss, y_pred, **kwargs):
                self.losses.append(loss)
                self.logits.append(y_pred)

        kept = {}
        for compiled in (False, "graph"):
            kept[compiled] = Losses()
            fit(callbacks=[kept[compiled]], compile=compiled)
        for name in ("losses", "logits"):
            for found, expected in zip(
                *(getattr(each, name) for each in kept.values()), strict=True
            ):
                assert_allclose(found.tolist(), expected.tolist(), atol=1e-5)

    def test_attributes_that_change_between_epochs(self):
        class Annealed(SharedBottom):
            scale = 1.0

            def forward(self, *inputs):
                output = super().forward(*inputs)
                return output._replace(logits=self.scale * output.logits)

        class Anneal(Callback):
            def on_epoch_begin(self, net, **kwargs):
                net.module_.scale = 1 / (1 + len(net.history))

        _, n_replays = compare(network=Annealed, callbacks=[Anneal()])
        assert n_replays == 30 - 2 * WARM_UP - 2 * 2  # the others are watched anew

    @pytest.mark.parametrize("kind", ["Dropout", "BatchNorm1d"])
    def test_layers_of_torch_with_a_state(self, kind):
        class Own(SharedBottom):
            def __init__(self, spec):
                super().__init__(spec, bottom_units=(8,), tower_units=(4,))
                argument = 0.5 if kind == "Dropout" else spec.n_numeric
                self.layer = getattr(nn, kind)(argument)

            def forward(self, codes, numeric, *bags):
                return super().forward(codes, self.layer(numeric), *bags)

        compare(network=Own, network_params=None)


class TestFurtherCalls:
    """Fits by graphs continue, are copied and are stored."""

    @pytest.mark.parametrize("compiled", [False, "graph"])
    @pytest.mark.parametrize(
        "optimizer", ["adam", "sgd", torch.optim.AdamW, torch.optim.RMSprop]
    )
    def test_warm_start(self, compiled, optimizer):
        model, eager = (
            fit(compile=each, optimizer=optimizer, warm_start=True)
            for each in ("graph", False)
        )
        model.set_params(compile=compiled)
        # Without a fused kernel, graphs compute the factors of a step in float32.
        atol = 1e-6 if isinstance(optimizer, str) else 1e-5
        agree(model.fit(DATA, TARGETS), eager.fit(DATA, TARGETS), atol=atol)
        assert model.n_iter_ == 6

    @pytest.mark.parametrize("compiled", [False, "graph"])
    def test_partial_fit(self, compiled):
        model, eager = (fit(compile=each) for each in ("graph", False))
        model.set_params(compile=compiled)
        for _ in range(2):
            model.partial_fit(DATA, TARGETS)
            eager.partial_fit(DATA, TARGETS)
        agree(model, eager)

    def test_partial_fit_of_large_tables(self):
        params = {"optimizer_params": {"lazy_embeddings": True}}
        model, eager = graphed(**params), graphed(**params, compile=False)
        model.partial_fit(DATA, TARGETS)
        with pytest.warns(UserWarning, match="updates of large embedding tables"):
            model.partial_fit(DATA, TARGETS)
        eager.partial_fit(DATA, TARGETS)
        agree(model, eager.partial_fit(DATA, TARGETS))

    def test_updates_alone(self):
        model, eager = graphed(), graphed(compile=False)
        before = RecordedGraph.n_replays
        for _ in range(3):
            model.partial_fit(DATA[:100], TARGETS[:100])
            eager.partial_fit(DATA[:100], TARGETS[:100])
        agree(model, eager)
        assert RecordedGraph.n_replays == before + 3  # one of the 4 steps each

    def test_files_and_pickles(self, tmp_path):
        model, eager = fit(), fit(compile=False)
        model.save(tmp_path / "model")
        for copy in (
            MultiTaskCTRCVRClassifier.load(tmp_path / "model"),
            pickle.loads(pickle.dumps(model)),
        ):
            assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
            assert copy.get_params()["compile"] == "graph"
            copy.set_params(warm_start=True).fit(DATA, TARGETS)
            assert copy.n_iter_ == 6
        eager.set_params(warm_start=True)
        agree(copy, eager.fit(DATA, TARGETS))

    def test_checkpoints(self, tmp_path):
        params = {"checkpoint_dir": tmp_path, "warm_start": True}
        whole = fit(max_epochs=4)

        stops = InterruptsAfter(2, "on_epoch_end")
        with pytest.raises(Interrupted):
            fit(max_epochs=4, callbacks=[stops], **params)
        agree(fit(max_epochs=4, callbacks=[], **params), whole)

    def test_a_failure_leaves_the_earlier_fit(self):
        model = fit()
        expected = model.predict_proba(X)
        with pytest.raises(ValueError, match="diverge"):
            model.set_params(lr=1e30).fit(DATA, TARGETS)
        assert_array_equal(model.predict_proba(X), expected)


class Counts(SharedBottom):
    n_steps = 0

    def forward(self, *inputs):
        self.n_steps += self.training
        output = super().forward(*inputs)
        return output._replace(logits=output.logits / (1 + self.n_steps))


class Waits(MultiTaskLoss):
    takes_task_weights = True

    def forward(self, logits, y, sample_weight=None, groups=None):
        losses = nn.functional.softplus(logits) - y * logits
        return losses.mean(0) / max(1.0, float(losses.detach().mean()))


class Draws(SharedBottom):
    def forward(self, *inputs):
        output = super().forward(*inputs)
        factor = 1 + random.random() if self.training else 1.0
        return output._replace(logits=factor * output.logits)


class Keeps(TaskWeighting):
    last = None

    def forward(self, losses):
        weights = 1.0 if self.last is None else self.last
        self.last = 1 / (1 + losses.detach())
        return (weights * losses).sum()


class Mixes(Callback):
    def on_batch_begin(self, net, batch, training, **kwargs):
        batch[0]["numeric"].mul_(0.5)


# It changes the momentum, too.
ONE_CYCLE = LRScheduler(OneCycleLR, max_lr=0.1, total_steps=31, step_every="batch")


class TestFallbacks:
    """Steps that cannot be recorded are ordinary ones, and one warning says why."""

    @pytest.mark.parametrize(
        ("params", "reason"),
        [
            ({"weighting": "nash"}, "weighting=Nash, which needs the gradient"),
            ({"device": "cpu"}, "device='cpu': graphs require CUDA"),
            (
                {"loss": "jrc", "fit_params": {"groups": np.arange(N) // 8}},
                "batches of whole groups",
            ),
            (
                {"data": DATA.assign(tags=[["a", "b"][: i % 3] for i in range(N)])},
                "columns of lists",
            ),
            ({"optimizer": torch.optim.Adagrad}, "optimizer=Adagrad, which counts"),
            ({"callbacks": [Mixes()]}, "the callback Mixes, which acts within a step"),
            ({"callbacks": [ONE_CYCLE]}, "arguments of the optimiser, that change"),
            ({"network": Counts}, "Counts.n_steps, which changes in each"),
            ({"weighting": Keeps}, "Keeps.last, which changes in each"),
            ({"loss": Waits}, r"line \d+ of test_graphs.py, where"),
            ({"network": Draws}, "random numbers that are drawn on the host"),
        ],
        ids=[
            *("gradients", "cpu", "groups", "lists", "adagrad", "callback", "momentum"),
            *("network", "weighting", "wait", "generator"),
        ],
    )
    def test_obstacles(self, params, reason):
        random.seed(0)
        eager = fit(**{**params, "compile": False})
        random.seed(0)
        with pytest.warns(
            UserWarning, match=f"compile='graph' is .* {reason}"
        ) as found:
            model = fit(**params)
        assert len(found) == 1
        agree(model, eager, params.get("data", DATA))

    def test_a_recording_that_fails(self, monkeypatch):
        def fails(self, generator):
            raise RuntimeError("out of graphs\nlong explanation")

        monkeypatch.setattr(RecordedGraph, "register_generator_state", fails)
        monkeypatch.setattr(RecordedGraph, "__init__", lambda self: None)
        with pytest.warns(UserWarning, match="out of graphs. Steps") as found:
            model = fit()
        assert len(found) == 1
        agree(model, fit(compile=False))

    def test_many_sizes_of_batches(self, monkeypatch):
        bounds = [0, *np.cumsum(range(10, 30)).tolist()]
        indices = BatchIndices(torch.arange(bounds[-1]), bounds)
        monkeypatch.setattr(BatchIterator, "_sample_rows", lambda *args: indices)
        rows = np.arange(bounds[-1]) % N
        with pytest.warns(UserWarning, match="more than 8 sizes of batches"):
            graphed(max_epochs=1).fit(DATA.iloc[rows], TARGETS.iloc[rows])
