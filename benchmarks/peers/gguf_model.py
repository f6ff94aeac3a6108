# Writes the tensors of a model file as GGUF version 3 for llama.cpp and ik_llama.cpp: the same codes
# and scales, names and fields of the architectures glm4moe and qwen3moe. No tokenizer: their
# benchmarks feed random ids. SPDX-License-Identifier: MIT
import struct

import numpy as np

ALIGNMENT = 32
TYPES = {"f32": (0, 4, 1), "q40": (2, 18, 32), "q80": (8, 34, 32)}  # id, bytes and elements of a block
FILE_TYPES = {"q40": 2, "q80": 7}
SIGMOID = 2


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def field(key, value):
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", 4, value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<I", 8) + text(value)


def fields(model, name):
    c = model.config
    arch = {"glm4_moe": "glm4moe", "qwen3_moe": "qwen3moe"}[c["model_type"]]
    head_dim = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    out = {
        "general.architecture": arch,
        "general.name": name,
        "general.alignment": ALIGNMENT,
        "general.quantization_version": 2,
        "general.file_type": FILE_TYPES[model.dtype("layers.0.attention.qkv")],
        "tokenizer.ggml.model": "none",
    }
    own = {
        "vocab_size": c["vocab_size"],
        "context_length": c["max_position_embeddings"],
        "embedding_length": c["hidden_size"],
        "block_count": c["num_hidden_layers"],
        "feed_forward_length": c["intermediate_size"],
        "attention.head_count": c["num_attention_heads"],
        "attention.head_count_kv": c["num_key_value_heads"],
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": float(c["rms_norm_eps"]),
        "rope.freq_base": float(c["rope_theta"]),
        "expert_used_count": c["num_experts_per_tok"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
    }
    if arch == "glm4moe":
        own.update({
            "rope.dimension_count": int(head_dim * c["partial_rotary_factor"]),
            "expert_count": c["n_routed_experts"],
            "expert_shared_count": c["n_shared_experts"],
            "leading_dense_block_count": c["first_k_dense_replace"],
            "expert_gating_func": SIGMOID,
            "expert_weights_scale": float(c["routed_scaling_factor"]),
            "expert_weights_norm": bool(c["norm_topk_prob"]),
        })
    else:
        own["expert_count"] = c["num_experts"]
    out.update({f"{arch}.{key}": value for key, value in own.items()})
    return out


def rows_of(begin, end):
    return lambda blocks: blocks[begin:end]


def tensor_list(model):
    """(GGUF name, dims as in numpy, dtype, function that gives the bytes)."""
    c = model.config
    out = []

    def plain(gguf, name, pick=None):
        data = model.plain(name) if pick is None else pick(model.plain(name))
        out.append((gguf, list(data.shape), "f32", lambda: data.tobytes()))

    def matrix(gguf, name, part="all", pick=None, rows=None):
        dims = list(model.entries[name]["dims"])
        if part != "all":
            dims[-2] //= 2
        if rows is not None:
            dims[-2] = rows

        def data():
            for i in range(dims[0] if len(dims) == 3 else 1):
                blocks = model.blocks(name, part, i)
                yield (blocks if pick is None else pick(blocks)).tobytes()

        out.append((gguf, dims, model.dtype(name), lambda: b"".join(data())))

    head_dim = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    q = c["num_attention_heads"] * head_dim
    kv = c["num_key_value_heads"] * head_dim
    parts = {"q": (0, q), "k": (q, q + kv), "v": (q + kv, q + 2 * kv)}
    matrix("token_embd.weight", "embedding")
    plain("output_norm.weight", "final_norm")
    if "head" in model:
        matrix("output.weight", "head")
    for i in range(c["num_hidden_layers"]):
        ours, theirs = f"layers.{i}.", f"blk.{i}."
        plain(theirs + "attn_norm.weight", ours + "input_norm")
        norm = "post_attention_norm" if c["model_type"] == "glm4_moe" else "ffn_norm"
        plain(theirs + norm + ".weight", ours + "mlp_norm")
        for part, (begin, end) in parts.items():
            pick = rows_of(begin, end)
            matrix(f"{theirs}attn_{part}.weight", ours + "attention.qkv", pick=pick, rows=end - begin)
            if ours + "attention.qkv_bias" in model:
                plain(f"{theirs}attn_{part}.bias", ours + "attention.qkv_bias", pick)
        for part in "qk":
            if f"{ours}attention.{part}_norm" in model:
                plain(f"{theirs}attn_{part}_norm.weight", f"{ours}attention.{part}_norm")
        matrix(theirs + "attn_output.weight", ours + "attention.out")
        if ours + "router" in model:
            plain(theirs + "ffn_gate_inp.weight", ours + "router")
        if ours + "router_bias" in model:
            plain(theirs + "exp_probs_b.bias", ours + "router_bias")
        for block, suffix in (("mlp", ""), ("experts", "_exps"), ("shared", "_shexp")):
            if f"{ours}{block}.down" not in model:
                continue
            for part in ("gate", "up"):
                matrix(f"{theirs}ffn_{part}{suffix}.weight", f"{ours}{block}.gate_up", part)
            matrix(f"{theirs}ffn_down{suffix}.weight", f"{ours}{block}.down")
    return out


def data_bytes(dims, dtype):
    _, block_bytes, block_elements = TYPES[dtype]
    return int(np.prod(dims)) // block_elements * block_bytes


def padded(n):
    return (n + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def write(model, path, name):
    tensors = tensor_list(model)
    values = fields(model, name)
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values))
    header += b"".join(field(key, value) for key, value in values.items())
    offset = 0
    for gguf, dims, dtype, _ in tensors:
        header += text(gguf) + struct.pack("<I", len(dims))
        header += struct.pack(f"<{len(dims)}Q", *reversed(dims))
        header += struct.pack("<IQ", TYPES[dtype][0], offset)
        offset += padded(data_bytes(dims, dtype))
    with open(path, "wb") as file:
        file.write(header.ljust(padded(len(header)), b"\0"))
        for gguf, dims, dtype, data in tensors:
            content = data()
            if len(content) != data_bytes(dims, dtype):
                raise SystemExit(f"{gguf}: {len(content)} bytes, {data_bytes(dims, dtype)} expected")
            file.write(content.ljust(padded(len(content)), b"\0"))
