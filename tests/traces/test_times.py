"""Times as protobuf's JSON writes them."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from runmirror.traces.times import format_duration, format_timestamp, parse_duration, parse_timestamp


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_a_timestamp_is_written_as_protobuf_writes_it(ms: int) -> None:
    theirs = Timestamp()
    theirs.FromMilliseconds(ms)
    assert format_timestamp(ms) == theirs.ToJsonString()
    assert parse_timestamp(format_timestamp(ms)) == ms


@given(st.integers(-(10**14), 10**14))
def test_a_duration_is_written_as_protobuf_writes_it(ms: int) -> None:
    theirs = Duration()
    theirs.FromMilliseconds(ms)
    assert format_duration(ms) == theirs.ToJsonString()
    assert parse_duration(format_duration(ms)) == ms


@pytest.mark.parametrize("text", ["", "yesterday", "2025-01-01", "2025-13-01T00:00:00Z", "2025-01-01T00:00:00", "1.5"])
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_timestamp(text)


@pytest.mark.parametrize("text", ["", "s", "1", "1,5s", "--1s", "1.5.5s", "9" * 30 + "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_duration(text)
