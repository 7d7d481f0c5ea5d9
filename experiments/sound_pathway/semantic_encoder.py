"""The semantic ear that ships with the `kimi` organisms, put where its recipe would leave it: it is the same in all."""

from __future__ import annotations

from pathlib import Path

import torch

from recipes.organisms.world import SHIPPED


def packaged_ear(work: Path) -> None:
    """Nothing where an ear is there already."""
    from undersong.models.kimi.audio_tokenizer import CHECKPOINT_PREFIX, CodesEncoder
    from undersong.models.refs import organism_folder

    folder = work / "kimi" / f"{SHIPPED.name}-ear"
    if folder.is_dir():
        return
    source = organism_folder("kimi") / "glm-4-voice-tokenizer"
    read = CodesEncoder.from_pretrained(source, key_mapping={CHECKPOINT_PREFIX: ""}, dtype=torch.float16)
    plain = CodesEncoder(read.config).half()  # a model remembers the names that it was read by, and writes those
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(folder)
