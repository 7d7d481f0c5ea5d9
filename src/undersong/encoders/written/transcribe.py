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

from undersong.encoders.progress import Watcher, watch
from undersong.encoders.spoken.checkpoint import FILES, checkpoint_folder, load_extractor, load_network, read_config
from undersong.encoders.spoken.decoding import blocks, decoded, seconds
from undersong.encoders.spoken.oom import halving
from undersong.encoders.written.transcripts import Transcript, Transcripts
from undersong.types import Clip, Quarantined, Sample, UndersongError

EMPTY = "nothing was understood: the transcript is empty"
ENDLESS = "the transcript did not end within the model's length, as where it repeats itself"


@dataclass(slots=True)
class Transcriber:
    """`name`: whose transcripts they are.  `batch`: clips that are heard together, halved when memory runs out."""

    name: str
    model: Any
    tokenizer: Any
    extractor: Any
    language: str | None = None
    batch: int = 8
    progress: Watcher | None = None

    def transcribe(self, samples: Sequence[Sample]) -> Transcripts:
        """One transcript a spoken sample, in order; unreadable, silent, empty and endless ones are quarantined."""
        rows: dict[str, Transcript] = {}
        left_out: list[Quarantined] = []
        clock = watch(len(samples), self.progress)
        for block in blocks(decoded(samples, self.extractor.sampling_rate), left_out):
            for batch, texts in halving(self._texts, block, self.batch):
                if texts is None:
                    left_out.append(Quarantined(batch[0].id, f"out of memory: {seconds(batch[0]):.1f} s of audio"))
                for clip, text in zip(batch, texts or ()):
                    if text:
                        rows[clip.id] = Transcript(clip.id, text, seconds(clip), self.name)
                    else:
                        left_out.append(Quarantined(clip.id, ENDLESS if text is None else EMPTY))
                clock.at(len(rows) + len(left_out))
        clock.at(len(samples))
        return Transcripts(tuple(rows[sample.id] for sample in samples if sample.id in rows), tuple(left_out))

    def _texts(self, clips: Sequence[Clip]) -> list[str | None]:
        """One a clip; None where it did not end.  Clips of one window go together, longer ones alone."""
        short = [clip for clip in clips if len(clip.samples) <= self.extractor.n_samples]
        texts = {clip.id: text for clip, text in zip(short, self._short(short), strict=True)}
        return [texts[clip.id] if clip.id in texts else self._long(clip) for clip in clips]

    def _short(self, clips: Sequence[Clip]) -> list[str | None]:
        """Every clip padded to the window, as the model was trained, so none depends on the others."""
        if not clips:
            return []
        out = self._generate([clip.samples for clip in clips], padding="max_length", return_timestamps=False)
        end = self.model.generation_config.eos_token_id
        ends = set(end if isinstance(end, list) else [end])
        return [self._text(row) if ends & set(row) else None for row in out.tolist()]

    def _long(self, clip: Clip) -> str | None:
        """Window after window, each from where the last sentence ended (Radford et al. 2022, section 3.8), for which
        the model has to know timestamps."""
        if not hasattr(self.model.generation_config, "no_timestamps_token_id"):
            raise UndersongError(
                f"{self.name} knows no timestamps, which clip {clip.id} needs because it is longer than one window "
                f"({len(clip.samples) / clip.rate:.0f} s); take another Whisper model, or cut the clip."
            )
        out = self._generate([clip.samples], padding="longest", truncation=False, return_timestamps=True)
        return self._text(out.tolist()[0])

    def _generate(self, waves: list[np.ndarray], *, return_timestamps: bool, **options: Any) -> Any:
        """(clips, tokens) of greedy decoding, the end token among them."""
        import torch

        inputs = self.extractor(
            waves,
            sampling_rate=self.extractor.sampling_rate,
            return_attention_mask=True,
            return_tensors="pt",
            **options,
        )
        with torch.inference_mode():
            out = self.model.generate(
                inputs["input_features"].to(self.model.device, self.model.dtype),
                attention_mask=inputs["attention_mask"].to(self.model.device),
                return_timestamps=return_timestamps,
                return_dict_in_generate=not return_timestamps,
                # One call for clips of one window: where a timestamp slips into a transcript, transformers would hear
                # that clip's rest again and return the rest's tokens, of the clips that had one, as the whole answer.
                force_unique_generate_call=not return_timestamps,
                do_sample=False,
                num_beams=1,
                **self._said(),
            )
        return out if return_timestamps else out.sequences

    def _said(self) -> dict[str, str]:
        """Models of English alone take neither language nor task."""
        if not getattr(self.model.generation_config, "is_multilingual", False):
            return {}
        return {"task": "transcribe", **({"language": self.language} if self.language else {})}

    def _text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def transcriber(
    ref: str | Path, *, language: str | None = None, device: str = "cpu", dtype: str = "float32", batch: int = 8
) -> Transcriber:
    """The Whisper model behind a folder, a packaged organism or a Hugging Face id, with its own tokenizer.

    `language` ("en") is told to a multilingual model, which else detects it clip by clip.  Raises UndersongError for
    another kind of model, incomplete weights, a language that the model does not have, or a device that is not there.
    """
    from transformers import AutoTokenizer

    from undersong.models.load import check_device

    check_device(device)
    folder = checkpoint_folder(ref, FILES)
    kind = read_config(folder)["model_type"]
    if kind != "whisper":
        raise UndersongError(f"{ref} is of type {kind} and cannot transcribe; give a Whisper model.")
    model = load_network(folder, "WhisperForConditionalGeneration", dtype).to(device)
    # Without them transformers makes an empty tokenizer, by which every transcript would be empty.
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UndersongError(f"{ref} has no tokenizer; copy tokenizer.json from the model's release.")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    known = getattr(model.generation_config, "lang_to_id", None)
    if language and f"<|{language}|>" not in (known or {}):
        raise UndersongError(f"{ref} does not know the language {language!r}; leave it out, or take a code such as en.")
    name = f"{folder.name if Path(ref).is_dir() else ref}{f',language={language}' if language else ''}"
    return Transcriber(name, model, tokenizer, load_extractor(folder, "WhisperFeatureExtractor"), language, batch)
