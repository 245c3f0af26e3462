"""A disk that is full while a model file is written, in a process of its own."""

import pytest
from programs import finish, start

pytest.importorskip("resource")  # not on Windows

PROGRAM = """
import resource, signal, sys
from pathlib import Path
from refusals import X, Y, small

path = Path(sys.argv[1])
model = small().fit(X, Y)
model.save(path)
content = path.read_bytes()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, hard))
try:
    model.fit(X, Y).save(path)
except OSError as error:
    assert path.name in str(error), str(error)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]
    print("the earlier file stays", flush=True)
"""


def test_a_failing_write_leaves_the_earlier_file_and_no_other(tmp_path):
    process = start(PROGRAM, tmp_path / "model.safetensors")
    assert finish(process) == "the earlier file stays\n"
