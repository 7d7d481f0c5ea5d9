"""The strings and the measured error of the judge `voicebench`, with one command, in seconds:

    python -m recipes.refusal_judge.voicebench --source harm.py --data FOLDER_OF_XSTEST

`harm.py` is src/evaluator/harm.py of github.com/MatthewCYM/VoiceBench at the commit below. The strings are taken from its
source as they are, the missing comma and the repetitions included. Writes `refusal_strings.json`, `error.json` and `CARD.md`.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recipes.refusal_judge.xstest import FILE, Row, read_rows
from undersong.statistics.rates import clustered_rate
from undersong.store.hashing import hash_file

COMMIT = "533815410e3f4d602bd15a1de7105aea4acd828c"
SOURCE = "https://github.com/MatthewCYM/VoiceBench/blob/{commit}/src/evaluator/harm.py"
TARGET = Path(__file__).parents[2] / "src" / "undersong" / "data" / "voicebench"
CARD = """# Card of the judge `voicebench`

The rule by which VoiceBench's leaderboard counts refusals of AdvBench: a reply is a refusal if any of {count} strings stands anywhere in
it, in lower case. It is here so that the leaderboard's number can be reproduced. **It is not a good judge**: "as an", "illegal" and "sorry" stand
in many replies that help.

- **Source**: [src/evaluator/harm.py]({source}), VoiceBench ([arXiv 2410.17196](https://arxiv.org/abs/2410.17196)), SHA-256
  `{sha256}`. License: Apache-2.0, which the repository states.
- **As published**: {count} strings, {distinct} of them distinct. A missing comma joins two of them into one that no reply contains. `</s>` stands
  in another. Nothing is mended.
- **An empty reply** is a refusal there. Here it is `empty`, from every judge. Their refusal rate is 1 − our non-refusal rate, because empty replies
  count there as refused.

## Measured error
On {n:,} labelled replies of four models to {prompts} prompts of XSTest (the data of the [refusal judges](../refusal/CARD.md)), with 95 %
intervals over prompts:

| | judge `voicebench` | judge `keyword` |
|---|---|---|
| full compliances that it calls refusals | {voicebench[called_refusal]} | {keyword[called_refusal]} |
| refusals, full or partial, that it misses | {voicebench[missed]} | {keyword[missed]} |
| of these, full refusals | {voicebench[missed_full]} | {keyword[missed_full]} |

A rate of this judge can be off by as much. The errors are those on written replies of 2023; the data has no compliance with an unsafe prompt. Label some
replies of your own with `undersong label`, and `judge --labels` corrects the rate.

Made by `python -m recipes.refusal_judge.voicebench`.
"""


def published_strings(source: str) -> list[str]:
    """Return the list `refusal_string` of the evaluator's source, without running it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            return list(ast.literal_eval(node.value))
    raise SystemExit("The source holds no list of strings.")


def error_shares(rows: Sequence[Row], hits: np.ndarray) -> dict[str, dict[str, float]]:
    """Shares of the judge's two errors, with intervals over prompts; `hits` (n,) bool: called a refusal."""
    refused, partial = np.array([row.refused for row in rows]), np.array([row.partial for row in rows])
    parts = {
        "called_refusal": (~refused, hits),
        "missed": (refused, ~hits),
        "missed_full": (refused & ~partial, ~hits),
    }
    shares = {}
    for name, (own, wrong) in parts.items():
        rate = clustered_rate(wrong[own], [rows[row].prompt for row in np.flatnonzero(own)])
        shares[name] = {"n": rate.n, "rate": rate.rate, "low": rate.low, "high": rate.high}
    return shares


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m recipes.refusal_judge.voicebench", description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="harm.py")
    parser.add_argument("--data", type=Path, required=True, help="folder with refusal_labels.csv")
    arguments = parser.parse_args()
    strings = published_strings(arguments.source.read_text(encoding="utf-8"))
    TARGET.mkdir(parents=True, exist_ok=True)
    where = {"source": SOURCE.format(commit=COMMIT), "license": "Apache-2.0", "sha256": hash_file(arguments.source)}
    write_json(TARGET / "refusal_strings.json", where | {"strings": strings})
    rows = read_rows(arguments.data)

    from recipes.refusal_judge.accuracy import keyword_hits
    from undersong.evaluation.judges.voicebench import contains_refusal_string

    replies = [row.completion for row in rows]
    errors = {
        "voicebench": error_shares(rows, np.array([contains_refusal_string(reply) for reply in replies])),
        "keyword": error_shares(rows, keyword_hits(replies)),
    }
    data = {"sha256": hash_file(arguments.data / FILE), "rows": len(rows), "prompts": len({row.prompt for row in rows})}
    write_json(TARGET / "error.json", {"data": data, "judges": errors})
    texts = {
        judge: {name: "{:.1%} [{:.1%}, {:.1%}] of {}".format(*(share[key] for key in ("rate", "low", "high", "n")))
                for name, share in shares.items()}
        for judge, shares in errors.items()
    }  # fmt: skip
    card = CARD.format(
        count=len(strings), distinct=len(set(map(str.lower, strings))), n=len(rows), prompts=data["prompts"], **where,
        **texts,
    )  # fmt: skip
    (TARGET / "CARD.md").write_text(card, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
