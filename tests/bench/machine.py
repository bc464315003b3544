"""What a result is worth nothing without: the machine, and the commit."""

import os
import platform
import subprocess

import psutil


def machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    load, _, _ = os.getloadavg()
    return f"{os.cpu_count()} {platform.machine()} cores, {memory:.0f} GiB, load at the end {load:.1f}"


def commit() -> str:
    """The newest that changed what is measured."""
    command = ["git", "log", "-1", "--format=%h", "--", "server", "migrations"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip()
