"""Impressions in Parquet files, which may be larger than memory."""

import fnmatch
import glob
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sk_pwiser._utils._checks import check_choice, check_integer
from sk_pwiser._utils._extras import import_extra


def import_parquet() -> tuple[Any, Any, Any]:
    """Return `pyarrow`, `pyarrow.dataset` and `pyarrow.parquet`."""
    return (
        import_extra("pyarrow", "ParquetImpressions"),
        import_extra("pyarrow.dataset", "ParquetImpressions"),
        import_extra("pyarrow.parquet", "ParquetImpressions"),
    )


def find_files(path_or_glob: Any, filesystem: Any) -> tuple[Any, list[str]]:
    """Return the file system, and the paths of the files in their order."""
    is_list = isinstance(path_or_glob, list | tuple)
    patterns = path_or_glob if is_list else [path_or_glob]
    if not patterns:
        raise ValueError("path_or_glob must name at least one file; got an empty list.")
    systems = []
    paths: set[str] = set()
    for pattern in map(os.fspath, patterns):
        if filesystem is None:
            system, name = _locate(pattern)
        else:
            system = filesystem
            name = pattern
        systems.append(system)
        if system != systems[0]:
            raise ValueError(
                f"path_or_glob must be files of one file system; got {path_or_glob!r}."
            )
        matches = _match(system, name)
        if not matches:
            raise FileNotFoundError(f"path_or_glob={pattern!r} matches no file.")
        paths.update(matches)
    return systems[0], sorted(paths)


def _locate(path: str) -> tuple[Any, str]:
    """Return the file system of a local path or of a URI, and the path in it."""
    from pyarrow import fs  # installed, see import_parquet

    if "://" not in path:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))
    if re.search(r"[?](?!\w+=)", path):  # the rest would be ignored
        raise ValueError(
            f"path_or_glob={path!r} is a URI, in which ? begins options such as "
            "?region=...; use * as the wildcard."
        )
    system, path_in_system = fs.FileSystem.from_uri(path)
    return system, path_in_system


def files_of_dataset(dataset: Any, filesystem: Any) -> tuple[Any, list[str]]:
    """Return the file system and the paths of the files of a dataset of pyarrow."""
    _, datasets, _ = import_parquet()
    is_parquet = isinstance(dataset, datasets.FileSystemDataset) and isinstance(
        dataset.format, datasets.ParquetFileFormat
    )
    if not is_parquet:
        raise TypeError(
            "path_or_glob must be paths, or a dataset of pyarrow whose files are "
            f"Parquet files; got {dataset!r}."
        )
    if filesystem is not None:
        raise ValueError("filesystem must be None if path_or_glob is a dataset.")
    # pyarrow raises an error if the dataset has a filter.
    return dataset.filesystem, [file.path for file in dataset.get_fragments()]


def _match(filesystem: Any, pattern: str) -> list[str]:
    """Return the files that a pattern matches, and those in matching folders."""
    from pyarrow import fs

    matches = [pattern]
    is_absent = filesystem.get_file_info(pattern).type == fs.FileType.NotFound
    if _has_wildcard(pattern) and is_absent:  # the name of a file may contain brackets
        if isinstance(filesystem, fs.LocalFileSystem):
            matches = glob.glob(pattern, recursive=True)
        else:
            matches = _glob(filesystem, pattern)
    paths = []
    for info in filesystem.get_file_info(matches):
        if info.type == fs.FileType.File:
            paths.append(info.path)
        elif info.type == fs.FileType.Directory:
            paths += _visible_files(filesystem, info.path)
    return paths


def _visible_files(filesystem: Any, folder: str) -> list[str]:
    """Return the files in a folder at any depth, without hidden ones."""
    from pyarrow import fs

    depth = len(_names_in(folder))
    paths = []
    selector = fs.FileSelector(folder, recursive=True)
    for info in filesystem.get_file_info(selector):
        names = _names_in(info.path)[depth:]
        is_hidden = any(name.startswith(("_", ".")) for name in names)
        if info.type == fs.FileType.File and not is_hidden:
            paths.append(info.path)
    return paths


def _names_in(path: str) -> list[str]:
    """Return the names in a path; some file systems begin theirs with a slash."""
    return [name for name in path.split("/") if name]


def _has_wildcard(text: str) -> bool:
    return glob.escape(text) != text


def _glob(filesystem: Any, pattern: str) -> list[str]:
    """Return the paths that match a pattern, as :func:`glob.glob` does locally."""
    from pyarrow import fs

    patterns = _names_in(pattern)
    if patterns[-1] == "**":  # all that is below a folder
        patterns.append("*")
    # List what is below the last folder without a wildcard.
    depth = next(i for i, name in enumerate(patterns) if _has_wildcard(name))
    selector = fs.FileSelector(
        "/".join(patterns[:depth]),
        allow_not_found=True,
        recursive=depth + 1 < len(patterns),
    )
    paths = [info.path for info in filesystem.get_file_info(selector)]
    return [
        path for path in paths if _matches(_names_in(path)[depth:], patterns[depth:])
    ]


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    """Return whether the names of a path match the patterns of one."""
    if not names or not patterns:
        return not names and not patterns
    pattern, *later_patterns = patterns
    # Wildcards match no names that begin with a dot, unless the pattern does.
    is_visible = pattern.startswith(".") or not names[0].startswith(".")
    if pattern == "**":
        is_end = _matches(names, later_patterns)
        return is_end or (is_visible and _matches(names[1:], patterns))
    fits = is_visible and fnmatch.fnmatchcase(names[0], pattern)
    return fits and _matches(names[1:], later_patterns)


def read_footers(
    filesystem: Any, paths: Sequence[str], on_corrupt: str
) -> tuple[dict[str, Any], int, list[str]]:
    """Return the schemas of files by path, their rows, and the files without any."""
    _, _, parquet = import_parquet()
    schemas = {}
    n_rows = 0
    corrupt = []
    for path in paths:
        try:
            footer = parquet.read_metadata(path, filesystem=filesystem)
            schemas[path] = footer.schema.to_arrow_schema()
            n_rows += footer.num_rows
        except (OSError, ValueError) as error:
            if on_corrupt == "raise":
                raise ValueError(
                    f"{path!r} cannot be read as a Parquet file: {error}"
                ) from error
            corrupt.append(path)
    if not schemas:
        raise ValueError(f"None of {len(paths)} files can be read: {paths[:3]}.")
    return schemas, n_rows, corrupt


def common_type(kinds: Sequence[Any], *, is_label: bool = False) -> Any:
    """Return a type of Arrow that holds the values of several, None without one.

    They have the same meaning: text, numbers, or times, of different widths, as two
    versions of a package write them. Labels may be bools or numbers.
    """
    pyarrow, _, _ = import_parquet()
    types = pyarrow.types

    def are_all(*tests: Any) -> bool:
        return all(any(test(kind) for test in tests) for kind in kinds)

    if len(kinds) == 1:
        return kinds[0]
    if are_all(types.is_string, types.is_large_string, types.is_string_view):
        return pyarrow.large_string()
    if are_all(types.is_integer) and pyarrow.uint64() not in kinds:
        return pyarrow.int64()
    # Beside a missing value, pandas writes integers as floats.
    if are_all(types.is_integer, types.is_floating):
        return pyarrow.float64()
    if is_label and are_all(types.is_boolean, types.is_integer, types.is_floating):
        numbers = [kind for kind in kinds if not types.is_boolean(kind)]
        return common_type(numbers)
    if are_all(types.is_timestamp) and len({kind.tz for kind in kinds}) == 1:
        units = [kind.unit for kind in kinds]
        finest = next(unit for unit in ("ns", "us", "ms", "s") if unit in units)
        return pyarrow.timestamp(finest, kinds[0].tz)
    if are_all(types.is_list, types.is_large_list):
        value_type = common_type(list({kind.value_type: None for kind in kinds}))
        return None if value_type is None else pyarrow.large_list(value_type)
    return None


def unify_schemas(
    schemas: Mapping[str, Any],
    first: Any,
    columns: Iterable[str],
    labels: Collection[str] = (),
) -> Any:
    """Return the common schema of all files, whose schemas are given by path.

    `first` also has the columns that come from names of folders.
    """
    pyarrow, _, _ = import_parquet()
    names = set(first.names).union(*(schema.names for schema in schemas.values()))
    first_path = next(iter(schemas))
    common_fields = []
    for name in columns:
        if name not in names:
            raise ValueError(
                f"{name!r} is not a column of the dataset, which has {sorted(names)}."
            )
        sources = schemas
        is_of_folders = name in first.names and name not in schemas[first_path].names
        if is_of_folders:
            sources = {first_path: first}
        path_by_type = _types_of_column(name, sources)
        common_fields.append(
            (name, _type_of_column(name, path_by_type, name in labels))
        )
    return pyarrow.schema(common_fields)


def _types_of_column(name: str, schemas: Mapping[str, Any]) -> dict[Any, str]:
    """Return the types of a column, each with the first file that has it."""
    pyarrow, _, _ = import_parquet()
    path_by_type: dict[Any, str] = {}
    for path, schema in schemas.items():
        if name not in schema.names:
            raise ValueError(f"{path!r} lacks the column {name!r}.")
        kind = schema.field(name).type
        if pyarrow.types.is_dictionary(kind):  # read as its values
            kind = kind.value_type
        path_by_type.setdefault(kind, path)
    if len(path_by_type) > 1:
        path_by_type.pop(pyarrow.null(), None)  # a column without values
    return path_by_type


def _type_of_column(name: str, path_by_type: Mapping[Any, str], is_label: bool) -> Any:
    """Return the common type of the files, or raise if two of them have none."""
    common = common_type(list(path_by_type), is_label=is_label)
    if common is not None:
        return common
    (expected, source), *later = path_by_type.items()
    kind, path = next(
        (kind, path)
        for kind, path in later
        if common_type([expected, kind], is_label=is_label) is None
    )
    raise ValueError(
        f"{name!r} is of type {kind} in {path!r}, but {expected} in {source!r}."
    )


# Doubles hold all whole numbers up to this magnitude.
EXACT = 2**53


def refuse_rounded(filesystem: Any, schemas: Mapping[str, Any], schema: Any) -> None:
    """Raise if integers of a file would be rounded as the floats of another one."""
    pyarrow, _, parquet = import_parquet()
    doubles = {f.name for f in schema if pyarrow.types.is_floating(f.type)}
    for path, file_schema in schemas.items():
        integers = {f.name for f in file_schema if pyarrow.types.is_integer(f.type)}
        names = integers & doubles
        if not names:
            continue
        footer = parquet.read_metadata(path, filesystem=filesystem)
        for name, largest in _largest_magnitudes(footer, names):
            if abs(largest) > EXACT:
                raise ValueError(
                    f"{name!r} holds integers above 2^53 in {path!r}, such as "
                    f"{largest}, and floats in another file, which round them. Write "
                    "ids as integers or text in all files."
                )


def _largest_magnitudes(
    footer: Any, names: Collection[str]
) -> Iterator[tuple[str, int]]:
    """Yield, per column of a row group, its value that is farthest from 0, if noted."""
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema not in names:
                continue
            statistics = column.statistics
            if statistics and statistics.has_min_max:
                ends = (statistics.min, statistics.max)
                yield column.path_in_schema, max(ends, key=abs)


def categories_of_numbers(
    schemas: Mapping[str, Any], schema: Any, features: Iterable[str]
) -> list[str]:
    """Return the features that pandas wrote as categories, and Parquet as numbers.

    Parquet files have no categories of numbers; pandas notes them in the footer.
    """
    pyarrow, _, _ = import_parquet()
    noted = {
        column["name"]
        for file_schema in schemas.values()
        for column in (file_schema.pandas_metadata or {}).get("columns", ())
        if column["pandas_type"] == "categorical"
    }
    kinds = {name: schema.field(name).type for name in features if name in noted}
    return [
        name
        for name, kind in kinds.items()
        if pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)
    ]


# Number of rows that are read, encoded and stored at a time.
CHUNK_ROWS = 16_384


class ParquetImpressions:
    """Impressions in Parquet files, which `fit` and `predict_proba` read in parts.

    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` takes this object in place of `X` and
    `Y`, and reads the rows in `fit`. The footers of all files are read and checked when
    the object is created. See :ref:`larger_than_memory`.

    Parameters
    ----------
    path_or_glob : str, os.PathLike, list of these, or pyarrow.dataset.Dataset
        A file, a folder with files at any depth, or a pattern such as
        `"log/day=2024-05-*/*.parquet"`, as in :mod:`glob`: wildcards match within one
        name, and `**` matches folders at any depth. Folders named `column=value` add a
        column (Hive partitions). Inside a folder, files and folders whose names begin
        with `_` or `.` are left out. Files are read in the order of their paths, those
        of a dataset in its own order and with its own partitions.
    features : list of str
        Columns of `X`, in this order. Columns of numbers that pandas wrote as
        categories are read as categories, although Parquet keeps the numbers only.
    targets : str or list of str
        Columns of the labels, 0 or 1, in the order of the funnel. Predictions do not
        read them; for files without labels, pass an empty list.
    filters : pyarrow.dataset.Expression or list of tuple, default=None
        Which rows to use, as in :func:`pyarrow.parquet.read_table`, for example
        `[("day", ">=", 3)]`. Files and row groups that cannot contain such rows are not
        read.
    sample_weight : str or list of str, default=None
        Column with the weights of the rows, or one column per task.
    groups : str, default=None
        Column with the groups of the rows, for losses and early stopping that compare
        rows within groups. The rows of a group must be consecutive rows of one file,
        and no group of another file may have the same value.
        Rows are read in parts of 16,384 rows; a group at the border of two parts may
        count as two groups.
    filesystem : pyarrow.fs.FileSystem, default=None
        File system that contains the files. By default, it is taken from a URI such as
        `"s3://..."`; other paths are local. A dataset has its own.
    on_corrupt : {"raise", "skip"}, default="raise"
        Whether files and row groups that cannot be read raise an error, or are left out
        with one warning that counts them.
    sample_rows : int, default=200000
        Number of rows, drawn at random, from which the distributions of numeric columns
        are learnt. Up to this number of rows, the encoding is the same as for a fit in
        memory.
    max_values : int, default=1000000
        Number of distinct values of a category column up to which their frequencies are
        exact. If there are more, the least frequent values are dropped repeatedly while
        rows are read, with one warning.
    shuffle_rows : int, default=262144
        Number of rows that are shuffled together in training. Twice as many rows are in
        memory at a time.
    cache_dir : str or os.PathLike, default=None
        Folder for the encoded rows, which are deleted at the end of `fit`. By default,
        it is :func:`tempfile.gettempdir`, which may be in memory.

    Attributes
    ----------
    files_ : list of str
        Paths of the files.
    n_rows_ : int
        Number of rows in the files, before filters.
    corrupt_ : list of str
        Files and row groups that have been left out so far.

    Raises
    ------
    ValueError, TypeError
        If a parameter is invalid, if a column is missing in a file or has types of
        different meanings, such as text and numbers, if a file is corrupt, or if there
        are no rows. The message names the file and the column.
    FileNotFoundError
        If no file matches.

    Examples
    --------
    >>> import tempfile
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
    >>> data = make_ctr_cvr(1_000, ctr=0.3, cvr=0.3, random_state=0)
    >>> features, targets = list(data.data), list(data.target)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = data.data.join(data.target)
    ...     table.to_parquet(f"{folder}/part-0.parquet", row_group_size=200)
    ...     log = ParquetImpressions(folder, features, targets)
    ...     model = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0).fit(log)
    ...     probabilities = model.predict_proba(log)
    >>> probabilities.shape
    (1000, 2)
    """

    # Identifies datasets that are read in parts, without an import of this class.
    reads_in_parts = True

    def __init__(
        self,
        path_or_glob: Any,
        features: Sequence[str],
        targets: str | Sequence[str],
        *,
        filters: Any = None,
        sample_weight: str | Sequence[str] | None = None,
        groups: str | None = None,
        filesystem: Any = None,
        on_corrupt: str = "raise",
        sample_rows: int = 200_000,
        max_values: int = 1_000_000,
        shuffle_rows: int = 262_144,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        import_parquet()
        self.path_or_glob = path_or_glob
        self.features = _names("features", features)
        self.targets = _names("targets", targets, at_least=0)
        self.sample_weight: Any = sample_weight
        self._weight_columns: list[Any] = []
        if isinstance(sample_weight, list | tuple):
            self._weight_columns = list(sample_weight)
            self.sample_weight = self._weight_columns
        elif sample_weight is not None:
            self._weight_columns = [sample_weight]
        self.groups = groups
        self.on_corrupt = on_corrupt
        self.sample_rows = check_integer("sample_rows", sample_rows, at_least=1)
        self.max_values = check_integer("max_values", max_values, at_least=1)
        self.shuffle_rows = check_integer("shuffle_rows", shuffle_rows, at_least=1)
        if cache_dir is not None and not os.path.isdir(cache_dir):
            raise ValueError(f"cache_dir={str(cache_dir)!r} is not a folder.")
        self.cache_dir = cache_dir
        check_choice("on_corrupt", on_corrupt, ("raise", "skip"))
        shared_names = [name for name in self.targets if name in self.features]
        if shared_names:
            raise ValueError(f"features and targets both contain {shared_names}.")
        if groups is not None and not isinstance(groups, str):
            raise TypeError(f"groups must be the name of a column; got {groups!r}")
        if not all(isinstance(name, str) for name in self._weight_columns):
            raise TypeError(
                "sample_weight must be the name of a column, or one name per task; got "
                f"{self.sample_weight!r}."
            )
        n_weights = len(self._weight_columns)
        is_list = isinstance(self.sample_weight, list)
        if is_list and n_weights != len(self.targets):
            raise ValueError(
                f"sample_weight has {n_weights} columns for {len(self.targets)} "
                "targets."
            )
        self.filters = _expression(filters)
        _, datasets, _ = import_parquet()
        dataset = None
        if isinstance(path_or_glob, datasets.Dataset):
            dataset = path_or_glob
            self.filesystem, self._paths = files_of_dataset(dataset, filesystem)
        else:
            self.filesystem, self._paths = find_files(path_or_glob, filesystem)
        schemas, self.n_rows_, self.corrupt_ = read_footers(
            self.filesystem, self._paths, on_corrupt
        )
        self.files_ = list(schemas)
        if not self.n_rows_:
            raise ValueError(f"The files of {str(path_or_glob)!r} have no rows.")
        self._dataset = self._open(schemas, dataset)

    def __repr__(self) -> str:
        return (
            f"ParquetImpressions({self.path_or_glob!r}: {len(self.files_)} files, "
            f"{self.n_rows_:,} rows, {len(self.features)} features, targets "
            f"{self.targets})"
        )

    def _used_columns(self) -> list[str]:
        """Return the names of all columns that training reads."""
        groups = [] if self.groups is None else [self.groups]
        columns = [*self.features, *self.targets, *self._weight_columns, *groups]
        return list(dict.fromkeys(columns))

    def _open(self, schemas: Mapping[str, Any], dataset: Any) -> Any:
        """Check the columns of all files, and return the dataset of pyarrow."""
        pyarrow, datasets, _ = import_parquet()
        if dataset is None:
            dataset = datasets.dataset(
                self.files_,
                filesystem=self.filesystem,
                format="parquet",
                partitioning="hive",
            )
        # The schema of the first file, including the columns from folder names.
        first = dataset.schema
        unique = self._used_columns()
        schema = unify_schemas(schemas, first, unique, self.targets)
        refuse_rounded(self.filesystem, schemas, schema)
        self._categories = categories_of_numbers(schemas, schema, self.features)
        # Filters may read columns that training does not.
        for field in first:
            if field.name not in unique:
                schema = schema.append(field)
        files = set(self.files_)  # without corrupt ones
        fragments = [f for f in dataset.get_fragments() if f.path in files]
        dataset = datasets.FileSystemDataset(
            fragments, schema, datasets.ParquetFileFormat(), self.filesystem
        )
        try:
            dataset.scanner(filter=self.filters)
        except pyarrow.ArrowException as error:
            first_line, *_ = str(error).partition("\n")
            raise ValueError(
                f"filters={self.filters} cannot be applied: {first_line}"
            ) from error
        return dataset

    def iter_tables(self, columns: list[str]) -> Iterator[tuple[Any, str]]:
        """Read the rows in order, as tables of rows of one file.

        Parameters
        ----------
        columns : list of str
            Names of the columns to read.

        Yields
        ------
        table : pyarrow.Table
            From 16,384 to 32,767 rows, or fewer at the end of a file.
        place : str
            File and first row of the table, for messages.

        Raises
        ------
        ValueError
            If a row group cannot be read and `on_corrupt="raise"`.
        """
        for _, tables in self._iter_files(columns):
            yield from tables

    def _iter_files(
        self, columns: list[str]
    ) -> Iterator[tuple[str, Iterator[tuple[Any, str]]]]:
        """Yield the path of each file, and its tables, which are read on request."""
        for fragment in self._dataset.get_fragments(filter=self.filters):
            yield fragment.path, self._iter_fragment(fragment, columns)

    def _iter_fragment(
        self, fragment: Any, columns: list[str]
    ) -> Iterator[tuple[Any, str]]:
        pyarrow, _, _ = import_parquet()
        n_before = 0
        # Small row groups are joined: encoding has a cost per table.
        for batches in _gather(self._read_file(fragment, columns)):
            table = pyarrow.Table.from_batches(batches)
            for name in set(self._categories).intersection(columns):
                index = table.column_names.index(name)
                codes = table.column(index).dictionary_encode()
                table = table.set_column(index, name, codes)
            yield table, f"{fragment.path!r}, rows from {n_before} on"
            n_before += len(table)

    def _read_file(self, fragment: Any, columns: list[str]) -> Iterator[Any]:
        """Yield batches of a file, without corrupt row groups if these are skipped."""
        options = {
            "schema": self._dataset.schema,
            "columns": columns,
            "filter": self.filters,
            "batch_size": CHUNK_ROWS,
            "batch_readahead": 2,
        }
        # One row group at a time, so that an error names it and can skip it alone.
        row_groups = fragment.split_by_row_group(self.filters, self._dataset.schema)
        for row_group in row_groups:
            try:
                batches = row_group.to_batches(**options)
                # A row group is skipped as a whole: rows that were yielded before the
                # error could not be taken back.
                yield from batches if self.on_corrupt == "raise" else list(batches)
            except (OSError, ValueError) as error:
                place = f"{fragment.path!r}, row group {row_group.row_groups[0].id}"
                if self.on_corrupt == "raise":
                    raise ValueError(f"{place}: cannot be read: {error}") from error
                if place not in self.corrupt_:
                    self.corrupt_.append(place)


def _gather(batches: Iterable[Any]) -> Iterator[list[Any]]:
    """Yield lists of batches with at least CHUNK_ROWS rows, except for the last one."""
    gathered = []
    n_rows = 0
    for batch in batches:
        gathered.append(batch)
        n_rows += batch.num_rows
        if n_rows >= CHUNK_ROWS:
            yield gathered
            gathered = []
            n_rows = 0
    if n_rows:
        yield gathered


def _names(parameter: str, value: Any, *, at_least: int = 1) -> list[str]:
    """Return the names of columns of a parameter, checked."""
    names = [value] if isinstance(value, str) else value
    is_list = isinstance(names, list | tuple)
    if not is_list or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{parameter} must be a list of column names; got {value!r}.")
    if len(names) < at_least:
        raise ValueError(f"{parameter} must name at least one column; got {value!r}.")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{parameter} contains {repeated[0]!r} twice.")
    return list(names)


def _expression(filters: Any) -> Any:
    _, datasets, parquet = import_parquet()
    if filters is None or isinstance(filters, datasets.Expression):
        return filters
    try:
        return parquet.filters_to_expression(filters)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"filters must be an expression of pyarrow or a list of tuples (column, "
            f"operator, value); got {filters!r}: {error}"
        ) from error
