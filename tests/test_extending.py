"""The examples of the page about own networks, losses and weightings."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "extending.rst"


def test_the_examples_of_the_page_run():
    failed, attempted = doctest.testfile(
        str(PAGE),
        module_relative=False,
        encoding="utf-8",
        optionflags=doctest.ELLIPSIS,
    )
    assert attempted > 15
    assert failed == 0
