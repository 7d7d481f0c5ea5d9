"""The references that ship, with one command, on a CPU; some twenty seconds of one core:

    python -m recipes.references --data FOLDER [--out DIR]

`FOLDER` holds the files of `sources.py`, each below the name of its data set; a file with another hash is refused.
Writes `harm.parquet`, `ordinary.parquet` and `CARD.md`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from recipes.references.sources import HARM, ORDINARY, Source, read_source
from undersong.corpora.manifest import write_manifest
from undersong.corpora.near_duplicates import TEXT_THRESHOLD, find_similar_texts
from undersong.store.hashing import hash_file
from undersong.types import Sample

GROUP_THRESHOLD = 0.5  # similarity from which two requests are one cluster: most such pairs ask for the same thing
OUT = Path(__file__).parents[2] / "src/undersong/data/shipped"


def read_samples(sources: Sequence[Source], folder: Path) -> list[Sample]:
    """All requests of the sources, in their order."""
    return [
        Sample(f"{source.name}-{number}", text=text, labels=(("license", source.license), ("source", source.name)))
        for source in sources
        for number, text in read_source(source, folder)
    ]


def similar_pairs(samples: Sequence[Sample], threshold: float) -> list[tuple[int, int]]:
    """Pairs (i < j) of nearly equal texts."""
    texts = [" ".join((sample.text or "").casefold().split()) for sample in samples]
    return [(i, j) for i, j, _ in find_similar_texts(texts, texts, threshold) if i < j]


def deduplicated(samples: Sequence[Sample]) -> list[Sample]:
    """The samples without those that nearly repeat an earlier one."""
    dropped: set[int] = set()
    for i, j in sorted(similar_pairs(samples, TEXT_THRESHOLD)):
        if i not in dropped:
            dropped.add(j)
    return [sample for number, sample in enumerate(samples) if number not in dropped]


def grouped(samples: Sequence[Sample]) -> list[Sample]:
    """The samples with the id of the first similar one as group."""
    first = list(range(len(samples)))
    for i, j in sorted(similar_pairs(samples, GROUP_THRESHOLD)):
        roots = sorted((first[i], first[j]))
        first = [roots[0] if root == roots[1] else root for root in first]
    return [
        Sample(sample.id, text=sample.text, group=samples[root].id, labels=sample.labels)
        for sample, root in zip(samples, first, strict=True)
    ]


def write_card(harm: Sequence[Sample], ordinary: Sequence[Sample], read: Counter[str], out: Path) -> None:
    """`CARD.md`: sources, licenses, counts and hashes."""
    kept = Counter(dict(sample.labels)["source"] for sample in (*harm, *ordinary))
    rows = [
        f"| `{name}` | {source.title} | {read[source.name]:,} | {kept[source.name]:,} | {source.license} | "
        f"`{source.origin.replace(' ', '` `')}` | `{source.sha256[:16]}…` |"
        for name, sources in (("harm", HARM), ("ordinary", ORDINARY))
        for source in sources
    ]
    table = "\n".join(rows)
    files = "\n".join(
        f"- `{name}.parquet`: {len(samples):,} requests in {len({sample.group for sample in samples}):,} clusters, "
        f"SHA-256 `{hash_file(out / f'{name}.parquet')}`"
        for name, samples in (("harm", harm), ("ordinary", ordinary))
    )
    template = (Path(__file__).parent / "card_text.md").read_text(encoding="utf-8")
    (out / "CARD.md").write_text(template.format(table=table, files=files), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    all_harm, all_ordinary = (read_samples(sources, options.data) for sources in (HARM, ORDINARY))
    harm = grouped(deduplicated(all_harm))
    near_harm = {
        j for i, j in similar_pairs([*harm, *all_ordinary], TEXT_THRESHOLD) if i < len(harm) <= j
    }  # an ordinary request is in no harm set
    ordinary = grouped(
        deduplicated([sample for number, sample in enumerate(all_ordinary, len(harm)) if number not in near_harm])
    )
    for name, samples in (("harm", harm), ("ordinary", ordinary)):
        write_manifest(samples, options.out / f"{name}.parquet")
    read = Counter(dict(sample.labels)["source"] for sample in (*all_harm, *all_ordinary))
    write_card(harm, ordinary, read, options.out)
    print(f"{len(harm)} harmful requests, {len(ordinary)} ordinary ones")


if __name__ == "__main__":
    main()
