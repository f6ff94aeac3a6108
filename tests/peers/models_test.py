# benchmarks/peers/convert.py: header, names, sizes and weights of the files for the peers, from
# small synthetic models. Usage: models_test.py GLM_CONVERT FOLDER. SPDX-License-Identifier: MIT
import json
import pathlib
import struct
import subprocess
import sys

try:
    import h5py
    import numpy as np
except ImportError as error:
    print(f"skipped: {error}; the generator needs h5py and numpy")
    sys.exit(77)

PEERS = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "peers"
CONVERT = sys.argv[1]
FOLDER = pathlib.Path(sys.argv[2])
SHAPE = {"hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
         "num_experts_per_tok": 2, "norm_topk_prob": True, "rope_theta": 10000.0,
         "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "hidden_act": "silu",
         "vocab_size": 256, "tie_word_embeddings": False, "eos_token_id": [1]}
MODELS = {
    "glm4_moe": {"n_routed_experts": 4, "n_shared_experts": 1, "first_k_dense_replace": 1,
                 "n_group": 1, "topk_group": 1, "routed_scaling_factor": 1.0,
                 "attention_bias": True, "use_qk_norm": False, "partial_rotary_factor": 0.5,
                 "num_nextn_predict_layers": 0},
    "qwen3_moe": {"num_experts": 4, "attention_bias": False, "decoder_sparse_step": 1,
                  "mlp_only_layers": []},
}
F32, Q4_0 = 0, 2
BLOCK_BYTES = {F32: 4, Q4_0: 18}
BLOCK_ELEMENTS = {F32: 1, Q4_0: 32}


def check(condition, what):
    if not condition:
        sys.exit(f"models_test: {what}")


class Gguf:
    def __init__(self, path):
        self.data = path.read_bytes()
        self.at = 0
        magic, version, n_tensors, n_fields = self.take("<4sIQQ")
        check((magic, version) == (b"GGUF", 3), "magic")
        self.fields = {}
        for _ in range(n_fields):
            key = self.text()
            kind, = self.take("<I")
            self.fields[key] = self.text() if kind == 8 else self.take({4: "<I", 6: "<f", 7: "<?"}[kind])[0]
        self.tensors = {}
        for _ in range(n_tensors):
            name = self.text()
            dims = self.take(f"<{self.take('<I')[0]}Q")
            self.tensors[name] = (dims, *self.take("<IQ"))
        self.begin = (self.at + 31) // 32 * 32

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        size, = self.take("<Q")
        self.at += size
        return self.data[self.at - size:self.at].decode()

    def row(self, name, number):
        """Row `number`, counted through all matrices of a stack, as f32."""
        dims, kind, offset = self.tensors[name]
        size = dims[0] // BLOCK_ELEMENTS[kind] * BLOCK_BYTES[kind]
        begin = self.begin + offset + number * size
        data = np.frombuffer(self.data[begin:begin + size], np.uint8)
        if kind == F32:
            return data.view("<f4")
        blocks = data.reshape(-1, 18)
        codes = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.int8) - 8
        return (codes * blocks[:, :2].copy().view("<f2").astype("<f4")).reshape(-1)


def our_row(file, name, row, matrix=None):
    """As in docs/file_format.md, "Reading it with h5py"."""
    values, scales = file["weights"][name], file["weights"][name + ".scales"]
    check(values.attrs["packing"] == b"tile16", f"{name} is not tile16")
    at = (row // 16,) if matrix is None else (matrix, row // 16)
    codes = values[at].reshape(-1, 4, 16, 4)[:, :, row % 16, :].reshape(-1, 16)
    q = np.concatenate([codes & 15, codes >> 4], axis=1)
    d = scales[at][:, row % 16].astype(np.float32)
    return ((q.astype(np.int8) - 8) * d[:, None]).reshape(-1)


def make(family):
    config = FOLDER / f"{family}.json"
    config.write_text(json.dumps({**SHAPE, **MODELS[family], "model_type": family}))
    model = FOLDER / f"{family}.h5"
    model.unlink(missing_ok=True)
    subprocess.run([CONVERT, "--synthetic", config, model, "--dtype", "q40", "--embedding-dtype",
                    "q40", "--head-dtype", "q40"], check=True, capture_output=True)
    return model


def convert(*args):
    return subprocess.run([sys.executable, "-B", PEERS / "convert.py", *args], capture_output=True,
                          text=True)


def check_gguf(family, experts):
    model, out = make(family), FOLDER / f"{family}.gguf"
    done = convert(model, "--gguf", out)
    check(done.returncode == 0, done.stderr)
    gguf = Gguf(out)
    arch = family.replace("_", "")
    check(gguf.fields["general.architecture"] == arch, "architecture")
    check(gguf.fields[f"{arch}.expert_count"] == 4, "expert_count")
    end = 0
    for name, (dims, kind, offset) in gguf.tensors.items():
        check(offset == end, f"{name} begins at {offset}, not {end}")
        size = int(np.prod(dims)) // BLOCK_ELEMENTS[kind] * BLOCK_BYTES[kind]
        end += (size + 31) // 32 * 32
    check(len(gguf.data) == gguf.begin + end, "size of the file")
    check(gguf.tensors["blk.1.ffn_up_exps.weight"][:2] == ((64, 32, 4), Q4_0), "dims of experts")
    with h5py.File(model) as file:
        pairs = [(("token_embd.weight", 5), ("embedding", 5)),
                 (("blk.0.attn_k.weight", 7), ("layers.0.attention.qkv", 128 + 7)),
                 (("blk.1.ffn_gate_exps.weight", 3 * 32 + 21), ("layers.1.experts.gate_up", 32 + 5, 3)),
                 (("blk.1.ffn_up_exps.weight", 3 * 32 + 21), ("layers.1.experts.gate_up", 48 + 5, 3)),
                 (("blk.1.ffn_down_exps.weight", 2 * 64 + 40), ("layers.1.experts.down", 40, 2))]
        for theirs, ours in pairs:
            check(np.array_equal(gguf.row(*theirs), our_row(file, *ours)), f"{family}: {theirs[0]}")
        router = file["weights/layers.1.router"][()].reshape(4, 64)
        check(np.array_equal(gguf.row("blk.1.ffn_gate_inp.weight", 2), router[2]), "router")
    check(experts <= set(gguf.tensors), f"{family}: {experts - set(gguf.tensors)} are missing")


def check_dllama():
    model, out, words = (FOLDER / f"qwen3_moe.{end}" for end in ("h5", "m", "t"))
    done = convert(model, "--dllama", out, "--tokenizer", words)
    check(done.returncode == 0, done.stderr)
    magic, header = struct.unpack("<ii", out.read_bytes()[:8])
    check(magic == 0xA00ABCD, "magic of .m")
    q40 = 256 * 64 + 2 * (64 * (128 + 2 * 64) + 64 * 128 + 4 * 3 * 64 * 32)  # head, layers
    f32 = 256 * 64 + 2 * (4 * 64 + 2 * 32 + 2 * 64) + 64
    check(out.stat().st_size == header + q40 // 32 * 18 + 4 * f32, "size of .m")
    magic, header, *fields = struct.unpack("<ii12i", words.read_bytes()[:56])
    check((magic, header) == (0x567124, 56), "header of .t")
    check(dict(zip(fields[::2], fields[1::2]))[1] == 256, "vocabulary of .t")
    done = convert(FOLDER / "glm4_moe.h5", "--dllama", out, "--tokenizer", words)
    check(done.returncode != 0 and "knows no GLM" in done.stderr, "a GLM model as .m")


FOLDER.mkdir(parents=True, exist_ok=True)
check_gguf("glm4_moe", {"blk.0.ffn_down.weight", "blk.1.exp_probs_b.bias", "blk.1.attn_q.bias",
                        "blk.1.ffn_up_shexp.weight", "blk.1.post_attention_norm.weight"})
check_gguf("qwen3_moe", {"blk.0.ffn_gate_exps.weight", "blk.0.attn_q_norm.weight",
                         "blk.0.ffn_norm.weight"})
check_dllama()
