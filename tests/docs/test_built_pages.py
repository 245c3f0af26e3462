"""The checks of built pages find each kind of fault, and nothing in sound pages."""

import re
import sys
from xml.etree import ElementTree

import check_links
import check_site
import pytest

pytestmark = pytest.mark.slow

NAVIGATION = '<nav><a href="index.html">a</a><a href="page.html">b</a></nav>'
SOUND = {
    "index.html": f'{NAVIGATION}<p id="place">x</p><a href="page.html#end">c</a>',
    "page.html": f"""{NAVIGATION}<h1 id="end">y</h1><a href="#end">d</a>
        <a href="index.html#place">e</a><a href="https://example.org/#x">f</a>
        <pre>\\frac{{1}}{{2}}</pre><br><img src="picture.png">""",
}
ENTRY = '<dt id="house.room">room</dt>'


FAULTS = [
    (ENTRY, []),
    ("", ["house.room: no entry in the API reference"]),
    ('<a href="gone.html">x</a>', ["index.html: links to gone.html, which does not"]),
    ('<a href="#gone">x</a>', ["index.html: links to #gone, a page without this"]),
    ('<a href="page.html#gone">x</a>', ["index.html: links to page.html#gone, a page"]),
    ("<p>where \\(a\\) is</p>", [r"index.html: shows '\\('"]),
    ("<p>and \\frac{1}{2}</p>", [r"index.html: shows '\\frac'"]),
    (
        '<script src="https://cdn.example/x.js"></script>',
        ["index.html: loads https://"],
    ),
]


def faults(folder, pages, monkeypatch):
    """Return the faults of pages, with no public names but `house.room`."""
    monkeypatch.setattr(check_links, "public_names", lambda: ["house.room"])
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return check_links.find_faults(folder)


@pytest.mark.parametrize(("added", "expected"), FAULTS)
def test_faults_of_a_page(tmp_path, monkeypatch, added, expected):
    entry = "" if added == "" else ENTRY
    pages = SOUND | {"index.html": SOUND["index.html"] + entry + added}
    found = faults(tmp_path, pages, monkeypatch)
    assert len(found) == len(expected)
    assert all(map(str.startswith, found, expected))


def test_a_page_without_a_link_in_the_navigation_is_found(tmp_path, monkeypatch):
    lost = f'{NAVIGATION}<nav><a href="lost.html">itself</a></nav>{ENTRY}'
    (fault,) = faults(tmp_path, SOUND | {"lost.html": lost}, monkeypatch)
    assert fault == "lost.html: in the navigation of no other page"


def test_links_are_relative_to_their_page():
    assert check_links.resolve("a/b.html", "../c.html#d") == ("c.html", "d")
    assert check_links.resolve("a/b.html", "#d") == ("a/b.html", "d")
    assert check_links.resolve("a/b.html", "mailto:x@example.org") is None


WIDE = '<div style="width: 1200px">wide</div>'
PAGE = """<!doctype html><body style="margin: 0">
<div style="overflow-x: auto"><article class="bd-article">{}</article></div></body>"""


@pytest.fixture
def program():
    found, missing = check_site.find_browser()
    if found is None:
        pytest.skip(missing)
    return found


def test_blocks_and_code_that_are_too_wide_are_found(program, tmp_path):
    block = '<div class="highlight-python"><pre style="overflow: auto">{}</pre></div>'
    pages = {
        "sound": f'<pre style="overflow-x: auto">{WIDE}</pre>',
        "wide": WIDE,
        "fits": block.format("x = 1  # " + 3 * "comment "),
        "clipped": block.format("x = 1  # " + 60 * "comment "),
    }
    for name, text in pages.items():
        (tmp_path / f"{name}.html").write_text(PAGE.format(text), encoding="utf-8")
    faults = sorted(check_site.look(tmp_path, program))
    assert len(faults) == 3
    assert faults[0].startswith("clipped.html: at 1280 px code does not fit: x = 1")
    assert [f.split(" px")[0] for f in faults[1:]] == [
        "wide.html: at 1000",
        "wide.html: at 390",
    ]


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


@pytest.fixture
def picture():
    pytest.importorskip("ziamath")
    return pytest.importorskip("math_svg").picture


def test_a_formula_has_the_colour_and_the_size_of_its_text(picture):
    svg = picture(r"\frac{1}{n} \sum_i w_i < 1", is_inline=True)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == r"\frac{1}{n} \sum_i w_i < 1"
    assert set(re.findall(r'fill="([^"]+)"', svg)) == {"currentColor"}
    assert 2 < float(re.search(r"width:([\d.]+)em", svg).group(1)) < 8
    # Fractions reach below the line of the text.
    assert float(re.search(r"vertical-align:([-\d.]+)em", svg).group(1)) < -0.3
    assert "id=" not in svg
    assert "href" not in svg.replace("xmlns:xlink", "")


def test_unknown_commands_are_errors(picture):
    import math_svg

    with pytest.raises(math_svg.ExtensionError, match="unknown in the formula"):
        picture(r"x + \nosuchcommand y", is_inline=True)
