"""Files of a checkpoint: what is there is found, what is not is None, and a silent hub is told from a missing file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
)

from undersong.models.hub_files import fetch_file, find_file
from undersong.models.load import load_model
from undersong.models.refs import family_of_ref, organism_folder
from undersong.models.weights import merge_published_lora
from undersong.types import UndersongError

COMMIT = "c0ffee" + 34 * "0"


def http_error(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    return kind("no", response=httpx.Response(status, request=httpx.Request("HEAD", "https://hub.example/x")))


MISSING = http_error(RemoteEntryNotFoundError, 404)
REFUSALS = {
    "gated": http_error(GatedRepoError, 403),
    "no such id": http_error(RepositoryNotFoundError, 404),
    "the hub is down": http_error(HfHubHTTPError, 503),
    "no network": LocalEntryNotFoundError("no network"),
    "time out": httpx.ReadTimeout("slow"),
    "disk full": OSError("disk full"),
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a hub answers, the next one last; the requests are put before it."""
    answers: list[Any] = []

    def download(repository: str, path: str, **options: object) -> str:
        answer = answers.pop()
        answers.insert(0, (repository, path, options))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    return answers


def test_a_folder_asks_no_hub(tmp_path: Path, hub: list[Any]) -> None:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "config.json").touch()
    assert find_file(tmp_path, "config.json", {}) is None
    assert find_file(tmp_path, "config.json", {"subfolder": "part"}) == tmp_path / "part" / "config.json"
    assert hub == []


def test_the_hub_gets_its_own_options(hub: list[Any]) -> None:
    hub.append("/cache/part/config.json")
    options = {"revision": "main", "subfolder": "part", "dtype": "float32", "token": "t"}
    assert find_file("org/name", "config.json", options) == Path("/cache/part/config.json")
    assert hub == [("org/name", "part/config.json", {"revision": "main", "token": "t"})]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_no_missing_file(refusal: str, hub: list[Any]) -> None:
    hub += [REFUSALS[refusal]] * 2
    assert find_file("org/name", "config.json", {}) is None
    with pytest.raises(type(REFUSALS[refusal])):
        fetch_file("org/name", "config.json", {})
    hub += [MISSING, MISSING]
    assert fetch_file("org/name", "config.json", {}) is find_file("org/name", "config.json", {}) is None


def test_offline_what_is_not_cached_is_missing(hub: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    hub += [REFUSALS["no network"]] * 2
    assert fetch_file("org/name", "config.json", {"local_files_only": True}) is None
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: True)
    assert fetch_file("org/name", "config.json", {}) is None


def test_the_cache_answers_for_a_commit(tmp_path: Path, hub: list[Any]) -> None:
    """With the file, and with the hub's earlier word that there is none."""
    repository = tmp_path / "models--org--name"
    for folder in ("snapshots", ".no_exist"):
        (repository / folder / COMMIT).mkdir(parents=True)
    (repository / "snapshots" / COMMIT / "config.json").touch()
    (repository / ".no_exist" / COMMIT / "chat_template.jinja").touch()
    options = {"revision": COMMIT, "cache_dir": tmp_path}
    found = fetch_file("org/name", "config.json", options)
    assert found == repository / "snapshots" / COMMIT / "config.json"
    assert fetch_file("org/name", "chat_template.jinja", options) is None
    assert hub == []
    hub.append("/cache/tokenizer.json")
    assert fetch_file("org/name", "tokenizer.json", options) == Path("/cache/tokenizer.json")


def test_no_text_of_an_id_is_an_error(tmp_path: Path) -> None:
    for text in ("", "a b", "/missing/folder", "org/name/more", "x" * 300):
        assert find_file(text, "config.json", {"local_files_only": True}) is None


def test_an_adapter_that_cannot_be_fetched_is_not_left_out(hub: list[Any]) -> None:
    """A Phi-4 without its speech adapter is another model, and nothing would say so."""
    hub.append(REFUSALS["no network"])
    with pytest.raises(
        UndersongError, match=r"The adapter speech-lora of org/name cannot be fetched \(it is not in the local"
    ):
        merge_published_lora(None, "org/name", "speech-lora", {})
    hub += [MISSING, MISSING]
    assert not merge_published_lora(None, "org/name", "speech-lora", {})


def test_facts_name_the_commit_of_a_hub_model(monkeypatch: pytest.MonkeyPatch) -> None:
    folder, family = organism_folder("af3"), family_of_ref("organism:af3")
    assert load_model("organism:af3").facts["revision"] is None
    monkeypatch.setattr("undersong.models.load.resolve_model", lambda ref: (folder, {"revision": COMMIT}, family))
    assert load_model("organism:af3").facts["revision"] == COMMIT
