"""Writes a language model whose channels stand in another order: the same function, other groups of weights.

nano's weights were on a grid of 4 bits in groups of 32 once. In another order of channels, the groups of a quantised
model are as arbitrary as those of weights that never were on a grid.

python benchmarks/permuted_channels.py nano ./permuted
"""

import argparse
from pathlib import Path

import torch

from phi4.checkpoint import hub
from phi4.checkpoint.weights import load_model, save_model
from phi4.model.decoder import DecoderLayer, Phi4Mini


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a language model without modalities")
    parser.add_argument("destination", type=Path)
    arguments = parser.parse_args()
    directory = hub.resolve(arguments.model)
    loaded = load_model(directory)
    assert isinstance(loaded.model, Phi4Mini)
    permute(loaded.model, torch.Generator().manual_seed(0))
    save_model(loaded.model, loaded.config, arguments.destination, companions=directory)
    print(arguments.destination)


@torch.no_grad()
def permute(model: Phi4Mini, generator: torch.Generator) -> None:
    """Draws an order of the hidden channels, and of those between two linears of every layer."""
    hidden = torch.randperm(model.config.hidden_size, generator=generator)
    embedding = model.model.embed_tokens
    embedding.weight.data = embedding.weight[:, hidden].contiguous()
    model.model.norm.weight.data = model.model.norm.weight[hidden]
    for layer in model.model.layers:
        permute_layer(layer, hidden, generator)


def permute_layer(layer: DecoderLayer, hidden: torch.Tensor, generator: torch.Generator) -> None:
    """Reorders one layer; query and key channels stay, since rotary embeddings pair them."""
    for norm in (layer.input_layernorm, layer.post_attention_layernorm):
        norm.weight.data = norm.weight[hidden]
    attention, mlp = layer.self_attn, layer.mlp
    head_dim, queries_per_key = attention.head_dim, attention.num_heads // attention.num_kv_heads
    qkv, output = attention.qkv_proj.weight[:, hidden], attention.o_proj.weight[hidden]
    first_value = (attention.num_heads + attention.num_kv_heads) * head_dim
    for kv_head in range(attention.num_kv_heads):
        order = torch.randperm(head_dim, generator=generator)
        rows = slice(first_value + kv_head * head_dim, first_value + (kv_head + 1) * head_dim)
        qkv[rows] = qkv[rows][order]
        for head in range(kv_head * queries_per_key, (kv_head + 1) * queries_per_key):
            columns = slice(head * head_dim, (head + 1) * head_dim)
            output[:, columns] = output[:, columns][:, order]
    attention.qkv_proj.weight.data, attention.o_proj.weight.data = qkv.contiguous(), output.contiguous()
    inner = torch.randperm(mlp.down_proj.weight.shape[1], generator=generator)
    both = torch.cat((inner, inner + len(inner)))
    mlp.gate_up_proj.weight.data = mlp.gate_up_proj.weight[:, hidden][both].contiguous()
    mlp.down_proj.weight.data = mlp.down_proj.weight[hidden][:, inner].contiguous()


if __name__ == "__main__":
    main()
