"""What the package uses of other libraries beyond their documentation: each name is there, and each is on the page.

The page is docs/contributing/dependencies.md. A failure here names the library; the page says what needs the name.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "undersong"
PAGE = ROOT / "docs" / "contributing" / "dependencies.md"
ROW = re.compile(r"^\| `(?P<name>[\w.]+)` \| \w+ \| (?P<files>`.*?`) \| .* \| `(?P<test>test_\w+)` \|$", re.M)
ROWS = [match.groupdict() for match in ROW.finditer(PAGE.read_text())]


def require(owner: Any, name: str, library: str, *parameters: str) -> Any:
    """The attribute `name`, whose first parameters (without `self`) have these names."""
    place = f"{owner.__name__}.{name} of {library} {version(library)}"
    page = "see docs/contributing/dependencies.md for what needs it"
    assert hasattr(owner, name), f"There is no {place} any more; {page}."
    value = getattr(owner, name)
    if parameters:
        found = [parameter for parameter in inspect.signature(value).parameters if parameter != "self"]
        assert found[: len(parameters)] == list(parameters), f"{place} takes {found}, not {parameters}; {page}."
    return value


def require_from(module: str, name: str, *parameters: str) -> Any:
    """The same for a name of a module."""
    return require(importlib.import_module(module), name, module.partition(".")[0], *parameters)


# --- the names -------------------------------------------------------------------------------------------------------
def test_weight_conversion() -> None:
    require_from(
        "transformers.conversion_mapping", "get_model_conversion_mapping", "model", "key_mapping", "hf_quantizer"
    )
    require_from(
        "transformers.core_model_loading", "rename_source_key", "source_key", "weight_renamings", "weight_converters",
        "base_model_prefix", "meta_state_dict",
    )  # fmt: skip


def test_weight_converter() -> None:
    """It merges tensors of the meta device."""
    from transformers import Concatenate, MergeModulelist, WeightConverter

    require(WeightConverter, "add_tensor", "transformers", "target_key", "source_key", "source_pattern", "future")
    require(WeightConverter, "convert", "transformers", "layer_name", "model", "config")
    patterns = ["experts.*.gate.weight", "experts.*.up.weight"]
    converter = WeightConverter(patterns, "experts.both", operations=[MergeModulelist(0), Concatenate(1)])
    assert (converter.source_patterns, converter.target_patterns) == (patterns, ["experts.both"])
    for pattern in patterns:
        for i in range(3):
            converter.add_tensor("x.experts.both", f"x.{pattern}{i}", pattern, torch.empty(2, 5, device="meta"))
    assert list(converter.collected_tensors) == patterns
    network = SimpleNamespace(config=None)
    ((name, value),) = converter.convert("x.experts.both", model=network, config=None).items()
    value = value[0] if isinstance(value, list) else value
    assert (name, tuple(value.shape), value.device.type) == ("x.experts.both", (3, 4, 5), "meta")


def test_trainer_checkpoints() -> None:
    """The Trainer calls both, and hands them a folder first."""
    from transformers import Trainer

    require(Trainer, "_save", "transformers", "output_dir", "state_dict")
    require(Trainer, "_load_from_checkpoint", "transformers", "resume_from_checkpoint", "model")
    for name in ("_save", "_load_from_checkpoint"):
        assert f"self.{name}(" in inspect.getsource(inspect.getmodule(Trainer)), f"the Trainer no longer calls {name}"


def test_tied_weights() -> None:
    from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

    require(PreTrainedModel, "_tied_weights_keys", "transformers")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}

    class Untied(Qwen2ForCausalLM):
        _tied_weights_keys = None

    class Tied(Untied):
        _tied_weights_keys: Any = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    for network_class in (Untied, Tied):
        with torch.device("meta"):
            network = network_class(
                Qwen2Config(**sizes, num_key_value_heads=1, vocab_size=10, tie_word_embeddings=True)
            )
        assert (network.lm_head.weight is network.model.embed_tokens.weight) == (network_class is Tied)


def test_callback_handler() -> None:
    handler = require_from("transformers.trainer_callback", "CallbackHandler")
    require(handler, "call_event", "transformers", "event", "args", "state", "control")


def test_tiktoken_converter() -> None:
    """It reads the ranks by the static method that we replace."""
    converter = require_from("transformers.convert_slow_tokenizer", "TikTokenConverter", "vocab_file", "pattern")
    assert "extra_special_tokens" in inspect.signature(converter).parameters
    require(converter, "load_tiktoken_bpe", "transformers")
    require(converter, "converted", "transformers")
    assert "load_tiktoken_bpe(" in inspect.getsource(converter.extract_vocab_merges_from_model)


def test_mistral_format() -> None:
    """Read by `from_pretrained` itself; handed on, it would be one of the tokenizer's own settings."""
    from transformers import AutoTokenizer

    source = inspect.getsource(AutoTokenizer.from_pretrained)
    assert 'kwargs.pop("mistral_format"' in source, f"transformers {version('transformers')} reads no mistral_format"


def test_bidirectional_mask() -> None:
    mask = require_from("transformers.masking_utils", "create_bidirectional_mask")
    assert {"config", "inputs_embeds", "attention_mask"} <= inspect.signature(mask).parameters.keys()


@pytest.mark.parametrize(
    ("family", "name", "parameters"),
    [
        ("whisper", "WhisperEncoder", ("config",)),
        ("whisper", "WhisperEncoderLayer", ("config",)),
        ("qwen2", "Qwen2DecoderLayer", ("config", "layer_idx")),
        ("qwen2", "Qwen2RMSNorm", ("hidden_size", "eps")),
        ("audioflamingo3", "AudioFlamingo3MultiModalProjector", ("config",)),
    ],
)
def test_network_parts(family: str, name: str, parameters: tuple[str, ...]) -> None:
    part = require_from(f"transformers.models.{family}.modeling_{family}", name)
    found = list(inspect.signature(part.__init__).parameters)[1:]
    assert found[: len(parameters)] == list(parameters)


def test_peft() -> None:
    from peft import LoraConfig, get_peft_model

    exists = require_from("peft.tuners.tuners_utils", "check_target_module_exists", "config", "key")
    wrapper = require_from("peft.tuners.tuners_utils", "BaseTunerLayer")
    layer = require_from("peft.tuners.lora", "LoraLayer")
    require(wrapper, "get_base_layer", "peft")
    config = LoraConfig(r=2, target_modules=["0"])
    assert exists(config, "0")
    assert not exists(config, "1")
    linear = torch.nn.Linear(2, 2)
    adapted = get_peft_model(torch.nn.Sequential(linear, torch.nn.ReLU()), config)
    assert adapted.base_model.targeted_module_names == ["0"], "targeted_module_names of PEFT says something else"
    (wrapped,) = [module for module in adapted.modules() if isinstance(module, wrapper)]
    assert isinstance(wrapped, layer)
    assert wrapped.get_base_layer() is linear
    assert list(wrapped.scaling) == ["default"]


def test_usage_error() -> None:
    """Its place in the family of errors, and what an error on an unknown option knows."""
    import typer
    from typer.testing import CliRunner

    from undersong.cli.command_group import UsageError

    assert UsageError.__name__ == "UsageError", f"typer {version('typer')} has {UsageError} above BadParameter"
    app = typer.Typer()
    app.command()(lambda number: None)
    result = CliRunner().invoke(app, ["--bogus"], standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert result.exception.option_name == "--bogus"  # type: ignore[attr-defined]
    assert hasattr(result.exception, "possibilities")
    assert result.exception.ctx.command is not None  # type: ignore[attr-defined]
    assert "--bogus" in result.exception.format_message()  # type: ignore[attr-defined]


def test_jinja() -> None:
    generator = require_from("jinja2.compiler", "CodeGenerator")
    require(generator, "visit_Concat", "jinja2", "node", "frame")
    require(generator, "write", "jinja2", "x")
    require_from("jinja2.compiler", "Frame")
    require_from("jinja2.utils", "Namespace")
    require(importlib.import_module("jinja2").Environment, "code_generator_class", "jinja2")


def test_a_name_that_is_gone_is_named_with_its_library() -> None:
    gone = (
        f"There is no SimpleNamespace._save of peft {version('peft')} any more; see docs/contributing/dependencies.md"
    )
    with pytest.raises(AssertionError, match=re.escape(gone)):
        require(SimpleNamespace, "_save", "peft")
    with pytest.raises(AssertionError, match="takes \\['config', 'key'\\], not \\('config', 'name'\\); see docs"):
        require_from("peft.tuners.tuners_utils", "check_target_module_exists", "config", "name")


# --- the page --------------------------------------------------------------------------------------------------------
# Modules below the top level of these libraries that their documentation describes.
DOCUMENTED = (
    "transformers.utils", "transformers.modeling_outputs", "transformers.audio_utils", "jinja2.sandbox", "jinja2.ext",
    "jinja2.exceptions", "jinja2.parser",
)  # fmt: skip
CLOSED = ("transformers", "peft", "jinja2")  # libraries whose other modules count as undocumented
OWN_KEYS = ("_type", "_name_or_path")  # keys of files, which are formats
PUBLIC = ("_exit", "_asdict")  # of Python, documented
OWN = re.compile(  # definitions; the keyword of a call has no space before its sign
    r"""(?: (?:def|class|as|for)[ ] (?= _\w+ (?:[:(]|[ ]in[ ]|,[ ]) )
          | (?:self\.|^[ ]*) (?= _\w+ (?:[ ]=|:[ ]|,[ ]) )
          | [(,][ ]? (?= _\w+ (?::[ ]|,|\)) )
        ) (\w+)""",
    re.MULTILINE | re.VERBOSE,
)
PRIVATE = re.compile(r"(?<!\w)_(?!_)\w+")
SUSPECT = re.compile(rf"^ *from (?:{'|'.join(CLOSED)})\.|__(?:mro|bases?)__|^ *class \w+\(", re.MULTILINE)
ACCESS = ("getattr", "setattr", "hasattr", "delattr")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.strip("_").isidentifier()


def names_in(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Private names of libraries, and names of undocumented modules, that a source file uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            library = node.module.partition(".")[0]
            if library in ("undersong", "__future__") or library in sys.stdlib_module_names:
                continue
            closed = library in CLOSED and "." in node.module and not node.module.startswith(DOCUMENTED)
            path_is_private = any(is_private(part) for part in node.module.split("."))
            yield from (x.name for x in node.names if closed or path_is_private or is_private(x.name))
        elif isinstance(node, ast.keyword) and node.arg and is_private(node.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            yield node.attr
        elif isinstance(node, ast.Attribute) and node.attr in ("__mro__", "__bases__", "__base__"):
            yield f"{ast.unparse(node.value).rpartition('.')[2]}.{node.attr}"
        elif isinstance(node, ast.Dict):
            yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and is_private(str(key.value)))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ACCESS:
            yield from (x.value for x in node.args if isinstance(x, ast.Constant) and is_private(str(x.value)))


def overridden_names(tree: ast.Module) -> Iterator[str]:
    """Private names of a library's class that a class of ours replaces."""
    modules = {x.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for x in node.names}
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        defined = {entry.name for entry in node.body if isinstance(entry, ast.FunctionDef)}
        private = {name for name in defined.union(*map(targets_of, node.body)) if is_private(name)}
        for base in node.bases if private else ():
            module = modules.get(ast.unparse(base)) or "undersong"
            if module.partition(".")[0] not in ("undersong", *sys.stdlib_module_names):
                owner = getattr(importlib.import_module(module), ast.unparse(base))
                yield from (name for name in private if hasattr(owner, name))


def targets_of(statement: ast.stmt) -> set[str]:
    """Names that a statement assigns."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def scan() -> dict[str, set[str]]:
    """Files of the package by the names that they use."""
    texts = {path: path.read_text() for path in sorted(SOURCE.rglob("*.py"))}
    own = {name for text in texts.values() for name in OWN.findall(text)}
    uses: dict[str, set[str]] = {}
    for path, text in texts.items():
        if set(PRIVATE.findall(text)) <= own and not SUSPECT.search(text):
            continue  # parsing all files takes seconds
        tree = ast.parse(text)
        for name in {*names_in(tree, own), *overridden_names(tree)} - {*OWN_KEYS, *PUBLIC}:
            uses.setdefault(name, set()).add(str(path.relative_to(SOURCE)))
    return uses


def test_the_table_lists_every_name() -> None:
    listed = {row["name"]: set(re.findall(r"`(.*?)`", row["files"])) for row in ROWS}
    for name, files in scan().items():
        assert name in listed, f"{name}, in {sorted(files)}, is not in {PAGE.name}: take a public way, or add it"
        assert files <= listed[name], f"{PAGE.name} does not say that {sorted(files - listed[name])} uses {name}"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_every_row_is_used_and_tested(row: dict[str, str]) -> None:
    for file in re.findall(r"`(.*?)`", row["files"]):
        assert row["name"].rpartition(".")[2] in (SOURCE / file).read_text(), f"{file} no longer uses {row['name']}"
    name = "UsageError" if "__mro__" in row["name"] else row["name"].rpartition(".")[2]
    test = globals()[row["test"]]
    cases = [str(mark.args) for mark in getattr(test, "pytestmark", ())]
    assert any(name in text for text in (inspect.getsource(test), *cases))


def test_every_line_of_the_table_is_read() -> None:
    table = PAGE.read_text().partition("| name |")[2].partition("\n\n")[0]
    assert len(ROWS) == len(table.splitlines()) - 2


def test_a_planted_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a package where all other private names are its own."""
    (tmp_path / "own.py").write_text("class Mine:\n    def _count(self, _unused: int): return self._count(_unused)\n")
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    assert scan() == {}
    for line in (
        "cached_file(\n    x,\n    _raise_it=False,\n)",
        "cached_file(x, _raise_it=False)",
        "x = self._raise_it(1)",
    ):
        (tmp_path / "other.py").write_text(line)
        assert scan() == {"_raise_it": {"other.py"}}


def test_the_search_finds_what_a_class_replaces() -> None:
    text = "from transformers import Trainer\nclass Mine(Trainer):\n    def _save(self): ...\n    def _mine(self): ..."
    assert list(overridden_names(ast.parse(text))) == ["_save"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cached_file(x, _raise_exceptions_for_missing_entries=False)", ["_raise_exceptions_for_missing_entries"]),
        ("options = {'_raise_exceptions_for_gated_repo': False}", ["_raise_exceptions_for_gated_repo"]),
        ("from huggingface_hub import _CACHED_NO_EXIST", ["_CACHED_NO_EXIST"]),
        ("from torch._dynamo import config", ["config"]),
        ("from transformers.core_model_loading import WeightRenaming", ["WeightRenaming"]),
        ("from transformers.utils import logging\nfrom undersong.types import _mine\nfrom os import _exit", []),
        ("model._get_feat_extract_output_lengths(1)", ["_get_feat_extract_output_lengths"]),
        ("getattr(config, '_commit_hash', None)", ["_commit_hash"]),
        ("typer.BadParameter.__mro__[1]", ["BadParameter.__mro__"]),
        ("self._mine", []),
    ],
)
def test_the_search_finds_what_it_should(text: str, names: list[str]) -> None:
    assert list(names_in(ast.parse(text), {"_mine"})) == names
