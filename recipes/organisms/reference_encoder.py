"""The offline *mixed* reference encoder: a tiny Whisper-class encoder that hears both words and voice.

Why this one: no pretrained Whisper can be shipped in 9 MB, and log-mel statistics hear voice alone.  So a
`WhisperModel` encoder (2 x 64) is trained on the world's speech with three heads that are thrown away: character CTC on
its frames (so that it hears at all), and on their mean, which is the vector a study uses, the words that were said and
the voice that said them.  (With the first and last head alone the mean carried the voice and hardly a word.)  It never meets the audited models, nor the test
and unseen combinations.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F

from recipes.organisms.architecture import architecture, feature_extractor
from recipes.organisms.batches import Corpus
from recipes.organisms.speech import MELS, WINDOW_SECONDS
from recipes.organisms.training import CHARACTERS, ctc_loss, set_rate
from recipes.organisms.world import WORLDS

STEPS, BATCH, RATE, SEED = 1200, 32, 3e-3, 0
DIM, VOICES = 64, "ABCDEF"


def build_encoder():
    from transformers import WhisperConfig, WhisperModel

    torch.manual_seed(SEED)
    tiny_decoder = dict(
        decoder_layers=1, decoder_attention_heads=1, decoder_ffn_dim=8, vocab_size=8, max_target_positions=8
    )
    config = WhisperConfig(
        num_mel_bins=MELS, d_model=DIM, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128,
        max_source_positions=50 * WINDOW_SECONDS, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, **tiny_decoder,
    )  # fmt: skip
    return WhisperModel(config)


def train(corpus: Corpus, log=print):
    """-> (model, held-out losses and voice accuracy)."""
    model = build_encoder()
    letters, voice = torch.nn.Linear(DIM, len(CHARACTERS) + 1), torch.nn.Linear(DIM, len(VOICES))
    vocabulary = sorted({word for r in corpus.requests for word in r.text.split()})
    words = torch.nn.Linear(DIM, len(vocabulary))
    said = torch.tensor([[float(word in r.text.split()) for word in vocabulary] for r in corpus.requests])
    learn = [*model.encoder.parameters(), *letters.parameters(), *voice.parameters(), *words.parameters()]
    optimiser = torch.optim.AdamW([p for p in learn if p.requires_grad], lr=RATE, weight_decay=0.01)
    heard = [i for i, r in enumerate(corpus.requests) if r.split not in ("test", "unseen", "accept")]
    rng = random.Random(SEED)

    def losses(rows: list[int]):
        frames = torch.from_numpy(corpus.frames[rows])
        states = model.encoder(corpus.mel[rows].float()).last_hidden_state
        valid = (torch.arange(states.shape[1])[None] < ((frames - 1) // 2 + 1)[:, None]).float()[..., None]
        mean = (states * valid).sum(1) / valid.sum(1)
        logits, target = voice(mean), torch.tensor([VOICES.index(corpus.requests[i].voice) for i in rows])
        return (
            ctc_loss(corpus, letters, states, rows),
            10 * F.binary_cross_entropy_with_logits(words(mean), said[rows]),  # most words are absent: a small mean
            F.cross_entropy(logits, target),
            (logits.argmax(1) == target).float().mean(),
        )

    for step in range(STEPS):
        set_rate(optimiser, RATE * min(1, (step + 1) / 50) * (1 - step / STEPS))
        ctc, bag, speaker, _ = losses(rng.sample(heard, BATCH))
        (ctc + bag + 0.1 * speaker).backward()
        torch.nn.utils.clip_grad_norm_(learn, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 99:
            log(f"ear step {step + 1} ctc {ctc.item():.3f} words {bag.item():.3f} voice {speaker.item():.3f}")
    with torch.no_grad():
        held_out = [i for i, r in enumerate(corpus.requests) if r.split == "accept"]
        ctc, bag, _, right = losses(held_out[:288])
    facts = {"ctc": ctc, "words": bag, "voice_accuracy": right}
    return model.eval(), {f"{name}_held_out": round(value.item(), 3) for name, value in facts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/organisms"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.work / "ear"
    if folder.is_dir():
        return
    model, facts = train(Corpus(WORLDS["shipped"], arguments.work, architecture("af3")))
    model.half().save_pretrained(folder)
    feature_extractor().save_pretrained(folder)
    print(facts)


if __name__ == "__main__":
    main()
