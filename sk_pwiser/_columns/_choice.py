"""What users and dtypes say of the columns of a table, which the kinds read."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sk_pwiser._columns._frames import (
    check_among,
    content_of,
    find_column,
    unknown_name,
)
from sk_pwiser._columns._parents import read_parents
from sk_pwiser._columns._vocabulary import Vocabulary

# What the columns of `LIST_MAPPINGS` must be, in messages.
LISTS = "column of lists of categories"
# Settings that map a list column to another column: that of the weights or ages of the
# elements, or a category column of the same vocabulary.
LIST_MAPPINGS = "list_weights", "list_ages", "shared_embeddings"


class Choice:
    """What users and dtypes say of the columns of a table, checked.

    The kinds read it by the names of the columns.
    """

    def __init__(
        self, params: Mapping[str, Any], cells: Sequence[Any], names: Sequence[Any]
    ) -> None:
        self.params = params
        self.names = list(names)
        self.cells = dict(zip(names, cells, strict=True))
        # What each column holds by its dtype or its objects.
        self.contents = {name: content_of(self.cells[name]) for name in names}
        self.numeric_encoding: str = params["numeric_encoding"]
        self._is_category = self._find_categories()
        self.time_column = params["time_column"]
        if self.time_column is not None:
            self._leave_out_time()
        # By the name of a column that says how rows were shown, its reference.
        self.exposure: dict[Any, Any] = self._read_exposure()
        self._shown_categories = self._leave_out_exposure()
        self.monotone_exposure: set[Any] = self._read_monotone()
        self._vocabularies = self._read_vocabularies()
        # By the name of a list column, the name of another column or the pooling.
        self.list_weights: dict[Any, Any] = params["list_weights"] or {}
        self.list_ages: dict[Any, Any] = params["list_ages"] or {}
        self.shared_embeddings: dict[Any, Any] = params["shared_embeddings"] or {}
        self.list_pooling: Mapping[Any, str] = self._read_pooling()
        self._check_lists()
        self.parents: dict[Any, Any] = read_parents(
            params["parents"],
            lambda column: self.names[find_column("parents", column, self.names)],
            self._category_names(has_lists=False),
        )
        self.vectors: dict[Any, Any] = self._read_vectors()

    def is_category(self, name: Any) -> bool:
        """Return whether a column holds categories, or lists of categories."""
        return self._is_category[name]

    def has_lists(self, name: Any) -> bool:
        """Return whether the cells of a column are lists or arrays."""
        return self.contents[name] in ("lists", "arrays")

    def vocabulary(self, name: Any) -> Vocabulary:
        """Return which values of a column have codes of their own."""
        return self._vocabularies[name]

    def _find_categories(self):
        """Return, by name, whether each column is read as categories."""
        features = self.params["categorical_features"]
        is_named, is_mask = named_as_categories(features, self.names)
        is_category = dict(zip(self.names, is_named, strict=True))
        # A mask decides on all columns, names add to those that the dtype tells.
        if not is_mask and features is not None:
            for name, content in self.contents.items():
                is_category[name] |= content in ("categories", "lists")
        return is_category

    def _leave_out_time(self):
        time = self.time_column
        if time not in self.names:
            raise unknown_name("time_column is", time, self.names)
        # Others are named in categorical_features, not chosen by their dtype.
        by_dtype = self.contents[time] in ("categories", "lists")
        if self._is_category[time] and not by_dtype:
            raise ValueError(
                f"categorical_features contains {time!r}, which is the time_column and "
                "no feature; leave it out, or set time_feature=True in encoding_params."
            )
        self._is_category[time] = False

    def is_shown_category(self, name: Any) -> bool:
        """Return whether a column that says how rows were shown has categories."""
        return name in self._shown_categories

    def _read_exposure(self):
        """Return the references of `exposure_features` by name, None for defaults."""
        references = {}
        for column, reference in (self.params["exposure_features"] or {}).items():
            if isinstance(column, bool):
                raise TypeError(
                    "exposure_features must be names or indices of columns, no mask; "
                    f"got {column!r}."
                )
            name = self.names[find_column("exposure_features", column, self.names)]
            if name in references:
                raise ValueError(f"exposure_features contains {name!r} twice.")
            if name == self.time_column:
                raise ValueError(
                    f"exposure_features contains {name!r}, which is the time_column."
                )
            references[name] = reference
        if references and len(references) == len(self.names):
            raise ValueError(
                "X must have a column besides those of exposure_features, "
                f"{list(references)}."
            )
        return references

    def _read_monotone(self):
        """Return the columns whose terms must not rise with their numbers."""
        monotone = self.params["exposure_monotone"]
        numbers = [name for name in self.exposure if not self.is_shown_category(name)]
        if isinstance(monotone, bool):
            return set(numbers if monotone else ())
        names = set()
        for column in monotone:
            name = self.names[find_column("exposure_monotone", column, self.names)]
            check_among(
                "exposure_monotone",
                name,
                numbers,
                "column of exposure_features with numbers",
            )
            names.add(name)
        return names

    def _leave_out_exposure(self):
        """Return the categories among the columns that say how rows were shown."""
        categories = {name for name in self.exposure if self._is_category[name]}
        for name in self.exposure:
            self._is_category[name] = False
        return categories

    def _category_names(self, *, has_lists=None):
        """Return the names of categories, with or without lists, or all of them."""
        return [
            name
            for name in self.names
            if self._is_category[name] and has_lists in (None, self.has_lists(name))
        ]

    def _read_vocabularies(self):
        """Return the `Vocabulary` of each column, from numbers for all or by column."""
        categories = self._category_names()
        fields = {name: {} for name in self.names}
        for parameter, default in Vocabulary()._asdict().items():
            value = self.params[parameter]
            is_mapping = isinstance(value, Mapping)
            for name in self.names:
                fields[name][parameter] = default if is_mapping else value
            for column, number in value.items() if is_mapping else ():
                name = self.names[find_column(parameter, column, self.names)]
                check_among(parameter, name, categories, "category column")
                fields[name][parameter] = number
        return {name: Vocabulary(**numbers) for name, numbers in fields.items()}

    def _read_pooling(self):
        """Return the pooling of each list column that the user names, or of all."""
        pooling = self.params["list_pooling"]
        if isinstance(pooling, Mapping):
            return pooling
        return dict.fromkeys(self._category_names(has_lists=True), pooling)

    def _check_lists(self):
        """Raise if a parameter of lists names another column, or does not fit."""
        list_names = self._category_names(has_lists=True)
        mappings = {name: self.params[name] or {} for name in LIST_MAPPINGS}
        for parameter, columns in {
            "list_pooling": self.list_pooling,
            **mappings,
        }.items():
            for column in columns:
                check_among(parameter, column, list_names, LISTS)
            for column in mappings.get(parameter, {}).values():
                check_among(parameter, column, self.names)
        # Weights and ages of other lists are no inputs themselves.
        beside = {*self.list_weights.values(), *self.list_ages.values()}
        for name in self.exposure:
            if name in beside:
                raise ValueError(
                    f"exposure_features contains {name!r}, which has the weights or "
                    "ages of a column of lists."
                )
        categories = self._category_names(has_lists=False)
        categories = [name for name in categories if name not in beside]
        for column, name in self.shared_embeddings.items():
            parameter = f"shared_embeddings[{column!r}]"
            check_among(parameter, name, categories, "category column")
        for column in list_names:
            self._check_attention(column, column not in beside)

    def _read_vectors(self):
        """Return the tables of vectors, by the name of their category column."""
        categories = self._category_names(has_lists=False)
        tables = {}
        for column, table in (self.params["vectors"] or {}).items():
            name = self.names[find_column("vectors", column, self.names)]
            kind = "category column without lists"
            check_among("vectors", name, categories, kind)
            if self._vocabularies[name].n_hash_buckets is not None:
                raise ValueError(
                    f"vectors contains {name!r}, which has n_hash_buckets: their codes "
                    "do not tell ids apart. Use max_categories or min_frequency."
                )
            if name in self.shared_embeddings.values():
                raise ValueError(
                    f"vectors contains {name!r}, which is in shared_embeddings: lists "
                    "cannot read vectors of ids."
                )
            tables[name] = table
        return tables

    def _check_attention(self, column, is_input):
        """Raise if a list has no column to attend to, or ages that nothing reads."""
        pooling = self.list_pooling.get(column, "mean")
        attends = is_input and pooling == "attention"
        if attends and column not in self.shared_embeddings:
            raise ValueError(
                f"list_pooling='attention' of column {column!r} requires a category "
                "column to attend to: add one for it to shared_embeddings."
            )
        if column in self.list_ages and not attends:
            raise ValueError(
                f"list_ages contains {column!r}, whose list_pooling is {pooling!r}; "
                "only 'attention' reads ages."
            )


def named_as_categories(features: Any, names: Sequence[Any]) -> tuple[list[bool], bool]:
    """Return whether `categorical_features` names each column, and if it is a mask."""
    chosen = []
    if not isinstance(features, str | None):  # "from_dtype"
        # In an array of text, the index 1 of a list would be "1".
        chosen = np.atleast_1d(np.array(features, dtype=object)).tolist()
        chosen = [c.item() if isinstance(c, np.generic) else c for c in chosen]
    if chosen and all(isinstance(c, bool) for c in chosen):
        if len(chosen) != len(names):
            raise ValueError(
                "categorical_features as a mask must have one entry per column of X, "
                f"{len(names)}; it has {len(chosen)}."
            )
        return chosen, True
    is_named = [False] * len(names)
    for column in chosen:
        is_named[find_column("categorical_features", column, names)] = True
    return is_named, False
