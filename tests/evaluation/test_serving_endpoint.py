"""MODEL@URL: what is taken, what is refused, and that no key is ever shown."""

from __future__ import annotations

import pytest

from undersong.evaluation.serving.endpoint import ServedEndpoint, api_key, parse_endpoint
from undersong.stages.black_box_models import display_reference
from undersong.types import UndersongError


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UNDERSONG_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("ref", "model", "url"),
    [
        ("qwen-tuned@http://localhost:8000/v1", "qwen-tuned", "http://localhost:8000/v1"),
        ("served:qwen-tuned@http://localhost:8000/v1/", "qwen-tuned", "http://localhost:8000/v1"),
        ("org/name:7b@main@https://host.example/v1", "org/name:7b@main", "https://host.example/v1"),
        ("m@http://[::1]:80/v1", "m", "http://[::1]:80/v1"),
        ("m@HTTP://h", "m", "HTTP://h"),
    ],
)
def test_a_model_and_its_address(ref: str, model: str, url: str) -> None:
    assert parse_endpoint(ref) == ServedEndpoint(model, url)


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("", "not a served model"),
        ("served:", "not a served model"),
        ("model", "not a served model"),
        ("@http://h/v1", "not a served model"),
        ("m@localhost:8000/v1", "not a served model"),
        ("m@ftp://h/v1", "uses ftp"),
        ("m@file:///etc/x", "uses file"),
        ("m@http:///v1", "has no host"),
        ("m@http://h:port/v1", "is not a URL"),
        ("m@http://h:99999/v1", "is not a URL"),
        ("m@http://[::1/v1", "is not a URL"),
        ("m @http://h/v1", "has a blank"),
        ("m@http://h/v1\nx", "has a blank"),
        ("m@http://h/v1/chat/completions", "is too long"),
    ],
)
def test_what_is_no_address_is_refused(ref: str, says: str) -> None:
    with pytest.raises(UndersongError, match=says):
        parse_endpoint(ref)


@pytest.mark.parametrize(
    "ref",
    [
        "m@http://user:hush@h/v1",
        "m@https://hush@h/v1",
        "m@http://h/v1?api-key=hush",
        "m@http://h/v1#hush",
        "m@ftp://user:hush@h:x/v1",
        "m@http:/user:hush@h/v1",
        "m@user:hush@h",
        "user:hush@h",
        "http://user:hush@h/v1",
        "http://user:hush@h/v1@http://h/v1",
        "m@http://user:hu@sh@h/v1",
        "hush@",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(ref: str) -> None:
    with pytest.raises(UndersongError) as error:
        parse_endpoint(ref)
    assert "hush" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize("address", ["http://a:hush@h/v1", "http://hush@h/v1", "http://a:hu@hush/@h/v1?hush#hush"])
def test_a_name_that_is_shown_has_no_secret(address: str) -> None:
    assert display_reference(f"served:m@{address}") == "served:m@http://h/v1"
    assert display_reference("served:org/m:tag@http://h/v1") == "served:org/m:tag@http://h/v1"


def test_which_key_goes_where(monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_key("https://h/v1") == "none"
    monkeypatch.setenv("OPENAI_API_KEY", "other")
    for url in ("https://h/v1", "http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:8/v1"):
        assert api_key(url) == "other"
    for url in ("http://h/v1", "http://localhost.example/v1", "http://10.0.0.1/v1"):
        assert api_key(url) == "none"  # set for somebody else, and anybody on the way could read it
    monkeypatch.setenv("UNDERSONG_API_KEY", " mine\n")
    assert api_key("http://h/v1") == api_key("https://h/v1") == "mine"
    monkeypatch.setenv("UNDERSONG_API_KEY", "hush\nhush")
    with pytest.raises(UndersongError, match="UNDERSONG_API_KEY has characters") as error:
        api_key("http://h/v1")
    assert "hush" not in str(error.value)
