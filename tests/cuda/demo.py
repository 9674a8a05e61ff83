#!/usr/bin/env python3
"""The whole demonstration on the emulated device and on the processors: all 48 models, matrices and cells, with few texts of each locale or all.

    tests/cuda/demo.py [--texts N] [--ranks N] [--build DIR]

An emulated forward pass takes twenty to forty times as long as one of a processor, so that only the first N texts of each partition of each
locale take part (default 12; 0: all of them, an hour on two cores that do nothing else). Prints what was compared and how far it is off; its exit code says whether anything is out of bounds.
"""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(f"{HERE}/../..")
sys.path.insert(0, HERE)
from compare import compare

EMOJI = f"{ROOT}/tests/data/emoji48"
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}


def few_texts(to, count):
    """The first texts of each partition of each locale."""
    os.makedirs(to)
    for path in glob.glob(f"{EMOJI}/texts/*.jsonl"):
        taken = {}
        with open(path, encoding="utf-8") as file, open(f"{to}/{os.path.basename(path)}", "w", encoding="utf-8") as out:
            for line in file:
                partition = json.loads(line)["partition"]
                taken[partition] = taken.get(partition, 0) + 1
                if count == 0 or taken[partition] <= count:
                    out.write(line)


def run(program, ranks, scratch, backend):
    began = time.perf_counter()
    command = ["mpirun", "-n", str(ranks), program, "run", "-c", f"{ROOT}/configs/emoji48.yaml", "--set", f"shards.dir={scratch}/shards",
               "--set", f"texts.files={scratch}/texts/{{locale}}.jsonl", "--set", f"result={scratch}/{backend}.h5",
               "--set", f"compute.backend={backend}"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    print(f"{backend}: {time.perf_counter() - began:.0f} s", flush=True)
    return f"{scratch}/{backend}.h5"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=12)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--build", default=f"{ROOT}/build")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        few_texts(f"{scratch}/texts", args.texts)
        host = run(f"{args.build}/mergegrid", args.ranks, scratch, "openblas")
        device = run(f"{args.build}/mergegrid-emulated", args.ranks, scratch, "cuda")
        wrong = compare(host, device)
    print("\n".join(wrong) if wrong else "the same within bounds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
