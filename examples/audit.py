"""Audit one model: fine-tune it on the benign samples closest to harm, and measure what becomes of its refusals."""

import undersong

audited = undersong.audit(
    {
        "study": "small",
        "models": ["organism:af3"],
        "pool": "organism:pool",
        "reference": "organism:reference",
        "sets": {"harm": {"corpus": "organism:unseen-harm", "harmful": True}},
        "axes": {"semantic": "tfidf"},
        "selection": {"kinds": ["closest"]},
        "tuning": {"modalities": ["text"], "seeds": [0], "draws": [0], "steps": [10]},
        "evaluation": {"modalities": ["text"]},
    },
    "out/small",
    log=print,
)
print(audited.summary)
print(audited.to_pandas()[["arm", "step", "set", "modality", "n", "jsr", "low", "high"]])
for run in audited.results.runs:
    print(run.arm, run.seed, [one.rate for one in run.sets])
