"""Predictions for data sets that are read in parts."""

import hashlib
import os
import pickle
import posixpath
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sk_pwiser._columns._frames import reads_in_parts
from sk_pwiser._model_files import PlainForm
from sk_pwiser._responses import exposure_of_predictions
from sk_pwiser._rows._checked_rows import named_place
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._file_rows import warn_about_corrupt
from sk_pwiser._training._checkpoints import compared
from sk_pwiser._training._net import probabilities
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._result_files import STATE_CLASSES
from sk_pwiser._training._schema import Schema
from sk_pwiser._utils._threads import in_background

# Key of the files' metadata, whose value identifies the fit and the rows.
STAMP = b"sk_pwiser_predictions"


def dataset_logits(result: TrainingResult, dataset: Any) -> np.ndarray:
    """Return the logits of all rows of a dataset: float32 of shape (n, n_tasks)."""
    return np.concatenate(
        [
            result.net.forward(rows).numpy()
            for rows in encoded_tables(result.schema, dataset)
        ]
    )


def _logits_of_tables(
    result: TrainingResult, tables: Iterator[tuple[Any, str]]
) -> Generator[torch.Tensor]:
    """Yield the logits of each table, while another thread reads the next one."""
    for rows in _encoded(result.schema, tables):
        yield result.net.forward(rows)


def _encoded(
    schema: Schema, tables: Iterator[tuple[Any, str]]
) -> Iterator[Impressions]:
    """Yield the encoded rows of each table, while another thread reads the next one."""
    for table, place in in_background(tables):
        with named_place(place):
            rows = schema.predicted(table)
        yield rows


def encoded_tables(schema: Schema, dataset: Any) -> Iterator[Impressions]:
    """Yield the encoded rows of a dataset; warn about files that cannot be read."""
    n_rows = 0
    for rows in _encoded(schema, dataset.iter_tables(dataset.features)):
        n_rows += len(rows)
        yield rows
    warn_about_corrupt(dataset, "have no predictions")
    if not n_rows:
        raise ValueError(f"{dataset!r} has no rows that its filters select.")


def write_predictions(
    result: TrainingResult, dataset: Any, output: str | os.PathLike[str]
) -> Path:
    """Write a file of probabilities per file of a dataset; return the folder."""
    if not reads_in_parts(dataset):
        raise TypeError(
            "output must be None unless X is a dataset that is read in parts; got "
            f"X of type {type(dataset).__name__}."
        )
    folder = Path(output).expanduser().absolute()
    paths = dataset._paths
    common_folder = posixpath.commonpath(map(posixpath.dirname, paths))
    target_of_path = {
        path: folder / posixpath.relpath(path, common_folder) for path in paths
    }
    real_paths = set(map(os.path.realpath, paths))
    for path, target in target_of_path.items():
        # A link may lead to the folder that is read.
        if os.path.realpath(target) in real_paths:
            raise ValueError(
                f"output={str(output)!r} would replace {path!r}, which is read."
            )
    for path in set(paths).difference(dataset.files_):  # corrupt files
        target_of_path[path].unlink(missing_ok=True)
    fit_hash = _hash_fit(result)
    # Their text leaves out the middle of long lists.
    filters = hashlib.sha256(pickle.dumps(dataset.filters)).hexdigest()
    task_names = result.schema.targets.task_names
    for path, tables in dataset._iter_files(dataset.features):
        target = target_of_path[path]
        info = dataset.filesystem.get_file_info(path)
        rows_key = [path, info.size, info.mtime_ns, dataset.features, filters]
        if exposure_of_predictions() != "reference":
            rows_key.append(exposure_of_predictions())
        stamp = f"{fit_hash} {rows_key!r}".encode()
        if _stamp_of(target) == stamp:
            continue
        with closing(_logits_of_tables(result, tables)) as logits_by_table:
            _write(target, task_names, logits_by_table, stamp, dataset)
    warn_about_corrupt(dataset, "have no predictions")
    return folder


def _hash_fit(result: TrainingResult) -> str:
    """Return a hash of all that predictions depend on: settings, encoding, weights."""
    content = {"settings": compared(result.settings), "schema": result.schema}
    try:
        values, arrays = PlainForm(STATE_CLASSES).encode(content, "fit")
    except TypeError:  # category values that have no plain form, such as bytes
        values = pickle.dumps(content)
        arrays = {}
    # Several times as fast as JSON, for vocabularies of millions of values.
    digest = hashlib.sha256(repr(values).encode("utf-8", "surrogatepass"))
    for name, tensor in result.net.module_.state_dict().items():
        arrays[f"weights {name}"] = tensor.detach().cpu().numpy()
    for name, array in arrays.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _stamp_of(target: Path) -> bytes | None:
    """Return the stamp of a file of predictions, None if there is none."""
    import pyarrow.parquet as pq  # installed, since there is a dataset

    try:
        return (pq.read_schema(target).metadata or {}).get(STAMP)
    except (OSError, ValueError):
        return None


def _write(
    target: Path,
    task_names: Sequence[str],
    logits_by_table: Iterable[torch.Tensor],
    stamp: bytes,
    dataset: Any,
) -> None:
    """Write a file under a temporary name, and rename it when it is complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [(name, pa.float32()) for name in task_names]
    schema = pa.schema(fields, {STAMP: stamp})
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    n_corrupt = len(dataset.corrupt_)
    n_rows = 0
    try:
        with pq.ParquetWriter(temporary, schema) as writer:
            for logits in logits_by_table:
                n_rows += len(logits)
                columns = list(probabilities(logits.numpy()).T)
                writer.write_batch(pa.record_batch(columns, schema=schema))
        # Without the rows of a corrupt part, rows and predictions would not match.
        if len(dataset.corrupt_) > n_corrupt:
            target.unlink(missing_ok=True)
        # Another call may have predicted the rows that these filters leave out.
        elif n_rows or dataset.filters is None or _stamp_of(target) is None:
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
