"""Whole runs with an emulated CUDA device: what comes out is what the processors compute, and what can go wrong is said."""
import json
import os
import re
import shutil
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../cli"))
import common
from common import EMOJI, Case, h5py, result_bits, run, write_yaml
from compare import compare

HOST = common.BINARY
EMULATED = os.environ.get("MERGEGRID_EMULATED") or f"{os.path.dirname(HOST)}/mergegrid-emulated"
LOCALES = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
METHODS = ["similarity", "average", "task_arithmetic", {"ties": {"density": [0.2, 0.5]}}, {"ties": {"trim": "global", "zeros": "majority"}},
           {"dare_linear": {"density": 0.5}}, {"dare_ties": {"density": 0.5}}, "breadcrumbs", "ram", "magmax", "model_stock", "slerp", "della",
           "sce", "karcher"]
MICROSCOPE = {"reference": {"source": "af-ZA"}, "setups": {"average": {"method": "average", "locale": "sw-KE", "similarity_type": "URIEL", "num_languages": 3},
                                                           "base": {"base": True}},
              "probes": {"locale": "af-ZA", "partition": "test", "limit": 12}}


class Cuda(Case):
    def setUp(self):
        super().setUp()
        for locale in LOCALES:  # few texts of both partitions: an emulated pass is slow
            with open(f"{EMOJI}/texts/{locale}.jsonl", encoding="utf-8") as file:
                rows = [json.loads(line) for line in file]
            os.makedirs(self.path("texts"), exist_ok=True)
            with open(self.path(f"texts/{locale}.jsonl"), "w", encoding="utf-8") as file:
                for partition, count in (("train", 12), ("dev", 6), ("test", 12)):
                    for row in [r for r in rows if r["partition"] == partition][:count]:
                        file.write(json.dumps(row) + "\n")

    def config(self, name, backend="cuda", **more):
        sections = {"family": {"locales": LOCALES}, "shards": {"dir": self.path("shards")},
                    "texts": {"files": self.path("texts/{locale}.jsonl")},
                    "stages": ["compatibility", "nxn", "grid", "microscope"],
                    "compatibility": {"metrics": ["task_vector_cosine", "cka"], "cka": {"samples": 12, "layers": "all", "pool": "mean"}},
                    "nxn": {"targets": ["sw-KE", "af-ZA"]},
                    "grid": {"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv"}, "fixed": {"num_languages": 3},
                             "sweep": {"locale": ["sw-KE", "af-ZA"], "method": METHODS}},
                    "microscope": MICROSCOPE, "compute": {"backend": backend}, "result": self.path(f"{name}.h5")}
        for key, value in more.items():
            sections[key] = {**sections[key], **value} if isinstance(sections.get(key), dict) else value
        return write_yaml(self.path(f"{name}.yaml"), **sections), self.path(f"{name}.h5")

    def run_on(self, binary, config, *args, ranks=0, env=None):
        before, common.BINARY = common.BINARY, binary
        try:
            return run("run", "-c", config, *args, ranks=ranks, env=env, timeout=300)
        finally:
            common.BINARY = before

    def made(self, name, binary=EMULATED, ranks=0, env=None, **more):
        config, path = self.config(name, **more)
        done = self.run_on(binary, config, ranks=ranks, env=env)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.said = done.stderr
        return path

    def assertMergedThere(self, share):
        """Of what the last run merged, the device did at least that share."""
        done, given = map(float, re.search(r"grid: (\S+) of (\S+) million elements merged on the device", self.said).groups())
        self.assertGreaterEqual(done, share * given)

    def refused(self, name, says, env=None, ranks=0, code=1, **more):
        config, path = self.config(name, **more)
        done = self.run_on(EMULATED, config, ranks=ranks, env=env)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(says, done.stderr)
        return config, path


# Less of everything, where the same is run many times.
SMALL = {"stages": ["compatibility", "nxn", "grid"], "compatibility": {"metrics": ["task_vector_cosine", "cka"], "cka": {"samples": 6}},
         "nxn": {"targets": ["sw-KE"]},
         "grid": {"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv"}, "fixed": {"num_languages": 3},
                  "sweep": {"locale": ["sw-KE"], "method": ["similarity", {"ties": {"density": 0.5}}, "dare_linear", "della"]}}}
# What goes by thresholds: of tensors, of whole sources, of what DARE left, with a ceiling, relative to another source, against a random head.
THRESHOLDS = {"grid": {"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv"}, "fixed": {"num_languages": 3},
                       "sweep": {"locale": ["sw-KE"], "head": ["method", "random"],
                                 "method": [{"ties": {"density": [0.1, 0.2, 0.5, 0.9]}}, {"ties": {"trim": "global"}}, "neuromerging",
                                            {"linear": {"mask_rate": 0.5}}, {"ties": {"dare_drop_rate": 0.5}}, "breadcrumbs",
                                            "breadcrumbs_ties"]}}}


# What merges are relative to another source than the base, which is the strongest one, and their heads to a random one.
ANOTHER_BASE = {"grid": {"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv"}, "preset": "merginguriel", "fixed": {"num_languages": 3, "top_k": 48},
                         "sweep": {"locale": ["sw-KE"], "method": METHODS + [{"ties": {"dare_drop_rate": 0.5}}, "neuromerging"]}}}


class WholeRuns(Cuda):
    def test_the_same_as_the_processors(self):
        host, device = self.made("host", HOST, backend="openblas"), self.made("device", env={"MG_EMU_ORDER": "random"})
        self.assertIn("backend cuda: Emulated device", self.said)
        self.assertIn("4 of 4 sources on the device, whole", self.said)
        self.assertRegex(self.said, "[0-9.]+ million elements counted on the device")
        self.assertEqual(compare(host, device, show=lambda line: None), [])
        with h5py.File(host) as a, h5py.File(device) as b:
            self.assertTrue(b["provenance"].attrs["backend"].startswith("cuda (Emulated device"))
            self.assertEqual(set(b["grid/cells/status"].asstr()[()]), {"completed"})
            for column in ("accuracy", "macro_f1", "own"):
                self.assertEqual(a[f"grid/cells/{column}"][()].tolist(), b[f"grid/cells/{column}"][()].tolist())

    def test_thresholds(self):
        sections = {**SMALL, **THRESHOLDS}
        host, device = self.made("host", HOST, backend="openblas", **sections), self.made("device", **sections)
        self.assertRegex(self.said, "[0-9.]+ million elements counted on the device")
        self.assertEqual(compare(host, device, show=lambda line: None), [])
        with h5py.File(host) as a, h5py.File(device) as b:
            self.assertEqual(set(b["grid/cells/status"].asstr()[()]), {"completed"})
            self.assertEqual(a["grid/cells/macro_f1"][()].tolist(), b["grid/cells/macro_f1"][()].tolist())

    def test_another_base(self):
        sections = {**SMALL, **ANOTHER_BASE}
        host, device = self.made("host", HOST, backend="openblas", **sections), self.made("device", **sections)
        self.assertMergedThere(0.9)
        self.assertEqual(compare(host, device, show=lambda line: None), [])
        with h5py.File(host) as a, h5py.File(device) as b:
            self.assertEqual(set(b["grid/cells/status"].asstr()[()]), {"completed"})
            self.assertEqual(a["grid/cells/macro_f1"][()].tolist(), b["grid/cells/macro_f1"][()].tolist())

    def test_little_memory_of_the_host(self):
        """What it can't hold, beside what many threads work in, the device does: read once, not for every pass."""
        compute = {"backend": "cuda", "threads": 160}
        config, _ = self.refused("none", "would need", **{**SMALL, "compute": {**compute, "memory_budget": "180MiB"}})
        need = int(re.search(r"would need (\d+) MiB", self.run_on(EMULATED, config).stderr).group(1)) + 1
        device = self.made("device", **{**SMALL, "compute": {**compute, "memory_budget": f"{need}MiB"}})
        self.assertRegex(self.said, "grid: [01] of 3 sources in memory")
        self.assertIn("grid: 3 of 3 sources on the device", self.said)
        self.assertMergedThere(1)
        self.assertEqual(compare(self.made("host", HOST, backend="openblas", **SMALL), device, show=lambda line: None), [])

    def test_a_difference_is_seen(self):
        path = self.made("host", HOST, backend="openblas")
        shutil.copy(path, self.path("other.h5"))
        with h5py.File(self.path("other.h5"), "r+") as f:
            f["compatibility/gram/source_dot"][3, 1, 2] *= 1 + 1e-15
            f["nxn/logits/sw-KE"][0, 3, 1] += 0.01
        self.assertEqual(set(compare(path, self.path("other.h5"), show=lambda line: None)), {"gram/source_dot, bit for bit", "nxn/logits/sw-KE"})

    def test_one_set_of_bits(self):
        first = result_bits(self.made("first", env={"MG_EMU_ORDER": "lazy"}, **SMALL))
        ways = {"two": {"ranks": 2, "env": {"MG_EMU_ORDER": "others", "MG_EMU_DEVICES": "2"}},
                "three": {"ranks": 3, "env": {"MG_EMU_ORDER": "random", "MG_EMU_SEED": "7"}},
                "apart": {"env": {"MG_EMU_ORDER": "eager", "MERGEGRID_DEVICE_ARENA": "apart"}, "compute": {"backend": "cuda", "threads": 3}}}
        for name, way in ways.items():
            self.assertEqual(first, result_bits(self.made(name, **{**SMALL, **way})), name)
            if name == "two":
                with h5py.File(self.path("two.h5")) as f:
                    self.assertEqual(f["provenance/devices"].asstr()[()].tolist(), ["emulated:0", "emulated:1"])
            if name == "three":
                self.assertIn("3 ranks of this node share 1 device", self.said)

    def test_little_memory(self):
        whole = result_bits(self.made("whole", **SMALL))
        need = {}
        for megabytes in (110, 120, 130):
            config, path = self.config(f"m{megabytes}", **SMALL)
            done = self.run_on(EMULATED, config, env={"MG_EMU_MEMORY": str(megabytes << 20)})
            need[megabytes] = done.stderr
            if done.returncode == 0:  # fewer sources on the device, the same bits
                self.assertEqual(whole, result_bits(path))
            else:
                self.assertIn("are needed at least", done.stderr)
        self.refused("tiny", "are needed at least", env={"MG_EMU_MEMORY": str(16 << 20)}, **SMALL)
        config, path = self.config("refused-once", **SMALL)  # what is free is less than it says: asked for less, then
        done = self.run_on(EMULATED, config, env={"MG_EMU_FAIL": "malloc:1"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(whole, result_bits(path))

    def test_failures_and_going_on(self):
        whole = result_bits(self.made("whole", **SMALL))
        for fault in ("launch:40", "copy:30", "product:50", "pin:2"):
            config, path = self.refused(f"at-{fault.replace(':', '-')}", "device 0 (Emulated device)" if "pin" not in fault else "pinned",
                                        env={"MG_EMU_FAIL": fault}, **SMALL)
            self.assertFalse(os.path.exists(path))
            done = self.run_on(EMULATED, config)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(whole, result_bits(path), fault)
        config, path = self.refused("ranks", "device 0 (Emulated device)", env={"MG_EMU_FAIL": "launch:60"}, ranks=2, **SMALL)
        for kernel, says in (("merge:3", "a merge"), ("count_upper:2", "counting magnitudes"), ("count_lower:1", "counting magnitudes"),
                             ("thin_out:3", "dropping by rank"), ("add_norms:2", "adding up magnitudes"),
                             ("centre:2", "centring features"), ("u_centre:3", "centring a Gram matrix")):
            self.refused(f"in-{kernel.split(':')[0]}", says, env={"MG_EMU_FAIL": kernel}, **SMALL)


class Choosing(Cuda):
    def quick(self):
        return {"stages": ["compatibility"], "compatibility": {"metrics": ["task_vector_cosine"]}}

    def test_shards_of_bf16(self):
        """Sources' rows are in chains, the base's is not."""
        shards = {"dir": self.path("shards"), "dtype": "bf16"}
        host = self.made("host", HOST, backend="openblas", shards=shards, **self.quick())
        device = self.made("device", shards=shards, ranks=2, env={"MG_EMU_ORDER": "random"}, **self.quick())
        self.assertEqual(compare(host, device, show=lambda line: None), [])
        with h5py.File(device) as f:
            self.assertIn("bf16", f["provenance"].attrs["numeric_mode"])

    def test_no_device(self):
        self.refused("none", "no device is usable here", env={"MG_EMU_DEVICES": "2", "CUDA_VISIBLE_DEVICES": "3"}, **self.quick())
        self.refused("none", "CUDA_VISIBLE_DEVICES is 3", env={"MG_EMU_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "3"}, **self.quick())
        self.refused("ranks", "no device is usable here", env={"MG_EMU_DEVICES": "0"}, ranks=3, **self.quick())

    def test_auto(self):
        path = self.made("auto", backend="auto", env={"MG_EMU_DEVICES": "0"}, **self.quick())
        self.assertIn("compute.backend: auto computes on the processors", self.said)
        with h5py.File(path) as f:
            self.assertTrue(f["provenance"].attrs["backend"].startswith("openblas"))
        path = self.made("auto2", backend="auto", **self.quick())
        with h5py.File(path) as f:
            self.assertTrue(f["provenance"].attrs["backend"].startswith("cuda"))

    def test_another_mode_is_another_run(self):
        """A result of forward passes on the processors is not gone on with on a device."""
        config, path = self.config("mixed", backend="openblas", stages=["compatibility"])
        self.assertEqual(self.run_on(EMULATED, config).returncode, 0)
        done = self.run_on(EMULATED, config, "--set", "compute.backend=cuda")
        self.assertEqual(done.returncode, 1)
        self.assertIn("numeric mode of forward passes", done.stderr)

    def test_tf32_is_said(self):
        path = self.made("tf32", stages=["compatibility"], compute={"backend": "cuda", "precision": "tf32"})
        with h5py.File(path) as f:
            self.assertIn("TF32", f["provenance"].attrs["backend"])
            self.assertIn("TF32", f["provenance"].attrs["numeric_mode"])

    def test_grams_of_products(self):
        """cuBLAS multiplies task vectors, to the same bits with any number of ranks and near those of our kernel, with which they do not mix."""
        exact = self.made("exact", HOST, backend="openblas", **self.quick())
        for precision, says, bound in (("tf32", "TF32", 1e-4), ("fp32_cublas", "fp32, fp64 from tile to tile", 1e-6)):
            with self.subTest(precision=precision):
                products = {"compute": {"backend": "cuda", "precision": precision}}
                one = self.made(f"one-{precision}", **products, **self.quick())
                three = self.made(f"three-{precision}", ranks=3, env={"MG_EMU_ORDER": "random"}, **products, **self.quick())
                self.assertEqual(result_bits(one), result_bits(three))
                with h5py.File(exact) as a, h5py.File(one) as b:
                    self.assertIn(says, b["provenance"].attrs["numeric_mode"])
                    far = abs(a["compatibility/task_vector_cosine"][()] - b["compatibility/task_vector_cosine"][()]).max()
                self.assertTrue(0 < far < bound, far)
                config, path = self.config("exact", **products, **self.quick())
                done = self.run_on(EMULATED, config)
                self.assertEqual(done.returncode, 1)
                self.assertIn("numeric mode", done.stderr)

    def test_reuse_knows_the_order_of_grams(self):
        """Coefficients may come from them: a merge that was made beside cuBLAS's is none that our kernel's would have made."""
        small = {**SMALL, "nxn": {"targets": ["sw-KE"]}, "grid": {"sweep": {"locale": ["sw-KE"], "method": ["model_stock"]}}}
        first = self.made("first", **small, compute={"backend": "cuda", "precision": "fp32_cublas"})
        again = self.made("again", **small, compute={"backend": "cuda", "precision": "fp32_cublas"}, reuse=[first])
        other = self.made("other", **small, reuse=[first])
        merged = {}
        for path in (first, again, other):
            with h5py.File(path) as file:
                merged[path] = set(file["grid/cells/recipe"][()].tolist())
        self.assertEqual(merged[first], merged[again])
        self.assertFalse(merged[first] & merged[other])
        with h5py.File(again) as a, h5py.File(other) as b:
            self.assertEqual([len(f["provenance"].get("reused", ())) for f in (a, b)], [1, 0])

    def test_plan(self):
        config, _ = self.config("plan")
        before, common.BINARY = common.BINARY, EMULATED
        try:
            done = run("plan", "-c", config, timeout=300)
        finally:
            common.BINARY = before
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"device +Emulated device.*at least [0-9]+ MiB of its memory")
        self.assertIn("GFLOP/s a device", done.stdout)


if __name__ == "__main__":
    unittest.main()
