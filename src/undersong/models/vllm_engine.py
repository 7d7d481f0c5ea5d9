"""A model whose replies vLLM generates, in vLLM's own environment, from the same token ids as the local engine.

vLLM and this package ask for different versions of transformers, so vLLM runs as a program of its own
(`vllm_worker.py`) under the interpreter that `UNDERSONG_VLLM_PYTHON` names. Every prompt that vLLM read is compared
with the local engine's, token by token.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from undersong.corpora.decode import load_clips
from undersong.models import vllm_worker
from undersong.models.adapter_export import check_export, published_paths, write_exported_adapter
from undersong.models.audio_features import count_clip_placeholders
from undersong.models.audio_lm import AudioModel, ReplyKeeper
from undersong.models.chat import chat_messages, load_processor
from undersong.models.load_options import LoadOptions
from undersong.models.memory import meta_network
from undersong.models.refs import model_folder, model_hash, overlay_base, resolve_model
from undersong.types import Prompt, Reply, UndersongError

PYTHON_VARIABLE = "UNDERSONG_VLLM_PYTHON"
PROGRESS_FILE = "progress"
POLL_SECONDS = 0.5
# Families whose prompts and replies were compared with vLLM's (tests/models/test_vllm_engine.py), and those of them
# that vLLM takes adapters for.
SERVED_FAMILIES = ("Audio Flamingo 3", "Qwen2-Audio", "Qwen2.5-Omni")
ADAPTED_FAMILIES = ("Audio Flamingo 3", "Qwen2.5-Omni")
OTHER_REASONS = {"Kimi-Audio": "vLLM transcribes with Kimi-Audio, under other prompts"}


class VllmModel:
    """A model behind vLLM: it replies, and has neither hidden states nor weights here."""

    reply_keeper: ReplyKeeper | None = None

    def __init__(self, ref: str, loading: LoadOptions, adapter: Path | None = None) -> None:
        """Prepare a model and the adapter that is on; nothing is loaded before the first reply.

        Raises:
            UndersongError: vLLM is missing, or does not take this family, adapter or loading option.
        """
        self.python = vllm_python()
        source, options, family = resolve_model(ref)
        check_family(family.name, ref, adapter is not None)
        folder = model_folder(ref)
        if folder is not None and overlay_base(folder) is not None:
            raise UndersongError(f"{ref} is stored as changes to another model; leave --engine vllm out.")
        if loading.quantize is not None or loading.attention is not None:
            raise UndersongError("--engine vllm takes neither --quantize nor --attention; leave them out.")
        processor = load_processor(source, family, ref, **options)
        self.source, self.options, self.dtype, self.adapter = source, options, loading.dtype, adapter
        self.model = AudioModel(
            meta_network(source, family, options), processor, family, ref, model_hash(ref),
            revision=options.get("revision"),
        )  # fmt: skip

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the model for artifacts."""
        return self.model.facts | {"engine": "vllm"}

    def generate(self, prompts: Sequence[Prompt], limit: int) -> list[Reply]:
        """Generate one greedy reply per prompt, in order.

        Raises:
            UndersongError: A clip cannot be read, vLLM fails, or vLLM reads a prompt that differs from the local
                engine's.
        """
        if not prompts:
            return []
        keeper = self.reply_keeper
        if keeper is not None and (kept := keeper.find(prompts)) is not None:
            return kept
        with tempfile.TemporaryDirectory(prefix="undersong-vllm-") as name:
            folder = Path(name)
            expected = [self._write_prompt(prompt, folder / f"{i}.npy") for i, prompt in enumerate(prompts)]
            records = self._run_worker(self._job(prompts, limit, folder), folder)
        replies = [self._reply(*values) for values in zip(prompts, expected, records, strict=True)]
        if keeper is not None:
            keeper.add(replies)
        return replies

    def _write_prompt(self, prompt: Prompt, audio_file: Path) -> list[int]:
        """Write the clip of a spoken prompt, and return the token ids that the local engine would use."""
        if prompt.modality == "text":
            return self._token_ids(prompt, 0)
        clips, failed = load_clips([prompt.sample], self.model.sampling_rate)
        if failed:
            raise UndersongError(f"Clip {failed[0].id} cannot be read: {failed[0].reason}; leave it out.")
        np.save(audio_file, clips[0].samples)
        return self._token_ids(prompt, count_clip_placeholders(self.model, clips[0]))

    def _token_ids(self, prompt: Prompt, placeholders: int) -> list[int]:
        return self.model.processor.token_ids(chat_messages(prompt, self.model.family), placeholders)

    def _job(self, prompts: Sequence[Prompt], limit: int, folder: Path) -> dict[str, Any]:
        requests = []
        for i, prompt in enumerate(prompts):
            audio = folder / f"{i}.npy"
            spoken = audio.is_file()
            requests.append({"ids": self._token_ids(prompt, int(spoken)), "audio": str(audio) if spoken else None})
        return {
            "model": str(self.source),
            "revision": self.options.get("revision"),
            "dtype": self.dtype,
            "adapter": None if self.adapter is None else str(self._export_adapter(self.adapter, folder / "adapter")),
            "limit": limit,
            "progress": str(folder / PROGRESS_FILE),
            "stops": self.model.end_ids,
            "rate": self.model.sampling_rate,
            "prompts": requests,
        }

    def _export_adapter(self, adapter: Path, out: Path) -> Path:
        """Write the adapter under the checkpoint's names: vLLM ignores an adapter with other names without a word."""
        check_export(adapter, out, "published")
        paths = self.model.linear_paths()
        published = published_paths(self.model)
        write_exported_adapter(self.model, adapter, out, {path: published[path] for path in paths})
        return out

    def _run_worker(self, job: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
        job_file, replies_file = folder / "job.json", folder / "replies.jsonl"
        job_file.write_text(json.dumps(job), encoding="utf-8")
        command = [self.python, str(vllm_worker.__file__), str(job_file), str(replies_file)]
        # vLLM's environment has its own packages.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        printed = folder / "printed.log"  # not shown, because what it prints about a checkpoint may command a terminal
        with (
            printed.open("wb") as output,
            subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process,
        ):
            try:
                while _is_running(process):
                    if self.reply_keeper is not None:
                        self.reply_keeper.count(_file_size(folder / PROGRESS_FILE))
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            lines = printed.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"]
            hint = "fix vLLM's environment, or leave --engine vllm out"
            raise UndersongError(f"vLLM stopped with {self.model.name} ({lines[-1]}); {hint}.")
        return [json.loads(line) for line in replies_file.read_text(encoding="utf-8").splitlines()]

    def _reply(self, prompt: Prompt, expected: list[int], record: dict[str, Any]) -> Reply:
        if record["prompt_ids"] != expected:
            raise UndersongError(
                f"vLLM reads another prompt for sample {prompt.sample.id} than the model was trained on "
                f"({len(record['prompt_ids'])} tokens, not {len(expected)}); leave --engine vllm out."
            )
        return self.model.reply_from_tokens(prompt, record["ids"])


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the end of a program for a while, and say whether it is still to come."""
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _file_size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def vllm_python() -> str:
    """Path of the Python that has vLLM.

    Raises:
        UndersongError: There is none.
    """
    if python := os.environ.get(PYTHON_VARIABLE):
        if not Path(python).is_file():
            raise UndersongError(f"{PYTHON_VARIABLE} names {python}, which is no file; give a Python that has vLLM.")
        return python
    if find_spec("vllm") is None:
        raise UndersongError(
            f"vLLM is not installed here; install it in an environment of its own, and set {PYTHON_VARIABLE} to its "
            "python."
        )
    return sys.executable


def check_family(name: str, ref: str, adapted: bool) -> None:
    """Raise UndersongError for a family that vLLM does not serve with the same prompts, or takes no adapter for."""
    if name not in SERVED_FAMILIES:
        reason = OTHER_REASONS.get(name, f"its prompts under vLLM were not compared for {name}")
        raise UndersongError(f"--engine vllm does not take {ref}: {reason}; leave it out.")
    if adapted and name not in ADAPTED_FAMILIES:
        raise UndersongError(f"vLLM takes no adapter for {name}; leave --engine vllm out.")
