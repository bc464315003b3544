"""Virtual environments with packages whose pins do not suit ours."""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path


def python_with(requirements: Path, venv: Path) -> Path:
    """The Python of the environment at `venv`, which is filled anew when it has not exactly these requirements."""
    python = venv / "bin" / "python"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    stamp = venv / ".complete"
    venv.mkdir(parents=True, exist_ok=True)
    # Test processes run side by side: one of them installs, the others wait.
    with (venv / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            stamp.unlink(missing_ok=True)
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(python)]
            # Most modules are never imported, so compiling them all would be half of the time.
            subprocess.run([*pip, "install", "--no-compile", "-r", str(requirements)], check=True)
            stamp.write_text(wanted)
    return python
