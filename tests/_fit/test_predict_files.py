"""Predictions for Parquet files, in Parquet files."""

import copy
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from impressions_in_files import (
    TARGETS,
    in_memory,
    make,
    make_log,
    read,
    reader_threads,
    write,
)
from numpy.testing import assert_allclose

LOG = make_log(700)
X = in_memory(LOG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(LOG, tmp_path_factory.mktemp("log"), bounds=(0, 300, 700))


@pytest.fixture(scope="module", autouse=True)
def _small_files():
    """Read few rows at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sk_pwiser.datasets._parquet.CHUNK_ROWS", 100)
        yield


@pytest.fixture(scope="module")
def fitted(folder, _estimators_on_device, _small_files):
    return make(max_epochs=1).fit(read(folder))


def test_predictions_in_files(folder, fitted, tmp_path):
    expected = fitted.predict_proba(X)
    assert_allclose(fitted.predict_proba(read(folder)), expected, atol=1e-6)
    out = fitted.predict_proba(read(folder), output=tmp_path / "out")
    assert out == tmp_path / "out"
    names = [path.name for path in sorted(out.iterdir())]
    assert names == ["part-0.parquet", "part-1.parquet"]
    found = pd.concat([pd.read_parquet(path) for path in sorted(out.iterdir())])
    assert list(found) == TARGETS
    assert_allclose(found.to_numpy(), expected, atol=1e-6)
    assert reader_threads() == []


def test_complete_files_of_the_same_fit_are_kept(folder, fitted, tmp_path):
    fitted.predict_proba(read(folder), output=tmp_path)
    paths = sorted(tmp_path.iterdir())
    before = [path.stat().st_ino for path in paths]
    paths[1].unlink()
    fitted.predict_proba(read(folder), output=tmp_path)
    assert paths[0].stat().st_ino == before[0]
    make(random_state=3).fit(read(folder)).predict_proba(read(folder), output=tmp_path)
    assert paths[0].stat().st_ino != before[0]
    assert sorted(tmp_path.iterdir()) == paths


def rewritten(model, folder, output):
    """Return whether predictions of a model replace the files that are there."""
    path = output / "part-0.parquet"
    before = path.stat().st_ino
    model.predict_proba(read(folder), output=output)
    return path.stat().st_ino != before


def same_weights(fitted, **parts):
    """Return a copy of a model with the same network, but another encoding."""
    model = copy.copy(fitted)
    schema = replace(fitted._result.schema, **parts)
    model._result = replace(fitted._result, schema=schema)
    return model


def test_files_of_other_task_names_and_encoders_are_replaced(folder, fitted, tmp_path):
    """Though the weights are the same."""
    fitted.predict_proba(read(folder), output=tmp_path)
    assert not rewritten(fitted, folder, tmp_path)
    schema = fitted._result.schema
    renamed = replace(schema.targets, task_names=("view", "sale"))
    assert rewritten(same_weights(fitted, targets=renamed), folder, tmp_path)
    assert list(pd.read_parquet(tmp_path / "part-0.parquet")) == ["view", "sale"]
    encoder, statistics = (
        copy.deepcopy(each) for each in (schema.encoder, schema.statistics)
    )
    codes = encoder.columns_[2].codes_
    first, second = list(codes)[:2]
    codes[first], codes[second] = codes[second], codes[first]
    assert rewritten(same_weights(fitted, encoder=encoder), folder, tmp_path)
    statistics.tables_[0][3] += 0.1
    assert rewritten(same_weights(fitted, statistics=statistics), folder, tmp_path)
    assert rewritten(fitted, folder, tmp_path)


def test_a_saved_model_keeps_the_files(folder, fitted, tmp_path):
    fitted.predict_proba(read(folder), output=tmp_path / "out")
    fitted.save(tmp_path / "model")
    again = type(fitted).load(tmp_path / "model")
    assert not rewritten(again, folder, tmp_path / "out")


def test_values_without_a_plain_form(tmp_path):
    """Parquet has binary columns, whose values are bytes."""
    log = LOG.assign(category_0=[value.encode() for value in LOG["category_0"]])
    folder = tmp_path / "log"
    folder.mkdir()
    write(log, folder, bounds=(0, 700))
    model = make(
        max_epochs=1, categorical_features=["category_0", "category_1", "items"]
    ).fit(read(folder))
    model.predict_proba(read(folder), output=tmp_path / "out")
    assert not rewritten(model, folder, tmp_path / "out")


def test_a_full_disk_leaves_no_half_file(folder, fitted, tmp_path, monkeypatch):
    def fail(self, batch):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_batch", fail)
    with pytest.raises(OSError, match="No space left"):
        fitted.predict_proba(read(folder), output=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert reader_threads() == []


def test_folders_of_partitions_are_kept(tmp_path, fitted):
    folder = tmp_path / "log"
    LOG.assign(day=LOG["session"] // 50).to_parquet(folder, partition_cols=["day"])
    log = read(folder, filters=[("day", ">=", 1)])
    out = fitted.predict_proba(log, output=tmp_path / "out")
    assert [path.name for path in sorted(Path(out).iterdir())] == ["day=1", "day=2"]
    assert len(pd.read_parquet(out)) == 450
    kept = LOG["session"] >= 50
    expected = fitted.predict_proba(in_memory(LOG[kept]))
    assert_allclose(pd.read_parquet(out)[TARGETS], expected, atol=1e-6)


def test_files_without_selected_rows_keep_their_predictions(fitted, tmp_path):
    (tmp_path / "log").mkdir()
    log = write(LOG.assign(row=range(700)), tmp_path / "log", bounds=(0, 300, 700))
    for low, high in ((0, 200), (500, 600)):
        rows = read(log, filters=[("row", ">=", low), ("row", "<", high)])
        out = fitted.predict_proba(rows, output=tmp_path / "out")
    assert [len(pd.read_parquet(path)) for path in sorted(out.iterdir())] == [200, 100]


def test_filters_that_differ_in_the_middle_of_a_long_list(folder, fitted, tmp_path):
    for middle in (60, 61):
        sessions = [*range(12), middle, *range(100, 112)]
        rows = read(folder, filters=[("session", "in", sessions)])
        out = fitted.predict_proba(rows, output=tmp_path)
    found = pd.concat(map(pd.read_parquet, sorted(out.rglob("*.parquet"))))
    expected = fitted.predict_proba(in_memory(LOG[LOG["session"].isin(sessions)]))
    assert_allclose(found[TARGETS], expected, atol=1e-6)


def test_a_corrupt_file_has_no_predictions_and_moves_no_others(tmp_path, fitted):
    folder, out = tmp_path / "log", tmp_path / "out"
    LOG.assign(day=LOG["session"] // 90).to_parquet(folder, partition_cols=["day"])
    fitted.predict_proba(read(folder), output=out)
    _, corrupt = sorted(out.rglob("*.parquet"))
    (folder / corrupt.relative_to(out)).write_bytes(b"no Parquet file")
    before = sorted(out.rglob("*.parquet"))
    with pytest.warns(UserWarning, match="1 files .* have no predictions"):
        fitted.predict_proba(read(folder, on_corrupt="skip"), output=out)
    assert sorted(out.rglob("*.parquet")) == [p for p in before if p != corrupt]


def test_what_is_refused(folder, fitted, tmp_path):
    with pytest.raises(TypeError, match="output must be None unless X is a dataset"):
        fitted.predict_proba(X, output=tmp_path)
    with pytest.raises(ValueError, match="would replace"):
        fitted.predict_proba(read(folder), output=folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ValueError, match="would replace"):
        fitted.predict_proba(read(folder), output=tmp_path / "link")
    with pytest.raises(ValueError, match="no rows that its filters select"):
        fitted.predict_proba(read(folder, filters=[("session", "<", -1)]))
