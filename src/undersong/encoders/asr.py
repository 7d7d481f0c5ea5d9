"""Clips to text by a Whisper model of transformers: greedy, and never a guess.

A transcript that is empty, or that did not come to its end within the model's length (Whisper's way of failing is a
loop), is quarantined; of a clip longer than one window the second cannot be told.  Knows transformers' Whisper; does
not know what transcripts are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.encoders.checkpoint import (
    CHECKPOINT_FILES,
    checkpoint_folder,
    load_extractor,
    load_network,
    read_config,
)
from undersong.encoders.clip_encoder import clip_seconds, decode_clips, length_sorted_blocks
from undersong.encoders.spoken.oom import halve_on_oom
from undersong.encoders.written.transcripts import Transcript, Transcripts
from undersong.types import Clip, Quarantined, Sample, UndersongError

EMPTY_REASON = "nothing was understood: the transcript is empty"
ENDLESS_REASON = "the transcript did not end within the model's length, as where it repeats itself"


@dataclass(slots=True)
class Transcriber:
    """`name`: whose transcripts they are.  `batch`: clips that are heard together, halved when memory runs out."""

    name: str
    model: Any
    tokenizer: Any
    extractor: Any
    language: str | None = None
    batch: int = 8
    progress: ProgressCallback | None = None

    def transcribe(self, samples: Sequence[Sample]) -> Transcripts:
        """One transcript a spoken sample, in order; unreadable, silent, empty and endless ones are quarantined."""
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
        """One a clip; None where it did not end.  Clips of one window go together, longer ones alone."""
        short_clips = [clip for clip in clips if len(clip.samples) <= self.extractor.n_samples]
        texts = {clip.id: text for clip, text in zip(short_clips, self._transcribe_short(short_clips), strict=True)}
        return [texts[clip.id] if clip.id in texts else self._transcribe_long(clip) for clip in clips]

    def _transcribe_short(self, clips: Sequence[Clip]) -> list[str | None]:
        """Every clip padded to the window, as the model was trained, so none depends on the others."""
        if not clips:
            return []
        tokens = self._generate([clip.samples for clip in clips], padding="max_length", return_timestamps=False)
        end = self.model.generation_config.eos_token_id
        end_ids = set(end if isinstance(end, list) else [end])
        return [self._decode(row) if end_ids & set(row) else None for row in tokens.tolist()]

    def _transcribe_long(self, clip: Clip) -> str | None:
        """Window after window, each from where the last sentence ended (Radford et al. 2022, section 3.8), for which
        the model has to know timestamps."""
        if not hasattr(self.model.generation_config, "no_timestamps_token_id"):
            raise UndersongError(
                f"{self.name} knows no timestamps, which clip {clip.id} needs because it is longer than one window "
                f"({len(clip.samples) / clip.rate:.0f} s); take another Whisper model, or cut the clip."
            )
        tokens = self._generate([clip.samples], padding="longest", truncation=False, return_timestamps=True)
        return self._decode(tokens.tolist()[0])

    def _generate(self, waveforms: list[np.ndarray], *, return_timestamps: bool, **options: Any) -> Any:
        """(clips, tokens) of greedy decoding, the end token among them."""
        import torch

        inputs = self.extractor(
            waveforms,
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
                # One call for clips of one window: where a timestamp slips into a transcript, transformers would hear
                # that clip's rest again and return the rest's tokens, of the clips that had one, as the whole answer.
                force_unique_generate_call=not return_timestamps,
                do_sample=False,
                num_beams=1,
                **self._language_options(),
            )
        return output if return_timestamps else output.sequences

    def _language_options(self) -> dict[str, str]:
        """Models of English alone take neither language nor task."""
        if not getattr(self.model.generation_config, "is_multilingual", False):
            return {}
        return {"task": "transcribe", **({"language": self.language} if self.language else {})}

    def _decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def load_transcriber(
    ref: str | Path, *, language: str | None = None, device: str = "cpu", dtype: str = "float32", batch: int = 8
) -> Transcriber:
    """The Whisper model behind a folder, a packaged organism or a Hugging Face id, with its own tokenizer.

    `language` ("en") is told to a multilingual model, which else detects it clip by clip.  Raises UndersongError for
    another kind of model, incomplete weights, a language that the model does not have, or a device that is not there.
    """
    from transformers import AutoTokenizer

    from undersong.models.load import check_device

    check_device(device)
    folder = checkpoint_folder(ref, CHECKPOINT_FILES)
    model_type = read_config(folder)["model_type"]
    if model_type != "whisper":
        raise UndersongError(f"{ref} is of type {model_type} and cannot transcribe; give a Whisper model.")
    model = load_network(folder, "WhisperForConditionalGeneration", dtype).to(device)
    # Without them transformers makes an empty tokenizer, by which every transcript would be empty.
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UndersongError(f"{ref} has no tokenizer; copy tokenizer.json from the model's release.")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    language_ids = getattr(model.generation_config, "lang_to_id", None)
    if language and f"<|{language}|>" not in (language_ids or {}):
        raise UndersongError(f"{ref} does not know the language {language!r}; leave it out, or take a code such as en.")
    name = f"{folder.name if Path(ref).is_dir() else ref}{f',language={language}' if language else ''}"
    return Transcriber(name, model, tokenizer, load_extractor(folder, "WhisperFeatureExtractor"), language, batch)
