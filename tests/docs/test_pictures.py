"""The pictures of pages show what the code does."""

import itertools
import re

import architecture
import pictures
import pytest

from sk_pwiser import MultiTaskCTRCVRClassifier

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


def test_folds_by_time_are_drawn_without_overlap_and_with_their_gap():
    lanes = pictures.split_by_time()
    assert list(lanes) == ["fold 1", "fold 2", "fold 3", "in operation"]
    kinds = [
        pictures.TRAINED,
        pictures.HELD_OUT,
        pictures.GAP_OF_LABELS,
        pictures.PREDICTED,
    ]
    for spans in lanes.values():
        assert [span.kind for span in spans] == kinds
        assert spans[0].start == 0
        for before, after in itertools.pairwise(spans):
            assert before.start < before.stop == after.start
        _, held_out, gap, _ = spans
        assert gap.stop - gap.start == pytest.approx(pictures.LABEL_DELAY, abs=1)
        n_held_out = held_out.stop - held_out.start
        expected = pictures.HELD_OUT_SHARE * held_out.stop
        assert n_held_out == pytest.approx(expected, abs=1)
    predicted = [spans[-1] for spans in lanes.values()]
    for before, after in itertools.pairwise(predicted):
        assert before.stop == after.start


def test_the_held_out_share_of_the_picture_is_the_default():
    default = MultiTaskCTRCVRClassifier().validation_fraction
    assert default == pictures.HELD_OUT_SHARE


def test_a_row_reads_what_is_older_than_each_delay():
    counts = {
        name: sum(time < pictures.ROW_TIME - delay for time in pictures.IMPRESSIONS)
        for name, delay in pictures.DELAYS.items()
    }
    assert pictures.count_read() == counts
    assert counts["impressions"] > counts["clicks"] > counts["conversions"] > 0


def test_the_picture_of_a_history_fills_the_marks_that_are_read(tmp_path):
    pictures.write_history(tmp_path / "history.rst")
    text = (tmp_path / "history.rst").read_text(encoding="utf-8")
    counts = pictures.count_read()
    assert text.count('fill-opacity="1"') == sum(counts.values())
    n_marks = len(counts) * len(pictures.IMPRESSIONS)
    assert text.count("<circle") == n_marks
    for name in counts:
        assert f">{name}<" in text


def test_the_picture_of_folds_has_a_rectangle_per_span(tmp_path):
    pictures.write_time_split(tmp_path / "split.rst")
    text = (tmp_path / "split.rst").read_text(encoding="utf-8")
    lanes = pictures.split_by_time()
    n_spans = sum(map(len, lanes.values()))
    n_kinds = 4  # of the legend
    assert text.count("<rect") == n_spans + n_kinds
    assert all(f">{label}<" in text for label in lanes)


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
