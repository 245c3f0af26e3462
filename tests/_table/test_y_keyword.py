"""The decorator that accepts labels as the keyword `y`."""

import pytest

from sk_pwiser._utils._checks import accept_any_case_of_y


def test_labels_are_accepted_as_Y_and_as_y():
    class Model:
        @accept_any_case_of_y
        def fit(self, X, Y, other=None):
            """Fit."""
            return X, Y, other

    for result in (Model().fit(1, y=2), Model().fit(1, Y=2), Model().fit(1, 2)):
        assert result == (1, 2, None)
    assert Model.fit.__doc__ == "Fit."
    with pytest.raises(TypeError, match="multiple values"):
        Model().fit(1, 2, y=3)
    with pytest.raises(TypeError, match=r"fit\(\) got labels twice: as 'Y' and as 'y'"):
        Model().fit(1, Y=2, y=3)
