"""The look at the pages in a browser finds blocks that are too wide, and only these."""

import sys

import pytest
from docs_scripts import load_script

check_site = load_script("check_site")
check_links = load_script("check_links")

WIDE = '<div style="width: 1200px">wide</div>'
PAGE = """<!doctype html><body style="margin: 0">
<div style="overflow-x: auto"><article class="bd-article">{}</article></div></body>"""


@pytest.fixture
def program():
    found, missing = check_site.find_browser()
    if found is None:
        pytest.skip(missing)
    return found


def test_wide_blocks_are_found_at_the_widths_where_they_are_wide(program, tmp_path):
    scrolling = f'<pre style="overflow-x: auto">{WIDE}</pre>'
    (tmp_path / "sound.html").write_text(PAGE.format(scrolling), encoding="utf-8")
    (tmp_path / "wide.html").write_text(PAGE.format(WIDE), encoding="utf-8")
    faults = list(check_site.look(tmp_path, program))
    assert [fault.split(" px")[0] for fault in faults] == [
        "wide.html: at 1000",
        "wide.html: at 420",
    ]


def test_code_that_does_not_fit_is_found(program, tmp_path):
    block = '<div class="highlight-python"><pre style="overflow: auto">{}</pre></div>'
    for name, length in (("fits", 3), ("clipped", 60)):
        page = PAGE.format(block.format("x = 1  # " + length * "comment "))
        (tmp_path / f"{name}.html").write_text(page, encoding="utf-8")
    faults = [f for f in check_site.look(tmp_path, program) if "code" in f]
    assert len(faults) == 1
    assert faults[0].startswith("clipped.html: at 1280 px code does not fit: x = 1")


def test_without_a_browser_the_rest_is_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(check_site, "PROGRAMS", ("no-such-browser",))
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(check_links, "public_names", list)
    monkeypatch.setattr(sys, "argv", ["check_site.py", str(tmp_path)])
    page = '<a href="gone.html">x</a>'
    (tmp_path / "index.html").write_text(page, encoding="utf-8")
    with pytest.raises(SystemExit, match="1"):
        check_site.main()
    printed = capsys.readouterr().out
    assert "Skipped the widths of blocks: none of the programs no-such" in printed
    assert "links to gone.html, which does not exist" in printed
