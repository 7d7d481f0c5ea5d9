"""What a store holds of a study under another loading.  Results are filed under how the model was loaded, so that a
forgotten --dtype looks as if nothing had been done.  Asks the ledger again, loads no model and reads provenance alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.ledger import Ledger, look
from undersong.store import Store
from undersong.study import Study
from undersong.types import UndersongError


def made_otherwise(study: Study, ledger: Ledger, loading: Loading, unread: bool = False) -> tuple[str, ...]:
    """Where something of the study is missing, a sentence for each other loading that its store holds artefacts of.

    `ledger`, `unread`: of the study as it was asked, with `loading`.
    """
    if all(one.found is not None for one in ledger.asked.values()):
        return ()
    lines = []
    for other in _loadings(ledger.store):
        if other.key == loading.key:
            continue
        try:
            there = look(study, ledger.store.root, other, unread)
        except UndersongError:  # what stops the other one, a rule that keeps nothing there, is no fault of this one
            continue
        held = sum(one.found is not None for key, one in there.asked.items() if key not in ledger.asked)
        if held:
            how = _options(other, loading)
            lines.append(f"The store holds {held} of these made with {how}; say {how} to see them.")
    return tuple(lines)


def _loadings(store: Store) -> Iterator[Loading]:
    """How models were loaded that heard something for this store: the first that any model does for a study."""
    seen = []
    for config in store.configs("features"):
        key = config.get("loading") if isinstance(config, dict) else None
        if isinstance(key, dict) and key.keys() == PLAIN.key.keys() and key not in seen:
            seen.append(key)
            yield Loading(dtype=key["dtype"], attn_implementation=key["attention"], quantize=key["quantize"])


def _options(loading: Loading, asked: Loading) -> str:
    """A loading as verbs spell it, beside one that was asked: what is to be left out cannot be said by an option."""
    given = {"--attention": loading.attn_implementation, "--quantize": loading.quantize}
    left_out = {"--attention": asked.attn_implementation, "--quantize": asked.quantize}
    said = [f"--dtype {loading.dtype}", *(f"{name} {value}" for name, value in given.items() if value is not None)]
    without = [name for name, value in left_out.items() if value is not None and given[name] is None]
    return " ".join(said) + (f" without {' and '.join(without)}" if without else "")
