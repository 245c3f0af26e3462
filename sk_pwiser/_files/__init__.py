"""Files of fitted models: plain values and arrays, checked, without code."""

from sk_pwiser._files._container import (
    FORMAT_VERSION,
    DamagedFileError,
    check_version,
    join,
    read_file,
    split,
    write_bytes,
    write_file,
)
from sk_pwiser._files._plain import PlainForm
