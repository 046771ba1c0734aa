"""Language models: read from a folder without a network, refused with a sentence, padded where no token is for it."""

import os
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers")

from studies.frozen.models import stories, tiny  # noqa: E402

from gradatim.language import load_model  # noqa: E402
from gradatim.language.models import with_padding  # noqa: E402


def test_a_saved_model_answers_as_before(tmp_path: Path) -> None:
    model, tokenizer = tiny()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, reader = load_model(tmp_path)
    tokens = reader("a girl", return_tensors="pt")["input_ids"]
    assert reader.decode(tokens[0]) == "a girl"
    with torch.no_grad():
        assert torch.equal(model(tokens).logits, again(tokens).logits)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no language model"):
        load_model(tmp_path)


def test_a_padding_token_is_the_end_token_or_asked_for() -> None:
    _, tokenizer = tiny()
    tokenizer.pad_token = None
    assert with_padding(tokenizer).pad_token == "</s>"
    tokenizer.pad_token = tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither a padding nor an end token"):
        with_padding(tokenizer)


@pytest.mark.skipif("GRADATIM_DATA" not in os.environ, reason="needs GRADATIM_DATA")
def test_stories_are_stories() -> None:
    model, tokenizer = stories()
    assert sum(p.numel() for p in model.parameters()) == 260_032
    tokens = tokenizer("Once upon a", return_tensors="pt")["input_ids"]
    assert tokenizer.decode(model(tokens).logits[0, -1].argmax()).strip() == "time"
