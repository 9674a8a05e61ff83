#!/usr/bin/env python3
"""What transformers computes of three of the demonstration's sources: evaluation of each on each, and CKA in float64.

    tests/oracle/nxn.py            writes tests/data/nxn/accuracy.json and cka.json (needs torch and transformers)
    tests/oracle/nxn.py --check    only says whether the files are what this machine's transformers gives

accuracy.json: locales, and for the partitions test and dev a matrix (rows sources, columns targets). cka.json: locales, and
linear CKA and its unbiased estimator of the last layer's <s> state for the first 500 train texts of en-US.
"""
import json
import pathlib
import sys

try:
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
except ImportError as error:  # CTest's code for a skipped test
    print(f"skipped: {error}")
    sys.exit(77)

HERE = pathlib.Path(__file__).resolve().parent.parent
DEMO = HERE / "data" / "emoji48"
OUT = HERE / "data" / "nxn"
LOCALES = ["af-ZA", "en-US", "sw-KE"]


def texts_of(locale, partition):
    records = map(json.loads, (DEMO / "texts" / f"{locale}.jsonl").read_text(encoding="utf-8").splitlines())
    return [record for record in records if record["partition"] == partition]


def forward(model, tokenizer, texts):
    """Logits, and the last layer's <s> state, in padded batches."""
    logits, states = [], []
    with torch.no_grad():
        for at in range(0, len(texts), 32):
            batch = tokenizer([text["utt"] for text in texts[at:at + 32]], padding=True, truncation=True, max_length=64, return_tensors="pt")
            out = model(**batch, output_hidden_states=True)
            logits.append(out.logits.numpy())
            states.append(out.hidden_states[-1][:, 0].numpy())
    return np.concatenate(logits), np.concatenate(states)


def cka(x, y, unbiased):
    x, y = (a.astype(np.float64) - a.astype(np.float64).mean(axis=0) for a in (x, y))

    def hsic(a, b):
        k, l = a @ a.T, b @ b.T
        if not unbiased:
            return np.sum(k * l)
        n = len(k)
        np.fill_diagonal(k, 0)
        np.fill_diagonal(l, 0)
        one = np.ones(n)
        return (np.sum(k * l) + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))
    return hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))


def main():
    tokenizer = AutoTokenizer.from_pretrained(DEMO / "xlm-roberta-emoji")
    models = [AutoModelForSequenceClassification.from_pretrained(DEMO / f"xlm-roberta-emoji_k_{locale}", dtype=torch.float32).eval()
              for locale in LOCALES]
    accuracy = {"locales": LOCALES}
    for partition in ("test", "dev"):
        accuracy[partition] = []
        for model in models:
            row = []
            for locale in LOCALES:
                texts = texts_of(locale, partition)
                wanted = np.array([model.config.label2id[text["intent"]] for text in texts])
                row.append(float((forward(model, tokenizer, texts)[0].argmax(axis=1) == wanted).mean()))
            accuracy[partition].append(row)
    features = [forward(model, tokenizer, texts_of("en-US", "train")[:500])[1] for model in models]
    matrices = {"locales": LOCALES}
    for name, unbiased in (("cka", False), ("cka_unbiased", True)):
        matrices[name] = [[float(cka(x, y, unbiased)) for y in features] for x in features]
    files = {OUT / "accuracy.json": accuracy, OUT / "cka.json": matrices}
    if "--check" not in sys.argv[1:]:
        OUT.mkdir(parents=True, exist_ok=True)
        for path, content in files.items():
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        return 0
    differs = 0
    for path, content in files.items():
        stored = json.loads(path.read_text(encoding="utf-8"))
        for key in set(content) - {"locales"}:
            off = np.abs(np.array(stored[key]) - np.array(content[key])).max()
            print(f"{path.name} {key}: largest difference {off:.3g}")
            differs += off > 1e-6
    return 1 if differs else 0


if __name__ == "__main__":
    sys.exit(main())
