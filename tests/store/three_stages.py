"""A small pipeline for the kill tests, run as `python three_stages.py ROOT`: words -> shards -> adapter."""

import os
import sys
import time
from pathlib import Path

from undersong.store.draft import Draft
from undersong.store.store import Artifact, Store

SHARDS = 2


def words(draft: Draft) -> None:
    with draft.file("words.txt") as path:
        path.write_text("kind\nwords\n")
    (draft.path / "direct.txt").write_text("written without a shard\n")


def shards(draft: Draft) -> None:
    draft.note(device="cpu", before="a" * 8)
    for i in range(SHARDS):
        if not draft.has(f"parts/part-{i}.bin"):
            with draft.file(f"parts/part-{i}.bin") as path:
                path.write_bytes(bytes([i]) * 1000)
            print(f"made part {i}")
    draft.note(after="a" * 8)


def adapter(draft: Draft) -> None:
    with draft.file("adapter") as folder:
        folder.mkdir()
        (folder / "weights.bin").write_bytes(b"w" * 100)
        (folder / "config.json").write_text("{}")
    with draft.file("replies.txt", mode=0o600) as path:
        path.write_text("hush")


def run(root: str | Path) -> list[Artifact]:
    store = Store(root)
    first = store.get_or_make("words", 1, {"n": 2}, {}, words, seed=7, packages=["pytest"])
    second = store.get_or_make("shards", 1, {"lr": 0.1}, {"words": first}, shards)
    third = store.get_or_make("adapter", 2, {}, {"shards": second, "words": first}, adapter)
    return [first, second, third]


if __name__ == "__main__":
    if "--together" in sys.argv:  # the lock is held until another process has come, too
        whole, place = shards, Path(sys.argv[1]).parent
        with (place / "come.log").open("a") as log:
            log.write(f"{os.getpid()}\n")

        def shards(draft: Draft) -> None:
            with (place / "made.log").open("a") as log:
                log.write(f"{os.getpid()}\n")
            while len((place / "come.log").read_text().split()) < 2:
                time.sleep(0.01)
            whole(draft)

    for made in run(sys.argv[1]):
        print(made.path)
