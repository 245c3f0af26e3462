"""Look at the built pages in a browser, at three widths, in light and dark.

    python docs/check_site.py docs/_build/html [--screenshots FOLDER]

prints what `check_links.py` finds, every block that reaches beyond its column without
being in one that scrolls, and Python code that scrolls at 1280 pixels. It needs the
group `site` of pyproject.toml and Chromium (`CHROMIUM` names another program than
`chromium`); without them it prints what is missing and checks the rest.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from check_links import find_faults, read

WIDTHS = (1280, 1000, 390)
# The width from which a line of code fits into its block.
FITS = 1280
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Blocks that reach beyond the column and are not within one that scrolls. One pixel is
# rounding.
WIDER_BLOCKS = """() => {
  const column = document.querySelector('article.bd-article') ||
    document.querySelector('main');
  if (!column) return ['no column'];
  const right = Math.min(column.getBoundingClientRect().right, window.innerWidth);
  const scrolls = (e) => {
    for (; e && e !== column; e = e.parentElement)
      if (['auto', 'scroll'].includes(getComputedStyle(e).overflowX))
        return true;
    return false;
  };
  const wide = [...column.querySelectorAll('*')].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && box.right > right + 1 && !scrolls(e.parentElement);
  });
  if (document.documentElement.scrollWidth > window.innerWidth + 1)
    wide.push(document.documentElement);
  return wide.slice(0, 3).map((e) => e.tagName.toLowerCase() + ' ' + e.className +
    ' ' + (e.textContent || '').trim().slice(0, 50).replace(/\\s+/g, ' '));
}"""

CLIPPED_CODE = """() => [...document.querySelectorAll(
  'article :is(.highlight-python, .highlight-pycon, .highlight-Python):not(.output) pre'
)].filter((e) => e.scrollWidth > e.clientWidth + 1)
  .map((e) => e.textContent.trim().slice(0, 50).replace(/\\s+/g, ' '))"""


def find_browser():
    """Return the path of Chromium and None, or None and what is missing."""
    names = [os.environ.get("CHROMIUM", ""), *PROGRAMS]
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        return None, f"none of the programs {', '.join(PROGRAMS)} was found"
    if importlib.util.find_spec("playwright") is None:
        return None, "the package playwright is missing (pip install --group site)"
    return program, None


def look(folder, program, screenshots=None):
    """Yield the blocks that are too wide for their column."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root, as in containers, needs the flag. The pages are the project's own.
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"]
        )
        for width in WIDTHS:
            size = {"width": width, "height": 900}
            tab = browser.new_page(viewport=size, offline=True)
            for name in read(folder):
                tab.goto((folder / name).resolve().as_uri(), wait_until="load")
                for block in tab.evaluate(WIDER_BLOCKS):
                    yield f"{name}: at {width} px a block is too wide: {block}"
                for code in tab.evaluate(CLIPPED_CODE) if width >= FITS else ():
                    yield f"{name}: at {width} px code does not fit: {code}"
                for scheme in ("light", "dark") if screenshots else ():
                    tab.emulate_media(color_scheme=scheme)
                    picture = screenshots / f"{Path(name).stem}_{width}_{scheme}.png"
                    tab.screenshot(path=picture, full_page=True)
        browser.close()


def main():
    """Check the pages of a folder; exit with status 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="the built pages")
    parser.add_argument("--screenshots", type=Path, help="folder for pictures")
    arguments = parser.parse_args()
    faults = find_faults(arguments.folder)
    program, missing = find_browser()
    if program:
        faults += look(arguments.folder, program, arguments.screenshots)
    else:
        print(f"Skipped the widths of blocks: {missing}.")
    print("\n".join(faults) or "Nothing is wrong with what was checked.")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
