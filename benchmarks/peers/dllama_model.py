# Writes the tensors of a qwen3_moe model file as .m for distributed-llama, which knows no GLM, and a
# tokenizer (.t) in which every letter and digit is a token: a prompt of n of them has n tokens.
# SPDX-License-Identifier: MIT
import struct

import numpy as np

MODEL_MAGIC = 0xA00ABCD
TOKENIZER_MAGIC = 0x567124
QWEN3_MOE = 0xABCD02
SILU = 1
FLOAT_TYPES = {"q40": 2, "q80": 3}
EPSILONS = {1e-5: 5, 1e-6: 6}
# Keys of the header, in the order in which they are written below.
MODEL_KEYS = {"version": 0, "arch_type": 1, "dim": 2, "hidden_dim": 3, "n_layers": 4, "n_heads": 5,
              "n_kv_heads": 6, "n_experts": 7, "n_active_experts": 8, "vocab_size": 9,
              "max_seq_len": 10, "hidden_act": 11, "rope_theta": 12, "weights_float_type": 13,
              "head_dim": 19, "norm_epsilon": 20, "moe_hidden_dim": 21}
TOKENIZER_KEYS = {"version": 0, "vocab_size": 1, "max_token_length": 2, "bos_id": 3,
                  "n_eos_tokens": 9, "add_bos": 10}


def header(magic, keys, values):
    data = b"".join(struct.pack("<ii", keys[key], value) for key, value in values.items())
    return struct.pack("<ii", magic, 8 + len(data)) + data


def dequantized(blocks):
    """f32 rows of q40 or q80 blocks: the embedding of .m is f32."""
    scales = blocks[..., :2].copy().view("<f2").astype("<f4")
    codes = blocks[..., 2:]
    if codes.shape[-1] == 16:
        numbers = np.concatenate([codes & 15, codes >> 4], axis=-1).astype(np.int8) - 8
    else:
        numbers = codes.view(np.int8)
    return (numbers * scales).reshape(blocks.shape[0], -1).astype("<f4")


def write(model, path):
    c = model.config
    if c["model_type"] != "qwen3_moe":
        raise SystemExit("distributed-llama knows no GLM: give a qwen3_moe model of the same shape")
    head_dim = c.get("head_dim", c["hidden_size"] // c["num_attention_heads"])
    values = {"version": 0, "arch_type": QWEN3_MOE, "dim": c["hidden_size"],
              "hidden_dim": c["intermediate_size"], "n_layers": c["num_hidden_layers"],
              "n_heads": c["num_attention_heads"], "n_kv_heads": c["num_key_value_heads"],
              "n_experts": c["num_experts"], "n_active_experts": c["num_experts_per_tok"],
              "vocab_size": c["vocab_size"], "max_seq_len": c["max_position_embeddings"],
              "hidden_act": SILU, "rope_theta": int(c["rope_theta"]),
              "weights_float_type": FLOAT_TYPES[model.dtype("layers.0.attention.qkv")],
              "head_dim": head_dim, "norm_epsilon": EPSILONS[float(c["rms_norm_eps"])],
              "moe_hidden_dim": c["moe_intermediate_size"]}
    q = c["num_attention_heads"] * head_dim
    kv = c["num_key_value_heads"] * head_dim
    with open(path, "wb") as file:
        file.write(header(MODEL_MAGIC, MODEL_KEYS, values))
        file.write(dequantized(model.blocks("embedding")).tobytes())
        for i in range(c["num_hidden_layers"]):
            layer = f"layers.{i}."
            qkv = model.blocks(layer + "attention.qkv")
            for begin, end in ((0, q), (q, q + kv), (q + kv, q + 2 * kv)):
                file.write(qkv[begin:end].tobytes())
            file.write(model.blocks(layer + "attention.out").tobytes())
            file.write(model.plain(layer + "router").tobytes())
            for e in range(c["num_experts"]):
                file.write(model.blocks(layer + "experts.gate_up", "gate", e).tobytes())
                file.write(model.blocks(layer + "experts.down", "all", e).tobytes())
                file.write(model.blocks(layer + "experts.gate_up", "up", e).tobytes())
            for name in ("attention.q_norm", "attention.k_norm", "input_norm", "mlp_norm"):
                file.write(model.plain(layer + name).tobytes())
        file.write(model.plain("final_norm").tobytes())
        file.write(model.blocks("head" if "head" in model else "embedding").tobytes())


def write_tokenizer(path, vocab_size):
    singles = [bytes([code]) for code in range(33, 127)]
    tokens = singles + [b"t%05d" % i for i in range(vocab_size - len(singles) - 2)]
    bos, tokens = len(tokens), tokens + [b"<bos>", b"<eos>"]
    values = {"bos_id": bos, "version": 1, "vocab_size": len(tokens),
              "max_token_length": max(map(len, tokens)), "n_eos_tokens": 1, "add_bos": 1}
    with open(path, "wb") as file:
        file.write(header(TOKENIZER_MAGIC, TOKENIZER_KEYS, values))
        file.write(struct.pack("<i", bos + 1))
        for token in tokens:
            file.write(struct.pack("<fI", 0.0, len(token)) + token)
