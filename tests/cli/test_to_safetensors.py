#!/usr/bin/env python3
"""scripts/to-safetensors against files that torch writes. Exits with 77 (skipped) where there is no torch."""

import json
import os
import struct
import subprocess
import sys
import tempfile
import unittest

try:
    import torch
except ImportError:
    torch = None

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts", "to-safetensors")
TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "U8": "uint8",
         "BOOL": "bool"}


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300)


def read(path):
    """The tensors of a safetensors file, held to the format's rules."""
    with open(path, "rb") as file:
        data = file.read()
    size, = struct.unpack("<Q", data[:8])
    header, tensors, end = json.loads(data[8:8 + size]), {}, 0
    assert size % 8 == 0 and header.pop("__metadata__") == {"format": "pt"}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = entry["data_offsets"]
        assert begin == end <= stop
        end = stop
        raw = bytearray(data[8 + size + begin:8 + size + stop])
        dtype = getattr(torch, TYPES[entry["dtype"]])
        flat = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(entry["shape"])
    assert 8 + size + end == len(data)
    return tensors


class ToSafetensors(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = directory.name
        self.output = os.path.join(self.dir, "model.safetensors")

    def save(self, state, name="pytorch_model.bin"):
        torch.save(state, os.path.join(self.dir, name))

    def same(self, expected):
        found = read(self.output)
        self.assertEqual(set(found), set(expected))
        for name, tensor in expected.items():
            self.assertEqual(found[name].dtype, tensor.dtype, name)
            self.assertEqual(found[name].shape, tensor.shape, name)
            self.assertTrue(torch.equal(found[name], tensor), name)

    def refused(self, result, *texts):
        self.assertEqual(result.returncode, 1, result.stderr)
        for text in texts:
            self.assertIn(text, result.stderr)
        self.assertNotIn("Traceback", result.stderr)
        self.assertEqual([name for name in os.listdir(self.dir) if "safetensors" in name and "index" not in name], [])

    def test_every_type_and_layout(self):
        matrix = torch.arange(12, dtype=torch.float32).reshape(3, 4)
        state = {"a": matrix, "tied": matrix, "transposed": matrix.t(), "row": matrix[1], "half": matrix.half(),
                 "b": matrix.bfloat16(), "double": matrix.double(), "ids": torch.arange(5), "mask": torch.tensor([True, False]),
                 "u": torch.ones(3, dtype=torch.uint8), "scalar": torch.tensor(3.5), "empty": torch.zeros(0, 7),
                 "näme \"quoted\"": torch.ones(2)}
        self.save(state)
        result = run(self.dir)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.same(state)

    def test_a_module(self):
        torch.manual_seed(1)
        module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.BatchNorm1d(5))
        self.save(module.state_dict())
        self.assertEqual(run(self.dir).returncode, 0)
        self.same(module.state_dict())

    def test_shards(self):
        first, second = {"x": torch.ones(3), "stale": torch.ones(1)}, {"y": torch.zeros(2, 2), "z": torch.arange(3)}
        self.save(first, "pytorch_model-1.bin")
        self.save(second, "pytorch_model-2.bin")
        places = {"z": "pytorch_model-2.bin", "x": "pytorch_model-1.bin", "y": "pytorch_model-2.bin"}
        self.index({"weight_map": places})
        self.assertEqual(run(self.dir).returncode, 0)
        self.same({"x": first["x"], **second})
        os.unlink(self.output)
        self.index({"weight_map": {**places, "w": "pytorch_model-1.bin"}})
        self.refused(run(self.dir), "has no w")
        self.index({"weight_map": {**places, "w": "../w.bin"}})
        self.refused(run(self.dir), "../w.bin")
        self.index({"weight_map": {**places, "w": "pytorch_model-3.bin"}})
        self.refused(run(self.dir), "pytorch_model-3.bin")
        self.index({})
        self.refused(run(self.dir), "weight_map")

    def index(self, content):
        with open(os.path.join(self.dir, "pytorch_model.bin.index.json"), "w", encoding="utf-8") as file:
            json.dump(content, file)

    def test_what_is_there_stays(self):
        self.save({"x": torch.ones(3)})
        self.assertEqual(run(self.dir).returncode, 0)
        self.save({"x": torch.zeros(2)})
        result = run(self.dir)
        self.assertEqual(result.returncode, 0)
        self.assertIn("--force", result.stdout)
        self.same({"x": torch.ones(3)})
        self.assertEqual(run("--force", self.dir).returncode, 0)
        self.same({"x": torch.zeros(2)})
        self.assertEqual(sorted(os.listdir(self.dir)), ["model.safetensors", "pytorch_model.bin"])

    def test_code_is_not_run(self):
        mark = os.path.join(self.dir, "mark")

        class Bomb:
            def __reduce__(self):
                return os.mkdir, (mark,)

        self.save({"x": Bomb()})
        self.refused(run(self.dir), "pytorch_model.bin")
        self.assertFalse(os.path.exists(mark))

    def test_what_is_no_checkpoint(self):
        self.refused(run(self.dir), self.dir, "neither pytorch_model.bin")
        self.refused(run(os.path.join(self.dir, "absent")), "not a directory")
        with open(os.path.join(self.dir, "pytorch_model.bin"), "wb") as file:
            file.write(b"garbage")
        self.refused(run(self.dir), "cannot be loaded as weights")
        self.save(torch.ones(3))
        self.refused(run(self.dir), "a map of names to tensors was expected")
        self.save({"model": {"x": torch.ones(3)}})
        self.refused(run(self.dir), "'model'")
        self.save({})
        self.refused(run(self.dir), "no tensors")
        self.save({"c": torch.ones(2, dtype=torch.complex64)})
        self.refused(run(self.dir), "complex64")
        self.save({"deep": torch.ones([1] * 9)})
        self.refused(run(self.dir), "9 dimensions")

    def test_the_others_are_still_converted(self):
        self.save({"x": torch.ones(3)})
        result = run(os.path.join(self.dir, "absent"), self.dir)
        self.assertEqual(result.returncode, 1)
        self.same({"x": torch.ones(3)})


if __name__ == "__main__":
    if torch is None:
        print("skipped: there is no torch")
        sys.exit(77)
    unittest.main()
