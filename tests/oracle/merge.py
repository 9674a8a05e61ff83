#!/usr/bin/env python3
"""Does transformers load what `mergegrid merge` writes, and compute what mergegrid computes of it?

    tests/oracle/merge.py --check    merges three of the demonstration's sources (MERGEGRID_BINARY), loads the checkpoint with its
                                     tokenizer and labels, and compares logits with those that the stage nxn writes for it
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import h5py
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
except ImportError as error:  # CTest's code for a skipped test
    print(f"skipped: {error}")
    sys.exit(77)

DEMO = pathlib.Path(__file__).resolve().parent.parent / "data" / "emoji48"
BINARY = os.environ.get("MERGEGRID_BINARY", str(DEMO.parent.parent.parent / "build" / "mergegrid"))
METHODS = ["linear", {"ties": {"density": 0.3}}, {"dare_linear": {"density": 0.5}}, {"task_arithmetic": {"lambda": 0.4}}]


def run(*args):
    subprocess.run([BINARY, *args, "--quiet"], check=True, env={**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})


def write(path, **sections):
    with open(path, "w", encoding="utf-8") as file:
        for key, value in {"shards": {"dir": "none"}, **sections}.items():
            file.write(f"{key}: " + json.dumps(value).replace('"none"', "none") + "\n")
    return path


def logits_of(directory, texts):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
    out = []
    with torch.no_grad():
        for at in range(0, len(texts), 32):
            batch = tokenizer([text["utt"] for text in texts[at:at + 32]], padding=True, truncation=True, max_length=64, return_tensors="pt")
            out.append(model(**batch).logits.numpy())
    return np.concatenate(out), model.config.id2label


def main():
    worst = 0
    texts = [record for record in map(json.loads, (DEMO / "texts" / "sw-KE.jsonl").read_text(encoding="utf-8").splitlines())
             if record["partition"] == "test"]
    with tempfile.TemporaryDirectory() as folder:
        for k, method in enumerate(METHODS):
            merged = f"{folder}/merged{k}"
            config = write(f"{folder}/m.yaml", recipe={"method": method, "sources": {"en-US": 0.5, "es-ES": 0.3, "sw-KE": 0.2}},
                           family={"base": str(DEMO / "xlm-roberta-emoji"), "sources": str(DEMO / "xlm-roberta-emoji_k_{locale}")})
            run("merge", "-c", config, "-o", merged)
            config = write(f"{folder}/e.yaml", family={"base": str(DEMO / "xlm-roberta-emoji"), "sources": {"merged": merged}}, stages=["nxn"],
                           texts={"files": str(DEMO / "texts" / "{locale}.jsonl")}, nxn={"targets": ["sw-KE"]}, result=f"{folder}/r{k}.h5")
            run("run", "-c", config)
            with h5py.File(f"{folder}/r{k}.h5") as file:
                ours, labels = file["nxn/logits/sw-KE"][0], file["labels"].asstr()[:]
            theirs, id2label = logits_of(merged, texts)
            off = np.abs(ours - theirs).max() / np.abs(theirs).max()
            same = (ours.argmax(axis=1) == theirs.argmax(axis=1)).all() and [id2label[c] for c in range(len(labels))] == list(labels)
            print(f"{method}: logits {off:.2g} of the largest apart, predictions and labels {'the same' if same else 'DIFFER'}")
            worst = max(worst, off if same else 1)
    return 1 if worst > 2e-5 else 0


if __name__ == "__main__":
    sys.exit(main())
