"""Files of fitted models: plain values and arrays, checked, without code."""

from sk_pwiser._files._container import FORMAT_VERSION, read_file, write_file
from sk_pwiser._files._plain import PlainForm

__all__ = ["FORMAT_VERSION", "PlainForm", "read_file", "write_file"]
