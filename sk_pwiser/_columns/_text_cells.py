"""Cells of files of text, such as CSV files, as a fitted column reads them."""

from collections.abc import Iterable
from typing import Any

# Texts that mean a missing number or time; among categories, "NA" is a value.
MISSING_WORDS = [
    "NA",
    "N/A",
    "n/a",
    "NaN",
    "nan",
    "NULL",
    "null",
    "None",
    "none",
    "<NA>",
]
# How files spell the values of columns of bool.
TRUTH_VALUES = {"true": True, "false": False}


def numbers_of_texts(name: Any, texts: Iterable[str | None]) -> list[Any]:
    """Return the numbers of a column, integers as such, and None where missing."""
    numbers: list[Any] = []
    for row, text in enumerate(texts):
        word = "" if text is None else text.strip()
        if not word or word in MISSING_WORDS:
            numbers.append(None)
            continue
        try:
            numbers.append(_number_of(word))
        except ValueError:
            raise ValueError(
                f"Column {name!r} contained numbers in fit; row {row} (the first one "
                f"is 0) has {text!r}."
            ) from None
    return numbers


def _number_of(word: str) -> int | float:
    """Return a number as an integer, which is exact, or as a float."""
    if word.lower() in TRUTH_VALUES:
        return TRUTH_VALUES[word.lower()]
    if "_" in word:  # which only Python reads
        raise ValueError
    try:
        return int(word)
    except ValueError:
        return float(word)
