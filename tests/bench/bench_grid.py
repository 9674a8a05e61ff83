#!/usr/bin/env python3
"""The grid against a PyTorch pipeline that loads, merges and evaluates cell by cell, side by side in one run.

    tests/bench/bench_grid.py demo [SCRATCH_DIR]   the demonstration: 48 targets x 20 method settings x 2 similarities x 3 numbers of sources
    tests/bench/bench_grid.py base SCRATCH_DIR     XLM-R-base's shape with random weights, 64 texts a target (about 1.1 GB a source, kept there)

Both have 2 cores: mergegrid 2 ranks of one thread (--ranks), PyTorch 2 threads, or one where that is faster (the demonstration). The
pipeline is the users', written straight: per cell from_pretrained of every source (of the base too where a method is relative to it), a
merge of the state dicts, and the target's test texts in batches of 32, sorted by length and padded, in float32. Tokenizing, which it could
do once, is not counted. mergegrid's cells are its stage's time over its cells; its load and merge, and its evaluation, are thread seconds
over 2 cores. Files are in the page cache, and nothing else should run meanwhile.
Accuracies of the sampled cells, where nothing is random, are compared.

Runs build/mergegrid (or MERGEGRID_BINARY). Without torch and transformers: exit code 77.
"""
import argparse
import csv
import itertools
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

THREADS = 2
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)
os.environ["OMP_NUM_THREADS"] = str(THREADS)
try:
    import h5py
    import numpy as np
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(THREADS)
ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "tests" / "data" / "emoji48"
BINARY = os.environ.get("MERGEGRID_BINARY", str(ROOT / "build" / "mergegrid"))
SETTINGS = ["average", "similarity", {"task_arithmetic": {"lambda": [0.3, 0.5]}}, {"ties": {"density": [0.1, 0.2, 0.5]}},
            {"dare_linear": {"density": [0.5, 0.9]}}, {"dare_ties": {"density": 0.5}}, "magmax", "breadcrumbs", "breadcrumbs_ties", "ram",
            "model_stock", {"directional_consensus": {"alpha": [0.5, 1]}}, "slerp", "multislerp", "karcher"]
SAMPLED = {"similarity": "similarity", "ties": {"ties": {"density": 0.2}}, "dare_linear": {"dare_linear": {"density": 0.5}}, "slerp": "slerp"}


# ---- the pipeline ----

def linear(base, sources, weights):
    merged = {}
    for name, first in sources[0].items():
        merged[name] = first * weights[0]
        for w, source in zip(weights[1:], sources[1:]):
            merged[name].add_(source[name], alpha=w)
    return merged


def ties(base, sources, weights, density=0.2):
    merged = {}
    for name in sources[0]:
        if name not in base:
            merged[name] = torch.stack([source[name] for source in sources]).mean(dim=0)
            continue
        deltas = torch.stack([source[name] - base[name] for source in sources])
        kept = max(1, int(density * base[name].numel()))
        for delta in deltas:
            size = delta.abs()
            delta[size < size.flatten().kthvalue(size.numel() - kept + 1).values] = 0
        sign = torch.where(deltas.sum(dim=0) >= 0, 1.0, -1.0)
        agree = deltas * sign > 0
        merged[name] = base[name] + (deltas * agree).sum(dim=0) / agree.sum(dim=0).clamp(min=1)
    return merged


def dare_linear(base, sources, weights, density=0.5):
    merged = {}
    for name in sources[0]:
        if name not in base:
            merged.update(linear({}, [{name: source[name]} for source in sources], weights))
            continue
        merged[name] = base[name].clone()
        for w, source in zip(weights, sources):
            delta = source[name] - base[name]
            merged[name].add_(delta.mul_(torch.rand_like(delta) < density), alpha=w / density)
    return merged


def slerp(base, sources, weights):
    order = sorted(range(len(weights)), key=lambda k: -weights[k])
    merged, so_far = dict(sources[order[0]]), weights[order[0]]
    for k in order[1:]:
        so_far += weights[k]
        t = weights[k] / so_far
        for name, b in sources[k].items():
            a = merged[name]
            norms = a.norm() * b.norm()
            dot = float(((a * b).sum() / norms).clamp(-1, 1)) if norms > 0 else 1.0
            if abs(dot) > 0.9995:
                merged[name] = (1 - t) * a + t * b
            else:
                angle = np.arccos(dot)
                merged[name] = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    return merged


MERGES = {"similarity": linear, "ties": ties, "dare_linear": dare_linear, "slerp": slerp}
RELATIVE = {"ties", "dare_linear"}  # to the base


class Texts:
    """A target's texts of a partition as padded batches, and their classes."""
    def __init__(self, path, partition, tokenizer, longest, classes):
        with open(path, encoding="utf-8") as file:
            records = [record for record in map(json.loads, file) if record["partition"] == partition]
        ids = [tokenizer(record["utt"], truncation=True, max_length=longest)["input_ids"] for record in records]
        order = sorted(range(len(ids)), key=lambda k: len(ids[k]))
        self.labels = torch.tensor([classes[records[k]["intent"]] for k in order])
        self.batches = []
        for at in range(0, len(order), 32):
            rows = [ids[k] for k in order[at:at + 32]]
            width = max(map(len, rows))
            self.batches.append({"input_ids": torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows]),
                                 "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])})


@torch.inference_mode()
def python_cell(method, base, paths, weights, texts):
    """Seconds of loading, merging, evaluating; accuracy."""
    began = time.perf_counter()
    models = [AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32) for path in paths]
    sources = [model.state_dict() for model in models]
    below = {}
    if method in RELATIVE:
        below = AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32, num_labels=models[0].config.num_labels).state_dict()
        below = {name: value for name, value in below.items() if not name.startswith("classifier.")}  # the base has no head
    loaded = time.perf_counter()
    merged = MERGES[method](below, sources, weights)
    model = models[0]
    model.load_state_dict(merged)
    model.eval()
    done = time.perf_counter()
    said = torch.cat([model(**batch).logits.argmax(dim=1) for batch in texts.batches])
    return (loaded - began, done - loaded, time.perf_counter() - done), float((said == texts.labels).float().mean())


@torch.inference_mode()
def choose_threads(path, texts):
    """Small models are slower with two threads than with one: takes what is faster."""
    model, seconds = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval(), {}
    for threads in [*range(1, THREADS + 1)] * 4:
        torch.set_num_threads(threads)
        began = time.perf_counter()
        for batch in texts.batches:
            model(**batch)
        seconds[threads] = min(seconds.get(threads, 1e9), time.perf_counter() - began)
    best = min(seconds, key=seconds.get)
    torch.set_num_threads(best)
    print(f"  PyTorch takes {best} of {THREADS} threads: {', '.join(f'{t}: {1e3 * s:.0f} ms' for t, s in seconds.items())} a target's texts", flush=True)


# ---- mergegrid ----

def sh(*command):
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def write_config(path, **sections):
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{key}: {json.dumps(value)}\n" for key, value in sections.items())
    return path


class Grid:
    """A run of mergegrid, and what its result says."""
    def __init__(self, config, result, ranks):
        began = time.perf_counter()
        sh("mpirun", "-n", ranks, BINARY, "run", "-c", config, "--fresh", "--quiet")
        self.wall = time.perf_counter() - began
        with h5py.File(result) as file:
            columns = {name: column.asstr()[:] if column.dtype == object else column[:] for name, column in file["grid/cells"].items()}
            self.seconds = {row["name"].decode(): float(row["seconds"]) for row in file["provenance/timings"][()]}
            # thread seconds, to be shared by the cores
            self.merge, self.evaluate = (self.seconds[name] / THREADS for name in ("grid_merge", "grid_evaluate"))
        self.cells = [dict(zip(columns, row)) for row in zip(*columns.values())]
        failed = [cell for cell in self.cells if cell["status"] != "completed"]
        if failed:
            sys.exit(f"{len(failed)} of {len(self.cells)} cells did not complete: {failed[0]['error']}")
        self.computed = len({cell["recipe"] for cell in self.cells})

    def accuracy(self, method, setting, target, count, similarity):
        parameters = setting[method] if isinstance(setting, dict) else {}
        found = [cell for cell in self.cells if cell["method"] == method and cell["locale"] == target and cell["num_languages"] == count and
                 cell["similarity_type"] == similarity and parameters.items() <= json.loads(cell["parameters"]).items()]
        return found[0]["accuracy"] if len(found) == 1 else None


# ---- both ----

class Bench:
    def __init__(self, family, base, texts, matrix, sources, classes, ranks):
        self.base, self.texts_path, self.sources, self.ranks = base, texts, sources, ranks
        self.family = family  # pattern of the sources' directories
        self.tokenizer, self.longest = AutoTokenizer.from_pretrained(base), AutoConfig.from_pretrained(base).max_position_embeddings - 2
        self.classes, self.texts = classes, {}
        with open(matrix, encoding="utf-8") as file:
            rows = list(csv.reader(file))
        self.similarity = {target: {row[0]: float(row[k]) for row in rows[1:]} for k, target in enumerate(rows[0]) if k > 0}
        self.times, self.same, self.compared = [], 0, 0  # (method, load, merge, evaluate)

    def choose(self, target, count):
        """The most similar ones and their weights, as mergegrid chooses by default; in the family's order."""
        column = {id: value for id, value in self.similarity[target].items() if id != target and id in self.sources and value > 0}
        best = sorted(column, key=lambda id: -column[id])[:count]
        total = sum(column[id] for id in best)
        return [(id, column[id] / total) for id in self.sources if id in best]

    def texts_of(self, target):
        if target not in self.texts:
            self.texts[target] = Texts(self.texts_path.format(locale=target), "test", self.tokenizer, self.longest, self.classes)
        return self.texts[target]

    def python(self, cells):
        """[(method, target, count, accuracy)] of cells (method, target, count), timed."""
        out = []
        for method, target, count in cells:
            chosen = self.choose(target, count)
            seconds, accuracy = python_cell(method, self.base, [self.family.format(locale=id) for id, _ in chosen], [w for _, w in chosen],
                                            self.texts_of(target))
            self.times.append((method, *seconds))
            out.append((method, target, count, accuracy))
            print(f"  PyTorch: {target}, {count} sources, {method:12s} load {seconds[0]:7.3f} s, merge {seconds[1]:7.3f} s, "
                  f"evaluate {seconds[2]:7.3f} s, accuracy {accuracy:.4f}", flush=True)
        return out

    def compare(self, grid, cells):
        for method, target, count, accuracy in cells:
            expected = grid.accuracy(method, SAMPLED[method], target, count, "URIEL")
            if method == "dare_linear" or expected is None:
                continue
            self.compared += 1
            self.same += abs(accuracy - expected) < 1e-6
            if abs(accuracy - expected) > 1e-6:
                print(f"  {target}, {count} sources, {method}: accuracy {accuracy:.4f} in PyTorch, {expected:.4f} in mergegrid")


    def report(self, merge, evaluate, whole, aims):
        """mergegrid's seconds a cell, means of all its cells, against the mean over the methods of the medians of PyTorch's."""
        def python(part, methods=SAMPLED):
            return statistics.mean(statistics.median(part(*seconds) for name, *seconds in self.times if name == method) for method in methods)
        def line(what, python, grid, aim=None):
            print(f"  {what:28s} PyTorch {1e3 * python:10.2f} ms   mergegrid {1e3 * grid:10.3f} ms   {python / grid:7.1f} x"
                  f"{f'   (to be {aim} x)' if aim else ''}")
        line("load and merge", python(lambda load, merging, _: load + merging), merge, aims.get("merge"))
        for method in SAMPLED:
            line(f"  {method} alone", python(lambda load, merging, _: load + merging, [method]), merge)
        line("evaluate", python(lambda _, __, evaluating: evaluating), evaluate)
        line("whole cell", python(lambda *parts: sum(parts)), whole, aims["whole"])
        print(f"accuracy the same in {self.same} of {self.compared} cells")


def demo(args, folder):
    sources = sorted(path.name.removeprefix("xlm-roberta-emoji_k_") for path in DEMO.glob("xlm-roberta-emoji_k_*"))
    with open(DEMO / f"xlm-roberta-emoji_k_{sources[0]}" / "config.json", encoding="utf-8") as file:
        classes = json.load(file)["label2id"]
    bench = Bench(str(DEMO / "xlm-roberta-emoji_k_{locale}"), str(DEMO / "xlm-roberta-emoji"), str(DEMO / "texts" / "{locale}.jsonl"),
                  DEMO / "uriel_similarity.csv", sources, classes, args.ranks)
    config = write_config(f"{folder}/grid.yaml", family={"base": bench.base, "sources": bench.family}, texts={"files": bench.texts_path},
                          shards={"dir": "shards"}, stages=["compatibility", "nxn", "grid"], compatibility={"metrics": ["task_vector_cosine"]},
                          grid={"similarity": {"URIEL": str(DEMO / "uriel_similarity.csv"), "REAL": "nxn"},
                                "sweep": {"locale": "all", "similarity_type": ["URIEL", "REAL"], "num_languages": [3, 5, 7], "method": SETTINGS}},
                          compute={"threads": max(1, THREADS // args.ranks)}, result="result.h5")
    cells = [(method, sources[(17 * k) % len(sources)], count)
             for k, (count, method) in enumerate(itertools.islice(itertools.cycle(itertools.product((3, 5, 7), SAMPLED)), args.cells))]
    choose_threads(bench.family.format(locale=sources[0]), bench.texts_of(sources[0]))
    bench.python(cells[:1])  # the first cell pays for what is loaded once
    bench.times.clear()
    half = len(cells) // 2
    said = bench.python(cells[:half])
    grid = Grid(config, f"{folder}/result.h5", args.ranks)
    print(f"  mergegrid: {len(grid.cells)} cells in {grid.seconds['grid']:.2f} s", flush=True)
    said += bench.python(cells[half:])
    bench.compare(grid, said)
    count = len(grid.cells)
    print(f"\n{count} cells, {grid.computed} different recipes: grid {grid.seconds['grid']:.1f} s (to be under 180) after nxn {grid.seconds['nxn']:.1f} s; "
          f"the command {grid.wall:.1f} s\na cell; {len(said)} of PyTorch, mergegrid's mean of all stands in every line:")
    bench.report(grid.merge / count, grid.evaluate / count, grid.seconds["grid"] / count, {"whole": 10})


# ---- XLM-R-base's shape ----

def make_base_family(args, folder):
    """Random weights by make-family, with what transformers wants beside them; texts of about a dozen tokens; a matrix."""
    family = f"{folder}/family-{args.sources}"
    if not os.path.exists(f"{family}/complete"):
        print(f"making {family}", flush=True)
        sh(sys.executable, ROOT / "scripts" / "make-family", family, "-n", args.sources, "--shape", "xlmr-base", "--random")
        config = {"model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"], "vocab_size": 250002, "hidden_size": 768,
                  "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 514,
                  "type_vocab_size": 1, "layer_norm_eps": 1e-5, "hidden_act": "gelu", "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
        labels = {"id2label": {str(k): f"label-{k}" for k in range(60)}, "label2id": {f"label-{k}": k for k in range(60)}}
        for path in pathlib.Path(family).iterdir():
            (path / "config.json").write_text(json.dumps({**config, **(labels if path.name != "base" else {})}), encoding="utf-8")
        for name in ("sentencepiece.bpe.model", "tokenizer_config.json"):
            shutil.copy(DEMO / "xlm-roberta-emoji" / name, f"{family}/base/{name}")
        pathlib.Path(f"{family}/complete").touch()
    sources = [f"s{k:04d}" for k in range(args.sources)]
    os.makedirs(f"{folder}/texts", exist_ok=True)
    for target, locale in zip(sources[:2], ("en-US", "sw-KE")):
        with open(DEMO / "texts" / f"{locale}.jsonl", encoding="utf-8") as file:
            words = [json.loads(line)["utt"] for line in file]
        with open(f"{folder}/texts/{target}.jsonl", "w", encoding="utf-8") as file:
            for k in range(args.texts + 8):
                record = {"id": str(k), "utt": " ".join(words[3 * k:3 * k + 3]), "intent": f"label-{k % 60}", "partition": "test" if k < args.texts else "dev"}
                file.write(json.dumps(record) + "\n")
    with open(f"{folder}/similarity.csv", "w", encoding="utf-8") as file:
        file.write("," + ",".join(sources) + "\n")
        for i, id in enumerate(sources):
            file.write(id + "," + ",".join(f"{1 - abs(i - k) / 10:.3f}" for k in range(args.sources)) + "\n")
    return family, sources


def xlmr_base(args, folder):
    family, sources = make_base_family(args, folder)
    bench = Bench(f"{family}/source_{{locale}}", f"{family}/base", f"{folder}/texts/{{locale}}.jsonl", f"{folder}/similarity.csv", sources,
                  {f"label-{k}": k for k in range(60)}, args.ranks)
    counts = [count for count in (3, 5) if count < args.sources]
    config = write_config(f"{folder}/grid.yaml", family={"base": bench.base, "sources": bench.family}, texts={"files": bench.texts_path},
                          shards={"dir": "shards"}, stages=["nxn", "grid"], nxn={"targets": sources[:2]},
                          grid={"similarity": {"URIEL": "similarity.csv"},
                                "sweep": {"locale": sources[:2], "num_languages": counts, "method": list(SAMPLED.values())}},
                          compute={"threads": max(1, THREADS // args.ranks), "memory_budget": args.memory_budget}, result="result.h5")
    cells = [(method, sources[k % 2], counts[k % len(counts)]) for k, method in enumerate(SAMPLED)]
    sh("mpirun", "-n", args.ranks, BINARY, "pack", "-c", config, "--quiet")
    merge, evaluate, whole, said = [], [], [], []
    for k in range(args.repeats):
        print(f"round {k + 1} of {args.repeats}", flush=True)
        said = bench.python(cells)
        grid = Grid(config, f"{folder}/result.h5", args.ranks)
        print(f"  mergegrid: {len(grid.cells)} cells in {grid.seconds['grid']:.2f} s", flush=True)
        merge.append(grid.merge / len(grid.cells)), evaluate.append(grid.evaluate / len(grid.cells))
        whole.append(grid.seconds["grid"] / len(grid.cells))
    bench.compare(grid, said)
    print(f"\n{args.sources} sources, {args.texts} texts a target, {len(grid.cells)} cells\na cell; {len(bench.times)} of PyTorch, of mergegrid the median of "
          f"{args.repeats} runs' means, which stands in every line:")
    bench.report(*map(statistics.median, (merge, evaluate, whole)), {"merge": 30, "whole": 2})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["demo", "base"])
    parser.add_argument("dir", nargs="?", help="scratch")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--cells", type=int, default=12, help="demo: how many PyTorch does")
    parser.add_argument("--sources", type=int, default=6, help="base: how many are made")
    parser.add_argument("--texts", type=int, default=64, help="base: of a target")
    parser.add_argument("--repeats", type=int, default=3, help="base: rounds of both")
    parser.add_argument("--memory-budget", default="6GiB", help="base: of a rank")
    args = parser.parse_args()
    if args.what == "base" and args.dir is None:
        parser.error("base wants a directory: it takes gigabytes")
    with tempfile.TemporaryDirectory() if args.dir is None else open(os.devnull, encoding="utf-8") as temporary:
        folder = temporary if args.dir is None else os.path.abspath(args.dir)
        os.makedirs(folder, exist_ok=True)
        {"demo": demo, "base": xlmr_base}[args.what](args, folder)


if __name__ == "__main__":
    main()
