"""The command line: `runmirror serve | worker | migrate | link | unlink | links | backfill | status | verify | …`."""

import click

from runmirror import __version__
from runmirror.command_line import deploying, importing, keeping, mirroring, remote, serving, tokens


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="runmirror")
def main() -> None:
    """MLflow-compatible tracking server that mirrors every run into your Azure ML workspace."""


for _command in (
    serving.serve, serving.worker, serving.migrate, mirroring.link, mirroring.unlink, mirroring.links,
    mirroring.backfill, mirroring.status, mirroring.verify, mirroring.replay, deploying.deploy, tokens.token,
    keeping.gc, keeping.audit, importing.import_command, remote.init_script, serving.demo,
):  # fmt: skip
    main.add_command(_command)


if __name__ == "__main__":
    main()
