"""Methods of TorchJD: against TorchJD itself, in files, and what is refused."""

import importlib.util
import pickle
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn.base import clone
from small_model import X, Y, refuses, small
from torch import nn

from sk_pwiser._model_files import PlainForm, read_file, write_file
from sk_pwiser._training._net_state import to_arrays, to_tensors
from sk_pwiser.weighting import Fixed, TorchJD


@pytest.fixture
def aggregation():
    return pytest.importorskip("torchjd.aggregation")


@pytest.fixture
def scalarization():
    return pytest.importorskip("torchjd.scalarization")


def losses_of(shared, own):
    """Two losses of a shared parameter, and of one parameter of the first task."""
    return torch.stack([shared[0] + 2 * shared[1] - own, -(shared**2).sum()])


def make_parameters():
    return nn.Parameter(torch.tensor([0.5, 1.5])), nn.Parameter(torch.tensor(2.0))


def gradients_by(weighting):
    shared, own = make_parameters()
    weighting.backward(losses_of(shared, own), None, [shared, own])
    return shared.grad, own.grad


SHARED = torch.tensor([[1.0, 2.0], [-1.0, -3.0]])


@pytest.mark.parametrize(
    "name",
    [
        *("UPGrad", "MGDA", "AlignedMTL", "Random", "ConFIG"),
        # Weightings of inner products, and of gradients.
        *("UPGradWeighting", "ExcessMTLWeighting", "MeanWeighting", "SumWeighting"),
    ],
)
def test_methods_combine_the_shared_parameters(aggregation, name):
    torch.manual_seed(3)
    shared, own = gradients_by(TorchJD(2, aggregator=name))
    torch.manual_seed(3)
    expected = getattr(aggregation, name.removesuffix("Weighting"))()(SHARED)
    torch.testing.assert_close(shared, expected, rtol=1e-4, atol=1e-5)
    assert own == -1


def test_parameters_are_passed_to_a_class_and_to_a_named_class(aggregation):
    expected = aggregation.AlignedMTL(scale_mode="rmse")(SHARED)
    for aggregator in ("AlignedMTL", aggregation.AlignedMTL):
        weighting = TorchJD(2, aggregator=aggregator, scale_mode="rmse")
        torch.testing.assert_close(gradients_by(weighting)[0], expected)
    other, _ = gradients_by(TorchJD(2, aggregator="AlignedMTL"))
    assert (other - expected).abs().max() > 0.01


def test_scalarizers_combine_the_losses(scalarization):
    weighting = TorchJD(2, aggregator="UW")
    parameters = make_parameters()
    total = scalarization.UW(2)(losses_of(*parameters))
    expected = torch.autograd.grad(total, parameters)
    torch.testing.assert_close(gradients_by(weighting), expected)
    # The parameters of a scalarizer are learned by the optimiser of the network.
    learned = list(weighting.parameters())
    assert learned
    assert all(w.grad is not None for w in learned)


def test_the_end_of_an_epoch_is_passed_on_to_a_scalarizer(scalarization):
    weighting = TorchJD(2, aggregator=scalarization.DWA(temperature=1.0))
    for losses in ([4.0, 4.0], [1.0, 2.0]):
        weighting(torch.tensor(losses))
        weighting.end_epoch()
    # The rates are 1 / 4 and 1 / 2.
    weights = 2 * torch.softmax(torch.tensor([0.25, 0.5]), dim=0)
    torch.testing.assert_close(
        weighting(torch.tensor([1.0, 10.0])), weights @ torch.tensor([1.0, 10.0])
    )


def test_the_estimator_accepts_instances(aggregation):
    instance = aggregation.UPGrad()
    model = small(weighting=instance)
    assert model.get_params()["weighting"] is instance
    copy = clone(model)
    assert copy.weighting is not instance
    assert isinstance(copy.weighting, aggregation.UPGrad)
    by_name = small(weighting="torchjd", weighting_params={"aggregator": "UPGrad"})
    expected = by_name.fit(X, Y).predict_proba(X)
    for each in (model, copy, pickle.loads(pickle.dumps(copy))):
        assert_array_equal(each.fit(X, Y).predict_proba(X), expected)
    equal = small().fit(X, Y).predict_proba(X)
    assert np.abs(equal - expected).max() > 1e-5
    assert "weighting=UPGrad(" in repr(model)


def test_fit_does_not_change_an_instance_with_a_state(aggregation):
    instance = aggregation.GradVac()
    model = small(weighting=instance)
    first = model.fit(X, Y).predict_proba(X)
    assert instance.gramian_weighting._phi_t is None
    assert_array_equal(model.fit(X, Y).predict_proba(X), first)


def test_a_new_instance_continues_from_the_state(aggregation):
    old = TorchJD(2, aggregator="GradVac", beta=0.3)
    for _ in range(3):
        gradients_by(old)
    new = TorchJD(2, aggregator="GradVac", beta=0.3)
    before, _ = gradients_by(TorchJD(2, aggregator="GradVac", beta=0.3))
    new.load_state_dict(old.state_dict())
    after, _ = gradients_by(new)
    assert torch.equal(after, gradients_by(old)[0])
    assert not torch.equal(after, before)
    # Settings of the user are not part of the state.
    changed = TorchJD(2, aggregator="GradVac", beta=0.7)
    changed.load_state_dict(old.state_dict())
    assert changed.aggregator.beta == 0.7


# Parameters of the classes that need some, for two tasks.
REQUIRED = {
    "CAGrad": {"c": 0.5},
    "CAGradWeighting": {"c": 0.5},
    "COSMOS": {"lambda_": 1.0, "weights": torch.tensor([0.3, 0.7])},
    "Constant": {"weights": torch.tensor([1.0, 2.0])},
    "ConstantWeighting": {"weights": torch.tensor([1.0, 2.0])},
    "FairGrad": {"alpha": 1.0},
    "FairGradWeighting": {"alpha": 1.0},
    "PBI": {"theta": 1.0, "weights": torch.tensor([0.3, 0.7])},
    "STCH": {"mu": 0.1},
    "TrimmedMean": {"trim_number": 0},
}


def methods_of_torchjd():
    """Return the names of all public methods of the installed TorchJD."""
    if importlib.util.find_spec("torchjd") is None:
        return []
    modules = (f"torchjd.{name}" for name in ("aggregation", "scalarization"))
    return sorted(
        {n for name in modules for n in importlib.import_module(name).__all__}
    )


def positive_step(weighting):
    """Return the gradients of two losses above 0, as some methods require."""
    shared, own = make_parameters()
    weighting.backward(losses_of(shared, own) + 10, None, [shared, own])
    return shared.grad, own.grad


@pytest.mark.parametrize("name", methods_of_torchjd())
def test_every_method_continues_from_a_file_or_is_refused(name, tmp_path):
    def build():
        return TorchJD(2, aggregator=name, **REQUIRED.get(name, {}))

    try:
        old = build()
    except (ValueError, TypeError, ImportError):
        return  # as in the check before training
    for _ in range(3):
        positive_step(old)
        old.end_epoch()
    form, new = PlainForm([]), build()
    write_file(tmp_path / "state", *form.encode(to_arrays(old.state_dict()), "state"))
    state = to_tensors(form.decode(*read_file(tmp_path / "state")))
    new.load_state_dict(state)
    for _ in range(2):
        torch.manual_seed(0)
        expected = positive_step(old)
        torch.manual_seed(0)
        torch.testing.assert_close(positive_step(new), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "params",
    [
        {"aggregator": "GradVac", "beta": 0.1},
        {"aggregator": "ExcessMTL"},
        {"aggregator": "UPGrad", "pref_vector": torch.tensor([1.0, 2.0])},
    ],
)
def test_a_model_continues_from_a_file(aggregation, params, tmp_path):
    chosen = {"weighting": "torchjd", "weighting_params": params}
    model = small(**chosen, checkpoint_dir=tmp_path / "checkpoints").fit(X, Y)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    found, expected = (each.partial_fit(X, Y) for each in (loaded, model))
    assert_array_equal(found.predict_proba(X), expected.predict_proba(X))
    continued = small(**chosen, checkpoint_dir=tmp_path / "checkpoints", max_epochs=3)
    continued.set_params(warm_start=True).fit(X, Y)
    whole = small(**chosen, max_epochs=3).fit(X, Y)
    assert_array_equal(continued.predict_proba(X), whole.predict_proba(X))


def test_a_method_within_a_method_cannot_be_saved(aggregation, tmp_path):
    inner = aggregation.UPGradWeighting()
    params = {"aggregator": "CRMOGMWeighting", "weighting": inner}
    model = small(weighting="torchjd", weighting_params=params).fit(X, Y)
    with pytest.raises(
        TypeError, match=r"(?s)weighting_params=.* cannot be saved: a file"
    ):
        model.save(tmp_path / "model")


def test_a_state_holds_no_other_objects_of_torch(aggregation):
    weighting = TorchJD(2, aggregator="GradVac")
    gradients_by(weighting)
    state = weighting.state_dict()
    changed = state["_extra_state"]["changed"]["weighting.weighting"]
    changed["forward"] = {"torch": "dtype", "name": "load"}
    with pytest.raises(ValueError, match="'load' is no dtype of torch"):
        weighting.load_state_dict(state)


def test_training_does_not_continue_with_another_method(aggregation):
    model = small(weighting=aggregation.GradVac()).fit(X, Y)
    model.set_params(weighting=aggregation.UPGrad())
    with pytest.raises(ValueError, match="loss or weighting: weighting=UP"):
        model.partial_fit(X, Y)


def test_gradients_that_are_not_finite(aggregation):
    weighting = TorchJD(2, aggregator="ConFIG")
    (step,) = weighting.combine([torch.tensor([[1.0, float("nan")], [1.0, 1.0]])])
    assert step.isnan().all()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"aggregator": "Upgrad"}, ValueError, "one of .*'UPGrad'.*; got 'Upgrad'"),
        ({"aggregator": 5}, TypeError, "aggregator must be an Aggregator.* got 5"),
        ({"aggregator": nn.Linear}, TypeError, "aggregator must be .* got <class"),
        ({"aggregator": "Krum"}, ValueError, "must fit Krum .*'n_byzantine'"),
        ({"aggregator": "MGDA", "c": 1}, ValueError, "must fit MGDA .*'c'"),
        ({"aggregator": "FAMO"}, ValueError, "losses after the step.* got FAMO"),
    ],
)
def test_invalid_aggregators_are_named(earlier, aggregation, params, error, message):
    earlier.set_params(weighting="torchjd", weighting_params=params)
    refuses(earlier, error, message)


def test_invalid_instances_are_named(earlier, aggregation):
    for instance in (nn.Linear(2, 2), Fixed(2, weights=[1, 2])):
        earlier.set_params(weighting=instance)
        refuses(earlier, TypeError, "weighting must be .* or a subclass of .*; got")
    earlier.set_params(weighting=aggregation.MGDA(), weighting_params={"epsilon": 1})
    refuses(earlier, ValueError, r"weighting_params must .* got \['epsilon'\]")


def test_without_torchjd_the_error_names_the_extra(earlier, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    monkeypatch.setitem(sys.modules, "torchjd.scalarization", None)
    earlier.set_params(weighting="torchjd")
    refuses(earlier, ImportError, r'pip install "torchjd\[quadprog-projector\]"')


def test_preference_vectors_are_float32(aggregation):
    preference = torch.tensor([1.0, 2.0])
    method = aggregation.AlignedMTL(pref_vector=preference)
    gradients = torch.tensor([[1.0, 2.0, 0.5], [-0.3, 0.4, 2.0]])
    [found] = TorchJD(2, aggregator=method).combine([gradients])
    torch.testing.assert_close(found, method(gradients), rtol=1e-4, atol=1e-5)


def test_methods_for_another_number_of_tasks_are_refused(earlier, aggregation):
    method = aggregation.AlignedMTL(pref_vector=torch.ones(3))
    earlier.set_params(weighting=method)
    refuses(earlier, ValueError, "AlignedMTL of TorchJD cannot combine 2 tasks")


@pytest.mark.parametrize("name", ["MoDoWeighting", "SDMGradWeighting"])
def test_methods_that_compare_several_batches_are_refused(earlier, aggregation, name):
    for choice in (name, getattr(aggregation, name)()):
        params = {"aggregator": choice}
        earlier.set_params(weighting="torchjd", weighting_params=params)
        message = f"{name} of TorchJD cannot combine 2 tasks with the gradients of one"
        refuses(earlier, ValueError, message)


def test_every_method_of_torchjd_is_refused_or_trains(aggregation):
    trained = []
    for name in aggregation.__all__:
        try:
            weighting = TorchJD(2, aggregator=name)
        except (ValueError, TypeError, ImportError):
            continue
        found = weighting.combine([torch.randn(2, 5), torch.randn(2, 1)])
        assert [each.shape for each in found] == [(5,), (1,)]
        trained.append(name)
    assert {"UPGrad", "PCGrad", "MGDAWeighting", "Mean"} <= {*trained}


def test_classes_and_subclasses_of_torchjd(aggregation):
    class Own(aggregation.UPGrad):
        pass

    for choice in (aggregation.UPGrad, Own, Own()):
        model = small(weighting=choice).fit(X, Y)
        assert np.isfinite(model.predict_proba(X)).all()
