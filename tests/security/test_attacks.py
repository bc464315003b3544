"""Every attack on every alias of its route, as everybody: refused, and nothing read, sent, echoed or changed."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import httpx
import pytest
import pytest_asyncio
from asgi_lifespan import LifespanManager
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from starlette.types import ASGIApp, Message

from runmirror.app import create_app
from runmirror.auth import service, token_queries
from runmirror.auth.levels import Kind, Level
from runmirror.settings import Settings
from tests.conftest import TEMPLATE
from tests.security.attacks import Attack, attacks
from tests.security.watch import watched

pytestmark = pytest.mark.asyncio(loop_scope="module")

DATABASE = "attacked"
PREFIX = "/some/prefix"
SECRET = b"what no client may read"

# Who attacks: with RUNMIRROR_AUTH=none everybody is "anybody"; the others attack a server that asks for tokens.
OPEN = "anybody"
ROLES = {"nobody": None, "reader": Level.READ, "editor": Level.EDIT, "admin": Level.MANAGE}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Target:
    """The same server at the root and below a prefix, with and without sign-in, and what stands in it."""

    plain: ASGIApp
    prefixed: ASGIApp
    guarded: tuple[ASGIApp, ASGIApp]
    callers: Mapping[str, Mapping[str, str]]  # the headers that each sends
    folder: Path
    engine: AsyncEngine
    names: Mapping[str, str]

    async def state(self) -> tuple[str, list[tuple[str, int]]]:
        """All that is stored: each row of each table, each file with its size. A token's last use is no harm."""
        async with self.engine.connect() as connection:
            tables = await connection.scalars(
                text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
            )
            each = [
                f"SELECT '{name}' || md5(coalesce(string_agg(line, '' ORDER BY line), '')) AS digest"
                f" FROM (SELECT CAST(to_jsonb(t) - 'last_used_at' AS text) AS line FROM {name} t) AS lines"
                for name in tables
            ]
            rows = await connection.scalars(text(" UNION ALL ".join(each) + " ORDER BY digest"))
            digest = " ".join(rows)
        files = [(str(path), path.lstat().st_size) for path in sorted(self.folder.rglob("*")) if not path.is_dir()]
        return digest, files


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Target]:
    admin = create_async_engine(make_url(postgres).set(drivername="postgresql+asyncpg"), isolation_level="AUTOCOMMIT")
    async with admin.connect() as connection:
        await connection.execute(text(f"CREATE DATABASE {DATABASE} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY"))
    await admin.dispose()
    url = make_url(postgres).set(database=DATABASE)
    address = url.render_as_string(hide_password=False)
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "secret.txt").write_bytes(SECRET)
    settings = Settings(database_url=address, data_dir=folder / "data", mirror=False)
    engine = create_async_engine(url.set(drivername="postgresql+asyncpg"))
    async with AsyncExitStack() as stack:
        apps = []
        for auth, prefix in itertools.product(("none", "token"), ("", PREFIX)):
            app = create_app(settings.model_copy(update={"static_prefix": prefix, "auth": auth}), address)
            apps.append((await stack.enter_async_context(LifespanManager(app))).app)
        names = await _fill(apps[0])
        callers = {OPEN: {}} | {role: await _signed_in(engine, role, level) for role, level in ROLES.items()}
        for place in ("", names["root"], f"0/models/{names['model']}/artifacts"):
            leak = folder / "data" / "artifacts" / place / "out"
            leak.parent.mkdir(parents=True, exist_ok=True)
            leak.symlink_to(folder)
        yield Target(apps[0], apps[1], (apps[2], apps[3]), callers, folder, engine, names)
    await engine.dispose()


async def _signed_in(engine: AsyncEngine, role: str, level: Level | None) -> dict[str, str]:
    """The headers of a user with this level for all there is."""
    if level is None:
        return {}
    async with engine.begin() as connection:
        user_id = await token_queries.make_user(connection, role, is_admin=role == "admin")
        token, _ = await service.create_token(connection, user_id)
        await connection.execute(
            text("""
                INSERT INTO grants (kind, resource_id, principal_id, level)
                SELECT granted, -1, principal_id, :level FROM principals, unnest(CAST(:kinds AS text[])) AS granted
                WHERE name = :role
            """),
            {"kinds": list(Kind), "level": int(level), "role": role},
        )
    return {"Authorization": f"Bearer {token}"}


async def _fill(app: ASGIApp) -> dict[str, str]:
    """A run with a file, a logged model, a registered model with a version, a trace."""
    api = "/api/2.0/mlflow"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:

        async def sent(method: str, path: str, **more: object) -> dict[str, dict[str, dict[str, str]]]:
            answer = await client.request(method, path, **more)
            assert answer.status_code == 200, answer.text
            return dict(answer.json()) if answer.content else {}

        run = (await sent("POST", f"{api}/runs/create", json={"experiment_id": "0"}))["run"]["info"]
        root = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
        await sent("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{root}/a.txt", content=b"hello")
        model = (await sent("POST", f"{api}/logged-models", json={"experiment_id": "0", "name": "m"}))["model"]["info"]
        await sent("POST", f"{api}/registered-models/create", json={"name": "model"})
        version = {"name": "model", "source": f"runs:/{run['run_id']}/a.txt", "run_id": run["run_id"]}
        await sent("POST", f"{api}/model-versions/create", json=version)
        info = {
            "trace_id": f"tr-{run['run_id']}",
            "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}},
            "request_time": "2026-01-01T00:00:00Z",
            "state": "OK",
        }
        await sent("POST", "/api/3.0/mlflow/traces", json={"trace": {"trace_info": info}})
        await asyncio.gather(
            *(client.get(f"{api}/runs/get?run_id={run['run_id']}") for _ in range(20))
        )  # fills the pool
    return {"run": run["run_id"], "root": root, "model": model["model_id"], "trace": info["trace_id"]}


def aliases(path: str) -> Iterator[tuple[bool, str]]:
    """Every address of a route: whether it is below the prefix, and its path."""
    twins = [path]
    if path.startswith(("/api/2.0/", "/api/3.0/")):
        twins.append(path.replace("/api/", "/ajax-api/", 1))
    for twin in twins:
        yield False, twin
        yield False, f"/{twin}"
        yield True, PREFIX + twin
        yield True, f"{PREFIX}/{twin}"


async def send(app: ASGIApp, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """The request letter by letter, as uvicorn hands it on; clients would tidy the path up."""
    raw_path, _, query = target.partition("?")
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": unquote(raw_path), "raw_path": raw_path.encode("latin-1"), "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        "client": ("127.0.0.1", 1234), "server": ("127.0.0.1", 5000), "root_path": "",
    }  # fmt: skip
    told = [{"type": "http.request", "body": body, "more_body": False}]
    heard: list[Message] = []

    async def receive() -> Message:
        if not told:
            await asyncio.Event().wait()  # the client stays until it is answered
        return told.pop()

    async def answer(message: Message) -> None:
        heard.append(message)

    await app(scope, receive, answer)
    given = {name.decode(): value.decode("latin-1") for name, value in heard[0]["headers"]}
    return Answer(heard[0]["status"], given, b"".join(message.get("body", b"") for message in heard[1:]))


def grouped() -> dict[str, list[Attack]]:
    groups: dict[str, list[Attack]] = {}
    for attack in attacks():
        groups.setdefault(attack.id.partition("#")[0], []).append(attack)
    return groups


@pytest.mark.parametrize("group", grouped().values(), ids=grouped())
async def test_an_attack_is_refused_and_reads_sends_echoes_and_changes_nothing(
    target: Target, group: list[Attack]
) -> None:
    before = await target.state()
    store = target.folder / "data" / "artifacts"
    database = str(target.engine.url.query["host"])
    with watched(store, peers=(database,)) as heard:
        for attack, caller in itertools.product(group, target.callers):
            await _try(target, attack, caller)
    assert heard == []
    assert await target.state() == before


async def _try(target: Target, attack: Attack, caller: str) -> None:
    identity, apps = target.callers[caller], target.guarded if caller in ROLES else (target.plain, target.prefixed)
    body = _filled(attack.content, target.names)
    headers = {"Host": "localhost:5000", "Content-Type": "application/json", "Content-Length": str(len(body))}
    for is_prefixed, address in aliases(_filled(attack.target.encode(), target.names).decode()):
        answer = await send(apps[is_prefixed], attack.method, address, {**headers, **identity, **attack.headers}, body)
        told = (attack.id, caller, address[:200], answer.status, answer.body[:300])
        assert answer.status in attack.allowed or answer.status in ({404} if caller == OPEN else {401, 403, 404}), told
        assert SECRET not in answer.body, told
        assert answer.headers["x-content-type-options"] == "nosniff", told
        if "<script>" in answer.body.decode("latin-1"):
            assert answer.headers["content-type"] == "application/json", told
        assert not any("evil.example" in value or "<" in value for value in answer.headers.values()), told


def _filled(template: bytes, names: Mapping[str, str]) -> bytes:
    for name, value in names.items():
        for braces in (f"{{{name}}}", f"%7B{name}%7D"):
            template = template.replace(braces.encode(), value.encode())
    return template


async def test_an_artifact_of_any_type_is_an_attachment_that_no_browser_runs(target: Target) -> None:
    """CVE-2026-33865, CVE-2024-27132: what a page would run, where pages can get it."""
    page = b"<script>alert(document.cookie)</script>"
    root, run = target.names["root"], target.names["run"]
    head = {"Host": "localhost:5000"}
    for name in ("x.html", "x.svg", "x.xhtml", "MLmodel", "x.xml", "x.js", "x"):
        stored = await send(target.plain, "PUT", f"/api/2.0/mlflow-artifacts/artifacts/{root}/{name}", head, page)
        assert stored.status == 200
        for address in (
            f"/get-artifact?run_id={run}&path={name}",
            f"/api/2.0/mlflow-artifacts/artifacts/{root}/{name}",
            f"/ajax-api/2.0/mlflow-artifacts/artifacts/{root}/{name}",
        ):
            answer = await send(target.plain, "GET", address, head, b"")
            assert (answer.status, answer.body) == (200, page)
            assert answer.headers["content-disposition"].startswith("attachment")
            assert answer.headers["content-security-policy"] == "sandbox"
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_watch_hears_what_it_should(tmp_path: Path) -> None:
    """Else silence would prove nothing."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    with watched(inside) as heard:
        await asyncio.to_thread((inside / "x").write_text, "x")
        await asyncio.to_thread(outside.write_text, "x")
        await asyncio.to_thread(outside.rename, inside / "y")
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", 1)
        await asyncio.to_thread(Path("/etc/passwd").read_text)
    names = [line.split()[0] for line in heard]
    assert names == ["open", "os.rename", "socket.connect", "open"]
