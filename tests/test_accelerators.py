"""What an accelerator asks for, shown on the simulated one.

Its memory is not the CPU's, and it counts what makes the host wait.
"""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from simulated_device import counts, no_float64, no_synchronisation
from skorch.callbacks import Callback, LRScheduler
from small_model import X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._rows import _batches
from sk_pwiser._rows._batches import BatchIterator
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._training import _device
from sk_pwiser._utils._precision import widest_float
from sk_pwiser._utils._random import Generators, active
from sk_pwiser.datasets import ParquetImpressions
from sk_pwiser.losses import _pairwise
from sk_pwiser.networks import Bags
from sk_pwiser.weighting import WEIGHTINGS

pytestmark = pytest.mark.usefixtures("simulated")

# Without random numbers of the device, a fit draws what it draws on a CPU.
SAME = {"encoding_params": {"category_dropout": 0.0}}


class TestPlantedFaults:
    """The device finds what a GPU would refuse, or compute wrongly."""

    def test_mixed_devices(self, simulated):
        on_device, on_cpu = torch.ones(3, device=simulated), torch.ones(3)
        for call in (torch.add, torch.dot, lambda *pair: torch.cat(pair)):
            with pytest.raises(RuntimeError, match="on the same device"):
                call(on_device, on_cpu)
        assert (on_device + torch.tensor(1.0)).sum().item() == 6  # a single number

    def test_a_generator_of_the_cpu(self, simulated):
        generator = torch.Generator()
        with pytest.raises(RuntimeError, match="generator"):
            torch.empty(3, device=simulated).uniform_(generator=generator)
        with pytest.raises(RuntimeError):
            torch.Generator(simulated).set_state(generator.get_state())
        with pytest.raises(RuntimeError):
            generator.set_state(torch.Generator(simulated).get_state())

    def test_numpy_on_its_tensors(self, simulated):
        tensor = torch.ones(3, device=simulated)
        for call in (torch.Tensor.numpy, np.asarray, np.exp):
            with pytest.raises(TypeError, match="convert sim:0 device type tensor"):
                call(tensor)

    def test_memory_that_is_read_before_it_is_written(self, simulated):
        assert torch.empty(1_000, device=simulated).isnan().all()

    def test_synchronisations(self, simulated):
        tensor = torch.arange(4.0, device=simulated)

        def assign(index, value):
            tensor[index] = value

        waits = [
            lambda: tensor.sum().item(),
            lambda: tensor.tolist(),
            lambda: tensor.cpu(),
            lambda: tensor.nonzero(),
            lambda: tensor[tensor > 1],
            lambda: tensor[[0, 1]],
            lambda: tensor.unique(),
            lambda: tensor.new_tensor(1.0),
            lambda: torch.ones(3).to(simulated),
            lambda: assign([0, 1], 0.0),
            lambda: assign(tensor > 9, tensor[:0]),
            lambda: tensor.repeat_interleave(tensor.long()),
        ]
        free = [
            lambda: tensor.sum() + 1,
            lambda: tensor.new_full((), 1.0),
            lambda: tensor[1:],
            lambda: tensor.index_select(0, torch.arange(2, device=simulated)),
            lambda: assign(tensor > 9, 0.0),
            lambda: torch.ones(3).to(simulated, non_blocking=True),
        ]
        for calls, waited in ((waits, True), (free, False)):
            for number, call in enumerate(calls):
                before = counts()
                call()
                found = (counts() - before).synchronisations
                assert bool(found) == waited, (number, found)
        with no_synchronisation(), pytest.raises(RuntimeError, match="waits for sim"):
            tensor.sum().item()

    def test_kernels(self, simulated):
        tensors = [torch.ones(3, device=simulated) for _ in range(5)]
        before = counts()
        torch._foreach_add_(tensors, 1.0)
        (tensors[0] * 2)[1:].view(1, 2)  # views launch nothing
        assert (counts() - before).kernels == {"aten::_foreach_add_": 1, "aten::mul": 1}


class Steps(Callback):
    """Counts from the end of the first step to the end of the last one."""

    def on_train_begin(self, net, **kwargs):
        self.first, self.last, self.n_steps = None, None, -1

    def on_batch_end(self, net, training=False, **kwargs):
        if training:
            self.last = counts()
            self.first = self.first or self.last
            self.n_steps += 1


def calls_per_step(fit_params=None, batch_size=400, **params):
    steps = Steps()
    # 400 rows are enough pairs for each way of computing them.
    rows = np.arange(1600) % len(X)
    defaults = {
        "batch_size": batch_size,
        "max_epochs": 1,
        "early_stopping": False,
        "random_state": 0,
    }
    estimator = MultiTaskCTRCVRClassifier(**{**defaults, **params}, callbacks=[steps])
    estimator.fit(X.iloc[rows], Y.iloc[rows], **(fit_params or {}))
    assert steps.n_steps == 1600 // batch_size - 1
    kernels, waits = steps.last - steps.first
    return kernels.total() / steps.n_steps, waits.total() / steps.n_steps, waits


# Times that the host waits per step, by the weightings of gradients.
WAITS = {"nash": 3, "torchjd": 3}


class TestSynchronisationsPerStep:
    """The host waits in no step, but for components that read values.

    Steps that wait are no graphs, so that test_graphs.py shows the same of networks, of
    losses, of weightings of losses, and of other parameters.
    """

    @pytest.mark.parametrize(
        "params",
        [
            {},
            {"loss_params": {"surrogate": "squared_hinge", "score": "probability"}},
            {"loss": "jrc", "fit_params": {"groups": np.arange(1600) // 8}},
        ],
        ids=["default", "squared hinge", "groups"],
    )
    def test_losses(self, params):
        _, per_step, found = calls_per_step(**params)
        assert per_step == 0, found

    def test_many_pairs_of_the_logistic_surrogate(self, monkeypatch):
        monkeypatch.setattr(_pairwise, "BRUTE_FORCE_PAIRS_DEVICE", 0)
        _, found, _ = calls_per_step(loss_params={"surrogate": "logistic"})
        assert found <= 4

    @pytest.mark.parametrize(
        "weighting", [n for n, kind in WEIGHTINGS.items() if kind.needs_task_gradients]
    )
    def test_weightings_of_gradients(self, weighting):
        _, found, _ = calls_per_step(loss="bce", weighting=weighting)
        assert found <= WAITS[weighting]

    def test_lists_of_values(self):
        data = X.assign(tags=[["a", "b"][: i % 3] for i in range(len(X))])
        steps = Steps()
        model = small(loss="bce", callbacks=[steps], max_epochs=1).fit(data, Y)
        assert model.net_.module_.spec.bags
        assert not (steps.last - steps.first).synchronisations

    def test_large_tables_of_a_file(self, tmp_path):
        model = small(loss="bce", optimizer_params={"lazy_embeddings": True})
        model.fit(X, Y).save(tmp_path / "model")
        model = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
        model.set_params(callbacks=[steps := Steps()], batch_size=50, warm_start=True)
        model.set_params(max_epochs=1).fit(X, Y)
        assert not (steps.last - steps.first).synchronisations

    def test_updates_of_large_tables(self):
        """Until the log of the old rows is as long as the table."""
        steps, params = Steps(), {"lazy_embeddings": True}
        model = small(
            loss="bce", optimizer_params=params, batch_size=20, callbacks=[steps]
        )
        net = model.partial_fit(X, Y).net_
        assert model.partial_fit(X[:40], Y[:40]).net_ is net
        assert steps.n_steps == 1
        assert not (steps.last - steps.first).synchronisations


class TestKernelsPerStep:
    """Over an epoch, whose kernels do not depend on the size of the batches."""

    @pytest.mark.parametrize(
        ("params", "most"),
        [
            ({}, 120),
            ({"loss_params": {"surrogate": "squared_hinge"}}, 120),
            ({"loss_params": {"pairs": "funnel", "tasks": "all"}}, 120),
            ({"fit_params": {"sample_weight": 1 + np.arange(1600) % 3}}, 120),
            ({"loss": "bce"}, 60),
        ],
        ids=str,
    )
    def test_at_most(self, params, most):
        found, *_ = calls_per_step(batch_size=25, **params)
        assert found <= most


@pytest.mark.parametrize("sampler", ["shuffled", "stratified", "grouped"])
def test_rows_of_several_batches_are_gathered_together(simulated, sampler, monkeypatch):
    monkeypatch.setattr(_batches, "JOINT_BATCHES", 4)
    generator = torch.Generator().manual_seed(0)
    sizes = torch.randint(4, (200,), generator=generator)
    indices = torch.arange(int(sizes.sum()))
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)])
    rows = Impressions(
        torch.arange(200, dtype=torch.int16).view(100, 2),
        torch.rand(100, 3, generator=generator),
        (torch.arange(100) < 5).float().unsqueeze(1).expand(100, 2).contiguous(),
        torch.rand(100, generator=generator),
        torch.arange(100) // 3,
        bags=Bags(offsets, indices),
    )
    drawn = []
    for each in (rows, rows.to(simulated)):
        with active(Generators(0)):
            drawn.append(list(BatchIterator(each, 8, sampler)))
    assert len(drawn[0]) > 10
    for (expected, y), (found, found_y) in zip(*drawn, strict=True):
        assert_array_equal(found_y.cpu(), y)
        assert expected.keys() == found.keys()
        for name, values in expected.items():
            assert_array_equal(found[name].cpu(), values)


def test_rows_in_pinned_memory_are_moved_without_a_wait(simulated):
    offsets = torch.tensor([0, 2, 3])
    rows = Impressions(torch.ones(2, 1), torch.ones(2, 3), bags=Bags(offsets, offsets))
    with pytest.raises(RuntimeError, match="waits for sim"), no_synchronisation():
        rows.to(simulated)
    pinned = rows.copied(torch.Tensor.pin_memory)
    with no_synchronisation():
        found = pinned.to(simulated)
    assert_array_equal(found.numeric.cpu(), rows.numeric)
    assert_array_equal(found.bags.offsets.cpu(), offsets)


def test_inputs_of_a_prediction_are_copied_once(simulated):
    rows = Impressions(torch.ones(4, 1), torch.ones(4, 3))
    before = counts()
    [(inputs, y)] = BatchIterator(rows, 8, device=simulated)
    assert (counts() - before).synchronisations == {"copy from the host": 2}
    assert y is inputs["numeric"]


def test_parts_of_files_are_moved_without_a_wait(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    monkeypatch.setattr("sk_pwiser._rows._stored_rows.FILE_ROWS", 50)
    X.join(Y).to_parquet(tmp_path / "rows.parquet")
    log = ParquetImpressions(tmp_path, [*X], [*Y], shuffle_rows=100)
    steps = Steps()
    small(loss="bce", callbacks=[steps], max_epochs=1, batch_size=25).fit(log)
    assert steps.n_steps > 8  # of several parts
    assert not (steps.last - steps.first).synchronisations


def test_a_fit_agrees_with_the_cpu(simulated):
    on_cpu = small(device="cpu", early_stopping=True, **SAME).fit(X, Y)
    model = small(device="sim", early_stopping=True, **SAME).fit(X, Y)
    assert next(model.net_.module_.parameters()).device.type == simulated.type
    assert_allclose(model.predict_proba(X), on_cpu.predict_proba(X), atol=1e-6)


def test_auto_is_any_accelerator(simulated):
    assert _device.find_device.__wrapped__("auto") == simulated


def test_auto_is_the_cpu_where_an_accelerator_lacks_operators(monkeypatch):
    def lacks(device):
        raise NotImplementedError("The operator 'aten::lerp' is not implemented")

    monkeypatch.setattr(_device, "_check_operators", lacks)
    with pytest.warns(UserWarning, match="uses the CPU: 'sim.*lacks.*aten::lerp"):
        assert _device.find_device.__wrapped__("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    "params", [{}, {"loss": "jrc"}, {"weighting": "nash"}, {"early_stopping": True}]
)
def test_a_device_without_float64(params):
    expected = small(device="cpu", **params, **SAME).fit(X, Y).predict_proba(X)
    widest_float.cache_clear()
    try:
        with no_float64():
            found = small(**params, **SAME).fit(X, Y).predict_proba(X)
    finally:
        widest_float.cache_clear()
    assert_allclose(found, expected, atol=1e-5)


def test_a_device_without_sparse_gradients(monkeypatch):
    from sk_pwiser._training import _lazy_tables

    monkeypatch.setattr(_lazy_tables, "has_sparse_gradients", lambda device: False)
    params = {"lazy_embeddings": True}
    with pytest.raises(ValueError, match="not supported with device='sim'"):
        small(optimizer_params=params).fit(X, Y)


READ = """
import pickle, sys, warnings
import numpy as np
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="(?s).*Loading on the CPU instead")
from sk_pwiser import MultiTaskCTRCVRClassifier
folder = sys.argv[1]
X = np.load(f"{folder}/X.npy")
with open(f"{folder}/pickle", "rb") as file:
    models = pickle.load(file), MultiTaskCTRCVRClassifier.load(f"{folder}/model")
for model in models:
    assert str(model.net_.device) == "cpu", model.net_.device
    np.save(f"{folder}/found.npy", model.predict_proba(X))
    model.partial_fit(X[:50], np.load(f"{folder}/Y.npy")[:50])
"""


@pytest.mark.parametrize("lazy", [False, True])
def test_files_are_read_without_the_device(lazy, tmp_path):
    """In a process that does not have the device, also with a schedule."""
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.5)
    params = {"lazy_embeddings": lazy}
    numbers, labels = X.iloc[:, :4].to_numpy(), Y.to_numpy()
    model = small(callbacks=[schedule], optimizer_params=params).fit(numbers, labels)
    assert schedule.lr_scheduler_.get_last_lr()
    np.save(tmp_path / "X.npy", numbers)
    np.save(tmp_path / "Y.npy", labels)
    model.set_params(callbacks=None).save(tmp_path / "model")
    model.set_params(callbacks=[schedule])
    (tmp_path / "pickle").write_bytes(pickle.dumps(model))
    found = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    expected = model.predict_proba(numbers)
    assert_allclose(np.load(tmp_path / "found.npy"), expected, atol=1e-6)
    assert_array_equal(
        pickle.loads(pickle.dumps(model)).predict_proba(numbers), expected
    )
