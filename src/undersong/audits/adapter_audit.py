"""One adapter, audited in one step: replies before and after, the gate's verdict, a page, and a section of the card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from undersong.audits.card import CardLabels, card_entries, card_text
from undersong.audits.gate.cut_replies import cut_reply_notes
from undersong.audits.gate.findings import ComparedFile, GateDecision
from undersong.audits.gate.labels import GateLabels
from undersong.audits.gate.output import finding_of, gate_json, judge_alone_notes
from undersong.audits.gate.page import write_gate_page
from undersong.audits.gate.rises import RiseLimits, evaluate_rises
from undersong.audits.watch.checkpoints import TrainerCheckpoint, file_signature, missing_part
from undersong.audits.watch.evaluator import CheckpointEvaluator, prompts_text
from undersong.audits.watch.journal import BASE, Journal, Measurement, check_journal
from undersong.audits.watch.options import PromptOptions
from undersong.audits.watch.output import rate_values
from undersong.encoders.batching import ProgressCallback
from undersong.evaluation.labels import find_replies_hash, read_sample
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.stages.output_folder import locked_output_folder, report_kept_work
from undersong.standalone.inputs import check_adapter, check_adapter_folder
from undersong.store.atomic import write_atomic
from undersong.store.hashing import hash_file
from undersong.types import UndersongError, Verdict

ADAPTER = "adapter"
PAGE, DECISION, CARD = "gate.html", "gate.json", "card.md"
DEFAULT_AUDIT = PromptOptions()


@dataclass(frozen=True)
class AdapterAudit:
    """Decision of the gate, and the folder that holds page, card and verdicts."""

    decision: GateDecision
    folder: Path


def audit_adapter(
    adapter: str | Path,
    model: str,
    out: Path,
    options: PromptOptions = DEFAULT_AUDIT,
    loading: LoadOptions = DEFAULT_LOAD_OPTIONS,
    *,
    change: str = "fine-tuning",
    labels: Path | None = None,
    say: Callable[[str], None] = print,
    watch: Callable[[str], ProgressCallback] | None = None,
) -> AdapterAudit:
    """Ask a model the same prompts without and with an adapter, and decide whether it became less safe.

    A stopped audit continues after the last batch of replies.

    Args:
        adapter: PEFT folder, or the folder of a whole fine-tuned model.
        model: Reference of the base.
        out: Folder of the results.
        options: Prompts, judge and limits.
        loading: Device and number format of the models.
        change: What happened between base and adapter, for page and card.
        labels: Labels of the replies in `out`, which correct the rates; None without.
        say: Receives a line for each step.
        watch: Makes the receiver of the progress of a named pass; None: nothing is.

    Raises:
        UndersongError: The adapter is incomplete or of another base, a prompt cannot be used, or `out` is of another
            audit.
    """
    checkpoint = _find_adapter(Path(adapter), model)
    limits = RiseLimits(
        options.max_jsr_rise, options.max_over_refusal_rise, options.confidence, options.max_margin_loss
    )
    evaluator = CheckpointEvaluator(model, options, loading)
    check_journal(out, evaluator.key)  # before prompts are read
    corpora = " and ".join(filter(None, (evaluator.sets.harmful, evaluator.sets.benign)))
    prompts = prompts_text(evaluator.prompts, evaluator.modality, evaluator.voice)
    say(f"{prompts}, of {corpora}; judge {evaluator.judge_name}.")
    with locked_output_folder(out):
        journal = Journal(out, evaluator.key)
        with report_kept_work(lambda: f"{journal.file} keeps what is measured, and the same command goes on from it"):
            before = _measure(journal, evaluator, None, say, watch)
            after = _measure(journal, evaluator, checkpoint, say, watch)
        files = {"before": journal.verdict_file(BASE), "after": journal.verdict_file(ADAPTER)}
        name = checkpoint.path.name
        card_labels = gate_labels = None
        if labels is not None:
            hash_before, hash_after = (find_replies_hash(file) for file in files.values())
            sample = read_sample(labels)
            card_labels = CardLabels(sample, hash_after, hash_before)
            gate_labels = GateLabels(sample, {name: (hash_before, hash_after)})
            files["labels"] = labels
        tests = evaluate_rises({name: (before, after)}, limits, gate_labels)
        notes = tuple(judge_alone_notes(tests)) if labels is not None else ()
        notes = (*notes, *cut_reply_notes({name: (before, after)}))
        compared = tuple(ComparedFile(role, str(file), hash_file(file)) for role, file in files.items())
        decision = GateDecision(tuple(map(finding_of, tests)), change, compared, options.confidence, notes)
        write_gate_page(decision, out / PAGE)
        write_atomic(out / DECISION, gate_json(decision).encode())
        card = card_text(card_entries(after, before, card_labels), name, {}, change)
        write_atomic(out / CARD, card.encode())
    return AdapterAudit(decision, out)


def _find_adapter(folder: Path, model: str) -> TrainerCheckpoint:
    """Find the adapter, and check its config against the model, before the base's replies are generated in vain."""
    if not folder.exists():
        raise UndersongError(f"{folder} does not exist; name the folder of a saved adapter or model.")
    if not (folder / "config.json").is_file():
        check_adapter_folder(folder)
    if reason := missing_part(folder):
        raise UndersongError(f"{folder} is not complete ({reason}); name the folder of a saved adapter or model.")
    checkpoint = TrainerCheckpoint(ADAPTER, folder, 1)
    if checkpoint.is_adapter:
        check_adapter(folder, model, allow_outside_decoder=True)
    return checkpoint


def _measure(
    journal: Journal,
    evaluator: CheckpointEvaluator,
    checkpoint: TrainerCheckpoint | None,
    say: Callable[[str], None],
    watch: Callable[[str], ProgressCallback] | None,
) -> list[Verdict]:
    """Verdicts of the base (None) or the adapter: those of the folder if its files are the same, else new ones."""
    name, signature = (BASE, "") if checkpoint is None else (ADAPTER, file_signature(checkpoint.path))
    kept = journal.measurements.get(name)
    if kept is not None and kept.files == signature:
        say(f"{name}: measured before")
        return list(kept.verdicts)
    say(f"{name}: asking {len(evaluator.prompts.all_prompts)} prompts")
    # The name has all that the replies depend on, so those of another adapter or set are not taken.
    identity = hashlib.sha256(json.dumps([evaluator.key, name, signature]).encode()).hexdigest()[:16]
    batches = journal.folder / f"{name}-{identity}.batches"
    replies = evaluator.reply(checkpoint, batches, None if watch is None else watch(f"{name} replies"))
    verdicts = evaluator.judge(replies)
    prompts = evaluator.prompts.all_prompts
    values = rate_values(prompts, replies, verdicts)
    look = 0 if checkpoint is None else journal.next_look(name)
    measurement = Measurement(name, int(checkpoint is not None), look, signature, values, verdicts)
    journal.write(measurement, replies, prompts, {"judge": evaluator.judge_name, "modality": evaluator.modality})
    batches.unlink(missing_ok=True)
    return verdicts
