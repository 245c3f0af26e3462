"""Arithmetic with the weights of estimators that were trained from one start.

A state maps the names of parameters to tensors. The task vector of a member is its
state minus that of the base. Sums are computed in float64 and rounded once, so that
they do not depend on the rounding of differences.
"""

import numpy as np
import torch


def read_state(estimator, device=None):
    """Return the parameters of a fitted network by name, on a device if one is given.

    They are copied only if they are on another device.
    """
    parameters = estimator.net_.module_.named_parameters()
    return {name: parameter.detach().to(device) for name, parameter in parameters}


def combine(base, members, coefficients):
    """Compute the sum of a base and weighted task vectors, tensor by tensor.

    Parameters
    ----------
    base : dict of str to Tensor
        State of the common start.
    members : list of dict of str to Tensor
        States of the members.
    coefficients : dict of str to ndarray of shape (n_members,)
        Coefficients of the task vectors for each tensor. Tensors without an entry are
        those of the base.

    Returns
    -------
    dict of str to Tensor
        New tensors, in the dtypes of the base. Coefficients of 0 give the base, and a
        single one of 1 gives its member, to the bit.
    """
    state = {}
    for name, start in base.items():
        values = coefficients.get(name, np.zeros(0))
        (used,) = np.nonzero(values)
        if len(used) == 1 and values[used[0]] == 1:
            # The difference to the base may have lost the last bits of small weights.
            state[name] = members[used[0]][name].clone()
            continue
        total = start.double()
        for index in used:
            vector = members[index][name].double() - start.double()
            total = total + float(values[index]) * vector
        state[name] = total.to(start.dtype, copy=True)
    return state


def trim_vectors(base, members, share, names):
    """Trim task vectors, and keep the entries that agree on their sign.

    Parameters
    ----------
    base : dict of str to Tensor
        State of the common start.
    members : list of dict of str to Tensor
        States of the members.
    share : float
        Share in [0, 1) of the entries of each task vector that are set to 0, those of
        the smallest magnitude over all tensors.
    names : list of str
        The tensors that are trimmed.

    Returns
    -------
    list of dict of str to Tensor
        States whose differences to the base are the trimmed vectors. Where the vectors
        differ in their signs, those remain that have the sign of the sum.

    References
    ----------
    Yadav, Tam, Choshen, Raffel and Bansal (2023). "TIES-Merging." NeurIPS.
    :arxiv:`2306.01708`
    """
    limits = [_magnitude_limit(base, member, share, names) for member in members]
    trimmed = [dict(member) for member in members]
    for name in names:
        vectors = torch.stack([member[name] - base[name] for member in members])
        for vector, limit in zip(vectors, limits, strict=True):
            vector[vector.abs() < limit] = 0
        elected = vectors.sum(dim=0, dtype=torch.float64).sign()
        for state, vector in zip(trimmed, vectors, strict=True):
            is_kept = (vector != 0) & (vector.sign() == elected)
            state[name] = torch.where(is_kept, state[name], base[name])
    return trimmed


def _magnitude_limit(base, member, share, names):
    """Return the smallest magnitude among the entries of a vector that are kept."""
    flat = [(member[name] - base[name]).abs().flatten() for name in names]
    magnitudes = torch.cat(flat) if flat else torch.zeros(0)
    n_removed = int(share * len(magnitudes))
    if n_removed == 0:
        return 0.0
    return magnitudes.kthvalue(n_removed + 1).values
