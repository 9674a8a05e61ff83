#!/usr/bin/env python3
"""The encoder against transformers, ONNX Runtime and CTranslate2, side by side in one run, on an XLM-R-base shape.

    tests/bench/bench_encoder.py BUILD/bench_encoder [TEXTS]

Random weights, lengths like MASSIVE's (mean about 12 tokens, some of 40), 2 threads each. What is not installed is left out and
named. Rounds alternate, so that a slow moment of the machine hits all; the ratio is of the medians.
"""
import os
import subprocess
import sys
import tempfile
import time

THREADS = 2
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification  # noqa: E402

torch.set_num_threads(THREADS)
binary, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 384
rng = np.random.default_rng(0)
lengths = np.clip(np.round(rng.gamma(4.0, 3.0, count)).astype(int), 3, 48)
texts = [[0] + [int(i) for i in rng.integers(4, 8000, n - 2)] + [2] for n in lengths]
by_length = sorted(range(count), key=lambda k: len(texts[k]))
folder = tempfile.mkdtemp()
config = XLMRobertaConfig(vocab_size=8000, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                          max_position_embeddings=514, type_vocab_size=1, num_labels=60, pad_token_id=1, layer_norm_eps=1e-5)
torch.manual_seed(0)
model = XLMRobertaForSequenceClassification(config).eval()
model.save_pretrained(folder)
with open(f"{folder}/ids.txt", "w") as f:
    f.writelines(" ".join(map(str, texts[k])) + "\n" for k in by_length)


def batches(order, size=32):
    for start in range(0, count, size):
        rows = order[start:start + size]
        width = max(len(texts[k]) for k in rows)
        ids = np.full((len(rows), width), 1, dtype=np.int64)
        mask = np.zeros_like(ids)
        for r, k in enumerate(rows):
            ids[r, :len(texts[k])] = texts[k]
            mask[r, :len(texts[k])] = 1
        yield rows, ids, mask


def with_torch(order):
    def run():
        out = np.empty((count, 60), np.float32)
        with torch.inference_mode():
            for rows, ids, mask in batches(order):
                out[rows] = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
        return out
    return run


def with_onnx():
    import onnxruntime as ort
    path = f"{folder}/model.onnx"
    _, ids, mask = next(batches(by_length))
    torch.onnx.export(model, (torch.from_numpy(ids), torch.from_numpy(mask)), path, input_names=["input_ids", "attention_mask"],
                      output_names=["logits"], dynamic_axes={n: {0: "b", 1: "t"} for n in ("input_ids", "attention_mask")},
                      opset_version=17, dynamo=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run():
        out = np.empty((count, 60), np.float32)
        for rows, ids, mask in batches(by_length):
            out[rows] = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return out
    return run


def with_ctranslate2():
    import ctranslate2
    to = f"{folder}/ct2"
    vocabulary = {f"t{i}": i for i in range(8000)}

    class Tokenizer:
        unk_token, bos_token, eos_token, pad_token = "t3", "t0", "t2", "t1"
        def get_vocab(self): return vocabulary
        def convert_ids_to_tokens(self, ids): return [f"t{i}" for i in ids]

    class Converter(ctranslate2.converters.TransformersConverter):
        def load_model(self, cls, name, **_): return model
        def load_tokenizer(self, cls, name, **_): return Tokenizer()
    model.config.position_embedding_type = "absolute"  # asked for by the converter, no longer kept by newer transformers
    Converter(folder).convert(to, quantization="float32", force=True)
    encoder = ctranslate2.Encoder(to, compute_type="float32", inter_threads=1, intra_threads=THREADS)
    head = model.classifier

    def run():
        out = np.empty((count, 60), np.float32)
        for rows, ids, _ in batches(by_length):
            states = encoder.forward_batch([texts[k] for k in rows]).last_hidden_state
            with torch.inference_mode():
                out[rows] = head(torch.from_numpy(np.array(states))).numpy()
        return out
    return run


def ours():
    text = subprocess.run([binary, folder, f"{folder}/ids.txt", str(THREADS), f"{folder}/logits.f32"], check=True,
                          capture_output=True, text=True).stdout
    out = np.empty((count, 60), np.float32)
    out[by_length] = np.fromfile(f"{folder}/logits.f32", np.float32).reshape(count, 60)
    return out, float(text.split()[0]), text.strip()


runners = {"transformers, batches of 32 as they come": with_torch(list(range(count))), "transformers, sorted": with_torch(by_length)}
for name, make in (("ONNX Runtime, sorted", with_onnx), ("CTranslate2, sorted", with_ctranslate2)):
    try:
        runners[name] = make()
    except Exception as error:  # pylint: disable=broad-except
        print(f"left out: {name}: {type(error).__name__}: {str(error)[:200]}")
times = {name: [] for name in [*runners, "mergegrid"]}
want = runners["transformers, sorted"]()
for _ in range(3):
    got, seconds, line = ours()
    times["mergegrid"].append(seconds)
    for name, run in runners.items():
        began = time.perf_counter()
        result = run()
        times[name].append(time.perf_counter() - began)
        worst = np.abs(result - want).max() / np.abs(want).max()
        if worst > 1e-3:
            print(f"{name}: logits {worst:.1e} off")
print(f"{count} texts, {int(lengths.sum())} tokens (mean {lengths.mean():.1f}, longest {lengths.max()})")
print(f"mergegrid: {line}; logits within {np.abs(got - want).max() / np.abs(want).max():.1e} of transformers'")
mine = float(np.median(times["mergegrid"]))
print(f"products at {100 * float(line.split('alone ')[1].split()[0]) / THREADS / mine:.0f}% of the forward pass")
for name in runners:
    print(f"{float(np.median(times[name])) / mine:5.2f} x {name} ({float(np.median(times[name])):.2f} s against {mine:.2f} s)")
