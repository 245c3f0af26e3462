"""Impressions in Parquet files, which may be larger than memory."""

import fnmatch
import glob
import os
import re

from sk_pwiser._utils._checks import check_choice, check_integer
from sk_pwiser._utils._extras import import_extra


def import_parquet():
    names = "pyarrow", "pyarrow.dataset", "pyarrow.parquet"
    return [import_extra(name, "ParquetImpressions") for name in names]


def find_files(path_or_glob, filesystem):
    """Return the file system, and the paths of the files in their order."""
    given = path_or_glob if isinstance(path_or_glob, list | tuple) else [path_or_glob]
    if not given:
        raise ValueError("path_or_glob must name at least one file; got an empty list.")
    systems, paths = [], set()
    for one in map(os.fspath, given):
        system, name = _locate(one) if filesystem is None else (filesystem, one)
        systems.append(system)
        if system != systems[0]:
            raise ValueError(
                f"path_or_glob must be files of one file system; got {path_or_glob!r}."
            )
        found = _match(system, name)
        if not found:
            raise FileNotFoundError(f"path_or_glob={one!r} matches no file.")
        paths.update(found)
    return systems[0], sorted(paths)


def _locate(path):
    """Return the file system of a local path or of a URI, and the path in it."""
    from pyarrow import fs  # installed, see import_parquet

    if "://" not in path:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(path))
    if re.search(r"[?](?!\w+=)", path):  # the rest would be ignored
        raise ValueError(
            f"path_or_glob={path!r} is a URI, in which ? begins options such as "
            "?region=...; use * as the wildcard."
        )
    return fs.FileSystem.from_uri(path)


def files_of_dataset(dataset, filesystem):
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
    return dataset.filesystem, [part.path for part in dataset.get_fragments()]


def _match(filesystem, name):
    from pyarrow import fs

    found, paths = [name], []
    is_absent = filesystem.get_file_info(name).type == fs.FileType.NotFound
    if _has_wildcard(name) and is_absent:  # the name of a file may contain brackets
        is_local = isinstance(filesystem, fs.LocalFileSystem)
        found = glob.glob(name, recursive=True) if is_local else _glob(filesystem, name)
    for info in filesystem.get_file_info(found):
        if info.type == fs.FileType.File:
            paths.append(info.path)
        elif info.type == fs.FileType.Directory:
            selector = fs.FileSelector(info.path, recursive=True)
            depth = len(_parts(info.path))
            paths += [
                each.path
                for each in filesystem.get_file_info(selector)
                if each.type == fs.FileType.File
                and not any(n.startswith(("_", ".")) for n in _parts(each.path)[depth:])
            ]
    return paths


def _parts(path):
    """Return the names in a path; some file systems begin theirs with a slash."""
    return [name for name in path.split("/") if name]


def _has_wildcard(text):
    return glob.escape(text) != text


def _glob(filesystem, name):
    """Return the paths that match a pattern, as :func:`glob.glob` does locally."""
    from pyarrow import fs

    parts = _parts(name)
    if parts[-1] == "**":  # all that is below a folder
        parts.append("*")
    # List what is below the last folder without a wildcard.
    depth = next(i for i, part in enumerate(parts) if _has_wildcard(part))
    selector = fs.FileSelector(
        "/".join(parts[:depth]), allow_not_found=True, recursive=depth + 1 < len(parts)
    )
    listed = [info.path for info in filesystem.get_file_info(selector)]
    return [path for path in listed if _matches(_parts(path)[depth:], parts[depth:])]


def _matches(parts, pattern):
    """Return whether the parts of a path match those of a pattern."""
    if not parts or not pattern:
        return not parts and not pattern
    first, *rest = pattern
    # Wildcards match no names that begin with a dot, unless the pattern does.
    is_seen = first.startswith(".") or not parts[0].startswith(".")
    if first == "**":
        return _matches(parts, rest) or (is_seen and _matches(parts[1:], pattern))
    fits = is_seen and fnmatch.fnmatchcase(parts[0], first)
    return fits and _matches(parts[1:], rest)


def read_footers(filesystem, paths, on_corrupt):
    """Return the schemas of files by path, their rows, and the files without any."""
    _, _, parquet = import_parquet()
    schemas, n_rows, corrupt = {}, 0, []
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


def common_type(kinds, is_label=False):
    """Return a type of Arrow that holds the values of several, None without one.

    They have the same meaning: text, numbers, or times, of different widths, as two
    versions of a package write them. Labels may be bools or numbers.
    """
    pyarrow, _, _ = import_parquet()
    types = pyarrow.types

    def are_all(*tests):
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


def unify_schemas(schemas, first, columns, labels=()):
    """Return the common schema of all files, whose schemas are given by path.

    `first` also has the columns that come from names of folders.
    """
    pyarrow, _, _ = import_parquet()
    of_files = list(schemas.values())
    known = set(first.names).union(*(schema.names for schema in of_files))
    fields = []
    for name in columns:
        if name not in known:
            raise ValueError(
                f"{name!r} is not a column of the dataset, which has {sorted(known)}."
            )
        sources = schemas
        if name in first.names and name not in of_files[0].names:  # of a folder
            sources = {next(iter(schemas)): first}
        first_of = {}  # the first file with each type
        for path, schema in sources.items():
            if name not in schema.names:
                raise ValueError(f"{path!r} lacks the column {name!r}.")
            kind = schema.field(name).type
            if pyarrow.types.is_dictionary(kind):  # read as its values
                kind = kind.value_type
            first_of.setdefault(kind, path)
        if len(first_of) > 1:
            first_of.pop(pyarrow.null(), None)  # a column without values
        common = common_type(list(first_of), name in labels)
        if common is None:
            (expected, source), *others = first_of.items()
            kind, path = next(
                (kind, path)
                for kind, path in others
                if common_type([expected, kind], name in labels) is None
            )
            raise ValueError(
                f"{name!r} is of type {kind} in {path!r}, but {expected} in {source!r}."
            )
        fields.append((name, common))
    return pyarrow.schema(fields)


# Doubles hold all whole numbers up to this magnitude.
EXACT = 2**53


def refuse_rounded(filesystem, schemas, schema):
    """Raise if integers of a file would be rounded as the floats of another one."""
    pyarrow, _, parquet = import_parquet()
    doubles = {f.name for f in schema if pyarrow.types.is_floating(f.type)}
    for path, of_file in schemas.items():
        names = {f.name for f in of_file if pyarrow.types.is_integer(f.type)} & doubles
        if not names:
            continue
        footer = parquet.read_metadata(path, filesystem=filesystem)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema not in names or not column.statistics:
                    continue
                if not column.statistics.has_min_max:
                    continue
                ends = column.statistics.min, column.statistics.max
                if max(map(abs, ends)) > EXACT:
                    raise ValueError(
                        f"{column.path_in_schema!r} holds integers above 2^53 in "
                        f"{path!r}, such as {max(ends, key=abs)}, and floats in "
                        "another file, which round them. Write ids as integers or "
                        "text in all files."
                    )


def categories_of_numbers(schemas, schema, features):
    """Return the features that pandas wrote as categories, and Parquet as numbers.

    Parquet files have no categories of numbers; pandas notes them in the footer.
    """
    pyarrow, _, _ = import_parquet()
    noted = {
        column["name"]
        for of_file in schemas.values()
        for column in (of_file.pandas_metadata or {}).get("columns", ())
        if column["pandas_type"] == "categorical"
    }
    kinds = {name: schema.field(name).type for name in features if name in noted}
    are_numbers = pyarrow.types.is_integer, pyarrow.types.is_floating
    return [name for name, kind in kinds.items() if any(f(kind) for f in are_numbers)]


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
        path_or_glob,
        features,
        targets,
        *,
        filters=None,
        sample_weight=None,
        groups=None,
        filesystem=None,
        on_corrupt="raise",
        sample_rows=200_000,
        max_values=1_000_000,
        shuffle_rows=262_144,
        cache_dir=None,
    ):
        import_parquet()
        self.path_or_glob = path_or_glob
        self.features = _names("features", features)
        self.targets = _names("targets", targets, at_least=0)
        is_list = isinstance(sample_weight, list | tuple)
        self.sample_weight = list(sample_weight) if is_list else sample_weight
        weights = [] if sample_weight is None else [sample_weight]
        self._weight_columns = self.sample_weight if is_list else weights
        self.groups = groups
        self.on_corrupt = on_corrupt
        self.sample_rows = check_integer("sample_rows", sample_rows, at_least=1)
        self.max_values = check_integer("max_values", max_values, at_least=1)
        self.shuffle_rows = check_integer("shuffle_rows", shuffle_rows, at_least=1)
        if cache_dir is not None and not os.path.isdir(cache_dir):
            raise ValueError(f"cache_dir={str(cache_dir)!r} is not a folder.")
        self.cache_dir = cache_dir
        check_choice("on_corrupt", on_corrupt, ("raise", "skip"))
        if both := [name for name in self.targets if name in self.features]:
            raise ValueError(f"features and targets both contain {both}.")
        if groups is not None and not isinstance(groups, str):
            raise TypeError(f"groups must be the name of a column; got {groups!r}")
        if not all(isinstance(name, str) for name in self._weight_columns):
            raise TypeError(
                "sample_weight must be the name of a column, or one name per task; got "
                f"{self.sample_weight!r}."
            )
        if is_list and len(sample_weight) != len(self.targets):
            raise ValueError(
                f"sample_weight has {len(sample_weight)} columns for "
                f"{len(self.targets)} targets."
            )
        self.filters = _expression(filters)
        given = None
        if isinstance(path_or_glob, import_parquet()[1].Dataset):
            given = path_or_glob
            self.filesystem, self._paths = files_of_dataset(given, filesystem)
        else:
            self.filesystem, self._paths = find_files(path_or_glob, filesystem)
        found = read_footers(self.filesystem, self._paths, on_corrupt)
        schemas, self.n_rows_, self.corrupt_ = found
        self.files_ = list(schemas)
        if not self.n_rows_:
            raise ValueError(f"The files of {str(path_or_glob)!r} have no rows.")
        self._dataset = self._open(schemas, given)

    def __repr__(self):
        return (
            f"ParquetImpressions({self.path_or_glob!r}: {len(self.files_)} files, "
            f"{self.n_rows_:,} rows, {len(self.features)} features, targets "
            f"{self.targets})"
        )

    def _used_columns(self):
        """Return the names of all columns that training reads."""
        groups = [] if self.groups is None else [self.groups]
        columns = [*self.features, *self.targets, *self._weight_columns, *groups]
        return list(dict.fromkeys(columns))

    def _open(self, schemas, dataset):
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
            first = str(error).partition("\n")[0]
            raise ValueError(
                f"filters={self.filters} cannot be applied: {first}"
            ) from error
        return dataset

    def iter_tables(self, columns):
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

    def _iter_files(self, columns):
        """Yield the path of each file, and its tables, which are read on request."""
        for fragment in self._dataset.get_fragments(filter=self.filters):
            yield fragment.path, self._iter_fragment(fragment, columns)

    def _iter_fragment(self, fragment, columns):
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

    def _read_file(self, fragment, columns):
        """Yield batches of a file, without corrupt row groups if these are skipped."""
        options = {
            "schema": self._dataset.schema,
            "columns": columns,
            "filter": self.filters,
            "batch_size": CHUNK_ROWS,
            "batch_readahead": 2,
        }
        # One row group at a time, so that an error names it and can skip it alone.
        for part in fragment.split_by_row_group(self.filters, self._dataset.schema):
            try:
                batches = part.to_batches(**options)
                # A row group is skipped as a whole: rows that were yielded before the
                # error could not be taken back.
                yield from batches if self.on_corrupt == "raise" else list(batches)
            except (OSError, ValueError) as error:
                place = f"{fragment.path!r}, row group {part.row_groups[0].id}"
                if self.on_corrupt == "raise":
                    raise ValueError(f"{place}: cannot be read: {error}") from error
                if place not in self.corrupt_:
                    self.corrupt_.append(place)


def _gather(batches):
    """Yield lists of batches with at least CHUNK_ROWS rows, except for the last one."""
    gathered, n_rows = [], 0
    for batch in batches:
        gathered.append(batch)
        n_rows += batch.num_rows
        if n_rows >= CHUNK_ROWS:
            yield gathered
            gathered, n_rows = [], 0
    if n_rows:
        yield gathered


def _names(name, value, at_least=1):
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(
        isinstance(column, str) for column in names
    ):
        raise TypeError(f"{name} must be a list of column names; got {value!r}.")
    if len(names) < at_least:
        raise ValueError(f"{name} must name at least one column; got {value!r}.")
    if twice := [column for column in names if names.count(column) > 1]:
        raise ValueError(f"{name} contains {twice[0]!r} twice.")
    return list(names)


def _expression(filters):
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
