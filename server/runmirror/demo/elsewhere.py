"""The demo's training and comparison against servers that run elsewhere: `docker compose` starts it so.

`MLFLOW_TRACKING_URI` says where runmirror is, `RUNMIRROR_DEMO_WORKSPACE` which file the emulator wrote about itself,
`HTTPS_PROXY` and `SSL_CERT_FILE` how to reach that. A token is made by the command line, as an operator makes it.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import httpx

from runmirror.demo.processes import ChildFailed, Children, Stopped
from runmirror.demo.services import Workspace, read_workspace
from runmirror.demo.steps import Demo, MirrorIncomplete
from runmirror.demo.workspace_side import NotInWorkspace

_USER = "demo"


def main() -> int:
    """Train, compare, and answer 1 if anything differs."""
    try:
        workspace = _workspace()
    except (KeyError, OSError) as error:
        click.echo(f"the emulator cannot be found ({error}): start with `--env-file docker/demo.env`", err=True)
        return 1
    url = os.environ["MLFLOW_TRACKING_URI"]
    click.echo(f"1  runmirror is at {url}, and mirrors into {workspace.arm_id}")
    with tempfile.TemporaryDirectory(prefix="runmirror-demo-") as folder:
        try:
            with Children(Path(folder), click.echo) as children:
                demo = Demo(children, Path(folder), dict(os.environ), sign_in=(_USER, _token()))
                return demo.log_and_compare(workspace, url)[1]
        except Stopped as stopped:
            return stopped.exit_code
        except (ChildFailed, MirrorIncomplete, NotInWorkspace, httpx.HTTPError) as error:
            click.echo(f"\n{type(error).__name__}: {error}", err=True)
            return 1


def _workspace() -> Workspace:
    """What the emulator says of itself, with addresses that are good in another container."""
    announced = read_workspace(Path(os.environ["RUNMIRROR_DEMO_WORKSPACE"]))
    return replace(announced, proxy_url=os.environ["HTTPS_PROXY"], ca_file=os.environ["SSL_CERT_FILE"])


def _token() -> str:
    command = [str(Path(sys.executable).with_name("runmirror")), "token", "create", _USER, "--days", "1"]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603 - our own program
    return made.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
