"""Speech recognition: transcribe clips with Whisper, and store transcripts.

Empty or unfinished transcripts are quarantined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.encoders.checkpoint import (
    CHECKPOINT_FILES,
    checkpoint_folder,
    load_extractor,
    load_network,
    read_config,
)
from undersong.encoders.clip_encoder import clip_seconds, decode_clips, length_sorted_blocks
from undersong.encoders.embeddings import QUARANTINE_FILE, quarantine_table, read_quarantine
from undersong.models.out_of_memory import halve_on_oom
from undersong.store.parquet import read_parquet, write_parquet
from undersong.types import Clip, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


TRANSCRIPTS_FILE = "transcripts.parquet"
TRANSCRIPT_COLUMNS = ("id", "text", "seconds", "model")


@dataclass(frozen=True, slots=True)
class Transcript:
    """Transcript of one clip of `seconds` seconds by `model`."""

    id: str
    text: str
    seconds: float
    model: str


@dataclass(frozen=True, slots=True)
class Transcripts:
    """Transcripts in the samples' order; clips that could not be transcribed are quarantined."""

    rows: tuple[Transcript, ...]
    quarantined: tuple[Quarantined, ...] = ()


def samples_without_text(samples: Sequence[Sample]) -> list[Sample]:
    """The samples to transcribe: those with audio and without a text."""
    return [sample for sample in samples if sample.audio is not None and not (sample.text or "").strip()]


def with_transcripts(samples: Sequence[Sample], transcripts: Transcripts) -> tuple[Sample, ...]:
    """The samples, in order, with transcripts as the text of those that have none; existing texts stay."""
    texts = {row.id: row.text for row in transcripts.rows}
    missing_ids = {sample.id for sample in samples_without_text(samples)}
    return tuple(
        replace(sample, text=texts[sample.id]) if sample.id in missing_ids and sample.id in texts else sample
        for sample in samples
    )


def transcripts_table(samples: Sequence[Sample], transcripts: Transcripts) -> pa.Table:
    """Table with one row per sample, in order: id, text, seconds, model, or else id and the reason for a failure."""
    import pyarrow as pa

    transcribed, reasons = (
        {row.id: row for row in transcripts.rows},
        {item.id: item.reason for item in transcripts.quarantined},
    )
    rows = [
        {name: getattr(transcribed[sample.id], name) for name in TRANSCRIPT_COLUMNS}
        if sample.id in transcribed
        else {"id": sample.id, "reason": reasons[sample.id]}
        for sample in samples
    ]
    return pa.Table.from_pylist(rows, pa.schema([*_schema(), ("reason", pa.string())]))


def transcripts_from_table(table: pa.Table) -> Transcripts:
    """Read transcripts from the table of `transcripts_table`."""
    rows, quarantined = list[Transcript](), list[Quarantined]()
    for row in table.to_pylist():
        reason = row.pop("reason")
        if reason is None:
            rows.append(Transcript(**row))
        else:
            quarantined.append(Quarantined(row["id"], reason))
    return Transcripts(tuple(rows), tuple(quarantined))


def write_transcripts(transcripts: Transcripts, folder: Path) -> None:
    """Write `transcripts.parquet` (id, text, seconds, model) and `quarantine.parquet` (id, reason)."""
    import pyarrow as pa

    folder.mkdir(parents=True, exist_ok=True)
    columns = {name: [getattr(row, name) for row in transcripts.rows] for name in TRANSCRIPT_COLUMNS}
    write_parquet(pa.table(columns, schema=pa.schema(_schema())), folder / TRANSCRIPTS_FILE)
    write_parquet(quarantine_table(transcripts.quarantined), folder / QUARANTINE_FILE)


def read_transcripts(folder: Path) -> Transcripts:
    """Read the files of `write_transcripts`. Raises UndersongError if the file or a column is missing."""
    import pyarrow as pa

    try:
        table = read_parquet(folder / TRANSCRIPTS_FILE)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UndersongError(f"No transcripts can be read in {folder} ({error}); transcribe again.") from None
    if missing := [name for name in TRANSCRIPT_COLUMNS if name not in table.column_names]:
        raise UndersongError(f"The transcripts in {folder} have no column {missing[0]!r}; transcribe again.")
    rows = tuple(Transcript(**row) for row in table.select(list(TRANSCRIPT_COLUMNS)).to_pylist())
    return Transcripts(rows, tuple(read_quarantine(folder)))


def _schema() -> list[tuple[str, pa.DataType]]:
    import pyarrow as pa

    return list(zip(TRANSCRIPT_COLUMNS, (pa.string(), pa.string(), pa.float64(), pa.string())))


EMPTY_REASON = "nothing was understood: the transcript is empty"
ENDLESS_REASON = "the transcript did not end within the model's length, as where it repeats itself"


@dataclass(slots=True)
class Transcriber:
    """A Whisper model that transcribes clips. `name` is recorded in the transcripts.

    `batch` clips are transcribed together; the number is halved when memory runs out.
    """

    name: str
    model: Any
    tokenizer: Any
    extractor: Any
    language: str | None = None
    batch: int = 8
    progress: ProgressCallback | None = None

    def transcribe(self, samples: Sequence[Sample]) -> Transcripts:
        """Transcribe each sample, in order. Unreadable, silent, empty and unfinished ones are quarantined.

        Raises UndersongError for a logit that is not finite.
        """
        rows: dict[str, Transcript] = {}
        quarantined: list[Quarantined] = []
        timer = start_progress(len(samples), self.progress)
        for block in length_sorted_blocks(decode_clips(samples, self.extractor.sampling_rate), quarantined):
            for batch, texts in halve_on_oom(self._transcribe_batch, block, self.batch):
                if texts is None:
                    quarantined.append(
                        Quarantined(batch[0].id, f"out of memory: {clip_seconds(batch[0]):.1f} s of audio")
                    )
                for clip, text in zip(batch, texts or ()):
                    if text:
                        rows[clip.id] = Transcript(clip.id, text, clip_seconds(clip), self.name)
                    else:
                        quarantined.append(Quarantined(clip.id, ENDLESS_REASON if text is None else EMPTY_REASON))
                timer.update(len(rows) + len(quarantined))
        timer.update(len(samples))
        return Transcripts(tuple(rows[sample.id] for sample in samples if sample.id in rows), tuple(quarantined))

    def _transcribe_batch(self, clips: Sequence[Clip]) -> list[str | None]:
        """One text per clip; None if it did not end. Clips of one window go together, longer ones alone."""
        short_clips = [clip for clip in clips if len(clip.samples) <= self.extractor.n_samples]
        texts = {clip.id: text for clip, text in zip(short_clips, self._transcribe_short(short_clips), strict=True)}
        return [texts[clip.id] if clip.id in texts else self._transcribe_long(clip) for clip in clips]

    def _transcribe_short(self, clips: Sequence[Clip]) -> list[str | None]:
        """Transcribe clips padded to the window, as in training, so that no clip depends on the others."""
        if not clips:
            return []
        tokens = self._generate(clips, padding="max_length", return_timestamps=False)
        end = self.model.generation_config.eos_token_id
        end_ids = set(end if isinstance(end, list) else [end])
        return [self._decode(row) if end_ids & set(row) else None for row in tokens.tolist()]

    def _transcribe_long(self, clip: Clip) -> str | None:
        """Transcribe window after window, each from the end of the last sentence (Radford et al. 2022, section 3.8).

        The model needs timestamps for it.
        """
        if not hasattr(self.model.generation_config, "no_timestamps_token_id"):
            raise UndersongError(
                f"{self.name} knows no timestamps, which clip {clip.id} needs because it is longer than one window "
                f"({len(clip.samples) / clip.rate:.0f} s); take another Whisper model, or cut the clip."
            )
        tokens = self._generate([clip], padding="longest", truncation=False, return_timestamps=True)
        return self._decode(tokens.tolist()[0])

    def _generate(self, clips: Sequence[Clip], **options: Any) -> Any:
        """Tokens (clips, tokens) of greedy decoding, including the end token; the logits of all steps are finite."""
        from undersong.models.finite import FiniteLogitsCheck, non_finite_error

        check = FiniteLogitsCheck()
        # By a hook: Whisper's own logits processors come before any other, and set logits to minus infinity.
        hook = self.model.proj_out.register_forward_hook(lambda _module, _args, logits: check.record(logits))
        try:
            tokens = self._greedy_tokens(clips, **options)
        finally:
            hook.remove()
        if (row := check.first_row()) is not None:
            clip = clips[row]
            raise non_finite_error(
                self.model, self.name, f"clip {clip.id}", lambda: self._greedy_tokens([clip], **options)
            )
        return tokens

    def _greedy_tokens(self, clips: Sequence[Clip], *, return_timestamps: bool, **options: Any) -> Any:
        import torch

        inputs = self.extractor(
            [clip.samples for clip in clips],
            sampling_rate=self.extractor.sampling_rate,
            return_attention_mask=True,
            return_tensors="pt",
            **options,
        )
        with torch.inference_mode():
            output = self.model.generate(
                inputs["input_features"].to(self.model.device, self.model.dtype),
                attention_mask=inputs["attention_mask"].to(self.model.device),
                return_timestamps=return_timestamps,
                return_dict_in_generate=not return_timestamps,
                # A single call for clips of one window: if a timestamp slips into a transcript, transformers would
                # transcribe the rest of that clip again and return only the tokens of the rest.
                force_unique_generate_call=not return_timestamps,
                do_sample=False,
                num_beams=1,
                **self._language_options(),
            )
        return output if return_timestamps else output.sequences

    def _language_options(self) -> dict[str, str]:
        """Language and task for a multilingual model; English-only models take neither."""
        if not getattr(self.model.generation_config, "is_multilingual", False):
            return {}
        return {"task": "transcribe", **({"language": self.language} if self.language else {})}

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def load_transcriber(
    ref: str | Path, *, language: str | None = None, device: str = "cpu", dtype: str = "float32", batch: int = 8
) -> Transcriber:
    """Load the Whisper model of a folder, a packaged organism or a Hugging Face id, with its own tokenizer.

    Args:
        ref: Folder, `organism:NAME` or Hugging Face id.
        language: Language code such as "en" for a multilingual model; None: detected for each clip.
        device: Torch device.
        dtype: Dtype of the weights.
        batch: Clips that are transcribed together.

    Raises:
        UndersongError: Another kind of model, incomplete weights, an unknown language, or a missing device.
    """
    from transformers import AutoTokenizer

    from undersong.models.load import check_device
    from undersong.models.pretrained import load_pretrained

    check_device(device)
    folder = checkpoint_folder(ref, CHECKPOINT_FILES)
    model_type = read_config(folder)["model_type"]
    if model_type != "whisper":
        raise UndersongError(f"{ref} is of type {model_type} and cannot transcribe; give a Whisper model.")
    model = load_network(folder, "WhisperForConditionalGeneration", dtype).to(device)
    # Without these files transformers makes an empty tokenizer, and every transcript would be empty.
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UndersongError(f"{ref} has no tokenizer; copy tokenizer.json from the model's release.")
    tokenizer = load_pretrained(AutoTokenizer.from_pretrained, folder, str(ref), local_files_only=True)
    language_ids = getattr(model.generation_config, "lang_to_id", None)
    if language and f"<|{language}|>" not in (language_ids or {}):
        raise UndersongError(f"{ref} does not know the language {language!r}; leave it out, or take a code such as en.")
    name = f"{folder.name if Path(ref).is_dir() else ref}{f',language={language}' if language else ''}"
    return Transcriber(name, model, tokenizer, load_extractor(folder, "WhisperFeatureExtractor"), language, batch)
