"""The endpoint of a served model (MODEL@URL) and its API key.

Opens no connection; keys are never part of an address.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from undersong.types import UndersongError

SERVED_PREFIX = "served:"
API_KEY_VARIABLE, OPENAI_KEY_VARIABLE = "UNDERSONG_API_KEY", "OPENAI_API_KEY"
PLACEHOLDER_KEY = "none"  # servers of one's own ask for none, and the client must send something
ENDPOINT_PATTERN = re.compile(r"(?P<model>.+?)@(?P<url>[A-Za-z][A-Za-z0-9+.-]*://.+)", re.DOTALL)
BLANK_PATTERN = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ServedEndpoint:
    """`model`: as the server names it.  `url`: the base of its API, mostly ending in /v1, without a last slash."""

    model: str
    url: str

    @property
    def model_at_host(self) -> str:
        """Model, host and port: what tells two of one name apart.  A path may be a secret, and stays out."""
        return f"{self.model}@{urlsplit(self.url).netloc.lower()}"


def parse_endpoint(ref: str) -> ServedEndpoint:
    """`MODEL@URL`, or the same after `served:`; the model's name may hold colons and @ (`org/name:tag`).

    Errors: another form, a blank in it, an address that is not http or https, or that carries a password, a query or
    a fragment (where keys are put); none of them repeats what may be a key.
    """
    ref = ref.removeprefix(SERVED_PREFIX)
    match = ENDPOINT_PATTERN.fullmatch(ref)
    if match is None:
        raise UndersongError(
            f"{ref.partition('@')[0]!r} is no served model; say MODEL@URL, such as my-model@http://localhost:8000/v1."
        )
    model, url = match["model"], match["url"].rstrip("/")
    if BLANK_PATTERN.search(model + url):
        raise UndersongError(f"The served model {model!r} has a blank in its name or address; take it out.")
    return ServedEndpoint(model, _check_url(model, url))


def _check_url(model: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text repeats the address
        raise UndersongError(f"The address of the served model {model} is no URL; say http://HOST:PORT/v1.") from None
    if "@" in parts.netloc:
        raise UndersongError(
            f"The address of the served model {model} carries a name or password, and addresses are kept in artifacts; "
            f"take it out and set {API_KEY_VARIABLE} instead."
        )
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise UndersongError(
            f"The address of the served model {model} goes on after its path; take out what follows ? or #, and set "
            f"{API_KEY_VARIABLE} where that was a key."
        )
    if parts.scheme.lower() not in ("http", "https"):
        raise UndersongError(f"The served model {model} is asked by {parts.scheme}; give an http or https address.")
    if not host:
        raise UndersongError(f"The address of the served model {model} names no host; say http://HOST:PORT/v1.")
    if parts.path.endswith("/completions"):
        raise UndersongError(f"The address of the served model {model} goes too far; end it before /chat/completions.")
    return url


def api_key(url: str) -> str:
    """The key for an address: of UNDERSONG_API_KEY, else of OPENAI_API_KEY, else `none`.

    OPENAI_API_KEY is mostly there for something else, so it is not sent where anybody on the way could read it: only
    over https, or within this machine.
    """
    variables = (
        (API_KEY_VARIABLE, OPENAI_KEY_VARIABLE)
        if url.lower().startswith("https:") or _is_loopback(url)
        else (API_KEY_VARIABLE,)
    )
    for variable in variables:
        if key := os.environ.get(variable, "").strip():
            if not key.isascii() or not key.isprintable():
                raise UndersongError(f"The key in {variable} has characters that no key has; set it again.")
            return key
    return PLACEHOLDER_KEY


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
