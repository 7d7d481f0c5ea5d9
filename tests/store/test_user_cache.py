"""The user's cache folder: where it is, how it is switched off, and homes that cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from undersong.store.user_cache import user_cache, writable_user_cache


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({}, "home/.cache/undersong"),
        ({"XDG_CACHE_HOME": "{folder}/xdg"}, "xdg/undersong"),
        ({"XDG_CACHE_HOME": "relative"}, "home/.cache/undersong"),  # the specification says to ignore it
        ({"XDG_CACHE_HOME": ""}, "home/.cache/undersong"),
        ({"UNDERSONG_CACHE": "{folder}/own", "XDG_CACHE_HOME": "{folder}/xdg"}, "own"),
        ({"UNDERSONG_CACHE": ""}, None),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(
    variables: dict[str, str], place: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("UNDERSONG_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(folder=tmp_path))
    wanted = None if place is None else tmp_path / place
    assert user_cache() == wanted
    assert writable_user_cache() == wanted
    if wanted is not None:
        assert wanted.stat().st_mode & 0o777 == 0o700


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNDERSONG_CACHE", str(tmp_path / "file" / "cache"))
    assert writable_user_cache() is None
