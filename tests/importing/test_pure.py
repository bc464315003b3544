"""What is read of a source, and what is refused, without one."""

import math
from pathlib import Path

import pytest

from runmirror.importing.entities import OldRun, fingerprint
from runmirror.importing.file_store import points
from runmirror.importing.old_files import FolderFiles
from runmirror.importing.old_spans import parse_file
from runmirror.importing.rest_source import identity_of as of_server
from runmirror.importing.rules import Refused, check_run
from runmirror.importing.runs import wrote
from runmirror.importing.source import FilesElsewhere, Root, SourceError
from runmirror.importing.sql_database import identity_of

RUN_ID = "0" * 32
RUN = OldRun(RUN_ID, "1", "name", "ann", "FINISHED", 1, 2, "active", "")


def test_spans_of_mlflow_2_are_read_like_those_of_3() -> None:
    of_2 = """{"spans": [{"name": "root", "context": {"trace_id": "0x1", "span_id": "0x00000000000000ff"},
        "parent_id": null, "start_time": 5, "end_time": 9, "status_code": "OK", "status_message": "",
        "attributes": {"mlflow.spanType": "\\"CHAIN\\""},
        "events": [{"name": "e", "timestamp": 6, "attributes": {"a": 1}}]}]}"""
    of_3 = """{"spans": [{"name": "root", "trace_id": "AAAAAAAAAAAAAAAAAAAAAQ==", "span_id": "AAAAAAAAAP8=",
        "parent_span_id": null, "start_time_unix_nano": 5, "end_time_unix_nano": 9,
        "status": {"code": "STATUS_CODE_OK", "message": ""}, "attributes": {"mlflow.spanType": "\\"CHAIN\\""},
        "events": [{"name": "e", "time_unix_nano": 6, "attributes": {"a": 1}}], "links": []}]}"""
    assert parse_file("tr-1", of_2) == parse_file("tr-1", of_3)
    for broken in ("", "[]", '{"spans": [{}]}', '{"spans": [3]}', '{"spans": [{"span_id": "?"}]}'):
        with pytest.raises(SourceError):
            parse_file("tr-1", broken)


def test_lines_of_metrics_are_read_with_and_without_a_step(tmp_path: Path) -> None:
    file = tmp_path / "loss"
    file.write_text("1 0.5\n2 nan 7\n\n3 inf 8\n")
    read = list(points("loss", file))
    assert [(point.timestamp, point.step) for point in read] == [(1, 0), (2, 7), (3, 8)]
    assert math.isnan(read[1].value)
    file.write_text("yesterday 1\n")
    with pytest.raises(SourceError, match="no file of a metric"):
        list(points("loss", file))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"run_id": "../x"}, "cannot be the id"),
        ({"status": "UNKNOWN"}, "status"),
        ({"params": {"a//b": "1"}}, "Invalid value"),
        ({"params": {"p": "x" * 6001}}, "6001 characters"),
        ({"tags": {"t": "\ud800"}}, "no valid Unicode"),
        ({"start_time_ms": 2**63}, "64 bits"),
        ({"latest": {"m" * 251: (1.0, 1, 1)}}, "maximum length"),
    ],
)
def test_a_run_beyond_the_limits_is_refused_with_the_reason(changes: dict[str, object], why: str) -> None:
    check_run(RUN)
    fields = {name: getattr(RUN, name) for name in RUN.__struct_fields__}
    with pytest.raises(Refused, match=why):
        check_run(OldRun(**{**fields, **changes}))


def test_an_identity_has_no_secret_in_it_and_is_the_same_however_it_is_written(tmp_path: Path) -> None:
    assert of_server("https://ann:pw@Host:5000/mlflow/") == of_server("https://host:5000/mlflow")
    assert identity_of("postgresql://ann:pw@db:5432/x") == identity_of("postgresql+psycopg2://bob@db:5432/x")
    assert "pw" not in identity_of("postgresql://ann:pw@db:5432/x")
    assert fingerprint({"a": 1, "b": math.nan}) == fingerprint({"b": math.nan, "a": 1})
    assert [wrote([1, 3, 6, 6], seq) for seq in (0, 1, 3, 4, 6, 7)] == [False, True, True, False, True, False]


@pytest.mark.parametrize(
    "uri", ["/etc", f"/tmp/{RUN_ID}/artifacts/..", "s3://bucket/x", "", "mlflow-artifacts:/../../etc", "relative"]
)
async def test_an_address_that_is_no_run_s_folder_is_not_read(uri: str, tmp_path: Path) -> None:
    with pytest.raises(FilesElsewhere):
        await FolderFiles(tmp_path if uri.startswith("mlflow") else None).list(Root(RUN_ID, "", uri))


async def test_a_path_out_of_a_run_s_folder_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / RUN_ID / "artifacts"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    for path in ("../../secret", "link"):
        with pytest.raises(SourceError):
            [chunk async for chunk in FolderFiles(None).read(Root(RUN_ID, "", str(folder)), path)]
