"""The session of the front page runs, and prints what it shows.

It runs with fewer rows and epochs than the page, so that its figures differ; their
number and the names beside them are the same.
"""

import doctest
import inspect
import re

from docs_scripts import DOCS

from sk_pwiser import MultiTaskCTRCVRClassifier


def form(text):
    """Return a text with its numbers replaced, and without its spaces."""
    return "".join(re.sub(r"\d+(\.\d+)?", "number", text).split())


def test_the_session_prints_what_the_page_shows(monkeypatch):
    defaults = inspect.unwrap(MultiTaskCTRCVRClassifier.__init__).__kwdefaults__
    monkeypatch.setitem(defaults, "max_epochs", 2)
    text = (DOCS / "index.rst").read_text(encoding="utf-8")
    block = text.split(".. code-block:: pycon\n\n")[1].split("\n\n")[0]
    test = doctest.DocTestParser().get_doctest(block, {}, "index", "index.rst", 0)
    assert len(test.examples) == 9
    namespace = {}
    for example in test.examples:
        source = example.source.replace("20_000", "1_500")
        if not example.want:
            exec(source, namespace)
            continue
        assert form(repr(eval(source, namespace))) == form(example.want)
