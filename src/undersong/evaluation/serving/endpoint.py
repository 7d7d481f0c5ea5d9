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
PLACEHOLDER_KEY = "none"  # private servers need no key, but the client must send one
ENDPOINT_PATTERN = re.compile(r"(?P<model>.+?)@(?P<url>[A-Za-z][A-Za-z0-9+.-]*://.+)", re.DOTALL)
BLANK_PATTERN = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ServedEndpoint:
    """Endpoint of a served model.

    `model` is its name on the server. `url` is the base of the API, usually ending in /v1, without a trailing slash.
    """

    model: str
    url: str

    @property
    def model_at_host(self) -> str:
        """Model, host and port, which identify the model. The path may be a secret and is left out."""
        return f"{self.model}@{urlsplit(self.url).netloc.lower()}"


def parse_endpoint(ref: str) -> ServedEndpoint:
    """Parse `MODEL@URL` or `served:MODEL@URL`; the model's name may contain colons and @ (`org/name:tag`).

    Raises:
        UndersongError: The form is wrong, there is a blank, the address is not http or https, or it has a password, a
            query or a fragment, where keys are put. The message does not repeat what may be a key.
    """
    ref = ref.removeprefix(SERVED_PREFIX)
    match = ENDPOINT_PATTERN.fullmatch(ref)
    if match is None or "://" in match["model"]:
        # What stands before an @ may be a password.
        name = "This" if "@" in ref or "://" in ref else repr(ref)
        raise UndersongError(
            f"{name} is not a served model; write MODEL@URL, such as my-model@http://localhost:8000/v1."
        )
    model, url = match["model"], match["url"].rstrip("/")
    if BLANK_PATTERN.search(model + url):
        raise UndersongError(f"The served model {model!r} has a blank in its name or address; remove it.")
    return ServedEndpoint(model, _check_url(model, url))


def _check_url(model: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # its text repeats the address
        raise UndersongError(
            f"The address of the served model {model} is not a URL; write http://HOST:PORT/v1."
        ) from None
    if "@" in parts.netloc:
        raise UndersongError(
            f"The address of the served model {model} carries a name or password, and addresses are kept in artifacts; "
            f"remove it and set {API_KEY_VARIABLE} instead."
        )
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise UndersongError(
            f"The address of the served model {model} has a query or fragment; remove it, and set {API_KEY_VARIABLE} "
            "if it was a key."
        )
    if parts.scheme.lower() not in ("http", "https"):
        raise UndersongError(f"The address of the served model {model} uses {parts.scheme}; use http or https.")
    if not host:
        raise UndersongError(f"The address of the served model {model} has no host; write http://HOST:PORT/v1.")
    if parts.path.endswith("/completions"):
        raise UndersongError(f"The address of the served model {model} is too long; end it before /chat/completions.")
    return url


def without_credentials(ref: str) -> str:
    """A reference for messages: without a name and password, query and fragment of its address."""
    return re.sub(r"[?#].*", "", re.sub(r"://.*@", "://", ref, flags=re.DOTALL), flags=re.DOTALL)


def api_key(url: str) -> str:
    """Key for an address: UNDERSONG_API_KEY, else OPENAI_API_KEY, else `none`.

    OPENAI_API_KEY usually belongs to another service, so it is only sent over https or within this machine.

    Raises:
        UndersongError: The key has invalid characters.
    """
    variables = (
        (API_KEY_VARIABLE, OPENAI_KEY_VARIABLE)
        if url.lower().startswith("https:") or _is_loopback(url)
        else (API_KEY_VARIABLE,)
    )
    for variable in variables:
        if key := os.environ.get(variable, "").strip():
            if not key.isascii() or not key.isprintable():
                raise UndersongError(f"The key in {variable} has characters that are not allowed; set it again.")
            return key
    return PLACEHOLDER_KEY


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
