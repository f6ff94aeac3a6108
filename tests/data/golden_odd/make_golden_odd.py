"""Tiny random models of shapes that tests/data/golden does not have, with logits from Hugging Face transformers: usage: make_golden_odd.py [OUT_DIR]
Writes OUT/NAME/ as golden/make_golden.py does and with its functions; README.md beside this file says what each model is for. Every folder is then loaded again, as a user
loads it, and must give the same logits; float64, and weights moved by 1e-6 of themselves, must give nearly the same, so that no choice of experts or tokens hangs on rounding."""
import shutil, sys
from pathlib import Path
here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent / "golden"))
from make_golden import *
from make_golden import MOE as MOE_BASE

ODD = dict(BASE, intermediate_size=72)
MOE = dict(MOE_BASE, hidden_act="silu")
LLAMA3 = lambda theta, factor, original: dict(rope_parameters={"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                              "original_max_position_embeddings": original})
H = lambda hidden, heads, kv, head_dim, vocab: dict(hidden_size=hidden, num_attention_heads=heads, num_key_value_heads=kv, head_dim=head_dim, vocab_size=vocab)
GLM4_MOE, GLM4, GLM = (Glm4MoeForCausalLM, Glm4MoeConfig), (Glm4ForCausalLM, Glm4Config), (GlmForCausalLM, GlmConfig)
LLAMA, QWEN3, QWEN3_MOE = (LlamaForCausalLM, LlamaConfig), (Qwen3ForCausalLM, Qwen3Config), (Qwen3MoeForCausalLM, Qwen3MoeConfig)
QWEN3_EXPERTS = dict(moe_intermediate_size=24, num_experts=5, num_experts_per_tok=2, decoder_sparse_step=2)

# `old`: config.json in the old dialect, edited by that function. `bf16`: weights in bfloat16 (the router bias stays float32), in three shards with an index; its `seed` is
# one with which a router bias rounded to bfloat16 picks other experts. Seeds are 100 + place in the table elsewhere.
keep = lambda c: c
def old_count(c): c["num_experts"] = c.pop("num_local_experts"); return c
def no_fraction(c): del c["partial_rotary_factor"]; return c      # absent: 0.5 for the glm families
ODD_MODELS = {
  "glm4_moe_5h": dict(cls=GLM4_MOE, kw={**ODD, **MOE, **H(44, 5, 1, 20, 211), **R(1e6, .3), "attention_bias": True, "use_qk_norm": True, "n_routed_experts": 7, "num_experts_per_tok": 2,
                      "moe_intermediate_size": 40, "n_shared_experts": 2, "routed_scaling_factor": 2.5}),
  "glm4_moe_groups": dict(cls=GLM4_MOE, old=keep, kw={**ODD, **MOE, **H(48, 4, 2, 12, 257), **R(1e5, .5), "attention_bias": False, "use_qk_norm": False, "n_routed_experts": 12,
                          "num_experts_per_tok": 3, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.7, "norm_topk_prob": False, "moe_intermediate_size": 24}),
  "glm4_moe_tied": dict(cls=GLM4_MOE, old=no_fraction, kw={**ODD, **MOE, **H(48, 9, 3, 8, 333), **R(1e6, .5), "attention_bias": True, "use_qk_norm": False, "n_routed_experts": 6,
                        "moe_intermediate_size": 20, "first_k_dense_replace": 0, "num_hidden_layers": 2, "tie_word_embeddings": True}),
  "glm4_mha_tied": dict(cls=GLM4, kw={**ODD, **H(60, 7, 7, 12, 190), **R(1e4, 1.0), "attention_bias": True, "hidden_act": "silu", "tie_word_embeddings": True}),
  "glm_3h": dict(cls=GLM, old=keep, kw={**ODD, **H(48, 3, 1, 16, 150), **R(5e6, .25), "attention_bias": True, "hidden_act": "silu", "rms_norm_eps": 1.5625e-7}),
  "llama3_tied": dict(cls=LLAMA, old=keep, kw={**ODD, **H(54, 6, 2, 24, 301), **LLAMA3(1e4, 8.0, 64), "num_hidden_layers": 2, "intermediate_size": 88, "attention_bias": False, "mlp_bias": False,
                      "tie_word_embeddings": True}),
  "llama3": dict(cls=LLAMA, kw={**ODD, "num_hidden_layers": 2, **H(50, 5, 5, 16, 127), **LLAMA3(5e3, 4.0, 48), "attention_bias": False, "mlp_bias": False}),
  "qwen3_mha_tied": dict(cls=QWEN3, kw={**ODD, **H(40, 3, 3, 20, 229), **R(1e6), "intermediate_size": 100, "attention_bias": False, "tie_word_embeddings": True}),
  "qwen3_moe_sparse": dict(cls=QWEN3_MOE, old=old_count, kw={**ODD, **QWEN3_EXPERTS, **H(44, 6, 3, 12, 199), **R(1e6), "num_hidden_layers": 4, "mlp_only_layers": [3], "norm_topk_prob": False}),
  "qwen3_moe_sparse_new": dict(cls=QWEN3_MOE, kw={**ODD, **QWEN3_EXPERTS, **H(36, 5, 1, 20, 163), **R(1e4), "num_hidden_layers": 4, "mlp_only_layers": [], "norm_topk_prob": True}),
  "glm4_moe_bf16": dict(cls=GLM4_MOE, old=keep, bf16=True, seed=115, kw={**ODD, **MOE, **H(64, 6, 2, 16, 320), **R(1e6, .5), "attention_bias": True, "use_qk_norm": False, "n_routed_experts": 9}),
}

def save_bf16(model, path):
    """Three shards of bfloat16; the model keeps the rounded weights in float32, and its router bias as drawn."""
    for p in model.parameters(): p.data = p.data.bfloat16()
    model.config.dtype = torch.bfloat16
    total = sum(p.numel() * 2 for p in model.parameters())
    for tenth in range(10, 20):
        shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(path, max_shard_size=total * tenth // 30)
        if len(list(path.glob("model-*.safetensors"))) == 3: break
    else: raise SystemExit(f"{path.name}: no shard size gives three shards")
    for p in model.parameters(): p.data = p.data.float()

def check(cls, path):
    """Loads the folder as written and compares."""
    expected = json.loads((path / "expected.json").read_text())
    ids, logits = torch.tensor([(expected["prompt"] + expected["greedy"])[:-1]]), torch.from_numpy(np.load(path / "logits.npy"))
    def off(dtype, experts=None, noise=0.0):
        model = cls.from_pretrained(path, dtype=dtype, attn_implementation="eager", experts_implementation=experts).eval()
        g = torch.Generator().manual_seed(7)
        for p in model.parameters(): p.data *= 1 + noise * torch.randn(p.shape, generator=g)
        with torch.no_grad(): return float((model(ids).logits[0] - logits).abs().max()) / expected["range"]
    # The default for experts, grouped_mm, has no float64.
    same, double, moved = off(torch.float32), off(torch.float64, "eager"), off(torch.float32, noise=1e-6)
    if same > 1e-6 or double > 1e-5 or moved > 5e-5: raise SystemExit(f"{path.name}: loaded again, logits are off by {same} {double} {moved} of their range")
    size = sum(f.stat().st_size for f in path.iterdir())
    if size >= 700_000: raise SystemExit(f"{path.name}: {size} bytes")
    print("   ", size, f"bytes; off by {same:.1e}, float64 {double:.1e}, moved weights {moved:.1e} of range;", len(set(expected["greedy"])), "different answers")

def rotary(cls, cfg, model):
    """One head of 1, 2, 3, ... turned to position 37."""
    d, position = cfg.head_dim, 37
    x = torch.arange(1, d + 1).float().view(1, 1, 1, d)
    turn = sys.modules[cls.__module__].apply_rotary_pos_emb
    cos, sin = model.model.rotary_emb(x, torch.tensor([[position]]))
    frequencies = model.model.rotary_emb.inv_freq
    return {"head_dim": d, "rotary_dim": 2 * len(frequencies), "inverse_frequencies": frequencies.tolist(), "position": position, "turned": turn(x, x, cos, sin)[0].flatten().tolist()}

def make(out, name, seed):
    m, path = ODD_MODELS[name], out / name
    # A tied head of the usual width would let the last token win by its own embedding.
    model, cfg = fresh(*m["cls"], m["kw"], path, seed, embed=.25 if m["kw"]["tie_word_embeddings"] else 1.0)
    if m.get("bf16"): save_bf16(model, path)
    else: model.save_pretrained(path)
    if "old" in m:
        old_dialect(path)
        c = m["old"](json.loads((path / "config.json").read_text())); (path / "config.json").write_text(json.dumps(c, indent=2) + "\n")
    dump(model, cfg, path, seed)
    check(m["cls"][0], path)
    return rotary(m["cls"][0], cfg, model)

if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else here
    turned = {name: make(out, name, m.get("seed", 100 + i)) for i, (name, m) in enumerate(ODD_MODELS.items())}
    (out / "rotary.json").write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in turned.items()) + "\n}\n")
