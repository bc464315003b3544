"""Command line of the emulator: `python -m azureml_emulator`."""

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
from pathlib import Path

from azureml_emulator import server
from azureml_emulator.emulator import new_emulator
from azureml_emulator.errors import Json
from azureml_emulator.settings import Settings
from azureml_emulator.workspace import Workspace


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="azureml_emulator", description="A stand-in for one Azure ML workspace.")
    parser.add_argument("--host", default="127.0.0.1", help="only loopback is allowed")
    parser.add_argument(
        "--proxy-host",
        default="127.0.0.1",
        help="where the proxy listens; only for a network of containers of your own",
    )
    parser.add_argument("--proxy-port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--control-port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--data-dir", type=Path, help="blobs and certificates; a temporary folder by default")
    parser.add_argument("--token-lifetime", type=float, default=3600, help="seconds that access tokens live")
    parser.add_argument("--sas-lifetime", type=float, default=3600, help="seconds that blob URLs live")
    parser.add_argument("--read-lag", type=float, default=0, help="seconds until searches see a write")
    parser.add_argument("--logged-models", action="store_true", help="answer logged-models/search with nothing found")
    parser.add_argument("--no-write-sas", action="store_true", help="refuse write URLs for existing artifacts")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME", help="another workspace; repeatable")
    parser.add_argument("--score", action="store_true", help="deployed models answer: what was uploaded is run")
    parser.add_argument("--ready-file", type=Path, help="write the line of standard output there, too")
    for option in ("region", "subscription", "resource-group", "workspace", "tenant", "client-id", "client-secret"):
        parser.add_argument(f"--{option}")
    options = parser.parse_args(arguments)
    if options.host not in ("127.0.0.1", "localhost"):
        parser.error(f"the emulator listens on loopback only, not on {options.host}")
    return options


def _workspace(options: argparse.Namespace) -> Workspace:
    given = {
        "region": options.region,
        "subscription": options.subscription,
        "resource_group": options.resource_group,
        "name": options.workspace,
        "tenant_id": options.tenant,
        "client_id": options.client_id,
        "client_secret": options.client_secret,
    }
    return Workspace(**{name: value for name, value in given.items() if value is not None})


def _serve(options: argparse.Namespace, data_dir: Path) -> None:
    settings = Settings(
        token_lifetime=options.token_lifetime,
        sas_lifetime=options.sas_lifetime,
        read_lag_seconds=options.read_lag,
        logged_models=options.logged_models,
        write_sas=not options.no_write_sas,
    )

    def announce(ready: Json) -> None:
        line = json.dumps(ready)
        if options.ready_file is not None:
            # Renamed into place, because a reader may be waiting for it.
            part = options.ready_file.with_suffix(".part")
            part.touch(mode=0o600)
            part.write_text(line + "\n")
            part.rename(options.ready_file)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    emulator = new_emulator(_workspace(options), data_dir, settings, others=options.beside, scores=options.score)
    asyncio.run(server.run(emulator, (options.proxy_host, options.proxy_port), options.control_port, announce))


def main(arguments: list[str] | None = None) -> None:
    """Run the emulator until it is told to stop."""
    options = _parse(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    os.umask(0o077)
    if options.data_dir is not None:
        options.data_dir.mkdir(parents=True, exist_ok=True)
        _serve(options, options.data_dir.resolve())
        return
    with tempfile.TemporaryDirectory(prefix="azureml-emulator-") as folder:
        _serve(options, Path(folder))


if __name__ == "__main__":
    main()
