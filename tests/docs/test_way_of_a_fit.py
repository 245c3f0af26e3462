"""The page that follows a fit, against the functions that a fit calls."""

import re
import sys
from pathlib import Path

import sk_pwiser
from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

PACKAGE = Path(sk_pwiser.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "way_of_a_fit.rst"


def calls_of(function):
    """Return the functions of the package in the order of their first calls."""
    codes, before = {}, sys.getprofile()

    def watch(frame, event, arg):
        if event == "call":
            codes.setdefault(frame.f_code)

    sys.setprofile(watch)
    try:
        function()
    finally:
        sys.setprofile(before)
    paths = [(code, Path(code.co_filename)) for code in codes]
    return [
        f"{path.relative_to(PACKAGE).as_posix()}:{code.co_qualname}"
        for code, path in paths
        if path.is_relative_to(PACKAGE)
    ]


def test_a_fit_passes_the_stations_in_their_order():
    data = make_ctr_cvr(600, n_categories=60, ctr=0.4, random_state=0)
    model = MultiTaskCTRCVRClassifier(
        device="cpu",
        early_stopping=True,
        max_epochs=1,
        encoding_params={"target_encoding_min_values": 20},
        random_state=0,
    )
    calls = calls_of(lambda: model.fit(data.data, data.target))
    text = PAGE.read_text(encoding="utf-8")
    stations = re.findall(r"^``([\w/]+\.py:[\w.]+)``$", text, flags=re.MULTILINE)
    assert len(stations) > 30
    assert [name for name in stations if name not in calls] == []
    assert sorted(stations, key=calls.index) == stations
    files = {call.partition(":")[0] for call in calls}
    assert {name for name in files if name not in text} == set()
