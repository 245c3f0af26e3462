"""Errors and warnings of the command line, one line each."""

import argparse
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def messages_in_one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Print warnings in one line each, and exit with one line for an error."""
    try:
        with warnings.catch_warnings():
            # The line of code that a warning refers to is none of the user's.
            warnings.showwarning = print_warning
            yield
    except (ImportError, OSError, TypeError, ValueError) as error:
        # The input of a user, not a defect: one line, no traceback.
        parser.exit(2, f"{parser.prog}: error: {' '.join(str(error).split())}\n")


def print_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning in one line."""
    print(f"Warning: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
