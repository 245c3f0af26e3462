"""Check the packages for known vulnerabilities, if there is a network.

python docs/audit.py
"""

import subprocess
import sys
import urllib.error
import urllib.request

# Where pip-audit looks vulnerabilities up.
SERVICE = "https://pypi.org/pypi/pip/json"


def can_reach(url):
    """Return whether a page can be read."""
    try:
        with urllib.request.urlopen(url, timeout=10):
            return True
    except (urllib.error.URLError, TimeoutError):
        return False


def main():
    if not can_reach(SERVICE):
        print(f"Skipped: {SERVICE} cannot be reached, so vulnerabilities are unknown.")
        return 0
    command = [sys.executable, "-m", "pip_audit", "--skip-editable"]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
