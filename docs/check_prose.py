"""Find phrases that the documentation and the code avoid.

    python docs/check_prose.py

prints one line `path:line: phrase` per phrase found and exits with status 1 if there is
any. The phrases either leave out "per" ("per task", "per batch") or describe code as if
it were a person. Phrases that are broken over two lines, also in comments, are found.
`CONTRIBUTING.md` says how to write instead.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEARCHED = ("sk_pwiser", "docs", "examples", "benchmarks", "tests")
SEARCHED += ("README.md", "CONTRIBUTING.md", "CHANGES.md")
SUFFIXES = (".py", ".rst", ".md")
# Made by a build of the documentation.
GENERATED = {"_build", "auto_examples", "generated"}

# Nouns that are counted, and the units by which they are counted: "one X per Y". Nouns
# that are verbs as well ("name", "call", "pass") count only after a number.
COUNTED = (
    r"(?:one|two|(?:one|two|three|four)_\w+|tower|head|weight|loss|gate|seconds|times|"
    "rows|losses|towers|heads|once|line|entry|number|bin|sum|term|gates|experts?|"
    "layers?|modules?|networks?|matrix|values?|figures?|features?|products?|columns?|"
    "pages?|bytes|penalty|tables?|embeddings?|logits?|AUC|method|row|entries|numbers|"
    "lines|cells?|classifiers?|regression|LightGBM|threads?)"
)
UNITS = (
    "(?:task|step|batch|epoch|column|fold|fit|call|second|row|depth|tensor|table|"
    "input|bin|parameter|core|round|seed|method|object|head|case)"
)

# An underscore stands for the space between words, so that this file does not hold the
# phrases themselves.
PHRASES = (
    rf"{COUNTED}_an?_{UNITS}",
    "(?:tower|network|model|loss|head|table|gate)_of_each_task's_own",
    "(?:which|that)_its_class_tells",
    "(?:has|have)_to_tell",
    "(?:rows?|what|columns?|figures?)_to_watch",
    "last_step_(?:has_)?(?:spoilt|spoiled)",
    "kept?_off_(?:0|zero)",
    "gates?_(?:that_)?(?:starts?|begins?)_(?:un)?even",
    "goes_backward",
    "go_backward",
    "(?:is|are)_not_asked(?:_again)?",
    "on_from_(?:what|the|it|them|there|here)",
    "Departures?:_none",
    "tells?_whether",
    "as_they_(?:are|stand|come)",
    "as_it_comes",
)
PATTERN = re.compile(
    r"\b(?:" + "|".join(PHRASES).replace("_", r"(?:[\s#]+)") + r")\b", re.IGNORECASE
)


def find_phrases(text):
    """Yield the line number and the phrase of every match in a text."""
    for match in PATTERN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield line, re.sub(r"[\s#]+", " ", match.group())


def find_files(root):
    """Yield the files that are searched, in the order of their paths."""
    for name in SEARCHED:
        start = root / name
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            is_generated = GENERATED & {*path.relative_to(root).parts}
            is_generated = is_generated or path.name.endswith("_table.rst")
            if path.suffix in SUFFIXES and not is_generated:
                yield path


def check(root):
    """Return one line per phrase found below a folder."""
    return [
        f"{path.relative_to(root).as_posix()}:{line}: {phrase}"
        for path in find_files(root)
        for line, phrase in find_phrases(path.read_text(encoding="utf-8"))
    ]


def main():
    """Print what `check` finds; return the exit status."""
    found = check(ROOT)
    print("\n".join(found) or "No phrase was found.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
