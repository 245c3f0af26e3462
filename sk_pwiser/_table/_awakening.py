"""Numeric columns that were constant so far, once they vary."""

import copy


def awaken_columns(encoder, X, sample_weight=None):
    """Return an encoder that has learnt the numeric columns that were constant so far.

    The input of a constant column is 0 in every row, and the weights of the network for
    it have not been trained. The first rows in which the column varies can therefore
    set its encoding, as the rows of fit do for other columns. Columns keep their
    numbers of inputs and bins.

    Parameters
    ----------
    encoder : TableEncoder
        The fitted encoder, which is not changed.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        The table.
    sample_weight : ndarray of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    TableEncoder
        The same encoder if no constant column varies.

    Raises
    ------
    ValueError or TypeError
        If columns differ from those seen in fit, or cannot be read as numbers.
    """
    constant = [c for c in encoder.columns_ if getattr(c, "can_awaken", False)]
    if not constant:
        return encoder
    data = dict(encoder.numeric_columns(X))
    awakened = {id(c): c.awaken(data[c], sample_weight) for c in constant}
    if all(awakened[id(column)] is column for column in constant):
        return encoder
    learnt = copy.copy(encoder)
    learnt.columns_ = [awakened.get(id(c), c) for c in encoder.columns_]
    return learnt
