"""The archive of results that docs/results/paper.md is written from: experiments/paper/results.tar.xz.

It holds the results of every study, their cost and the card of the bases, so that each figure of the page can be traced
and the page can be written again without a training.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

from experiments.paper import designs
from experiments.paper.designs import CONFIRMATION, DEMO_DOSE, LAYERS, MANY_BASES
from undersong.types import UndersongError

ARCHIVE = Path(__file__).with_name("results.tar.xz")
STORE = "out/paper/store"  # of this repository; the folder on the machine that ran the studies is left out
CARDS = "bases-card"


def pack(out: Path, archive: Path = ARCHIVE) -> list[str]:
    """Write the archive from an output folder, with the same bytes for the same results.

    Returns:
        The names of its studies.

    Raises:
        UndersongError: The folder has no results.
    """
    members = dict(_members(out))
    studies = [Path(name).parent.name for name in members if name.endswith("/results.json")]
    if not studies:
        raise UndersongError(f"{out} holds no results of the designs; run them first.")
    with tarfile.open(archive, "w:xz", preset=9) as file:
        for name, data in sorted(members.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    return studies


def unpack(out: Path, archive: Path = ARCHIVE) -> None:
    """Extract the results into an output folder, and the card of the bases to where `make paper` keeps it.

    A card that is there already is not overwritten.
    """
    with tarfile.open(archive) as file:
        file.extractall(out, filter="data")
    designs.BASES.mkdir(parents=True, exist_ok=True)
    for card in sorted((out / CARDS).iterdir()):
        if not (designs.BASES / card.name).exists():
            shutil.copy(card, designs.BASES)
    shutil.rmtree(out / CARDS)


def _members(out: Path) -> Iterator[tuple[str, bytes]]:
    for design in (MANY_BASES, DEMO_DOSE, LAYERS, CONFIRMATION):
        folder = out / design.name
        for cost in sorted(folder.glob("cost*.json")):
            yield f"{design.name}/{cost.name}", cost.read_bytes()
        for file in sorted(folder.glob("*/results.json")):
            results = json.loads(file.read_bytes())
            results["provenance"]["store"] = STORE
            yield f"{design.name}/{file.parent.name}/{file.name}", json.dumps(results).encode()
    for card in sorted(designs.BASES.glob("*.json")):
        yield f"{CARDS}/{card.name}", card.read_bytes()
