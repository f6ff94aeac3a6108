# Reads the tensors of a model file (docs/file_format.md) in the order of a plain matrix: rows of
# blocks, gate rows before up rows. Needs h5py and numpy. SPDX-License-Identifier: MIT
import json

import h5py
import numpy as np

TILE_ROWS = 16
BLOCK = 32  # elements that share a scale


class ModelFile:
    def __init__(self, path):
        self.file = h5py.File(path)
        if self.file.attrs.get("format") != b"glm-hdf5":
            raise SystemExit(f"{path}: not a model file of glm_convert")
        self.config = json.loads(bytes(self.file["texts/config.json"][:]))
        index = json.loads(bytes(self.file["index"][:]))
        self.entries = {entry["name"]: entry for entry in index["tensors"]}

    def __contains__(self, name):
        return name in self.entries

    def dtype(self, name):
        return self.entries[name]["dtype"]

    def plain(self, name):
        """An f32 tensor."""
        if self.dtype(name) != "f32":
            raise SystemExit(f"{name} is {self.dtype(name)}; only f32, q40 and q80 have peers")
        return self.file["weights"][name][()].astype("<f4").reshape(self.entries[name]["dims"])

    def _planes(self, name, matrix):
        """Codes [rows, blocks, bytes] and scales [rows, blocks] of one matrix of a stack."""
        entry = self.entries[name]
        values, scales = self.file["weights"][name], self.file["weights"][name + ".scales"]
        if len(entry["dims"]) == 3:
            values, scales = values[matrix], scales[matrix]
        else:
            values, scales = values[()], scales[()]
        rows, cols = entry["dims"][-2:]
        blocks = cols // BLOCK
        values, scales = values.view(np.uint8), scales.view("<f2")
        if entry["packing"] == "tile16":
            tiles = values.reshape(rows // TILE_ROWS, blocks, -1, TILE_ROWS, 4)
            values = tiles.transpose(0, 3, 1, 2, 4)
            scales = scales.reshape(rows // TILE_ROWS, blocks, TILE_ROWS).transpose(0, 2, 1)
        return values.reshape(rows, blocks, -1), scales.reshape(rows, blocks)

    def blocks(self, name, part="all", matrix=0):
        """Bytes [rows, blocks, 2 + bytes]: each block is its scale, then its codes.

        q40 is byte for byte Q4_0 (GGUF) and q40 (.m), q80 is Q8_0. Part "gate" or "up" takes these
        rows out of a gate_up matrix."""
        codes, scales = self._planes(name, matrix)
        if part != "all":
            rows = codes.shape[0]
            if self.entries[name]["packing"] == "tile16":
                first = 0 if part == "gate" else TILE_ROWS
                chosen = np.arange(rows).reshape(-1, 2 * TILE_ROWS)[:, first:first + TILE_ROWS].ravel()
            else:
                half = rows // 2
                chosen = np.arange(half) + (0 if part == "gate" else half)
            codes, scales = codes[chosen], scales[chosen]
        heads = np.ascontiguousarray(scales)[..., None].view(np.uint8)
        return np.concatenate([heads, codes], axis=2)
