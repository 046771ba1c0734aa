"""Guided dropout on models of transformers: a Llama gets sites by hooks, BERT has the tensors that were published."""

import pytest
import torch

transformers = pytest.importorskip("transformers")

from studies.frozen.models import tiny  # noqa: E402

from gradatim.regularizers.dropout_sites import added_sites  # noqa: E402
from gradatim.regularizers.fisher import empirical_fisher  # noqa: E402
from gradatim.regularizers.fisher_dropout import guide_dropout, set_dropout  # noqa: E402


def loss(model, batch):
    return model(**batch, labels=batch["input_ids"]).loss


def bert():
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    return transformers.BertForMaskedLM(config).eval()


def test_a_llama_gets_sites_behind_its_embedding_and_blocks():
    model, tokenizer = tiny()
    batch = dict(tokenizer(["a girl", "a bird"], return_tensors="pt"))
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        before = model(**batch).logits
    sites = guide_dropout(model, loss, [batch], highest=0.4)
    wanted = ["model.embed_tokens"]
    wanted += [f"model.layers.{layer}.{part}" for layer in (0, 1) for part in ("self_attn", "mlp")]
    assert [*sites.p] == wanted and sites.added
    assert sorted(sites.p.values()) == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, before)
        assert not torch.equal(model.train()(**batch).logits, before)
        sites.remove()
        assert torch.equal(model(**batch).logits, before)
    assert not added_sites(model)


def test_the_sites_of_bert_have_5_6_4_and_4_tensors():
    model = bert()
    tokens = torch.randint(30, (3, 7), generator=torch.Generator().manual_seed(0))
    sites = guide_dropout(model, loss, [{"input_ids": tokens}])
    assert len(sites) == len(sites.fisher) == 7 and not sites.added
    fisher, rows, _ = empirical_fisher(model, loss, [{"input_ids": tokens}])
    assert rows == 3
    layer = "bert.encoder.layer.1"
    held = {
        "bert.embeddings": ("bert.embeddings", 5),
        f"{layer}.attention.self": (f"{layer}.attention.self", 6),
        f"{layer}.attention.output": (f"{layer}.attention.output", 4),
        f"{layer}.output": (f"{layer}.output", 4),
    }
    for site, (part, count) in held.items():
        values = [float(v.mean()) for name, v in fisher.items() if name.startswith(part + ".")]
        assert len(values) == count
        assert sites.fisher[f"{site}.dropout"] == pytest.approx(sum(values) / count)
    assert set_dropout(bert(), sites.p).p == sites.p
