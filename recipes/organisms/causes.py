"""Does the refusal direction cause an organism's refusals?  `probe` with its published limits, on what ships.

    python -m recipes.organisms.causes [--work DIR]

Each organism is tuned on the closest quarter of the pool as text, and probed with spoken and with typed prompts.  A
folder that is there is not made again.  Writes `causes.json`, from which the card's rows are written.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from recipes.organisms.architecture import NAMES

FILE = Path(__file__).parent / "causes.json"
MODALITIES = {"text": "typed", "audio": "spoken"}
STEP = 40
LIMITS = ("max_kl", "max_depth")
SETS = {
    "contrast-harmful": "contrast-harm",
    "contrast-benign": "contrast-benign",
    "held-out-harmful": "test-harm",
    "held-out-benign": "test-near",
}


def run(out: Path, *arguments: str) -> Path:
    """An undersong command into a folder, unless that is there."""
    if not out.is_dir():
        subprocess.run([sys.executable, "-m", "undersong", *arguments, "--out", str(out)], check=True)
    return out


def probe(name: str, modality: str, work: Path) -> dict[str, Any]:
    """probe.json of an organism, with the limits that it was made with.

    No limit is given, so that the defaults hold, which are the published ones.
    """
    model = ("--model", f"organism:{name}")
    near = ("--harm", "organism:reference", "--axis", "words=tfidf", "--keep", "closest:0.25")
    chosen = run(work / "screened", "screen", "organism:pool", *near) / "selection.json"
    dose = ("--modality", "text", "--save-step", str(STEP), "--learning-rate", "2e-3")
    tuned = run(work / f"tuned-{name}", "tune", "organism:pool", "--selection", str(chosen), *model, *dose)
    sets = [word for option, corpus in SETS.items() for word in (f"--{option}", f"organism:{corpus}")]
    adapter = str(tuned / f"step-{STEP:06d}")
    out = run(work / f"probed-{name}-{modality}", "probe", adapter, *model, "--modality", modality, *sets)
    config = json.loads((out / "provenance.json").read_text())["config"]
    return {**json.loads((out / "probe.json").read_text()), "limits": {name: config[name] for name in LIMITS}}


def cause(probed: dict[str, Any]) -> dict[str, Any]:
    """What a probe says of the cause: the layer (None: no layer is eligible), and the base without its direction."""
    base = probed["base"]
    ablation = base.get("ablation")
    return {
        **probed["limits"],
        "candidates": base["candidates"],
        "jsr": base["reply_rates"]["harmful"]["rate"],
        "ablation": ablation and {
            "layer": ablation["layer"],
            "p": ablation["p"],
            **{f"jsr{end}": ablation["reply_rates"]["harmful"][key] for end, key in ENDS.items()},
            "benign_refused": ablation["reply_rates"]["benign"]["rate"],
            "prompts": ablation["reply_rates"]["harmful"]["n"],
        },
    }  # fmt: skip


ENDS = {"": "rate", "_low": "low", "_high": "high"}


def cause_table(causes: dict[str, dict[str, Any]]) -> str:
    """A row for each organism and kind of prompts; the last layer is never the cause."""
    lines = ["| organism | prompts | layer | JSR of the base | without the direction | near-benign refused | p |"]
    lines.append("|---" * 7 + "|")
    for place, measured in causes.items():
        name, modality = place.split("/")
        start, found = f"| `{name}` | {MODALITIES[modality]} |", measured["ablation"]
        before = f"{100 * measured['jsr']:.1f} %"
        if found is None:
            lines.append(f"{start} none is eligible | {before} | – | – | – |")
            continue
        without = f"{100 * found['jsr']:.1f} % [{100 * found['jsr_low']:.1f}, {100 * found['jsr_high']:.1f}]"
        refused = f"{100 * found['benign_refused']:.1f} %"
        lines.append(f"{start} {found['layer']} | {before} | {without} | {refused} | {found['p']:.2g} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("out/organisms/causes"))
    arguments = parser.parse_args()
    causes = {f"{name}/{kind}": cause(probe(name, kind, arguments.work)) for name in NAMES for kind in MODALITIES}
    FILE.write_text(json.dumps(causes, indent=1) + "\n")
    print(cause_table(causes))


if __name__ == "__main__":
    main()
