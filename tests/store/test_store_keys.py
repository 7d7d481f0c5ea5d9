"""Keys: the same question has one key, however it is written down; another question has another."""

import hashlib
import json
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.store.hashing import canonical_json, hash_file, hash_folder
from undersong.store.store import Artifact, Store
from undersong.types import UndersongError

fixed = settings(deadline=None, derandomize=True)
HASH = "0123456789abcdef" * 4
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
plain = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))
configs = st.dictionaries(st.text(), plain, max_size=5)
hashes = st.text("0123456789abcdef", min_size=40, max_size=64)
inputs = st.dictionaries(st.text(string.ascii_lowercase, min_size=1), hashes, max_size=3)


def reversed_everywhere(obj: object) -> object:
    if isinstance(obj, dict):
        return {key: reversed_everywhere(obj[key]) for key in reversed(obj)}
    return [reversed_everywhere(item) for item in obj] if isinstance(obj, list) else obj


@fixed
@given(config=configs, given_inputs=inputs)
def test_key_does_not_depend_on_the_order_of_keys(config: dict, given_inputs: dict) -> None:
    store = Store("nowhere")
    other = store.key("stage", 1, reversed_everywhere(config), dict(reversed(given_inputs.items())))
    assert store.key("stage", 1, config, given_inputs) == other


@fixed
@given(a=plain, b=plain)
def test_canonical_is_injective(a: object, b: object) -> None:
    """Two values share a text only if they are the same JSON: 1 is not 1.0, True is not 1, order of a list counts."""
    assert (canonical_json(a) == canonical_json(b)) == (repr(sorted_everywhere(a)) == repr(sorted_everywhere(b)))


def sorted_everywhere(obj: object) -> object:
    if isinstance(obj, dict):
        return {key: sorted_everywhere(obj[key]) for key in sorted(obj)}
    return [sorted_everywhere(item) for item in obj] if isinstance(obj, list) else obj


@fixed
@given(value=plain)
def test_canonical_round_trips(value: object) -> None:
    assert json.loads(canonical_json(value)) == value
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@fixed
@given(config=configs, other=configs, name=st.text(), value=leaves)
def test_key_feels_every_part(config: dict, other: dict, name: str, value: object) -> None:
    store = Store("nowhere")
    key = store.key("stage", 1, config, {"corpus": HASH})
    assert key != store.key("stages", 1, config, {"corpus": HASH})
    assert key != store.key("stage", 2, config, {"corpus": HASH})
    assert key != store.key("stage", "1", config, {"corpus": HASH})
    assert key != store.key("stage", 1, config, {"corpus": HASH[::-1]})
    assert key != store.key("stage", 1, config, {"pool": HASH})
    assert key != store.key("stage", 1, config, {})
    changed = {**config, name: [value, "changed"]}
    assert (key == store.key("stage", 1, changed, {"corpus": HASH})) == (
        canonical_json(config) == canonical_json(changed)
    )


def test_a_tuple_is_a_list_and_an_artifact_is_its_hash() -> None:
    store, artifact = Store("nowhere"), Artifact("corpus", HASH, Path("anywhere"))
    assert store.key("stage", 1, {"a": (1, 2)}, {"c": artifact}) == store.key("stage", 1, {"a": [1, 2]}, {"c": HASH})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1: "a"}, {"a": Path("x")}, [b"bytes"], {"a": {1, 2}}])
def test_what_json_cannot_say_is_refused(bad: object) -> None:
    with pytest.raises(UndersongError, match="config of stage"):
        Store("nowhere").key("stage", 1, {"x": bad}, {})


@pytest.mark.parametrize("bad", ["", "corpus/pool.jsonl", "organism:af3", HASH.upper(), HASH[:20]])
def test_an_input_is_never_a_path_or_a_name(bad: str) -> None:
    with pytest.raises(ValueError, match="content hash"):
        Store("nowhere").key("stage", 1, {}, {"corpus": bad})


@pytest.mark.parametrize("bad", ["", "../up", "a/b", ".hidden", "Upper"])
def test_a_stage_names_a_folder(bad: str) -> None:
    with pytest.raises(ValueError, match="stage"):
        Store("nowhere").key(bad, 1, {}, {})


def test_hash_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()
    with pytest.raises(UndersongError, match="missing"):
        hash_file(tmp_path / "missing")


def test_hash_folder_feels_names_contents_and_nothing_else(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> str:
        for file, content in files.items():
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(content)
        return hash_folder(tmp_path / name)

    one = folder("one", {"a": "1", "sub/b": "2"})
    assert one == folder("two", {"sub/b": "2", "a": "1"})
    variants = [{"a": "1", "sub/b": "3"}, {"a": "1", "b": "2"}, {"a": "2", "sub/b": "1"}, {"a": "1"}]
    assert len({one, *(folder(f"v{i}", files) for i, files in enumerate(variants))}) == 5
    (tmp_path / "empty").mkdir()
    for nothing in ("empty", "missing"):
        with pytest.raises(UndersongError, match=nothing):
            hash_folder(tmp_path / nothing)
