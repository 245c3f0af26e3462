"""Run the code of a page of the guide, and save its plots.

    python docs/page_pictures.py tutorial

writes `docs/images/tutorial_1.svg` and so on, in the order in which the code of
`docs/user_guide/tutorial.rst` makes the plots, and prints what the code prints.
"""

import argparse
import os
import re
import tempfile
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt

DOCS = Path(__file__).parent
CODE = re.compile(r"^\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", re.MULTILINE)
# The same plot is the same file.
STYLE = {"svg.hashsalt": "sk_pwiser", "savefig.transparent": True}


def main():
    """Save the plots of the page that the command names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", help="the name of a page of the user guide")
    name = parser.parse_args().page
    text = (DOCS / "user_guide" / f"{name}.rst").read_text(encoding="utf-8")
    images = (DOCS / "images").resolve()
    with tempfile.TemporaryDirectory() as folder, plt.rc_context(STYLE):
        os.chdir(folder)
        namespace = {}
        for block in CODE.findall(text):
            exec(textwrap.dedent(block), namespace)
        for number in plt.get_fignums():
            path = images / f"{name}_{number}.svg"
            plt.figure(number).savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
