"""The words of --precision: with which numbers a net computes. Needs no torch, so that help is quick."""

from __future__ import annotations

PRECISIONS = {
    "auto": "the fastest of bf16, fp16 and fp32 here",
    "fp32": "32 bits throughout",
    "tf32": "fp32 whose factors a GPU rounds to 11 bits (Ampere and later)",
    "bf16": "factors of 8 bits, as large as fp32's",
    "fp16": "factors of 11 bits, at most 65,504 (training scales the loss)",
}


def help_text() -> str:
    """All words and what they stand for, in a line."""
    return "; ".join(f"{word}: {meaning}" for word, meaning in PRECISIONS.items()) + "."
