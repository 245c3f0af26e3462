"""An optimiser of earlier versions: its name and files are refused in one line."""

import pytest
from small_model import X, Y, refuses, small

from sk_pwiser._model_files import read_file, write_file

MESSAGE = r"optimizer='muon' was removed\. Use 'adam', or a subclass"


def test_the_error_names_what_to_use():
    with pytest.raises(ValueError, match=MESSAGE):
        small(optimizer="muon").fit(X, Y)


def test_an_earlier_fit_stays():
    model = small(max_epochs=1).fit(X, Y)
    model.set_params(optimizer="muon")
    refuses(model, ValueError, MESSAGE)


def test_a_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "model"
    model = small(max_epochs=1).fit(X, Y)
    model.save(path)
    values, arrays = read_file(path)
    values["params"]["optimizer"] = "muon"
    values["result"]["settings"]["items"]["optimizer"] = "muon"
    write_file(path, values, arrays)
    with pytest.raises(ValueError, match=f"model' cannot be loaded: {MESSAGE}"):
        type(model).load(path)
