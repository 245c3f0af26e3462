"""Models logged to MLflow, in a folder, and the probabilities that they serve."""

import pytest
from numpy.testing import assert_array_equal
from serving_rows import OTHER, X, Y
from sklearn.pipeline import make_pipeline
from small_model import small

from sk_pwiser.export import TRUSTED_TYPES

mlflow = pytest.importorskip("mlflow")
pytest.importorskip("skops")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of MLflow and what it imports
]


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    yield
    mlflow.set_tracking_uri(before)


@pytest.mark.parametrize("wrap", [lambda model: model, make_pipeline])
def test_a_logged_model_serves_probabilities(tracking, wrap):
    import mlflow.sklearn

    model = wrap(small(max_epochs=1).fit(X, Y))
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(
            model,
            name="model",
            serialization_format="skops",
            skops_trusted_types=TRUSTED_TYPES,
            pyfunc_predict_fn="predict_proba",
            pip_requirements=[],
        )
    served = mlflow.pyfunc.load_model(info.model_uri)
    assert_array_equal(served.predict(OTHER), model.predict_proba(OTHER))
    loaded = mlflow.sklearn.load_model(info.model_uri)
    assert type(loaded) is type(model)
    assert_array_equal(loaded.predict_proba(OTHER), model.predict_proba(OTHER))
