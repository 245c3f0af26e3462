"""AliExpress and Ali-CCP as training and test rows of the benchmarks."""

import warnings

from sk_pwiser.datasets import _ali_ccp, _aliexpress, load_ali_ccp, load_aliexpress

ALI_COUNTRIES = ("FR", "NL", "ES", "US")


def aliexpress_tables(path, country):
    """Return `X, Y, X_test, Y_test` of a country; the search is not a feature."""
    parts = ("train", "test")
    read = (load_aliexpress(path or ".", country, subset=part) for part in parts)
    return _tables(f"AliExpress {country}", read)


def ali_ccp_tables(path):
    """Return `X, Y, X_test, Y_test` of the fields with one value per row."""
    read = (load_ali_ccp(path or ".", subset=part) for part in ("train", "test"))
    return _tables("Ali-CCP", read)


def check_files(path, country=None):
    """Raise FileNotFoundError if the files of a country, or of Ali-CCP, are absent."""
    for part in ("train", "test"):
        if country is None:
            _ali_ccp.find_files(path or ".", part)
        else:
            _aliexpress.find_files(path or ".", country, part)


def _tables(name, parts):
    """Return features and labels of the parts.

    A conversion without a click is no conversion after a click: the row is kept, its
    second label becomes 0, and the number of such rows is printed.
    """
    tables = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* rows have a conversion and no click")
        for bunch in parts:
            if broken := bunch.n_unclicked_conversions:
                print(f"{name}: {broken:,} rows with conversion = 1 and click = 0")
                bunch.target["conversion"] *= bunch.target["click"]
            tables += [bunch.data, bunch.target]
    return tuple(tables)
