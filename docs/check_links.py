"""Check the built pages without a browser or a network.

    python docs/check_links.py docs/_build/html

prints what is wrong and exits with status 1 if there is anything: a link to a page or a
place in a page that does not exist, a page without a link in the navigation of the
others, a public name or method without an entry, TeX in the text, and scripts, styles
or pictures that come from another host.
"""

import importlib
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from api_reference import MODULES, members_by_class

# Pages that no page needs to link to: those of the search and of the index of names.
WITHOUT_LINK = {"search.html", "genindex.html", "py-modindex.html", "index.html"}
SOURCES = {"script": "src", "img": "src", "link": "href", "iframe": "src"}
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta"}
TEX = re.compile(r"\\(?:frac|sum|mathrm|operatorname|lVert|text|sigma|lambda)\b|\\\(")


class Page(HTMLParser):
    """What the checks need of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.text, self.open = [], [], [], []
        self.navigation, self.ids = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids |= {attributes.get("id"), attributes.get("name")} - {None}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
            if "nav" in self.open:
                self.navigation.add(attributes["href"])
        if address := attributes.get(SOURCES.get(tag, "")):
            self.loaded.append(address)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        # Code may hold TeX.
        if not {"script", "style", "pre", "code"} & set(self.open):
            self.text.append(data)


def read(folder):
    """Map the paths of the pages below a folder to their contents."""
    return {
        path.relative_to(folder).as_posix(): Page(path.read_text(encoding="utf-8"))
        for path in sorted(folder.rglob("*.html"))
        if "_static" not in path.parts
    }


def resolve(name, address):
    """Return the page and the place that a link of a page means; None if outside."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return None
    return urljoin(name, unquote(parts.path)), unquote(parts.fragment)


def check_links(folder, pages):
    """Yield the links to pages and places that do not exist."""
    for name, page in pages.items():
        for address in page.links:
            if (target := resolve(name, address)) is None:
                continue
            path, place = target
            if not (folder / path).is_file():
                yield f"{name}: links to {address}, which does not exist"
            elif place and path in pages and place not in pages[path].ids:
                yield f"{name}: links to {address}, a page without this place"


def check_navigation(pages):
    """Yield the pages that no other page has in its navigation."""
    reached = {
        target[0]
        for name, page in pages.items()
        for address in page.navigation
        if (target := resolve(name, address)) and target[0] != name
    }
    for name in pages.keys() - reached - WITHOUT_LINK:
        yield f"{name}: in the navigation of no other page"


def check_entries(pages):
    """Yield the public names and methods without an entry."""
    ids = set().union(*(page.ids for page in pages.values()))
    for name in set(public_names()) - ids:
        yield f"{name}: no entry in the API reference"


def public_names():
    """Yield the dotted names of public objects and of the members of classes."""
    for module in MODULES:
        imported = importlib.import_module(module.name)
        for name in imported.__all__:
            if callable(getattr(imported, name)):
                yield f"{module.name}.{name}"
    for name, members in members_by_class().items():
        yield from (f"{name}.{member}" for member in members)


def check_contents(pages):
    """Yield the pages with TeX in their text, and what they load from other hosts."""
    for name, page in pages.items():
        if match := TEX.search(" ".join(page.text)):
            yield f"{name}: shows {match.group()!r}"
        for address in page.loaded:
            if urlsplit(address).netloc:
                yield f"{name}: loads {address}"


def find_faults(folder):
    """Return what is wrong with the pages below a folder."""
    pages = read(folder)
    checks = (check_navigation, check_entries, check_contents)
    found = [fault for check in checks for fault in check(pages)]
    return sorted([*found, *check_links(folder, pages)])


if __name__ == "__main__":
    found = find_faults(Path(sys.argv[1]))
    print("\n".join(found) or "All links, names and formulas are right.")
    sys.exit(1 if found else 0)
