"""What the whole-program tests share: running mergegrid, writing configurations, comparing results bit by bit."""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

try:
    import h5py
    import numpy as np
except ImportError as error:  # CTest's code for a skipped test
    print(f"skipped: {error}")
    sys.exit(77)

SOURCE = os.environ.get("MERGEGRID_SOURCE") or os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
BINARY = os.environ.get("MERGEGRID_BINARY") or f"{SOURCE}/build/mergegrid"
EMOJI = f"{SOURCE}/tests/data/emoji48"
BASE = f"{EMOJI}/xlm-roberta-emoji"
PATTERN = f"{EMOJI}/xlm-roberta-emoji_k_{{locale}}"
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
       "OMPI_MCA_mpi_yield_when_idle": "1"}


def command(*args, ranks=0):
    launcher = ["mpirun", "-n", str(ranks)] if ranks else []
    return launcher + [BINARY, *map(str, args)]


def environment(extra=None):
    return {**os.environ, **MPI, **(extra or {})}


def run(*args, ranks=0, env=None, timeout=120, cwd=None):
    return subprocess.run(command(*args, ranks=ranks), env=environment(env), timeout=timeout, capture_output=True, text=True, cwd=cwd)


def write_yaml(path, base=BASE, sources=PATTERN, **sections):
    """A configuration; values are written as JSON, which is YAML (but for `dir: none`, which only unquoted is the word)."""
    config = {"family": {"base": base, "sources": sources, **sections.pop("family", {})}, **sections}
    with open(path, "w") as file:
        for key, value in config.items():
            text = json.dumps(value).replace('"dir": "none"', '"dir": none')
            file.write(f"{key}: {text}\n")
    return path


def result_bits(path):
    """Every dataset and attribute outside /provenance, as bytes."""
    bits = {}

    def plain(value):
        value = np.asarray(value)
        if value.dtype.kind in "OU":
            return [v.encode() if isinstance(v, str) else bytes(v) for v in value.ravel()]
        return str(value.dtype), value.shape, value.tobytes()

    def visit(name, item):
        if name.split("/")[0] == "provenance":
            return
        for key, value in item.attrs.items():
            if key not in ("DIMENSION_LIST", "REFERENCE_LIST"):
                bits[f"{name}@{key}"] = plain(value)
        if isinstance(item, h5py.Dataset):
            bits[name] = plain(item[()])

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return bits


def safetensors(path):
    """All tensors of a file as float64 (integers as they are), read without any library."""
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    out = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        raw = data[begin:end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
        else:
            kind = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I64": "<i8"}[entry["dtype"]]
            values = np.frombuffer(raw, kind).astype(np.float64)
        out[name] = values.reshape(entry["shape"])
    return out


def write_safetensors(path, tensors, dtype="F32", header=None):
    """tensors: name -> array; header: changes it before it is written."""
    kind = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8"}
    entries, blob = {}, b""
    for name, array in tensors.items():
        own = "I64" if np.asarray(array).dtype.kind == "i" else dtype
        raw = np.asarray(array).astype(kind[own]).tobytes()
        entries[name] = {"dtype": own, "shape": list(np.shape(array)), "data_offsets": [len(blob), len(blob) + len(raw)]}
        blob += raw
    if header:
        header(entries)
    text = json.dumps(entries).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + blob)


def write_checkpoint(path, tensors, dtype="F32", labels=None, header=None):
    os.makedirs(path, exist_ok=True)
    config = {"model_type": "test"}
    if labels:
        config["id2label"] = {str(k): label for k, label in enumerate(labels)}
    with open(f"{path}/config.json", "w") as file:
        json.dump(config, file)
    write_safetensors(f"{path}/model.safetensors", tensors, dtype, header)


class Case(unittest.TestCase):
    """A test with a directory of its own."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="mergegrid-test-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def good(self, *args, **kwargs):
        done = run(*args, **kwargs)
        self.assertEqual(done.returncode, 0, f"{args}: {done.stdout}{done.stderr}")
        return done

    def refused(self, *args, code=1, says=(), **kwargs):
        done = run(*args, **kwargs)
        self.assertEqual(done.returncode, code, f"{args}: {done.stdout}{done.stderr}")
        for text in [says] if isinstance(says, str) else says:
            self.assertIn(text, done.stderr)
        return done

    def same_bits(self, path, reference):
        bits = result_bits(path)
        self.assertEqual(sorted(bits), sorted(reference))
        self.assertEqual([name for name in bits if bits[name] != reference[name]], [])

    def state(self, result):
        with open(f"{result}.state") as file:
            return file.readline().strip()

    def make_family(self, name, *args):
        subprocess.run([sys.executable, f"{SOURCE}/scripts/make-family", self.path(name), *map(str, args)], check=True,
                       capture_output=True)
        return self.path(name, "base"), self.path(name, "source_{locale}")


def tests_or_soak(soak):
    """A file's tests; with --soak SECONDS that class's method of this name instead."""
    if len(sys.argv) == 3 and sys.argv[1] == "--soak":
        soak.setUpClass()
        case = soak("soak")
        case.setUp()
        try:
            case.soak(float(sys.argv[2]))
        finally:
            case.doCleanups()
    else:
        delattr(sys.modules["__main__"], soak.__name__)  # which has its tests from another class of the file
        unittest.main(verbosity=2)
