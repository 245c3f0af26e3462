"""Parquet files: found by path or pattern, checked by their footers, read by parts."""

import fnmatch
import glob
import os
from typing import NamedTuple


class ParquetFile(NamedTuple):
    """A file whose footer could be read.

    Parameters
    ----------
    path : str
        Path on its file system.
    n_rows : int
        Number of rows, before any filter.
    schema : pyarrow.Schema
        Names and types of the columns.
    """

    path: str
    n_rows: int
    schema: object


def import_parquet():
    """Import pyarrow's readers, or raise an error that names the extra.

    Returns
    -------
    tuple of module
        `pyarrow`, `pyarrow.dataset` and `pyarrow.parquet`.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.dataset
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            'ParquetImpressions needs pyarrow: pip install "sk_pwiser[pandas]"'
        ) from error
    return pyarrow, pyarrow.dataset, pyarrow.parquet


def find_files(path_or_glob, filesystem):
    """Return the file system, and the paths of the files in their order.

    Parameters
    ----------
    path_or_glob : str, os.PathLike or list of these
        Files, folders or patterns.
    filesystem : pyarrow.fs.FileSystem or None
        Where they are; None for the local one, or that of a URI.

    Raises
    ------
    FileNotFoundError
        If one of them matches no file.
    """
    from pyarrow import fs  # installed, see import_parquet

    given = path_or_glob if isinstance(path_or_glob, list) else [path_or_glob]
    paths = []
    for one in map(os.fspath, given):
        own, name = filesystem, one
        if filesystem is None:
            own, name = fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(one))
            if "://" in one:
                own, name = fs.FileSystem.from_uri(one)
        found = _match(own, name)
        if not found:
            raise FileNotFoundError(
                f"path_or_glob={one!r} matches no file with Parquet rows."
            )
        paths += found
    return own, sorted(set(paths))


def _match(filesystem, name):
    """Return the paths of the files that a name or pattern stands for."""
    from pyarrow import fs

    if any(mark in name for mark in "*?["):
        if isinstance(filesystem, fs.LocalFileSystem):
            found = glob.glob(name, recursive=True)
        else:
            # Up to the first folder with a mark, all files are listed.
            base = name[: min(name.find(m) for m in "*?[" if m in name)]
            selector = fs.FileSelector(base.rpartition("/")[0], recursive=True)
            listed = [info.path for info in filesystem.get_file_info(selector)]
            found = fnmatch.filter(listed, name)
    else:
        found = [name]
    paths = []
    for info in filesystem.get_file_info(found):
        if info.type == fs.FileType.File:
            paths.append(info.path)
        elif info.type == fs.FileType.Directory:
            selector = fs.FileSelector(info.path, recursive=True)
            paths += [
                each.path
                for each in filesystem.get_file_info(selector)
                if each.type == fs.FileType.File
                and not _is_hidden(each.path[len(info.path) :])
            ]
    return paths


def _is_hidden(path):
    """Return whether a file, or a folder around it, is one of other programs."""
    return any(part.startswith(("_", ".")) for part in path.split("/"))


def read_footers(filesystem, paths, on_corrupt):
    """Return the files whose footers can be read, and the paths of the others.

    Raises
    ------
    ValueError
        If a footer cannot be read and `on_corrupt` is "raise", or if none can.
    """
    _, _, parquet = import_parquet()
    files, corrupt = [], []
    for path in paths:
        try:
            footer = parquet.read_metadata(path, filesystem=filesystem)
            schema = footer.schema.to_arrow_schema()
        except (OSError, ValueError) as error:
            if on_corrupt == "raise":
                raise ValueError(
                    f"{path!r} cannot be read as a Parquet file: {error}"
                ) from error
            corrupt.append(path)
        else:
            files.append(ParquetFile(path, footer.num_rows, schema))
    if not files:
        raise ValueError(f"None of {len(paths)} files can be read: {paths[:3]}.")
    return files, corrupt


def unify_schemas(files, schema, columns):
    """Return the schema of the columns over all files.

    Columns of dictionaries have the type of their values: those of another file may be
    stored with other indices.

    Parameters
    ----------
    files : list of ParquetFile
        The files.
    schema : pyarrow.Schema
        Columns of the first file, with those of the folders' names.
    columns : list of str
        Names of the columns that are read.

    Raises
    ------
    ValueError
        If a column is missing in a file, or is of another type than in the others. A
        column without a value in a file may have the type null there.
    """
    pyarrow, _, _ = import_parquet()
    known = {name for file in files for name in file.schema.names} | {*schema.names}
    fields = []
    for name in columns:
        if name not in known:
            raise ValueError(
                f"{name!r} is not a column of the dataset; its columns are "
                f"{sorted(known)}."
            )
        if name in schema.names and name not in files[0].schema.names:
            fields.append((name, _value_type(schema.field(name).type)))
            continue
        source = None
        for file in files:
            if name not in file.schema.names:
                raise ValueError(f"{file.path!r} lacks the column {name!r}.")
            kind = _value_type(file.schema.field(name).type)
            if pyarrow.types.is_null(kind):
                continue
            if source is None:
                source, expected = file.path, kind
            elif kind != expected:
                raise ValueError(
                    f"The column {name!r} is of type {kind} in {file.path!r}, but "
                    f"{expected} in {source!r}."
                )
        fields.append((name, pyarrow.null() if source is None else expected))
    return pyarrow.schema(fields)


def _value_type(kind):
    pyarrow, _, _ = import_parquet()
    return kind.value_type if pyarrow.types.is_dictionary(kind) else kind
