"""Rendering of a checkpoint's chat template within limits of size.

A template is untrusted: jinja's sandbox keeps it from running code, and the limits here from filling memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_TEMPLATE_CHARACTERS = 200_000  # published templates have up to 20,000
MAX_WORK = 4_000_000  # characters and items that one rendering may make; a prompt takes about 10,000


class TemplateLimitError(SecurityError):
    """A template that is too long, or that makes too much."""


class _GenerationTag(Extension):
    """`{% generation %}`, by which templates mark the assistant's words; its body is written as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja's interface

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _CodeGenerator(CodeGenerator):
    """jinja's generator of Python code, with the operator `~` under the limits."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        """Write a call of `LimitedEnvironment.join_values`."""
        self.write("environment.join_values((")
        for value in node.nodes:
            self.visit(value, frame)
            self.write(", ")
        self.write("))")


class _PublicNamespace(Namespace):
    """`namespace()` without names that begin with an underscore, as in transformers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        values = dict(*args, **kwargs)
        for name in values:
            _check_public(name)
        super().__init__(values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_public(name)
        super().__setitem__(name, value)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """The environment in which transformers renders chat templates, with a limit of `MAX_WORK` per rendering.

    Every operation that can make a value longer than its operands counts: operators, calls, filters and captured
    blocks.
    """

    intercepted_binops = frozenset({"*", "**", "+", "%"})
    code_generator_class = _CodeGenerator

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols], finalize=self._checked
        )
        self.work = 0
        self.filters["tojson"] = _to_json
        self.filters = {name: self._limited_filter(name, function) for name, function in self.filters.items()}
        self.globals |= {
            "raise_exception": _raise_template_error,
            "strftime_now": lambda pattern: datetime.now().strftime(pattern),
            "namespace": _PublicNamespace,
        }

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute an intercepted operator."""
        if operator == "**" and (not _is_small(left) or not _is_small(right)):
            raise TemplateLimitError("it raises a number to a large power")
        if operator == "*":
            self._count(_size(left) * right if isinstance(right, int) else 0)
            self._count(_size(right) * left if isinstance(left, int) else 0)
        if operator == "%" and isinstance(left, str):
            _check_widths(left)
        return self._counted(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method or a function."""
        self._check_arguments((*args, *kwargs.values()))
        return self._counted(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Any:
        """Jinja's safe version of a text's method `format`; None for every other value."""
        wrapper = super().wrap_str_format(value)
        if wrapper is not None:
            _check_widths(value.__self__)
        return wrapper

    def join_values(self, values: Sequence[Any]) -> str:
        """Join values as texts: the operator `~`."""
        return self.concat(str(self._checked(value)) for value in values)

    def render_text(self, template: Any, variables: Mapping[str, Any]) -> str:
        """Render a compiled template, counting from 0."""
        self.work = 0
        pieces = []
        for piece in template.generate(**variables):
            self._count(len(piece))
            pieces.append(piece)
        return "".join(pieces)

    def concat(self, texts: Iterable[str]) -> str:
        """Join the pieces of a captured block."""
        text = "".join(texts)
        self._count(len(text))
        return text

    def _limited_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def limited(*args: Any, **kwargs: Any) -> Any:
            self._check_arguments((*args, *kwargs.values()))
            if name == "format":
                _check_widths(str(args[0]))
            return self._counted(function(*args, **kwargs))

        limited.__dict__.update(getattr(function, "__dict__", {}))  # says whether jinja passes its context
        return limited

    def _check_arguments(self, values: Iterable[Any]) -> None:
        for value in values:
            if isinstance(value, int) and abs(value) > MAX_WORK:
                self._count(abs(value))
            self._checked(value)

    def _checked(self, value: Any) -> Any:
        """The value, if writing it stays within the limit: a list that holds another twice doubles it at each level."""
        stack, amount = [value], 0
        while stack:
            item = stack.pop()
            amount += 1 + (len(item) if isinstance(item, str) else 0)
            if amount > MAX_WORK:
                self._count(amount)
            if isinstance(item, (list, tuple)):
                stack.extend(item)
            elif isinstance(item, Mapping):
                stack.extend(item.values())
        return value

    def _counted(self, value: Any) -> Any:
        self._count(_size(value))
        return value

    def _count(self, amount: int) -> None:
        self.work += max(amount, 0)
        if self.work > MAX_WORK:
            raise TemplateLimitError(f"it makes more than {MAX_WORK:,} characters")


def render_chat_template(template: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, Any]) -> str:
    """Render the text of a conversation up to the assistant's turn, as transformers' `apply_chat_template` does.

    `tokens` are the tokenizer's special tokens by name (`special_tokens_map`). Raises jinja2.TemplateError for a
    template that fails, and `TemplateLimitError`, which is one, if the template is too long or makes too much.
    """
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateLimitError(f"it has {len(template):,} characters, more than {MAX_TEMPLATE_CHARACTERS:,}")
    variables = {**tokens, "messages": list(messages), "tools": None, "documents": None, "add_generation_prompt": True}
    try:
        environment, compiled = _compiled(template)
        return environment.render_text(compiled, variables)
    except RecursionError:
        raise TemplateLimitError("it is nested too deeply") from None
    except MemoryError:
        raise TemplateLimitError("it takes more memory than there is") from None


@lru_cache(maxsize=16)
def _compiled(template: str) -> tuple[LimitedEnvironment, Any]:
    environment = LimitedEnvironment()
    return environment, environment.from_string(template)


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, tuple, dict, range)) else 0


def _is_small(value: Any) -> bool:
    return not isinstance(value, int) or abs(value) <= 1_000


def _check_widths(text: str) -> None:
    """Reject a format that pads to a large width, or to a width that an argument gives."""
    if re.search(r"\d{5}|\*", text):
        raise TemplateLimitError("it pads a text to a large width")


def _check_public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores the private name {name!r}")


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Write JSON without escaping HTML, which jinja's own filter does."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_template_error(message: str) -> None:
    raise TemplateError(message)
