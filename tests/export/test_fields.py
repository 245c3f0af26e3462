from types import SimpleNamespace

import pytest
from refusals import small
from serving_rows import HAS_CONSTANT, X, Y

from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.export._scorer import make_fields

pytestmark = HAS_CONSTANT


class Lists:
    name = "seen shops"


@pytest.mark.parametrize("inputs", ["encoded", "raw"])
def test_columns_of_other_kinds_are_refused_by_name(inputs, tmp_path):
    model = small(max_epochs=1).fit(X, Y)
    model._result.schema.encoder.columns_[1] = Lists()
    for export in (Scorer, lambda m: to_onnx(m, tmp_path / "model", inputs=inputs)):
        with pytest.raises(ValueError, match="Column 'seen shops' cannot be exported"):
            export(model)
    assert not list(tmp_path.iterdir())


def test_a_table_without_a_field_per_column_is_refused():
    with pytest.raises(ValueError, match="fitted on a sparse table"):
        make_fields(SimpleNamespace(columns_=[], sparse_=object()))
