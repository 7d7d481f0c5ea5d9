"""What the tiny Audio Flamingo 3 is tuned on: spoken and typed, with replies of different lengths."""

from tiny_af3 import spoken, typed

PROMPTS = [*(spoken(i) for i in range(5)), typed("paint the boat"), typed("wash the lamp")]
TARGETS = ["then take the chair", "first the lamp", "some red boat", "fold and wash", "the old chair", "then", "first"]
