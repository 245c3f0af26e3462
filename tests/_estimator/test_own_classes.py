"""What a user's own network, loss or weighting gets wrong is told in its own terms."""

import pytest
import torch
from refusals import X, Y, small

from sk_pwiser.losses import MultiTaskLoss
from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput
from sk_pwiser.weighting import GradientWeighting, TaskWeighting


class Linear(MultiTaskNetwork):
    """One column a task, or what a subclass says."""

    n_columns = 2

    def __init__(self, spec):
        super().__init__(spec)
        self.head = torch.nn.Linear(self.width, self.n_columns)

    def forward(self, codes, numeric):
        return NetworkOutput(self.head(self.input_layer(codes, numeric)))


class OneColumn(Linear):
    n_columns = 1


class BareTensor(Linear):
    def forward(self, codes, numeric):
        return super().forward(codes, numeric).logits


class WrongAux(Linear):
    def forward(self, codes, numeric):
        output = super().forward(codes, numeric)
        return output._replace(aux_logits=[output.logits[:, :1]])


class Undefined(MultiTaskNetwork):
    pass


class Scalar(MultiTaskLoss):
    def forward(self, logits, y, sample_weight=None, groups=None):
        return logits.mean()


class Vector(TaskWeighting):
    def forward(self, losses):
        return losses


class Nothing(TaskWeighting):
    def forward(self, losses):
        return None


class OneWeight(GradientWeighting):
    def weigh(self, gram):
        return gram[0, :1]


class ListOfWeights(GradientWeighting):
    def weigh(self, gram):
        return [1.0, 1.0]


class Forgotten(GradientWeighting):
    pass


@pytest.mark.parametrize("loss", ["bce", "focal"])
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
def test_logits_of_another_shape(earlier, loss, task_space):
    params = {"network": OneColumn, "loss": loss, "task_space": task_space}
    earlier.set_params(network_params=None, **params)
    message = r"network must return logits of shape .*\(100, 2\) here; got \(100, 1\)"
    with pytest.raises(ValueError, match=message):
        earlier.fit(X, Y)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"network": BareTensor}, TypeError, "return a NetworkOutput .* got Tensor"),
        ({"network": WrongAux}, ValueError, r"aux_logits of shape .* got \(100, 1\)"),
        ({"network": Undefined}, NotImplementedError, "Undefined must define forward"),
        ({"loss": Scalar}, ValueError, r"loss Scalar must return .* shape \(2,\); got"),
        ({"weighting": Vector}, ValueError, r"Vector must combine .* shape \(\); got"),
        ({"weighting": Nothing}, ValueError, "Nothing must combine .*; got None"),
        ({"weighting": OneWeight}, ValueError, r"OneWeight .* shape \(2,\); got"),
        ({"weighting": ListOfWeights}, ValueError, r"ListOfWeights .* got \[1.0, 1.0"),
        ({"weighting": Forgotten}, NotImplementedError, "must define weigh or combine"),
    ],
)
def test_what_is_returned(earlier, params, error, message):
    earlier.set_params(**params)
    if "network" in params:
        earlier.set_params(network_params=None)
    with pytest.raises(error, match=message):
        earlier.fit(X, Y)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"task_space": "conditional"}, "task_space='conditional': .* 'entire'"),
        ({"numeric_encoding": "quantile"}, "numeric_encoding='quantile': .*'standard'"),
        ({"weighting": "ema"}, "another loss or weighting"),
        ({"embedding_dim": 3}, "another network"),
    ],
)
def test_training_does_not_go_on_as_another_model(earlier, method, now, message):
    earlier.set_params(warm_start=True, **now)
    with pytest.raises(ValueError, match=f"Training cannot go on .*{message}"):
        getattr(earlier, method)(X, Y)


def test_a_parameter_of_the_estimator_among_those_of_the_loss(earlier):
    earlier.set_params(loss_params={"pwiser_weight": 0.1})
    message = r"parameter of the estimator: set pwiser_weight=0\.1"
    with pytest.raises(ValueError, match=message):
        earlier.fit(X, Y)


@pytest.mark.parametrize("weights", [1.0, None, {"click": 1, "conversion": 2}])
def test_fixed_weights_of_another_form(earlier, weights):
    earlier.set_params(weighting="fixed", weighting_params={"weights": weights})
    with pytest.raises(TypeError, match="weights must be a sequence of numbers, one a"):
        earlier.fit(X, Y)


def test_half_precision_makes_no_ties():
    model = small(precision="bfloat16").fit(X, Y)
    p = model.predict_proba(X)
    n_distinct = len(X.drop_duplicates())
    assert min(len(set(column)) for column in p.T.tolist()) > 0.9 * n_distinct
