#!/usr/bin/env python3
# Writes a model file of glm_convert for the peers it is measured against (docs/benchmarking.md).
# SPDX-License-Identifier: MIT
import argparse

import dllama_model
import gguf_model
from model_file import ModelFile

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("model", help="a model file (.h5) in q40 or q80, embedding and head too")
parser.add_argument("--gguf", help="write this file for llama.cpp and ik_llama.cpp")
parser.add_argument("--dllama", help="write this .m file for distributed-llama (qwen3_moe only)")
parser.add_argument("--tokenizer", help="write this .t file for distributed-llama")
args = parser.parse_args()
if args.dllama and not args.tokenizer:
    parser.error("--dllama needs --tokenizer")
model = ModelFile(args.model)
if args.gguf:
    gguf_model.write(model, args.gguf, "bench")
if args.dllama:
    dllama_model.write(model, args.dllama)
if args.tokenizer:
    dllama_model.write_tokenizer(args.tokenizer, model.config["vocab_size"])
