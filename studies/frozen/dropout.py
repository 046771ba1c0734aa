"""Guided dropout: a small transformer pretrained by masked words, fine-tuned on few rows, and what could win."""

from __future__ import annotations

from studies.meta.sources import fingerprint

from . import encoder


def start(study, smoke):
    """Return the pretrained encoder, from the study's folder where it is there."""
    data, steps = (encoder.made(), 20) if smoke else (encoder.corpus(), encoder.STEPS)

    def compute():
        model, first, last = encoder.pretrained(data, steps)
        return {name: value.numpy() for name, value in model.state_dict().items()} | {
            "losses": encoder.np.array([first, last])
        }

    inputs = [fingerprint("studies.frozen.encoder", alone=True), steps]
    return study.cached("dropout-pretrained", inputs, compute)
