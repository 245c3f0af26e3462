"""Types that a user sees: `mypy --strict` on a script that uses the package."""

import subprocess
import sys
from pathlib import Path

import pytest

import sk_pwiser

PACKAGE = Path(sk_pwiser.__file__).parent

# Packages without types would be errors of their own.
CONFIG = """
[mypy]
strict = true
follow_imports = silent

[mypy-sklearn.*,skorch.*,scipy.*,joblib.*,pandas.*]
ignore_missing_imports = true
"""

SCRIPT = '''
"""What a user of the package writes."""

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV, cross_validate

from sk_pwiser import MultiTaskCTRCVRClassifier, TaskView
from sk_pwiser.calibration import FunnelCalibrator
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.export import Scorer
from sk_pwiser.history import HistoryFeatures
from sk_pwiser.inspection import TaskRocCurveDisplay, describe_impressions
from sk_pwiser.metrics import cvr_auc_scorer, mean_auc_scorer
from sk_pwiser.model_selection import FunnelStratifiedKFold, compare_models


def conversion_rates(log: Any, Y: Any, folder: Path) -> np.ndarray:
    history = HistoryFeatures(["user", ("user", "item")], time="time", label_delay="1h")
    X = history.fit_transform(log, Y)
    for note in describe_impressions(X, Y).notes:
        print(note.upper())
    model = MultiTaskCTRCVRClassifier(loss="pwiser", lr=0.01, random_state=0).fit(X, Y)
    conversion: np.ndarray = model.predict_proba(X)[:, -1]
    search = GridSearchCV(model, {"pwiser_weight": [0, 0.3]}, scoring=mean_auc_scorer)
    cross_validate(search, X, Y, cv=FunnelStratifiedKFold(3), scoring=cvr_auc_scorer)
    view: TaskView = model.task("conversion")
    figures: list[float] = [view.score(X, Y), model.best_epoch_ / 2, conversion.mean()]
    calibrated = FunnelCalibrator(model, method="sigmoid").fit(X, Y)
    calibrated.save(folder / "model.safetensors")
    loaded = FunnelCalibrator.load(folder / "model.safetensors")
    models = {"bce": "bce", "weight 1": {"pwiser_weight": 1.0}}
    comparison = compare_models(X, Y, models=models, estimator=model)
    verdict: str = comparison.verdicts["CVR AUC"]
    served: np.ndarray = Scorer(model)([{"user": "u1", "item": "i7"}])[0]
    print(figures, verdict, served, TaskRocCurveDisplay.from_estimator(loaded, X, Y))
    return loaded.predict_cvr(X)


generated = make_ctr_cvr(2_000, ctr=0.3, random_state=0)
conversion_rates(generated.data, generated.target, Path("models"))
'''

# Each line is wrong, by what mypy says of it.
MISTAKES = """
from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.calibration import FunnelCalibrator

MultiTaskCTRCVRClassifier(learning_rate=0.1)  # call-arg
MultiTaskCTRCVRClassifier(max_epochs="ten")  # arg-type
model = MultiTaskCTRCVRClassifier().fit([[1.0]], [[1]], smple_weight=[1])  # call-arg
model.predict_proba([[1.0]]).colums  # attr-defined
text: str = model.predict_cvr([[1.0]])  # assignment
FunnelCalibrator(model).fit([[1.0]], [[1]]).predict_cvr([[1.0]], tsk=1)  # call-arg
model.load(3)  # arg-type
"""


def check_types(script, folder):
    """Return the lines that mypy prints for a script of a user."""
    pytest.importorskip("mypy")
    config = folder / "mypy.ini"
    config.write_text(CONFIG)
    path = folder / "script.py"
    path.write_text(script)
    options = ["--config-file", config, "--cache-dir", folder / "cache", "--no-pretty"]
    result = subprocess.run(
        [sys.executable, "-m", "mypy", *options, path],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
    )
    assert result.returncode in (0, 1), result.stdout + result.stderr
    return [line for line in result.stdout.splitlines() if "script.py" in line]


@pytest.mark.slow  # mypy reads torch: some twenty seconds
def test_a_script_of_a_user_has_types(tmp_path):
    assert check_types(SCRIPT, tmp_path) == []


@pytest.mark.slow
def test_a_script_of_the_other_folders_has_types(tmp_path):
    script = Path(__file__).with_name("typed_use.py").read_text()
    assert check_types(script, tmp_path) == []


@pytest.mark.slow
def test_mistakes_of_a_user_are_found(tmp_path):
    lines = MISTAKES.splitlines()
    wrong = [
        (i, line.rpartition("# ")[2]) for i, line in enumerate(lines, 1) if "# " in line
    ]
    errors = [line for line in check_types(MISTAKES, tmp_path) if ": error: " in line]
    found = [
        (int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]"))
        for line in errors
    ]
    assert found == wrong
