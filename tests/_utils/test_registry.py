"""Names and classes of components, and the names of their parameters."""

import pytest

from sk_pwiser._utils import build, check_names, resolve


class Base:
    def __init__(self, n, *, weight=1.0):
        self.n, self.weight = n, weight


class Needy(Base):
    def __init__(self, n, *, weight=1.0, size):
        super().__init__(n, weight=weight)
        self.size = size


class AnyKeyword(Base):
    def __init__(self, n, **kwargs):
        super().__init__(n)
        self.kwargs = kwargs


NAMES = {"plain": Base, "needy": Needy, "any": AnyKeyword}


def make(choice, params=None, **context):
    return build(NAMES, Base, "part", choice, params, 5, **context)


def test_names_and_classes():
    assert resolve(NAMES, Base, "part", "needy") is Needy
    assert resolve(NAMES, Base, "part", Needy) is Needy
    with pytest.raises(ValueError, match=r"part must be one of \['any', .*got 'x'"):
        resolve(NAMES, Base, "part", "x")
    for wrong in (int, 5, None, Base(1)):
        with pytest.raises(TypeError, match="a name or a subclass of Base; got"):
            resolve(NAMES, Base, "part", wrong)


def test_parameters_reach_the_constructor():
    part = make("needy", {"size": 3, "weight": 2.0})
    assert (part.n, part.size, part.weight) == (5, 3, 2.0)
    assert make("plain", weight=4.0).weight == 4.0
    assert make(AnyKeyword, {"anything": 1}).kwargs == {"anything": 1}


@pytest.mark.parametrize(
    ("choice", "params", "context", "message"),
    [
        ("plain", {"weigth": 1}, {}, r"'weigth', .* it takes \['weight'\]"),
        ("plain", {"n": 1}, {}, r"'n', which 'plain' does not take"),
        ("plain", {"weight": 1}, {"weight": 2}, "estimator: set weight=1 there"),
        ("needy", {}, {}, "lacks an argument that 'needy' requires: .*'size'"),
    ],
)
def test_wrong_keys(choice, params, context, message):
    with pytest.raises(ValueError, match=f"^part_params .*{message}"):
        make(choice, params, **context)


def test_names_are_checked_without_building():
    class Fails(Base):
        def __init__(self, n, *, size=1):
            raise AssertionError("built")

    assert check_names(NAMES, Base, "part", Fails, {"size": 2}, 1) is Fails
    with pytest.raises(ValueError, match=r"it takes \['size', 'shared'\]"):
        check_names(NAMES, Base, "part", Fails, {"x": 1}, 1, shared=("shared",))
