"""The check of built pages finds each kind of fault, and nothing in sound pages."""

import pytest
from docs_scripts import load_script

check_links = load_script("check_links")

NAVIGATION = '<nav><a href="index.html">a</a><a href="page.html">b</a></nav>'
SOUND = {
    "index.html": f'{NAVIGATION}<p id="place">x</p><a href="page.html#end">c</a>',
    "page.html": f"""{NAVIGATION}<h1 id="end">y</h1><a href="#end">d</a>
        <a href="index.html#place">e</a><a href="https://example.org/#x">f</a>
        <pre>\\frac{{1}}{{2}}</pre><br><img src="picture.png">""",
}


def faults(folder, pages, monkeypatch):
    """Return the faults of pages, with no public names but `house.room`."""
    monkeypatch.setattr(check_links, "public_names", lambda: ["house.room"])
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")
    return check_links.find_faults(folder)


def test_nothing_is_found_in_sound_pages(tmp_path, monkeypatch):
    pages = SOUND | {"page.html": SOUND["page.html"] + '<dt id="house.room">room</dt>'}
    assert faults(tmp_path, pages, monkeypatch) == []


def test_a_public_name_without_an_entry_is_found(tmp_path, monkeypatch):
    (fault,) = faults(tmp_path, SOUND, monkeypatch)
    assert fault == "house.room: no entry in the API reference"


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ('<a href="gone.html">x</a>', "links to gone.html, which does not exist"),
        ('<a href="#gone">x</a>', "links to #gone, a page without this place"),
        ('<a href="page.html#gone">x</a>', "links to page.html#gone, a page without"),
        ("<p>where \\(a\\) is</p>", r"shows '\\('"),
        ("<p>and \\frac{1}{2}</p>", r"shows '\\frac'"),
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn"),
    ],
)
def test_a_fault_is_found(tmp_path, monkeypatch, added, message):
    entry = '<dt id="house.room">room</dt>'
    pages = SOUND | {"index.html": SOUND["index.html"] + entry + added}
    (fault,) = faults(tmp_path, pages, monkeypatch)
    assert fault.startswith(f"index.html: {message}")


def test_a_page_without_a_link_in_the_navigation_is_found(tmp_path, monkeypatch):
    entry = '<dt id="house.room">room</dt>'
    lost = f'{NAVIGATION}<nav><a href="lost.html">itself</a></nav>{entry}'
    pages = SOUND | {"lost.html": lost}
    (fault,) = faults(tmp_path, pages, monkeypatch)
    assert fault == "lost.html: in the navigation of no other page"


def test_links_are_relative_to_their_page():
    assert check_links.resolve("a/b.html", "../c.html#d") == ("c.html", "d")
    assert check_links.resolve("a/b.html", "#d") == ("a/b.html", "d")
    assert check_links.resolve("a/b.html", "mailto:x@example.org") is None
