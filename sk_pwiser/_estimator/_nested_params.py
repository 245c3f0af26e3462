"""Entries of dictionary parameters as parameters of their own."""


class NestedParams:
    """Lets `get_params` and `set_params` reach into parameters named `*_params`.

    `set_params(network_params__n_experts=8)` sets one entry of the dictionary
    `network_params`, so that a search can vary it.
    """

    def get_params(self, deep=True):
        """Get the parameters of the estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the entries of dictionaries, as
            `<dictionary>__<entry>`.

        Returns
        -------
        dict
            Parameter names mapped to their values.
        """
        params = super().get_params(deep=deep)
        if deep:
            for name, value in list(params.items()):
                if name.endswith("_params") and isinstance(value, dict):
                    params.update({f"{name}__{key}": v for key, v in value.items()})
        return params

    def set_params(self, **params):
        """Set the parameters of the estimator.

        Parameters
        ----------
        **params : dict
            Parameters, or entries of dictionaries as `<dictionary>__<entry>`, for
            example `network_params__n_experts=8`. An entry is set in a copy of the
            dictionary, and its name is checked in `fit`.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The estimator.

        Raises
        ------
        ValueError
            If the estimator has no such parameter, or if an entry is to be set in a
            value that is not a dictionary.
        """
        entries = {
            key: params.pop(key)
            for key in list(params)
            if key.partition("__")[0].endswith("_params") and "__" in key
        }
        # Values first: an entry may belong to a dictionary set in the same call.
        super().set_params(**params)
        for key, value in entries.items():
            name, _, entry = key.partition("__")
            if name not in self.get_params(deep=False):
                super().set_params(**{key: value})  # raises, listing the parameters
            setattr(self, name, _with_entry(getattr(self, name), entry, value, name))
        return self


def _with_entry(dictionary, entry, value, name):
    """Return a copy of a dictionary with one entry set, `__` leading into others."""
    if not (dictionary is None or isinstance(dictionary, dict)):
        raise ValueError(
            f"{name}__{entry} sets an entry of {name}, which is not a dictionary but "
            f"{dictionary!r}."
        )
    key, _, rest = entry.partition("__")
    copy = dict(dictionary or {})
    if rest:
        value = _with_entry(copy.get(key), rest, value, f"{name}__{key}")
    copy[key] = value
    return copy
