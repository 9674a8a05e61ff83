"""The metric cka over the whole program: numbers, one set of bits, what is exported, and what a user can get wrong."""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from common import BASE, EMOJI, SOURCE, command, environment, h5py, np, result_bits, run, write_yaml

import pandas as pd

TEXTS = f"{EMOJI}/texts/{{locale}}.jsonl"
METRICS = ["task_vector_cosine", "cka"]


class Cka(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)

    def config(self, name="a", texts=None, cka=None, locales=("af-ZA", "en-US", "fr-FR", "sw-KE", "vi-VN"), **more):
        sections = {"family": {"locales": list(locales)}, "shards": {"dir": f"{self.dir}/shards"}, "texts": texts or {"files": TEXTS},
                    "compatibility": {"metrics": METRICS, "cka": cka or {}}, "result": f"{self.dir}/{name}.h5", **more}
        return write_yaml(f"{self.dir}/{name}.yaml", **sections), f"{self.dir}/{name}.h5"

    def good(self, *args, **options):
        done = run(*args, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def refused(self, message, *args, ranks=2, **options):
        config, _ = self.config(*args, **options)
        done = run("run", "-c", config, ranks=ranks)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(message, done.stderr)

    def test_whole_family(self):
        config, path = self.config(locales=[], cka={"layers": "all"})
        self.good("run", "-c", config, ranks=2)
        subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", path], check=True, capture_output=True)
        with h5py.File(path) as f:
            self.assertEqual(list(f["compatibility/cka_layers"][()]), [0, 1, 2, 3, 4])
            last = f["compatibility/cka"][4]
            off = last[~np.eye(48, dtype=bool)]
            # what the family's README says, from transformers and NumPy
            for value, expected in ((off.mean(), 0.732), (off.min(), 0.608), (off.max(), 0.864)):
                self.assertAlmostEqual(value, expected, delta=6e-4)
            self.assertTrue(np.isnan(f["compatibility/cka"][0]).all())  # <s> of the embeddings is the same for all texts
        shown = json.loads(self.good("show", path, "--json").stdout)["cka"]
        self.assertEqual(sorted(shown), ["0", "1", "2", "3", "4"])
        self.assertAlmostEqual(shown["4"]["mean"], off.mean(), places=12)
        self.assertIn("CKA, hidden state 4", self.good("show", path).stdout)
        self.good("export", path, "-o", f"{self.dir}/out")
        frame = pd.read_csv(f"{self.dir}/out/cka_matrix.csv", index_col=0)
        np.testing.assert_array_equal(frame.to_numpy(), last)
        self.assertEqual(len(os.listdir(f"{self.dir}/out/layers")), 4 + 5)
        with open(f"{self.dir}/out/computation_log.json", encoding="utf-8") as f:
            log = json.load(f)
        self.assertEqual((log["metrics"], log["cka_samples"], log["cka_layer"]), (METRICS, 500, 4))
        self.assertAlmostEqual(log["statistics"]["cka"]["mean"], off.mean(), places=12)

    def test_against_float64(self):
        """On features of transformers, in NumPy (tests/oracle/nxn.py)."""
        with open(f"{SOURCE}/tests/data/nxn/cka.json", encoding="utf-8") as f:
            expected = json.load(f)
        config, path = self.config(locales=expected["locales"])
        self.good("run", "-c", config, ranks=2)
        with h5py.File(path) as f:
            for name in ("cka", "cka_unbiased"):
                np.testing.assert_allclose(f[f"compatibility/{name}"][0], expected[name], atol=1e-6, rtol=0)

    def test_same_bits(self):
        config, path = self.config(cka={"layers": [0, 4], "pool": "mean", "samples": 60})
        self.good("run", "-c", config)
        bits = result_bits(path)
        for k, (ranks, threads) in enumerate(((1, 1), (2, 2), (3, 1), (5, 1))):
            other, other_path = self.config(f"b{k}", cka={"layers": [0, 4], "pool": "mean", "samples": 60}, compute={"threads": threads})
            self.good("run", "-c", other, ranks=ranks)
            self.assertEqual(result_bits(other_path), bits)
        direct, direct_path = self.config("direct", cka={"layers": [0, 4], "pool": "mean", "samples": 60}, shards={"dir": "none"})
        self.good("run", "-c", direct)
        self.assertEqual(result_bits(direct_path), bits)

    def test_continues_from_kept_features(self):
        settings = {"layers": "all", "samples": 200}
        config, path = self.config("whole", locales=[], cka=settings)
        self.good("run", "-c", config, ranks=2)
        cut, cut_path = self.config("cut", locales=[], cka=settings)
        process = subprocess.Popen(command("run", "-c", cut, ranks=2), env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
        # The Grams' records are under 1 MB, a source's features 256 kB: some of them are there, and not all.
        while process.poll() is None and sum(map(os.path.getsize, glob.glob(f"{cut_path}.journal/*/journal"))) < 2500000:
            time.sleep(0.002)
        self.assertIsNone(process.poll(), "the run was over before it could be killed")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["pkill", "-9", "-f", cut], check=False)
        self.assertFalse(os.path.exists(cut_path), "the run was over before it could be killed")
        done = self.good("run", "-c", cut, ranks=3)
        self.assertIn("in the journal", done.stderr)
        self.assertEqual(result_bits(cut_path), result_bits(path))

    def test_other_settings_are_refused(self):
        config, _ = self.config(cka={"samples": 20})
        self.good("run", "-c", config)
        again, _ = self.config(cka={"samples": 21})
        done = run("run", "-c", again)
        self.assertEqual(done.returncode, 1)
        self.assertIn("probe texts", done.stderr)
        self.assertIn("--fresh", done.stderr)

    def test_plan(self):
        config, _ = self.config()
        self.assertIn("cka", self.good("plan", "-c", config).stdout)
        priced = json.loads(self.good("plan", "-c", config, "--json").stdout)["cka"]
        self.assertEqual(priced["samples"], 500)
        self.assertGreater(priced["flops"], 0)
        self.assertGreater(priced["hours"], 0)
        small, _ = self.config("small", compute={"memory_budget": "70MiB"})
        done = run("plan", "-c", small)
        self.assertEqual(done.returncode, 1)
        self.assertIn("memory_budget", done.stderr)

    def test_bad_input(self):
        self.refused("texts of en-US", texts={"files": f"{self.dir}/{{locale}}.jsonl"})
        self.refused("texts of xx-XX", cka={"locale": "xx-XX"})
        self.refused("0 texts of partition nothing", cka={"partition": "nothing"})
        self.refused("hidden states 0 to 4", cka={"layers": [5]})
        self.refused("field 'text'", texts={"files": TEXTS, "text": "text"})
        with open(f"{self.dir}/bad.jsonl", "wb") as f:
            f.write(b'{"utt": "a", "partition": "train"}\n{"utt": "\xff", "partition": "train"}\n')
        self.refused("bad.jsonl:2: no valid UTF-8", texts={"files": f"{self.dir}/bad.jsonl"})
        base = shutil.copytree(BASE, f"{self.dir}/base")
        os.remove(f"{base}/sentencepiece.bpe.model")
        self.refused("no tokenizer", base=base)
        shutil.copy(f"{BASE}/sentencepiece.bpe.model", base)
        with open(f"{BASE}/config.json", encoding="utf-8") as f:
            original = json.load(f)
        for key, value, message in (("num_hidden_layers", 5, "encoder.layer.4.attention.self.query.weight: is missing"),
                                    ("hidden_act", "relu", "hidden_act is 'relu'"), ("model_type", "bert", "model_type is 'bert'"),
                                    ("intermediate_size", 128, "intermediate.dense.weight"),
                                    ("vocab_size", 6001, "the models' word embeddings have 6001 rows"),
                                    ("max_position_embeddings", 8, "tokens, but the model has positions for 6")):
            with open(f"{base}/config.json", "w", encoding="utf-8") as f:
                json.dump({**original, key: value}, f)
            self.refused(message, base=base)


if __name__ == "__main__":
    unittest.main()
