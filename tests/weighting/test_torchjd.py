import pickle
import sys

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from refusals import X, Y, refuses, small
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from sk_pwiser.weighting import Fixed, TorchJD


@pytest.fixture
def aggregation():
    return pytest.importorskip("torchjd.aggregation")


@pytest.fixture
def scalarization():
    return pytest.importorskip("torchjd.scalarization")


def losses_of(p):
    return torch.stack(
        [(p * torch.tensor([1.0, 2.0, -1.0])).sum(), -(p[:2] ** 2).sum()]
    )


def gradient_by(weighting):
    p = nn.Parameter(torch.tensor([0.5, 1.5, 2.0]))
    weighting.backward(losses_of(p), None, [p])
    return p.grad


SHARED = torch.tensor([[1.0, 2.0], [-1.0, -3.0]])


@pytest.mark.parametrize("name", ["UPGrad", "MGDA", "AlignedMTL", "Random", "ConFIG"])
def test_aggregators_get_the_shared_entries(aggregation, name):
    torch.manual_seed(3)
    found = gradient_by(TorchJD(2, aggregator=name))
    torch.manual_seed(3)
    expected = getattr(aggregation, name)()(SHARED)
    torch.testing.assert_close(found[:2], expected, rtol=1e-4, atol=1e-5)
    assert found[2] == -1


def test_weightings_of_inner_products(aggregation):
    found = gradient_by(TorchJD(2, aggregator=aggregation.UPGradWeighting()))
    torch.testing.assert_close(found[:2], aggregation.UPGrad()(SHARED))


def test_parameters_go_to_a_named_or_given_class(aggregation):
    expected = aggregation.AlignedMTL(scale_mode="rmse")(SHARED)
    for aggregator in ("AlignedMTL", aggregation.AlignedMTL):
        weighting = TorchJD(2, aggregator=aggregator, scale_mode="rmse")
        torch.testing.assert_close(gradient_by(weighting)[:2], expected)
    other = gradient_by(TorchJD(2, aggregator="AlignedMTL"))[:2]
    assert (other - expected).abs().max() > 0.01


def test_scalarizers_get_the_losses(scalarization):
    weighting = TorchJD(2, aggregator="UW")
    p = nn.Parameter(torch.tensor([0.5, 1.5, 2.0]))
    expected = torch.autograd.grad(scalarization.UW(2)(losses_of(p)), p)[0]
    torch.testing.assert_close(gradient_by(weighting), expected)
    # The weights that it learns are learnt by the net's own optimiser.
    learnt = list(weighting.parameters())
    assert learnt
    assert all(w.grad is not None for w in learnt)


def test_a_scalarizer_is_told_of_epochs(scalarization):
    weighting = TorchJD(2, aggregator=scalarization.DWA(temperature=1.0))
    for losses in ([4.0, 4.0], [1.0, 2.0]):
        weighting(torch.tensor(losses))
        weighting.end_epoch()
    # Rates of 1/4 and 1/2.
    weights = 2 * torch.softmax(torch.tensor([0.25, 0.5]), dim=0)
    torch.testing.assert_close(
        weighting(torch.tensor([1.0, 10.0])), weights @ torch.tensor([1.0, 10.0])
    )


def test_the_estimator_takes_instances(aggregation):
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


def test_grid_search_over_instances(aggregation):
    grid = {"weighting": [aggregation.UPGrad(), aggregation.MGDA(), "equal"]}
    search = GridSearchCV(small(), grid, cv=2, error_score="raise").fit(X, Y)
    assert len(set(search.cv_results_["mean_test_score"])) == 3


def test_a_fit_leaves_a_stateful_instance_as_it_was(aggregation):
    instance = aggregation.GradVac()
    model = small(weighting=instance)
    first = model.fit(X, Y).predict_proba(X)
    assert instance.gramian_weighting._phi_t is None
    assert_array_equal(model.fit(X, Y).predict_proba(X), first)


def test_state_is_gone_on_from(aggregation):
    old = TorchJD(2, aggregator="GradVac", beta=0.3)
    for _ in range(3):
        gradient_by(old)
    new = TorchJD(2, aggregator="GradVac", beta=0.3)
    before = gradient_by(TorchJD(2, aggregator="GradVac", beta=0.3))
    new.load_state_dict(old.state_dict())
    after = gradient_by(new)
    assert torch.equal(after, gradient_by(old))
    assert not torch.equal(after, before)
    # Parameters are no state.
    changed = TorchJD(2, aggregator="GradVac", beta=0.7)
    changed.load_state_dict(old.state_dict())
    assert changed.aggregator.beta == 0.7


def test_training_does_not_go_on_with_another_method(aggregation):
    model = small(weighting=aggregation.GradVac()).fit(X, Y)
    model.set_params(weighting=aggregation.UPGrad())
    with pytest.raises(ValueError, match=r"Training cannot go on .* UPGrad cannot"):
        model.partial_fit(X, Y)


def test_gradients_that_are_not_finite(aggregation):
    weighting = TorchJD(2, aggregator="ConFIG")
    (step,) = weighting.combine([torch.tensor([[1.0, float("nan")], [1.0, 1.0]])])
    assert step.isnan().all()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"aggregator": "Upgrad"}, ValueError, "no 'Upgrad'; .*'UPGrad'"),
        ({"aggregator": 5}, TypeError, "aggregator must be an Aggregator.* got 5"),
        ({"aggregator": nn.Linear}, TypeError, "aggregator must be .* got <class"),
        ({"aggregator": "Krum"}, ValueError, "do not fit Krum .*'n_byzantine'"),
        ({"aggregator": "MGDA", "c": 1}, ValueError, "do not fit MGDA .*'c'"),
        ({"aggregator": "FAMO"}, ValueError, "FAMO .* losses after the step"),
    ],
)
def test_refusals(earlier, aggregation, params, error, message):
    earlier.set_params(weighting="torchjd", weighting_params=params)
    refuses(earlier, error, message)


def test_instances_that_are_refused(earlier, aggregation):
    for instance in (nn.Linear(2, 2), Fixed(2, weights=[1, 2])):
        earlier.set_params(weighting=instance)
        refuses(earlier, TypeError, "weighting .* TorchJD; got an instance of .* class")
    earlier.set_params(weighting=aggregation.MGDA(), weighting_params={"epsilon": 1})
    refuses(earlier, ValueError, r"weighting_params holds \['epsilon'\], but")


def test_without_torchjd_the_error_names_the_extra(earlier, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    monkeypatch.setitem(sys.modules, "torchjd.scalarization", None)
    earlier.set_params(weighting="torchjd")
    refuses(earlier, ImportError, r'pip install "sk_pwiser\[torchjd\]"')


@pytest.mark.parametrize("name", ["ExcessMTL", "Mean", "Sum"])
def test_weightings_of_gradients_are_given_these(aggregation, name):
    gradients = [torch.tensor([[1.0, 2.0, 0.5], [-0.3, 0.4, 2.0]])]
    [expected] = TorchJD(2, aggregator=name).combine(gradients)
    [found] = TorchJD(2, aggregator=f"{name}Weighting").combine(gradients)
    torch.testing.assert_close(found, expected)


def test_preferences_in_single_precision(aggregation):
    preference = torch.tensor([1.0, 2.0])
    method = aggregation.AlignedMTL(pref_vector=preference)
    gradients = torch.tensor([[1.0, 2.0, 0.5], [-0.3, 0.4, 2.0]])
    [found] = TorchJD(2, aggregator=method).combine([gradients])
    torch.testing.assert_close(found, method(gradients), rtol=1e-4, atol=1e-5)


def test_what_fits_another_number_of_tasks_is_refused_early(earlier, aggregation):
    method = aggregation.AlignedMTL(pref_vector=torch.ones(3))
    earlier.set_params(weighting=method)
    refuses(earlier, ValueError, "AlignedMTL of TorchJD cannot combine 2 tasks")


def test_classes_and_subclasses_of_torchjd(aggregation):
    class Own(aggregation.UPGrad):
        pass

    for choice in (aggregation.UPGrad, Own, Own()):
        model = small(weighting=choice).fit(X, Y)
        assert np.isfinite(model.predict_proba(X)).all()
