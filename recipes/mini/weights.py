"""The network of base weights alone, in memory, and what is learned of it.  Knows Mini; does not know how it learns."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file

from undersong.models.load import check_device
from undersong.models.mini import assemble, base_weights
from undersong.models.mini.network import AF3, CTC, MiniForConditionalGeneration
from undersong.models.weights import read_tensors

AUDIO, WINDOW = "<repo_name>", 7  # the placeholder, one of SmolLM2's code tokens; seconds of the tower's window
LAYERS = 2  # of the tower that learn, from the top
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for c in m.content %}{% if c.type == 'audio' %}"
    + AUDIO
    + "{% else %}{{ c.text }}{% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Base:
    """Base weights, read once; `whisper` and `smollm`: where they are."""

    def __init__(self, whisper: str, smollm: str) -> None:
        self.whisper, self.smollm = whisper, smollm
        self.encoder, self.language = base_weights.read_whisper(whisper), base_weights.read_smollm(smollm)
        self.tokenizer = base_weights.read_tokenizer(smollm)

    def network(self, heard: torch.Tensor, projector: str = CTC) -> MiniForConditionalGeneration:
        """The network of base weights alone, nothing of it learning; `heard`: token ids of the projector's table."""
        return base_weights.build_mini(
            self.encoder, self.language, self.tokenizer, AUDIO, WINDOW, projector, heard, LAYERS
        ).requires_grad_(False)

    @cached_property
    def hashes(self) -> dict[str, str]:
        """Of both sides' weights, in half precision: the same for releases of either."""
        parts = {"whisper": self.encoder, "smollm": self.language}
        return {name: base_weights.weights_hash(part.state_dict()) for name, part in parts.items()}

    def target(self, text: str) -> list[int]:
        """Token ids of a sentence as it is heard: lower case, no punctuation, every word after a blank."""
        ids: list[int] = self.tokenizer(" " + " ".join(heard_words(text)), add_special_tokens=False)["input_ids"]
        return ids


def heard_words(text: str) -> list[str]:
    """The words of a sentence as they are spelled: lower case, letters, digits and apostrophes."""
    return re.sub(r"[^a-z0-9' ]", " ", text.lower().replace("-", " ")).split()


def front_state(model: MiniForConditionalGeneration) -> dict[str, torch.Tensor]:
    """What is learned of the front end, by name."""
    own = model.state_dict()
    return {name: own[name] for name in assemble.front_end_names(model)}


def save_front(model: MiniForConditionalGeneration, file: Path) -> None:
    """What is learned of it, as `models get` takes it: half precision; there whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: value.half() if value.is_floating_point() else value for name, value in front_state(model).items()}
    part = file.with_suffix(".part")
    save_file({name: value.detach().cpu().contiguous() for name, value in kept.items()}, part)
    part.rename(file)


def load_front(base: Base, file: Path, device: str = "cpu") -> MiniForConditionalGeneration:
    """The network with a learned front end in it, of either projector."""
    check_device(device)
    heard = read_tensors(file).get(assemble.HEARD_BUFFER)
    model = base.network(torch.zeros(1, dtype=torch.long), AF3) if heard is None else base.network(heard.long())
    assemble.load_front_end(model, file)
    return model.to(device)


__all__ = ["AUDIO", "LAYERS", "TEMPLATE", "WINDOW", "Base", "front_state", "heard_words", "load_front", "save_front"]
