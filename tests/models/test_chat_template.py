"""A chat template renders as transformers renders it, and none fills memory."""

from __future__ import annotations

import resource

import pytest
from jinja2 import TemplateError

from undersong.models.chat_template import MAX_TEMPLATE_CHARACTERS, TemplateLimitError, render_chat_template
from undersong.models.families import FAMILIES
from undersong.models.kimi.processing import CHAT_TEMPLATE
from undersong.models.load import load_model

AUDIO, TEXT = {"type": "audio", "audio": ""}, {"type": "text", "text": "fold a boat <b> & \u00e9"}
MESSAGES = [{"role": "user", "content": [AUDIO, TEXT]}]
DOUBLED = "{% set ns = namespace(x='aaaa') %}{% for i in range(60) %}{% set ns.x %s %}{% endfor %}"


@pytest.mark.parametrize("name", ["af3", "kimi", "qwen"])
def test_the_text_is_transformers_own(name: str) -> None:
    processor = load_model(f"organism:{name}").processor
    tokenizer, template = processor.tokenizer, processor.chat_template
    for messages in (MESSAGES, [{"role": "user", "content": [TEXT]}]):
        expected = tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )
        assert render_chat_template(template, messages, tokenizer.special_tokens_map) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{% generation %}a{% endgeneration %}{{ messages | tojson }}{{ dict(a=1)['a'] }}{{ 2 * 3 }}{{ 'ab' * 2 }}",
        "{% for m in messages %}{{ m.role + ':' ~ m.content | length }}{% break %}{% endfor %}",
        "{% set ns = namespace(n=0) %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
        "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f('a') }}{{ messages[0].content[1].text.upper() | trim }}",
        "{{ '%s-%02d' % ('a', 3) }}{{ '{}!'.format('b') }}{{ none ~ true }}{{ messages[0].nothing is defined }}",
        *(family.chat_template for family in FAMILIES if family.chat_template),
        CHAT_TEMPLATE,
    ],
)
def test_the_language_is_transformers_own(template: str) -> None:
    tokenizer = load_model("organism:qwen").tokenizer
    expected = tokenizer.apply_chat_template(
        MESSAGES, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert render_chat_template(template, MESSAGES, tokenizer.special_tokens_map) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10**10 }}",
        "{{ 10000000000 * 'a' }}",
        "{{ [1] * 10**9 }}",
        "{{ 9 ** 9 ** 9 ** 9 }}",
        "{{ '%10000000000d' % 1 }}",
        "{{ '%10000000000d' | format(1) }}",
        "{{ '{:>9999999999}'.format('a') }}",
        "{{ 'a' | center(10000000000) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        DOUBLED.replace("%s", "= ns.x ~ ns.x"),
        DOUBLED.replace("%s", "= ns.x + ns.x"),
        DOUBLED.replace("%s", "= ns.x | replace('a', 'aa')"),
        DOUBLED.replace("%s", "= [ns.x, ns.x] | join"),
        DOUBLED.replace("%s", "= [ns.x, ns.x]").replace("{% endfor %}", "{% endfor %}{{ ns.x }}"),
        DOUBLED.replace("%s", "%}{{ ns.x }}{{ ns.x }}{% endset"),
        "{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}",
        " " * (MAX_TEMPLATE_CHARACTERS + 1),
    ],
)
def test_a_template_that_would_fill_memory_is_stopped(template: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TemplateLimitError):
        render_chat_template(template, MESSAGES, {})
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_the_sandbox_holds() -> None:
    for template in (
        "{{ namespace(_a=1) }}",
        "{{ raise_exception('no') }}",
        "{{ messages.append(1) }}",
        "{{ messages.__class__.x }}",
    ):
        with pytest.raises(TemplateError):
            render_chat_template(template, MESSAGES, {})
