"""Networks, losses, weightings and estimator classes of the user's own."""

import pytest
import torch
from numpy.testing import assert_array_equal
from pools import Brier, Linear
from skorch.callbacks import Callback
from small_model import X, Y, refuses, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser.inspection import task_importances
from sk_pwiser.losses import MultiTaskLoss
from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput
from sk_pwiser.weighting import GradientWeighting, TaskWeighting


class OneColumn(Linear):
    def __init__(self, spec):
        super().__init__(spec)
        self.head = torch.nn.Linear(self.width, 1)


def subclass(base, **methods):
    return type("Own", (base,), methods)


def returning(change):
    """Return a network that changes the output of `Linear`."""

    def forward(self, codes, numeric):
        return change(Linear.forward(self, codes, numeric))

    return subclass(Linear, forward=forward)


class Frozen(Linear):
    def __init__(self, spec):
        super().__init__(spec)
        self.requires_grad_(False)


# Trains a penalty only.
Detached = returning(
    lambda output: NetworkOutput(
        output.logits.detach(), extra_losses={"penalty": output.logits.square().mean()}
    )
)


def sets_attribute(self, argument):
    """Set an attribute without the constructor of the base class."""
    self.units = 8


class NoNumbers(Linear):
    def forward(self, codes):
        return super().forward(codes, None)


class TwoArguments(MultiTaskLoss):
    def forward(self, logits, y):
        return ((logits.sigmoid() - y) ** 2).mean(dim=0)


class Scalar(Brier):
    def forward(self, *args):
        return super().forward(*args).mean()


class DetachedLoss(Brier):
    def forward(self, *args):
        return super().forward(*args).detach()


def combining(combine):
    return subclass(TaskWeighting, forward=lambda self, losses: combine(losses))


def weighing(weigh):
    return subclass(GradientWeighting, weigh=lambda self, gram: weigh(gram))


SHAPE = r"network must return logits of shape .* \(100, 2\); got \(100, 1\)"
CONDITIONAL = {"task_space": "conditional"}
NETWORKS = [
    (OneColumn, ValueError, SHAPE),
    (Frozen, ValueError, "must depend on parameters that are"),
    (subclass(MultiTaskNetwork), NotImplementedError, "Own must define forward"),
    (returning(lambda o: o.logits), TypeError, "return a NetworkOutput .* got Tensor"),
    (
        returning(lambda o: o._replace(aux_logits=[o.logits[:, :1]])),
        ValueError,
        r"aux_logits of shape .* got \(100, 1\)",
    ),
    (
        returning(lambda o: o._replace(aux_logits=o.logits)),
        TypeError,
        "aux_logits as a list .* got Tensor",
    ),
    (
        returning(lambda o: NetworkOutput(o.logits[:, 0])),
        ValueError,
        r"logits of shape .* got \(100,\)",
    ),
    (
        returning(lambda o: NetworkOutput(o.logits.tolist())),
        ValueError,
        "logits of shape .* got .*list",
    ),
    (
        returning(lambda o: o._replace(extra_losses=[o.logits.mean()])),
        TypeError,
        "extra_losses as a dict .* got list",
    ),
    (
        returning(lambda o: o._replace(sampled_logits=2 * o.logits)),
        ValueError,
        "must not return sampled_logits",
    ),
]
LOSSES = [
    (Scalar, ValueError, r"loss Scalar must return .* shape \(2,\); got"),
    (DetachedLoss, ValueError, "DetachedLoss must depend on parameters"),
]
WEIGHTINGS = [
    (combining(lambda losses: losses), ValueError, r"Own .* shape \(\) .* got tensor"),
    (combining(lambda losses: losses.detach().sum()), ValueError, "reach the losses"),
    (combining(lambda losses: None), ValueError, "Own must return .* got None"),
    (weighing(lambda gram: gram[0, :1]), ValueError, r"Own .* \(2,\) from weigh; got"),
    (weighing(lambda gram: [1.0, 1.0]), ValueError, r"Own .* got \[1.0, 1.0"),
    (subclass(GradientWeighting), NotImplementedError, "must define weigh or combine"),
]


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        *(({"network": own}, *refusal) for own, *refusal in NETWORKS),
        *(({"loss": own}, *refusal) for own, *refusal in LOSSES),
        *(({"weighting": own}, *refusal) for own, *refusal in WEIGHTINGS),
        *(
            ({"network": OneColumn, **params}, ValueError, SHAPE)
            for params in ({"network_params": CONDITIONAL}, {"loss": "focal"})
        ),
        (
            {"network": Detached, "weighting": "nash"},
            ValueError,
            "must depend on parameters that are",
        ),
    ],
)
def test_what_is_returned(earlier, params, error, message):
    earlier.set_params(**{"network_params": None, **params})
    with pytest.raises(error, match=message):
        earlier.fit(X, Y)


def test_a_penalty_alone_may_be_trained():
    model = small(network=Detached, network_params=None).fit(X, Y)
    assert model.predict_proba(X).shape == Y.shape


def test_probabilities_in_place_of_logits():
    network = returning(lambda output: NetworkOutput(output.logits.sigmoid()))
    model = small(network=network, network_params=None)
    with pytest.warns(UserWarning, match=r"Own returns logits between 0 and"):
        model.fit(X, Y)


class InPlace(Linear):
    """Changes its arguments in place."""

    def forward(self, codes, numeric):
        numeric.mul_(0.5)
        output = super().forward(codes, numeric)
        codes.zero_()
        return output


class OutOfPlace(Linear):
    def forward(self, codes, numeric):
        return super().forward(codes, 0.5 * numeric)


class InPlaceLoss(MultiTaskLoss):
    is_in_place = takes_task_weights = True

    def row_losses(self, logits, y):
        return (logits.sigmoid() - y) ** 2

    def forward(self, logits, y, sample_weight=None, groups=None):
        y = y.mul_(0.9) if self.is_in_place else 0.9 * y
        return self.row_losses(logits, y).mean(dim=0)


class OutOfPlaceLoss(InPlaceLoss):
    is_in_place = False


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"network": InPlace}, {"network": OutOfPlace}),
        ({"loss": InPlaceLoss}, {"loss": OutOfPlaceLoss}),
        # Pairs, and the terms of a network, are formed by the labels as well.
        (
            {"loss": "pwiser", "loss_params": {"base": InPlaceLoss}},
            {"loss": "pwiser", "loss_params": {"base": OutOfPlaceLoss}},
        ),
        (
            {"network": "escm2", "loss": InPlaceLoss},
            {"network": "escm2", "loss": OutOfPlaceLoss},
        ),
    ],
)
def test_arguments_may_be_changed_in_place(one, other):
    params = {"network_params": None, "max_epochs": 4, "early_stopping": True}
    models = [small(**params, **own).fit(X, Y) for own in (one, other)]
    for column in ("train_loss", "valid_loss", "valid_log_loss_mean", "valid_auc_mean"):
        found, expected = (model.history_[:, column] for model in models)
        assert found == expected
    found, expected = (model.predict_proba(X) for model in models)
    assert_array_equal(found, expected)
    found, expected = (
        task_importances(model, X, Y, random_state=0).importances for model in models
    )
    assert_array_equal(found, expected)


class Running(Linear):
    """Replaces a buffer by another one, and has a state that is no tensor."""

    def __init__(self, spec):
        super().__init__(spec)
        self.register_buffer("mean", torch.zeros(self.width))
        self.n_batches = 0

    def get_extra_state(self):
        return {"n_batches": self.n_batches}

    def set_extra_state(self, state):
        self.n_batches = state["n_batches"]

    def forward(self, codes, numeric):
        inputs = self.input_layer(codes, numeric)
        if self.training:
            self.mean = self.mean.lerp(inputs.detach().mean(dim=0), 0.1)
            self.n_batches += 1
        return NetworkOutput(self.head(inputs - self.mean))


class Breaks(Callback):
    """Raises at the end of the second batch if armed."""

    armed = False

    def on_epoch_begin(self, net, **kwargs):
        self.n_batches = 0

    def on_batch_end(self, net, **kwargs):
        self.n_batches += 1
        if self.armed and self.n_batches == 2:
            raise RuntimeError("in a batch")


def test_buffers_that_a_network_replaces_are_restored():
    model = small(network=Running, network_params=None, callbacks=[Breaks()])
    model.fit(X, Y).partial_fit(X, Y)
    before, mean = model.predict_proba(X), model.net_.module_.mean
    model.callbacks[0].armed = True
    with pytest.raises(RuntimeError, match="in a batch"):
        model.partial_fit(X, Y)
    assert model.net_.module_.mean is mean
    assert_array_equal(model.predict_proba(X), before)


LATE = [
    (
        {"network": subclass(MultiTaskNetwork, __init__=sets_attribute)},
        TypeError,
        r"call super\(\).__init__\(spec\)",
    )
]
EARLY = [
    ({"network": NoNumbers}, TypeError, "NoNumbers.forward must take .*codes, numeric"),
    ({"loss": TwoArguments}, TypeError, "TwoArguments.forward must take .*, groups: "),
    (
        {"loss": "pwiser", "loss_params": {"base": TwoArguments}},
        TypeError,
        "TwoArguments.forward must take .*, groups: ",
    ),
    (
        {"loss": subclass(MultiTaskLoss, __init__=sets_attribute)},
        TypeError,
        r"super\(\).__init__\(task_names\)",
    ),
    (
        {"loss": Brier, "network": "escm2"},
        NotImplementedError,
        "Brier must define row_losses",
    ),
    (
        {"loss": "pwiser", "loss_params": {"base": Brier}, "network": "escm2"},
        NotImplementedError,
        "Brier must define row_losses",
    ),
    (
        {"weighting": subclass(TaskWeighting, __init__=sets_attribute)},
        TypeError,
        r"super.*__init__\(n_tasks\)",
    ),
    (
        {"weighting": subclass(TaskWeighting, forward=lambda self: 0.0)},
        TypeError,
        "Own.forward must take .*losses",
    ),
]


@pytest.mark.parametrize(("params", "error", "message"), [*LATE, *EARLY])
def test_classes_that_cannot_be_used(params, error, message, monkeypatch):
    model = small(network_params=None, **params)
    with monkeypatch.context() as patch:
        if (params, error, message) in EARLY:  # before the table is encoded

            def transform(*args):
                raise AssertionError

            patch.setattr(TableEncoder, "fit", transform)
        refuses(model, error, message)


def test_a_parameter_of_the_estimator_in_loss_params(earlier):
    earlier.set_params(loss_params={"pwiser_weight": 0.1})
    message = r"parameter of the estimator: set pwiser_weight=0\.1"
    with pytest.raises(ValueError, match=message):
        earlier.fit(X, Y)


def test_half_precision_gives_distinct_probabilities():
    # In bfloat16, positions within bins have fewer digits than standardised numbers.
    params = {"max_epochs": 10, "numeric_encoding": "standard"}
    p = small(precision="bfloat16", **params).fit(X, Y).predict_proba(X)
    n_distinct = len(X.drop_duplicates())
    assert min(len(set(column)) for column in p.T.tolist()) > 0.8 * n_distinct


class WithFewerAndMore(MultiTaskCTRCVRClassifier):
    def __init__(self, *, note="", random_state=None):
        super().__init__(max_epochs=1, early_stopping=False, random_state=random_state)
        self.note = note


def test_a_subclass_of_the_estimator_has_parameters_of_its_own():
    model = WithFewerAndMore(note="mine", random_state=0).fit(X, Y)
    plain = MultiTaskCTRCVRClassifier(
        max_epochs=1, early_stopping=False, random_state=0
    )
    expected = plain.fit(X, Y).predict_proba(X)
    assert_array_equal(model.predict_proba(X), expected)
    assert model.partial_fit(X, Y).n_iter_ == 2


class Tables(Linear):
    """Embedding tables with options that not every optimiser supports."""

    def __init__(self, spec):
        super().__init__(spec)
        size = sum(spec.cardinalities), self.n_tasks
        options = {"sparse": True}, {"scale_grad_by_freq": True}, {"max_norm": 1.0}
        self.own = torch.nn.ModuleList(
            torch.nn.Embedding(*size, **each) for each in options
        )
        self.largest = torch.nn.EmbeddingBag(*size, mode="max")

    def forward(self, codes, numeric):
        logits = super().forward(codes, numeric).logits + self.largest(codes)
        return NetworkOutput(logits + sum(own(codes).mean(dim=1) for own in self.own))


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer": "sgd", "lr": 0.1},
        {"optimizer": "adamw"},
        {"weighting": "nash"},
        {"optimizer_params": {"lazy_embeddings": True}},
        {"optimizer_params": {"clip_grad_norm": 1.0}},
    ],
)
def test_tables_with_options_of_their_own(params):
    model = small(network=Tables, network_params=None, **params).fit(X, Y)
    model.partial_fit(X, Y)
    assert model.predict_proba(X).shape == Y.shape


class Complex(Linear):
    def __init__(self, spec):
        super().__init__(spec)
        self.phase = torch.nn.Parameter(torch.ones(self.width, dtype=torch.complex64))
        self.order = torch.nn.Parameter(torch.arange(self.width), requires_grad=False)

    def forward(self, codes, numeric):
        inputs = self.input_layer(codes, numeric)[:, self.order] * self.phase
        return NetworkOutput(self.head(inputs.real + inputs.imag))


def test_parameters_that_are_no_floats():
    phase = small(network=Complex, network_params=None).fit(X, Y).net_.module_.phase
    assert phase.is_complex()
    assert (phase != 1).any()
