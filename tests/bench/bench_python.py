#!/usr/bin/env python3
"""The same matrix in Python, to compare with: from checkpoints on disk to the cosines of all pairs.

    bench_python.py torch FAMILY    task vectors in memory, flattened, compared pair by pair
    bench_python.py numpy FAMILY    stacked, one matrix product

FAMILY is what scripts/make-family wrote: base/ and source_*/, one safetensors file each. Prints a line of JSON: seconds (without
starting the interpreter and importing), peak memory, and the matrix's mean, min and max off the diagonal.
"""
import glob
import json
import os
import resource
import struct
import sys
import time

import numpy as np

HEAD = "classifier."  # takes no part, as in mergegrid's default


def load(directory):
    """name -> float32 array, read in one go as the safetensors library does."""
    with open(os.path.join(directory, "model.safetensors"), "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = np.fromfile(file, dtype=np.uint8)
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        first, end = entry["data_offsets"]
        if entry["dtype"] != "F32":
            sys.exit(f"{directory}: {name} is {entry['dtype']}; the benchmark's family is F32")
        tensors[name] = data[first:end].view("<f4").reshape(entry["shape"])
    return tensors


def sources_of(family):
    found = sorted(glob.glob(os.path.join(family, "source_*")))
    if len(found) < 2:
        sys.exit(f"{family}: fewer than two sources")
    return found


def with_torch(family):
    import torch
    began = time.perf_counter()
    base = {name: torch.from_numpy(array) for name, array in load(f"{family}/base").items()}
    vectors = []
    for source in sources_of(family):
        tensors = {name: torch.from_numpy(array) for name, array in load(source).items() if not name.startswith(HEAD)}
        vectors.append(torch.cat([(tensors[name] - base[name]).flatten() for name in tensors]))
    count = len(vectors)
    matrix = np.eye(count)
    for i in range(count):
        for j in range(i + 1, count):
            a, b = vectors[i], vectors[j]
            matrix[i, j] = matrix[j, i] = (torch.dot(a, b) / (torch.norm(a) * torch.norm(b))).item()
    return matrix, time.perf_counter() - began


def with_numpy(family):
    began = time.perf_counter()
    base = load(f"{family}/base")
    stacked = None
    for k, source in enumerate(sources := sources_of(family)):
        tensors = {name: array for name, array in load(source).items() if not name.startswith(HEAD)}
        if stacked is None:
            stacked = np.empty((len(sources), sum(array.size for array in tensors.values())), dtype=np.float32)
        at = 0
        for name, array in tensors.items():
            np.subtract(array, base[name], out=stacked[k, at:at + array.size].reshape(array.shape))
            at += array.size
    gram = (stacked @ stacked.T).astype(np.float64)
    norms = np.sqrt(gram.diagonal())
    return gram / np.outer(norms, norms), time.perf_counter() - began


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("torch", "numpy"):
        sys.exit(__doc__)
    matrix, seconds = (with_torch if sys.argv[1] == "torch" else with_numpy)(sys.argv[2])
    off = matrix[~np.eye(len(matrix), dtype=bool)]
    print(json.dumps({"way": sys.argv[1], "seconds": seconds, "mean": off.mean(), "min": off.min(), "max": off.max(),
                      "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    main()
