"""The pictures of folders, of a fit and of calibration show what the code does."""

import re

import architecture
import pictures
import pytest

pytestmark = pytest.mark.slow


def labels_of(path):
    """Return the labels of a picture from top to bottom, row by row."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r'y="([\d.]+)" text-anchor="middle"[^>]*>([^<]+)<', text)
    rows = {}
    for y, label in found:
        rows.setdefault(float(y), []).append(label)
    return [rows[y] for y in sorted(rows)]


def test_each_folder_is_drawn_above_those_that_it_imports_from(tmp_path):
    pictures.write_folders(tmp_path / "folders.rst")
    rows = labels_of(tmp_path / "folders.rst")
    floor_of = {label: floor for floor, labels in enumerate(rows) for label in labels}
    imports = architecture.find_imports()
    assert floor_of.keys() == imports.keys()
    for folder, targets in imports.items():
        assert all(floor_of[target] > floor_of[folder] for target in targets)


def test_the_steps_of_a_fit_are_drawn_with_their_files(tmp_path):
    steps = pictures.trace_fit()
    order = [step for step in steps if step in {"read", "check", "encode", "build"}]
    assert order == ["read", "check", "encode", "build"]
    assert list(steps)[-1] == "train"
    assert "losses/_pwiser.py" in steps["train"]
    assert "losses/_pairwise.py" not in steps["encode"]
    pictures.write_way_of_a_fit(tmp_path / "fit.rst")
    drawn = {label for row in labels_of(tmp_path / "fit.rst") for label in row}
    files = {file.removesuffix(".py") for names in steps.values() for file in names}
    assert drawn == files | steps.keys()


def test_the_curves_after_calibration_are_nearer_to_the_diagonal(tmp_path):
    curves_by_task = pictures.reliability_curves()
    assert list(curves_by_task) == ["click", "conversion"]
    n_dots = 0
    for curves in curves_by_task.values():
        distance = {
            name: abs(curve.predicted - curve.observed).mean()
            for name, curve in curves.items()
        }
        assert distance["after"] < distance["before"] / 3
        n_dots += sum(len(curve.predicted) for curve in curves.values())
    pictures.write_reliability(tmp_path / "reliability.rst")
    text = (tmp_path / "reliability.rst").read_text(encoding="utf-8")
    assert text.count("<circle") == n_dots
    assert all(
        text.count(f">{label}<") == 2 for label in ("before", "after", "predicted rate")
    )


@pytest.mark.parametrize("largest_rate", [0.07, 0.3, 0.55, 1.0])
def test_there_are_three_to_seven_ticks_within_the_axis(largest_rate):
    rates = pictures.ticks(largest_rate)
    assert 3 <= len(rates) <= 7
    assert rates[0] == 0
    assert rates[-1] <= largest_rate
