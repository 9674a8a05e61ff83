#!/usr/bin/env python3
"""Does transformers say of a grid's cells, written as checkpoints from the result and the shards alone, what the cells say?

    tests/oracle/grid.py --check    runs a small grid of the demonstration (MERGEGRID_BINARY), removes the sources' checkpoints and the
                                    similarity matrix, writes cells with `mergegrid merge RESULT --cell`, loads each with its tokenizer
                                    and labels, and compares predictions with the cell's, for all texts of its target, and logits
                                    with those that the stage nxn writes for the checkpoint
"""
import json
import os
import pathlib
import shutil
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
LOCALES = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
TARGETS = ["nl-NL", "sw-KE"]
METHODS = ["average", "similarity_x_tv_compatibility", {"ties": {"density": 0.3}}, {"dare_ties": {"density": 0.7}}, "model_stock", "slerp", "own"]


def run(*args):
    subprocess.run([BINARY, *args, "--quiet"], check=True, env={**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})


def write(path, **sections):
    with open(path, "w", encoding="utf-8") as file:
        for key, value in sections.items():
            file.write(f"{key}: " + json.dumps(value).replace('"dir": "none"', '"dir": none') + "\n")
    return path


def run_grid(folder):
    for name in ["xlm-roberta-emoji"] + [f"xlm-roberta-emoji_k_{locale}" for locale in LOCALES]:
        shutil.copytree(DEMO / name, f"{folder}/models/{name}")
    shutil.copy(DEMO / "uriel_similarity.csv", f"{folder}/uriel.csv")
    base, targets = f"{folder}/models/xlm-roberta-emoji", {"locale": TARGETS}
    grid = {"similarity": {"URIEL": "uriel.csv", "REAL": "nxn"}, "fixed": {"num_languages": 3, "similarity_type": "URIEL"},
            "sweep": {**targets, "method": METHODS},
            "phases": [{"name": "measured", "fixed": {"similarity_type": "REAL"}, "sweep": {**targets, "method": ["similarity"]}},
                       {"name": "theirs", "fixed": {"preset": "merginguriel"}, "sweep": {"locale": ["nl-NL"], "method": ["directional_consensus"]}}]}
    run("run", "-c", write(f"{folder}/run.yaml", family={"base": base, "sources": base + "_k_{locale}", "locales": LOCALES},
                           texts={"files": str(DEMO / "texts" / "{locale}.jsonl")}, nxn={"targets": TARGETS}, stages=["grid"], grid=grid,
                           shards={"dir": "shards"}, result="r.h5"))
    for locale in LOCALES:
        shutil.rmtree(f"{folder}/models/xlm-roberta-emoji_k_{locale}")
    os.remove(f"{folder}/uriel.csv")
    return f"{folder}/r.h5", base


def texts_of(locale):
    """Of both partitions, in the order of the file."""
    records = map(json.loads, (DEMO / "texts" / f"{locale}.jsonl").read_text(encoding="utf-8").splitlines())
    return [record for record in records if record["partition"] in ("test", "dev")]


def logits_of(directory, texts):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
    out = []
    with torch.no_grad():
        for at in range(0, len(texts), 32):
            batch = tokenizer([text["utt"] for text in texts[at:at + 32]], padding=True, truncation=True, max_length=64, return_tensors="pt")
            out.append(model(**batch).logits.numpy())
    return np.concatenate(out), [model.config.id2label[c] for c in range(model.config.num_labels)]


def our_logits(folder, base, checkpoints):
    """Of both partitions, each checkpoint on every target: what the stage nxn writes."""
    run("run", "-c", write(f"{folder}/e.yaml", family={"base": base, "sources": checkpoints}, stages=["nxn"], nxn={"targets": TARGETS},
                           texts={"files": str(DEMO / "texts" / "{locale}.jsonl")}, shards={"dir": "none"}, result=f"{folder}/e.h5"))
    with h5py.File(f"{folder}/e.h5") as file:
        names = list(file["sources/id"].asstr()[:])
        return {(name, locale): {"test": file[f"nxn/logits/{locale}"][k], "dev": file[f"nxn_select/logits/{locale}"][k]}
                for k, name in enumerate(names) for locale in TARGETS}


def main():
    wrong, worst = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        result, base = run_grid(folder)
        with h5py.File(result) as file:
            cells = list(zip(*(file[f"grid/cells/{name}"].asstr()[:] for name in ("key", "locale", "method")), file["grid/cells/prediction_row"][:]))
            said = {locale: file[f"grid/predictions/{locale}"][:] for locale in TARGETS}
            labels = list(file["labels"].asstr()[:])
        checkpoints = {key: f"{folder}/merged/{key}" for key, *_ in cells}
        for key, directory in checkpoints.items():
            run("merge", result, "--cell", key, "-o", directory)
        ours = our_logits(folder, base, checkpoints)
        for key, locale, method, row in cells:
            texts = texts_of(locale)
            theirs, names = logits_of(checkpoints[key], texts)
            differ = int((theirs.argmax(axis=1) != said[locale][row]).sum())
            off = max(np.abs(theirs[[text["partition"] == part for text in texts]] - logits).max() for part, logits in ours[key, locale].items())
            off /= np.abs(theirs).max()
            print(f"{key} {locale} {method}: {differ} of {len(texts)} predictions differ from the cell's, labels {'the same' if names == labels else 'DIFFER'}; "
                  f"logits {off:.2g} of the largest apart")
            wrong += differ > 0 or names != labels
            worst = max(worst, off)
    return 1 if wrong or worst > 2e-5 else 0


if __name__ == "__main__":
    sys.exit(main())
