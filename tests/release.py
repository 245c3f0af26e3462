"""Checks of the files of a release, for `tox run -e release`.

`python tests/release.py FOLDER` takes the folder with one sdist and one wheel. The
wheel is installed in a new environment, and used from an empty folder.
"""

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

USE = """
import importlib.metadata, pathlib
import numpy as np
import sk_pwiser
from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

assert pathlib.Path(sk_pwiser.__file__).is_relative_to(PREFIX), sk_pwiser.__file__
assert sk_pwiser.__version__ == importlib.metadata.version("sk_pwiser") == VERSION
log = make_ctr_cvr(2000, ctr=0.3, cvr=0.3, as_frame=False, random_state=0)
model = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0)
model.fit(log.data, log.target).save("model.safetensors")
again = MultiTaskCTRCVRClassifier.load("model.safetensors")
assert np.array_equal(again.predict_proba(log.data), model.predict_proba(log.data))
print(f"sk_pwiser {VERSION}: mean AUC {model.score(log.data, log.target):.3f}")
"""


def run(*command, cwd=None):
    subprocess.run([str(part) for part in command], cwd=cwd, check=True)


def names_in(sdist, wheel):
    """Return the names of the files in both, those of the sdist without its folder."""
    with tarfile.open(sdist) as file:
        of_sdist = {name.partition("/")[2] for name in file.getnames()}
    with zipfile.ZipFile(wheel) as file:
        return of_sdist, set(file.namelist())


def main(folder):
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    of_sdist, of_wheel = names_in(sdist, wheel)
    package = {name for name in of_wheel if name.startswith("sk_pwiser/")}
    assert package <= of_sdist, sorted(package - of_sdist)
    assert {"LICENSE", "README.md", "CHANGES.md", "tox.ini"} <= of_sdist
    assert "sk_pwiser/py.typed" in package
    others = {name.split("/")[0] for name in of_wheel - package}
    version = wheel.name.split("-")[1]
    assert others == {f"sk_pwiser-{version}.dist-info"}, others
    with TemporaryDirectory() as place:
        environment, empty = Path(place, "environment"), Path(place, "empty")
        empty.mkdir()
        venv.create(environment, with_pip=True)
        programs = "Scripts" if sys.platform == "win32" else "bin"
        python = environment / programs / "python"
        run(python, "-m", "pip", "install", "--quiet", wheel)
        run(python, "-m", "pip", "check")
        names = f"PREFIX, VERSION = {str(environment.resolve())!r}, {version!r}"
        run(python, "-c", names + USE, cwd=empty)
        run(python, "-m", "sk_pwiser", "--help", cwd=empty)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
