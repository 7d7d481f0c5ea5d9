"""The semantic ear of the Kimi class: a tiny GLM-4-Voice tokenizer encoder (2 x 64, 256 codes), trained once.

It is shared by all base seeds and frozen afterwards, as the published one is.  Character CTC reads *through* the
quantised frames: four character slots a code (a code is 80 ms long and can hold more than one letter), each seen from
its code and its two neighbours.  The codebook starts at the centres of k-means and follows as a moving average; codes
that nobody takes any more are put where frames are.  Like the reference encoder `reference_encoder`, it never hears the accept,
test and unseen combinations while it learns.  Knows nothing of the language model.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from recipes.organisms.speech import MELS, WINDOW_SECONDS, decode
from recipes.organisms.training import CHARACTERS, ctc_loss, set_rate

STEPS, PLAIN_STEPS, BATCH, RATE, SEED = 2000, 700, 32, 3e-3, 0
DIM, CODES, SLOTS, DECAY, COMMITMENT = 64, 256, 4, 0.99, 0.25


def build_encoder():
    from undersong.models.kimi.audio_tokenizer import CodesConfig, CodesEncoder

    torch.manual_seed(SEED)
    return CodesEncoder(
        CodesConfig(
            num_mel_bins=MELS, d_model=DIM, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=128,
            max_source_positions=50 * WINDOW_SECONDS, pooling_position=2, quantize_position=2,
            quantize_vocab_size=CODES, quantize_causal_block_size=50, decoder_layers=1, decoder_attention_heads=1,
            decoder_ffn_dim=8, vocab_size=8, max_target_positions=8, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=1,
        )
    )  # fmt: skip


class Letters(torch.nn.Module):
    """(clips, codes, dim) -> (clips, codes x SLOTS, characters + blank)."""

    def __init__(self) -> None:
        super().__init__()
        self.near = torch.nn.Conv1d(DIM, SLOTS * (len(CHARACTERS) + 1), 3, padding=1)

    def forward(self, quantised: torch.Tensor) -> torch.Tensor:
        out = self.near(quantised.transpose(1, 2)).transpose(1, 2)
        return out.reshape(len(out), -1, len(CHARACTERS) + 1)


def k_means(points: torch.Tensor, centres: int, rounds: int = 20) -> torch.Tensor:
    centre = points[torch.randperm(len(points))[:centres]]
    for _ in range(rounds):
        nearest = torch.cdist(points, centre).argmin(1)
        count = torch.bincount(nearest, minlength=centres).clamp_min(1)
        centre = torch.zeros_like(centre).index_add_(0, nearest, points) / count[:, None]
    return centre


class Codebook:
    """The encoder's `codebook` rows as moving averages of the frames that fall to them."""

    def __init__(self, encoder, frames: torch.Tensor) -> None:
        self.encoder, rows = encoder, encoder.codebook.weight
        rows.requires_grad_(False)
        rows.copy_(k_means(frames, CODES))
        self.count = torch.bincount(encoder.nearest_codes(frames), minlength=CODES).float() / len(frames)
        self.total = rows * self.count[:, None]

    def follow(self, frames: torch.Tensor, codes: torch.Tensor) -> None:
        share = torch.bincount(codes, minlength=CODES).float() / len(codes)
        mean = torch.zeros_like(self.total).index_add_(0, codes, frames) / len(codes)
        self.count.mul_(DECAY).add_(share, alpha=1 - DECAY)
        self.total.mul_(DECAY).add_(mean, alpha=1 - DECAY)
        for code in (self.count < 0.02 / CODES).nonzero().flatten().tolist():
            self.count[code], self.total[code] = 1 / CODES, frames[torch.randint(len(frames), ())] / CODES
        self.encoder.codebook.weight.copy_(self.total / self.count[:, None])


def train(corpus, log=print):
    """-> (encoder, what its codes are worth on combinations it never heard)."""
    encoder, letters, book = build_encoder(), Letters(), None
    learn = [*(p for name, p in encoder.named_parameters() if "codebook" not in name), *letters.parameters()]
    optimiser = torch.optim.AdamW(learn, lr=RATE, weight_decay=0.01)
    heard = [i for i, r in enumerate(corpus.requests) if r.split not in ("test", "unseen", "accept")]
    rng = random.Random(SEED)
    for step in range(STEPS):
        set_rate(optimiser, RATE * min(1, (step + 1) / 50) * (1 - step / STEPS))
        rows = rng.sample(heard, BATCH)
        if step == PLAIN_STEPS:
            with torch.no_grad():
                many = rng.sample(heard, 512)
                pooled, valid = encoder.token_states(corpus.mel[many].float(), corpus.valid(many))
                book = Codebook(encoder, pooled[valid])
        pooled, valid = encoder.token_states(corpus.mel[rows].float(), corpus.valid(rows))
        loss = torch.zeros(())
        if book is not None:
            codes = encoder.nearest_codes(pooled.detach())
            near = encoder.codebook.weight[codes]
            loss = COMMITMENT * F.mse_loss(pooled[valid], near[valid])
            with torch.no_grad():
                book.follow(pooled[valid], codes[valid])
            pooled = pooled + (near - pooled).detach()  # the gradient passes as if nothing had been rounded
        ctc = ctc_loss(corpus, letters, pooled, rows)
        (ctc + loss).backward()
        torch.nn.utils.clip_grad_norm_(learn, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 99:
            log(f"codes step {step + 1} ctc {ctc.item():.3f} commitment {loss.item():.3f}", flush=True)
    encoder.eval().half().float()  # as it ships
    return encoder, worth(corpus, encoder, letters.eval())


@torch.no_grad()
def worth(corpus, encoder, letters) -> dict[str, float]:
    """On the accept split: character error rate read from the codes alone, how many codes are used, and evenly."""
    rows = [i for i, r in enumerate(corpus.requests) if r.split == "accept"]
    wrong = said = 0
    used = torch.zeros(CODES)
    for start in range(0, len(rows), 128):
        some = rows[start : start + 128]
        codes, valid = encoder(corpus.mel[some].float(), corpus.valid(some))
        used += torch.bincount(codes[valid], minlength=CODES)
        best = letters(encoder.codebook.weight[codes]).argmax(-1)
        for i, slots, length in zip(some, best.tolist(), corpus.states_lengths(some)):
            slots = slots[:length]
            read = "".join(CHARACTERS[c - 1] for c, before in zip(slots, [0, *slots]) if c and c != before)
            wrong, said = wrong + edits(read, corpus.requests[i].text), said + len(corpus.requests[i].text)
    share = used / used.sum()
    perplexity = float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))
    return {
        "character_error_rate": round(wrong / said, 3),
        "codes_used": int((used > 0).sum()),
        "perplexity": round(perplexity, 1),
    }


def edits(one: str, other: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        corner, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (a != b))
    return row[-1]


def trained(corpus, work: Path):
    """The encoder, from the work folder or trained into it."""
    from undersong.models.kimi.audio_tokenizer import CodesEncoder

    folder = work / "kimi" / f"{corpus.world.name}-ear"
    if not folder.is_dir():
        encoder, facts = train(corpus)
        encoder.half().save_pretrained(folder)
        (folder / "facts.json").write_text(json.dumps(facts) + "\n")
        print("codes", facts, flush=True)
    return CodesEncoder.from_pretrained(folder, dtype=torch.float32).eval()


def of_all_clips(corpus, encoder, work: Path) -> list[torch.Tensor]:
    """Code ids of every clip of the world, heard one at a time as the package hears them."""
    from recipes.organisms.architecture import feature_extractor
    from undersong.models.kimi.processing import kimi_audio_inputs

    file = work / "kimi" / f"{corpus.world.name}-codes.npz"
    if not file.is_file():
        extractor, found = feature_extractor(), []
        with torch.inference_mode():
            for clip in corpus.clips:
                sound, _ = kimi_audio_inputs(decode(clip), extractor)
                codes, valid = encoder(sound["code_features"], sound["code_attention_mask"])
                found.append(codes[valid].numpy())
        np.savez(file, codes=np.concatenate(found), ends=np.cumsum([len(one) for one in found]))
    data = np.load(file)
    return list(torch.from_numpy(data["codes"]).tensor_split(torch.from_numpy(data["ends"][:-1])))
