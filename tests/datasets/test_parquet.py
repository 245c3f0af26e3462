"""Parquet files as a dataset: which rows are read, and which files are refused."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from impressions_in_files import FEATURES, TARGETS, make_log, read, write
from numpy.testing import assert_array_equal

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr

pa = pytest.importorskip("pyarrow")
pc = pytest.importorskip("pyarrow.compute")
fs = pytest.importorskip("pyarrow.fs")
pa_parquet = pytest.importorskip("pyarrow.parquet")

LOG = make_log(600)


@pytest.fixture
def folder(tmp_path):
    return write(LOG, tmp_path, bounds=(0, 250, 600))


def rows_of(dataset, columns=("session",)):
    tables = [table for table, _ in dataset.iter_tables(list(columns))]
    return pa.concat_tables(tables).to_pandas() if tables else None


def test_rows_are_in_the_order_of_files(folder):
    log = read(folder)
    assert log.n_rows_ == 600
    assert [path.rpartition("/")[2] for path in log.files_] == [
        "part-0.parquet",
        "part-1.parquet",
    ]
    assert_array_equal(rows_of(log)["session"], LOG["session"])
    assert "2 files, 600 rows, 5 features" in repr(log)


@pytest.mark.parametrize("pattern", ["*.parquet", "part-[01].parquet", "part-?.*"])
def test_patterns(folder, pattern):
    assert read(folder / pattern).n_rows_ == 600
    assert read(folder / "part-1*").n_rows_ == 350


def test_lists_of_files_other_file_systems_and_uris(folder):
    paths = [folder / "part-1.parquet", folder / "part-0.parquet"]
    assert_array_equal(rows_of(read(paths))["session"], LOG["session"])
    inner = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    assert read("", filesystem=inner).n_rows_ == 600
    assert read("part-1*", filesystem=inner).n_rows_ == 350
    assert read(folder.as_uri()).n_rows_ == 600


PATTERNS = [
    "*.parquet", "**/*.parquet", "**", "*", "**/day=1/*", "day=*/*.parquet", "day=*",
    "day=[12]/*", "day=[!1]/*/*.parquet", "day=1/**", "*/*", "*/**/*.parquet", ".*/*",
    "**/.*", "_*/*.parquet", "day=1/a.parquet", "*/a*t", "",
]  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return a folder with copies, unfinished and hidden files in folders below it."""
    folder = tmp_path_factory.mktemp("tree")
    for name in (
        "a.parquet", "b.parquet", ".hidden.parquet", "_tmp/old.parquet",
        ".cache/a.parquet", "day=1/a.parquet", "day=1/_tmp/a.parquet",
        "day=2/x/a.parquet", "day=2/x/.a.parquet", "day=[1]/a.parquet",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        LOG[:10].to_parquet(folder / name)
    return folder


@pytest.mark.parametrize("kind", ["subtree", "memory"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_the_same_files_in_every_file_system(tree, pattern, kind):
    expected = [path[len(str(tree)) :] for path in read(f"{tree}/{pattern}").files_]
    if kind == "subtree":
        inner = fs.SubTreeFileSystem(str(tree), fs.LocalFileSystem())
        found = read(pattern, filesystem=inner).files_
        assert found == [path[1:] for path in expected]
    else:
        memory = pytest.importorskip("fsspec").filesystem("memory")
        for path in filter(Path.is_file, tree.rglob("*")):
            memory.pipe(f"/log_/{path.relative_to(tree)}", path.read_bytes())
        inner = fs.PyFileSystem(fs.FSSpecHandler(memory))
        found = read(f"log_/{pattern}", filesystem=inner).files_
        assert [path.strip("/")[4:] for path in found] == expected


def test_a_pattern_in_a_folder_that_does_not_exist(folder):
    inner = fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem())
    with pytest.raises(FileNotFoundError, match=r"'no/\*.parquet' matches no file"):
        read("no/*.parquet", filesystem=inner)


def test_a_question_mark_begins_the_options_of_a_uri(folder):
    """It would be cut off with the rest, and the whole folder read."""
    with pytest.raises(ValueError, match=r"is a URI, in which \? begins options"):
        read(f"{folder.as_uri()}/?art-1.parquet")
    assert read(f"{folder.as_uri()}/*art-1.parquet").n_rows_ == 350


def test_files_of_two_file_systems(folder):
    with pytest.raises(ValueError, match="must be files of one file system"):
        read([folder, "mock:///part-0.parquet"])


def test_files_of_other_programs_are_left_out(folder):
    (folder / "_SUCCESS").write_text("")
    (folder / ".part-0.parquet.crc").write_text("x")
    assert read(folder).n_rows_ == 600


def test_the_name_of_a_file_may_contain_brackets(tmp_path):
    LOG[:10].to_parquet(tmp_path / "part[1].parquet")
    assert read(tmp_path / "part[1].parquet").n_rows_ == 10


@pytest.mark.parametrize(
    "filters", [[("session", ">=", 60)], pc.field("session") >= 60]
)
def test_filters(folder, filters):
    found = rows_of(read(folder, filters=filters))
    assert_array_equal(found["session"], LOG["session"][LOG["session"] >= 60])


def test_partitions_are_columns(tmp_path):
    log = LOG.assign(day=LOG["session"] // 60, market="nl")
    log.to_parquet(tmp_path, partition_cols=["market", "day"])
    dataset = ParquetImpressions(tmp_path, [*FEATURES, "day", "market"], TARGETS)
    found = rows_of(dataset, ["day", "market", "session"])
    assert_array_equal(found["day"], found["session"] // 60)
    assert set(found["market"]) == {"nl"}
    later = ParquetImpressions(tmp_path, FEATURES, TARGETS, filters=[("day", "=", 1)])
    assert set(rows_of(later, ["day"])["day"]) == {1}
    assert len(list(later._iter_files([]))) == 1


def test_tables_have_about_the_rows_of_a_part(folder, monkeypatch):
    monkeypatch.setattr("sk_pwiser.datasets._parquet.CHUNK_ROWS", 60)
    sizes = [len(table) for table, _ in read(folder).iter_tables(["session"])]
    assert sum(sizes) == 600
    assert max(sizes) < 120
    assert sum(size < 60 for size in sizes) <= 2  # the last ones of both files
    places = [place for _, place in read(folder).iter_tables(["session"])]
    assert places[0].endswith("part-0.parquet', rows from 0 on")


def test_a_file_without_a_value_in_a_column(tmp_path):
    write(LOG.assign(numeric_1=None), tmp_path, bounds=(0, 100))
    LOG.to_parquet(tmp_path / "part-1.parquet", index=False)
    found = rows_of(read(tmp_path), ["numeric_1"])
    assert found["numeric_1"][:100].isna().all()
    assert found["numeric_1"].dtype == float


def test_dictionaries_with_indices_of_other_types_are_text(tmp_path):
    few = LOG[:100].astype({"category_0": "category"})
    few.to_parquet(tmp_path / "a.parquet", index=False)
    many = LOG.assign(category_0=[f"v{k}" for k in range(600)])
    many.astype({"category_0": "category"}).to_parquet(tmp_path / "b.parquet")
    found = rows_of(read(tmp_path), ["category_0"])
    assert found["category_0"].tolist() == [*few["category_0"], *many["category_0"]]


@pytest.mark.parametrize("partitioning", ["hive", ["market", "day"]])
def test_a_dataset_of_pyarrow(tmp_path, partitioning):
    """Its files are read as if they had been named, with its own partitions."""
    datasets = pytest.importorskip("pyarrow.dataset")
    log = pa.Table.from_pandas(LOG.assign(day=LOG["session"] // 60, market="nl"))
    flavor = {"partitioning_flavor": "hive"} if partitioning == "hive" else {}
    datasets.write_dataset(
        log, tmp_path, format="parquet", partitioning=["market", "day"], **flavor
    )
    given = datasets.dataset(tmp_path, partitioning=partitioning)
    dataset = ParquetImpressions(given, [*FEATURES, "day", "market"], TARGETS)
    assert dataset.files_ == given.files
    found = rows_of(dataset, ["day", "market", "session"])
    assert_array_equal(found["session"], LOG["session"])
    assert_array_equal(found["day"], LOG["session"] // 60)
    assert set(found["market"]) == {"nl"}
    filters = {"filters": [("day", "=", 1)]}
    later = read(pickle.loads(pickle.dumps(given)), **filters)
    assert len(list(later._iter_files([]))) == 1
    (tmp_path / given.files[0]).write_bytes(b"")
    rest = read(given, on_corrupt="skip")
    assert len(rows_of(rest)) == rest.n_rows_ == (LOG["session"] >= 60).sum()


def test_datasets_that_are_refused(folder):
    datasets = pytest.importorskip("pyarrow.dataset")
    given = datasets.dataset(folder)
    with pytest.raises(ValueError, match="filtered or projected dataset is not"):
        read(given.filter(pc.field("session") > 3))
    with pytest.raises(ValueError, match="filesystem must be None if path_or_glob"):
        read(given, filesystem=given.filesystem)
    for other in (datasets.dataset([given]), datasets.dataset(pa.table({"a": [1]}))):
        with pytest.raises(TypeError, match="dataset of pyarrow whose files are Parq"):
            read(other)


def edit_second(folder, **columns):
    log = pd.read_parquet(folder / "part-1.parquet").assign(**columns)
    log.drop(columns=[k for k, v in columns.items() if v is None]).to_parquet(
        folder / "part-1.parquet", index=False
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"numeric_0": None}, "part-1.parquet' lacks the column 'numeric_0'"),
        ({"click": None}, "part-1.parquet' lacks the column 'click'"),
        (
            {"numeric_0": "x"},
            "'numeric_0' is of type .*string in .*part-1.parquet', but double in .*-0",
        ),
        (
            {"session": np.ones(350, dtype=bool)},
            "'session' is of type bool in '.*part-1.parquet', but int64 in '.*-0",
        ),
        (
            {"click": "1"},
            "'click' is of type .*string in '.*part-1.parquet', but int64 in '.*-0",
        ),
    ],
)
def test_files_that_differ(folder, columns, message):
    edit_second(folder, **columns)
    with pytest.raises(ValueError, match=message):
        ParquetImpressions(folder, [*FEATURES, "session"], TARGETS)


def cast(table, **types):
    for name, kind in types.items():
        index = table.column_names.index(name)
        table = table.set_column(index, name, table[name].cast(kind))
    return table


MIXED = pa.table(
    {
        "text": ["a", None, "b", "c"],
        "id": [1, 2, None, 4],
        "amount": [0.0, 1.0, 2.0, 4.0],
        "at": pa.array([0, 1, 2, 3]).cast(pa.timestamp("s")),
        "items": [["a"], [], ["b", None], ["c"]],
        "click": [0, 1, 1, 0],
    }
)


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"text": pa.large_string()}, pa.large_string()),
        ({"text": pa.dictionary(pa.int32(), pa.string())}, pa.string()),
        ({"id": pa.float64()}, pa.float64()),
        ({"id": pa.int16()}, pa.int64()),
        ({"id": pa.float32()}, pa.float64()),
        ({"amount": pa.float32()}, pa.float64()),
        ({"amount": pa.int8()}, pa.float64()),
        ({"at": pa.timestamp("ns")}, pa.timestamp("ns")),
        ({"items": pa.list_(pa.large_string())}, pa.large_list(pa.large_string())),
        ({"click": pa.bool_()}, pa.int64()),
        ({"click": pa.float64()}, pa.float64()),
    ],
)
def test_types_that_differ_without_a_change_of_meaning(
    tmp_path, others, expected, is_first
):
    """As two versions of pandas write one log; the values are those of either type."""
    [name] = others
    parts = [cast(MIXED, **others), MIXED]
    if not is_first:
        parts.reverse()
    for index, part in enumerate(parts):
        pa_parquet.write_table(part, tmp_path / f"part-{index}.parquet")
    features = [column for column in MIXED.column_names if column != "click"]
    log = ParquetImpressions(tmp_path, features, ["click"])
    tables = [table for table, _ in log.iter_tables(MIXED.column_names)]
    assert {table.schema.field(name).type for table in tables} == {expected}
    values = [value for table in tables for value in table[name].to_pylist()]
    assert values == 2 * MIXED[name].to_pylist()


@pytest.mark.parametrize("statistics", [True, False])
def test_integers_that_floats_would_round_are_refused(tmp_path, statistics):
    whole = pa.table({"id": [2**60 + 1, 7], "click": [0, 1]})
    pa_parquet.write_table(
        whole, tmp_path / "part-0.parquet", write_statistics=statistics
    )
    rounded = pa.table({"id": [float(2**60), None], "click": [0, 1]})
    pa_parquet.write_table(rounded, tmp_path / "part-1.parquet")
    message = rf"'id' holds integers above 2\^53 in .*-0.parquet', such as {2**60 + 1}"
    if not statistics:  # the reader notices
        message = f"part-0.parquet', row group 0: cannot be read: Integer value {2**60}"
    with pytest.raises(ValueError, match=message[:-1]):
        rows_of(ParquetImpressions(tmp_path, ["id"], ["click"]), ["id"])


def test_a_corrupt_footer(folder):
    (folder / "part-1.parquet").write_bytes(b"not Parquet at all")
    with pytest.raises(ValueError, match=r"part-1.parquet' cannot be read as a Parq"):
        read(folder)
    log = read(folder, on_corrupt="skip")
    assert log.n_rows_ == 250
    assert len(log.corrupt_) == 1
    (folder / "part-0.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="None of 2 files can be read"):
        read(folder, on_corrupt="skip")


def test_a_corrupt_row_group(folder):
    """The footer is at the end, the first row group at the beginning."""
    path = folder / "part-0.parquet"
    data = bytearray(path.read_bytes())
    data[4:3_000] = bytes(len(data[4:3_000]))
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"part-0.parquet', row group 0: cannot be re"):
        rows_of(read(folder), FEATURES)
    log = read(folder, on_corrupt="skip")
    assert len(rows_of(log, [*FEATURES])) == 450
    assert len(log.corrupt_) == 1
    rows_of(log, [*FEATURES])
    assert len(log.corrupt_) == 1


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"path_or_glob": "no/*.parquet"}, FileNotFoundError, "no/.*' matches no file"),
        ({"path_or_glob": []}, ValueError, "path_or_glob must name at least one file"),
        ({"features": []}, ValueError, "features must name at least one column"),
        ({"features": [1]}, TypeError, r"features must be a list of column.*\[1\]"),
        ({"features": ["a", "a"]}, ValueError, "features contains 'a' twice"),
        ({"features": ["b"]}, ValueError, "'b' is not a column of the dataset, which"),
        ({"features": ["click"]}, ValueError, r"features and targets .* \['click'\]"),
        ({"targets": ["c"]}, ValueError, "'c' is not a column of the dataset"),
        ({"sample_weight": 3}, TypeError, "sample_weight must be the name of"),
        ({"sample_weight": ["weight"]}, ValueError, "1 columns for 2 targets"),
        ({"sample_weight": "w"}, ValueError, "'w' is not a column"),
        ({"groups": ["session"]}, TypeError, "groups must be the name of a column"),
        ({"on_corrupt": "ignore"}, ValueError, "on_corrupt must be .*'ignore'"),
        ({"sample_rows": 0}, ValueError, "sample_rows must be an integer >= 1; got 0"),
        ({"max_values": 0.5}, TypeError, "max_values must be an integer"),
        ({"cache_dir": "no"}, ValueError, "cache_dir='no' is not a folder"),
        ({"filters": [("a", "~", 1)]}, ValueError, "filters must be an expression"),
        ({"filters": [("a", ">", 1)]}, ValueError, r"filters=\(a > 1\) cannot be"),
        ({"filters": [("click", ">", "x")]}, ValueError, "cannot be applied: Functi"),
    ],
)
def test_parameters(folder, params, error, message):
    given = {"path_or_glob": folder, "features": FEATURES, "targets": TARGETS}
    with pytest.raises(error, match=message):
        ParquetImpressions(**given | params)


def test_files_without_rows(tmp_path):
    LOG[:0].to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="have no rows"):
        read(tmp_path)


def test_without_pyarrow_the_error_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.dataset", None)
    with pytest.raises(ImportError, match=r"pip install pyarrow \(extra \[pandas\]\)"):
        read(folder)


def test_labels_need_not_be_there_for_predictions(tmp_path):
    LOG.drop(columns=TARGETS).to_parquet(tmp_path / "a.parquet")
    log = ParquetImpressions(tmp_path, FEATURES, [])
    assert np.shape(rows_of(log, FEATURES)) == (600, 5)


def test_categories_of_numbers_are_those_of_the_table(tmp_path):
    """Parquet keeps their numbers, and pandas notes in the footer what they were."""
    data = make_ctr_cvr(
        600, n_numeric=1, n_categorical=2, ctr=0.4, cvr=0.4, random_state=0
    )
    X, Y = data.data.astype({"category_1": str}), data.target
    X.loc[::7, "category_0"] = np.nan
    for name, rows in (("a", slice(0, 200)), ("b", slice(200, None))):
        X[rows].join(Y[rows]).to_parquet(tmp_path / f"{name}.parquet")
    log = ParquetImpressions(tmp_path, list(X), list(Y))
    found = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0).fit(log)
    model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0).fit(X, Y)
    kinds = [column["kind"] for column in found.column_encodings_.values()]
    assert kinds == ["numeric", "category", "category"]
    assert_array_equal(found.encode(X).codes, model.encode(X).codes)
    assert_array_equal(found.predict_proba(log), found.predict_proba(X))
    # A model that learnt them as numbers reads them as numbers.
    numbers = X.astype({"category_0": float})
    model.fit(numbers, Y)
    assert_array_equal(model.predict_proba(log), model.predict_proba(numbers))
