# Shapes of a study's models: a ladder from 1 to 405 billion parameters whose weights are random
# numbers (glm_infer --synthetic), and GLM-4.5's own shapes. SPDX-License-Identifier: MIT


def _moe(hidden, layers, heads, kv_heads, experts, top_k, expert_width, dense_width, vocab=151552,
         qk_norm=False, head_dim=128):
    return {"architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "hidden_size": hidden,
            "intermediate_size": dense_width, "moe_intermediate_size": expert_width,
            "num_hidden_layers": layers, "first_k_dense_replace": 1, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": head_dim, "attention_bias": True,
            "use_qk_norm": qk_norm, "n_routed_experts": experts, "num_experts_per_tok": top_k,
            "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "norm_topk_prob": True,
            "routed_scaling_factor": 1.0, "partial_rotary_factor": 0.5, "rope_theta": 1000000,
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "vocab_size": vocab, "tie_word_embeddings": False, "num_nextn_predict_layers": 0,
            "eos_token_id": [2]}


def _dense(hidden, layers, heads, kv_heads, width, vocab=128256):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
            "intermediate_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": kv_heads, "head_dim": hidden // heads, "rope_theta": 500000,
            "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "hidden_act": "silu",
            "vocab_size": vocab, "tie_word_embeddings": False, "attention_bias": False,
            "eos_token_id": [2]}


# Name: config. Numbers in the names are billions of parameters.
MODELS = {
    "tiny": _moe(128, 6, 8, 4, 16, 4, 64, 352, 2048, head_dim=32),
    "0.2B": _moe(512, 8, 8, 2, 32, 4, 256, 1376, 32000, head_dim=64),
    "1B": _moe(1024, 12, 16, 4, 32, 4, 704, 2816, 32000),
    "3B": _moe(2048, 12, 16, 4, 64, 8, 704, 5472, 32000),
    "12B": _moe(2048, 24, 32, 4, 64, 8, 1024, 5472),
    "30B": _moe(2048, 48, 32, 4, 128, 8, 768, 6144),
    "106B": _moe(4096, 46, 96, 8, 128, 8, 1408, 10944),  # GLM-4.5-Air
    "355B": _moe(5120, 92, 96, 8, 160, 8, 1536, 12288, qk_norm=True),  # GLM-4.5
    "405B": _dense(16384, 126, 128, 8, 53248),  # all of it active
}
MODELS["355B"]["first_k_dense_replace"] = 3
