"""Images made of Debian's packages and of npm's that stand for the official ones, where no registry can be reached.

They are as much of those as docker/Dockerfile and docker-compose.yml rely on.
"""

import shutil
import subprocess
from pathlib import Path

from tests.artifacts import azurite
from tests.docker.live.engine import Docker

HERE = Path(__file__).parent
PYTHON, POSTGRES, AZURITE = "stand-in/python:3.11", "stand-in/postgres:15", f"stand-in/azurite:{azurite.VERSION}"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# The official slim images have none of this either.
_LEFT_OUT = (
    "var/lib/apt/lists/*", "var/cache/apt/*", "var/log/*", "usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*",
)  # fmt: skip


def make_all(docker: Docker, folder: Path) -> None:
    _python(docker, folder / "python")
    _postgres(docker, folder / "postgres")
    _azurite(docker, folder / "azurite")


def _python(docker: Docker, folder: Path) -> None:
    root = _debian(folder, "python3", "python3-venv")
    # This machine's pip may have to trust an authority that Debian does not know.
    shutil.copy(AUTHORITIES, root / "etc/ssl/certs/ca-certificates.crt")
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")
    _import(docker, root, PYTHON, "CMD python3")


def _postgres(docker: Docker, folder: Path) -> None:
    root = _debian(folder, "postgresql-15", "util-linux")
    shutil.copy(HERE / "postgres" / "docker-entrypoint.sh", root / "usr/local/bin")
    path = "ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    _import(docker, root, POSTGRES, path, 'ENTRYPOINT ["docker-entrypoint.sh"]')


def _azurite(docker: Docker, folder: Path) -> None:
    azurite.install()
    root = _debian(folder, "libstdc++6")
    node = shutil.which("node")
    assert node is not None
    shutil.copy(Path(node).resolve(), root / "usr/local/bin/node")
    shutil.copytree(azurite.HOME / "node_modules", root / "opt/azurite/node_modules", symlinks=True)
    (root / "usr/local/bin/azurite-blob").symlink_to("/opt/azurite/node_modules/.bin/azurite-blob")
    (root / "data").mkdir()
    _import(docker, root, AZURITE, "VOLUME /data", "CMD azurite-blob")


def _debian(folder: Path, *packages: str) -> Path:
    site = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    mirror = subprocess.run(site, check=True, capture_output=True, text=True).stdout.split()[0]
    include = ",".join(("ca-certificates", *packages))
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={include}", "bookworm", str(folder), mirror],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for left_out in _LEFT_OUT:
        for path in folder.glob(left_out):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return folder


def _import(docker: Docker, root: Path, name: str, *changes: str) -> None:
    packed = subprocess.run(["tar", "-C", str(root), "-c", "."], check=True, stdout=subprocess.PIPE).stdout
    docker("import", *(word for change in changes for word in ("--change", change)), "-", name, given=packed)
    shutil.rmtree(root)
