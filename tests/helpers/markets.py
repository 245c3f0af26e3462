"""Two small markets and a source that was fitted on the first, shared by the tests."""

from small_model import small

from sk_pwiser.datasets import make_ctr_cvr

DATA = make_ctr_cvr(900, ctr=0.4, cvr=0.4, n_categories=12, random_state=1)
FIRST, SECOND = slice(0, 500), slice(500, 900)
# Statistics of all category columns.
PARAMS = {"encoding_params": {"target_encoding_min_values": 2}, "max_epochs": 2}


def rows(part, new_value=None):
    """Return the rows of a market; one value of it may be renamed to a new one."""
    X, Y = DATA.data[part].reset_index(drop=True), DATA.target[part]
    if new_value is not None:
        values = X["category_0"].astype(object).replace(0, new_value)
        X = X.assign(category_0=values.astype("category"))
    return X, Y.reset_index(drop=True)


def fit_source(**params):
    return small(**{**PARAMS, **params}).fit(*rows(FIRST))
