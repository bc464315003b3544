"""The rule for artifact paths, as a pure function."""

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runmirror.artifacts.safe_path import safe_path
from runmirror.errors import InvalidParameter

REFUSED = [
    "", "/", "/etc/passwd", "//etc/passwd", "a//b", "a/", "..", "../x", "a/..", "a/../b", ".", "./a", "a/./b", "a/.",
    "..\\x", "a\\b", "\\\\host\\share", "C:", "C:/x", "c:x", "a/C:/x", "a\x00b", "a\nb", "a\x7fb", "a\x85b", "\ud800",
    "a\ufffdb", "%2e%2e/x", "%2E./x", "a%2fb", "a%2Fb", "a%5cb", "a%5Cb", "%252e%252e", "a%25252Fb", "a%00b",
    ".uploads", ".uploads/x", ".Uploads/x", "s" * 256, "é" * 128, "/".join(["segment"] * 126), "file:///etc/passwd",
]  # fmt: skip

ACCEPTED = [
    "a", "a/b.txt", "0/" + "f" * 32 + "/artifacts/model/MLmodel", "a b", "é/日本", "a?b", "a#b", "a;b",
    "100%", "50%off", "a%23b", "...", "..a", "a..", ".hidden", "run/.uploads/x", "s" * 255, "~", "file:x", "a+b&c=d",
]  # fmt: skip


@pytest.mark.parametrize("path", REFUSED)
def test_what_could_mean_another_place_is_refused(path: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        safe_path(path)
    assert len(refusal.value.message) < 100  # it does not repeat what was sent


@pytest.mark.parametrize("path", ACCEPTED)
def test_ordinary_names_pass_unchanged(path: str) -> None:
    assert safe_path(path) == path


@given(st.text(st.sampled_from("a./\\%2eEfF5cC:\0\n?#é"), max_size=30) | st.text(max_size=30))
def test_what_passes_stays_below_whatever_it_is_joined_to(path: str) -> None:
    try:
        safe_path(path)
    except InvalidParameter:
        return
    assert posixpath.normpath(posixpath.join("/srv", path)) == f"/srv/{path}"
    assert "\0" not in path
