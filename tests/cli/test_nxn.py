"""The stage nxn over the whole program: numbers, one set of bits, what is exported, and what a user can get wrong."""
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

from common import BASE, EMOJI, PATTERN, SOURCE, command, environment, h5py, np, result_bits, run, safetensors, write_safetensors, write_yaml

import pandas as pd

TEXTS = f"{EMOJI}/texts/{{locale}}.jsonl"
LOCALES = ("af-ZA", "en-US", "sw-KE")


def strings(dataset):
    return [value.decode() for value in dataset[()]]


def macro_f1(labels, predictions):
    """Mean over the classes that occur among either, as scikit-learn has it."""
    values = []
    for c in np.union1d(labels, predictions):
        right = np.sum((labels == c) & (predictions == c))
        values.append(2 * right / (np.sum(labels == c) + np.sum(predictions == c)))
    return np.mean(values)


class NxN(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def config(self, name="a", locales=LOCALES, **more):
        sections = {"family": {"locales": list(locales)}, "shards": {"dir": self.path("shards")}, "texts": {"files": TEXTS}, "stages": ["nxn"],
                    "nxn": {"targets": list(locales)}, "result": self.path(f"{name}.h5"), **more}
        return write_yaml(self.path(f"{name}.yaml"), **sections), self.path(f"{name}.h5")

    def good(self, *args, **options):
        done = run(*args, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def made(self, *args, ranks=2, **options):
        config, path = self.config(*args, **options)
        self.good("run", "-c", config, ranks=ranks)
        return path

    def refused(self, *messages, ranks=2, **options):
        config, path = self.config(**options)
        done = run("run", "-c", config, "--fresh", ranks=ranks)
        self.assertEqual(done.returncode, 1, done.stderr)
        for message in messages:
            self.assertIn(message, done.stderr)
        self.assertFalse(os.path.exists(path))

    def family(self, change=None, texts=None):
        """A copy of the demo's sources of three locales; change(locale, tensors, config) may alter one; texts(locale, records)."""
        for locale in LOCALES:
            source = PATTERN.format(locale=locale)
            to = self.path(f"m_{locale}")
            shutil.rmtree(to, ignore_errors=True)
            os.makedirs(to)
            with open(f"{source}/config.json", encoding="utf-8") as file:
                config = json.load(file)
            tensors = safetensors(f"{source}/model.safetensors")
            if change:
                change(locale, tensors, config)
            with open(f"{to}/config.json", "w", encoding="utf-8") as file:
                json.dump(config, file)
            write_safetensors(f"{to}/model.safetensors", tensors)
            with open(TEXTS.format(locale=locale), encoding="utf-8") as file:
                records = [json.loads(line) for line in file]
            if texts:
                records = texts(locale, records)
            with open(self.path(f"{locale}.jsonl"), "w", encoding="utf-8") as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        return {"sources": self.path("m_{locale}"), "texts": {"files": self.path("{locale}.jsonl")}}

    # ---- numbers ----

    def check_numbers(self, path):
        subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", path], check=True)
        with h5py.File(path) as f:
            targets, labels = strings(f["targets"]), strings(f["labels"])
            for group, partition in (("nxn", "test"), ("nxn_select", "dev")):
                self.assertEqual(f[group].attrs["partition"], partition)
                for m, target in enumerate(targets):
                    mine = np.array(strings(f[f"texts/{target}/partition"])) == partition
                    wanted = f[f"texts/{target}/label"][()][mine]
                    predictions, logits = f[f"{group}/predictions/{target}"][()], f[f"{group}/logits/{target}"][()]
                    self.assertEqual(logits.shape, (len(f["sources/id"]), mine.sum(), len(labels)))
                    np.testing.assert_array_equal(logits.argmax(axis=2), predictions)
                    np.testing.assert_array_equal((predictions == wanted).mean(axis=1), f[f"{group}/accuracy"][:, m])
                    for row, value in zip(predictions, f[f"{group}/macro_f1"][:, m]):
                        self.assertAlmostEqual(macro_f1(wanted, row), value, places=12)
            with open(TEXTS.format(locale=targets[0]), encoding="utf-8") as file:
                records = [record for record in map(json.loads, file) if record["partition"] in ("test", "dev")]
            self.assertEqual([record["id"] for record in records], strings(f[f"texts/{targets[0]}/id"]))
            self.assertEqual([record["intent"] for record in records], [labels[k] for k in f[f"texts/{targets[0]}/label"]])

    def test_numbers_and_export(self):
        path = self.made()
        self.check_numbers(path)
        with h5py.File(path) as f:
            accuracy, select, f1 = f["nxn/accuracy"][()], f["nxn_select/accuracy"][()], f["nxn/macro_f1"][()]
        # transformers, fp32, on the same texts (tests/oracle/nxn.py)
        with open(f"{SOURCE}/tests/data/nxn/accuracy.json", encoding="utf-8") as file:
            expected = json.load(file)
        np.testing.assert_allclose(accuracy, expected["test"], atol=1e-12)
        np.testing.assert_allclose(select, expected["dev"], atol=1e-12)
        self.good("export", path, "-o", self.path("out"))
        self.good("export", path, "-o", self.path("theirs"), "--layout", "merginguriel")
        for name in (self.path("out/evaluation_matrix.csv"), self.path("theirs/nxn_results/evaluation_matrix.csv")):
            frame = pd.read_csv(name, index_col=0, float_precision="round_trip")
            self.assertEqual((tuple(frame.index), tuple(frame.columns)), (LOCALES, LOCALES))
            np.testing.assert_array_equal(frame.to_numpy(), accuracy)
        for name, matrix in (("evaluation_select_matrix.csv", select), ("evaluation_macro_f1_matrix.csv", f1)):
            np.testing.assert_array_equal(pd.read_csv(self.path("out", name), index_col=0, float_precision="round_trip"), matrix)
        with open(self.path("out/evaluation_summary.json"), encoding="utf-8") as file:
            summary = json.load(file)
        for key, value in (("mean", accuracy.mean()), ("median", np.median(accuracy)), ("std", accuracy.std()), ("min", accuracy.min()),
                           ("max", accuracy.max())):
            self.assertAlmostEqual(summary[key], value, places=12)
        self.assertAlmostEqual(summary["evaluation"]["own"]["mean"], np.diag(accuracy).mean(), places=12)
        self.assertEqual(summary["selection"]["partition"], "dev")
        text = self.good("show", path).stdout
        self.assertIn("accuracy by target (test)", text)
        shown = json.loads(self.good("show", path, "--json").stdout)["nxn"]["targets"]["sw-KE"]
        self.assertEqual(shown["own"], accuracy[2, 2])
        self.assertEqual(shown["best_other"], accuracy[:2, 2].max())
        self.assertIn("checksums hold", self.good("verify", path).stdout)

    def test_damage_is_named(self):
        path = self.made(locales=("af-ZA", "sw-KE"))
        with h5py.File(path) as f:
            offset = f["nxn_select/logits/sw-KE"].id.get_offset() + f.userblock_size
        with open(path, "r+b") as file:
            file.seek(offset + 1000)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        done = run("verify", path)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/nxn_select/logits/sw-KE", done.stderr)

    # ---- one set of bits ----

    def test_same_bits(self):
        bits = result_bits(self.made("one", ranks=0))
        for ranks, threads in ((1, 1), (2, 2), (3, 1), (5, 1)):
            self.assertEqual(result_bits(self.made(f"r{ranks}", ranks=ranks, compute={"threads": threads})), bits)
        self.assertEqual(result_bits(self.made("direct", shards={"dir": "none"})), bits)

    def test_continues(self):
        more = {"locales": [], "nxn": {"targets": ["af-ZA", "en-US", "sw-KE"]}}
        whole = self.made("whole", **more)
        config, path = self.config("cut", **more)
        process = subprocess.Popen(command("run", "-c", config, ranks=2), env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and sum(map(os.path.getsize, glob.glob(f"{path}.journal/*/journal"))) < 4000000:
            time.sleep(0.002)
        self.assertIsNone(process.poll(), "the run was over before it could be killed")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["pkill", "-9", "-f", config], check=False)
        self.assertFalse(os.path.exists(path), "the run was over before it could be killed")
        done = self.good("run", "-c", config, ranks=3)
        self.assertIn("of the answers are in the journal", done.stderr)
        self.assertEqual(result_bits(path), result_bits(whole))
        self.assertFalse(os.path.exists(f"{path}.journal"))
        self.assertIn("nothing to do", self.good("run", "-c", config, ranks=2).stderr)

    def test_a_damaged_journal_is_computed_again(self):
        config, path = self.config("cut", locales=[], nxn={"targets": ["af-ZA"]})
        whole = self.made("whole", locales=[], nxn={"targets": ["af-ZA"]})
        process = subprocess.Popen(command("run", "-c", config, ranks=1), env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and sum(map(os.path.getsize, glob.glob(f"{path}.journal/*/journal"))) < 800000:
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["pkill", "-9", "-f", config], check=False)
        journal, = glob.glob(f"{path}.journal/*/journal")
        with open(journal, "r+b") as file:
            file.seek(300000)
            file.write(b"damaged")
        self.assertIn("damaged at byte", self.good("run", "-c", config, ranks=2).stderr)
        self.assertEqual(result_bits(path), result_bits(whole))

    def test_from_shards_alone(self):
        def permute(locale, tensors, config):
            if locale != "af-ZA":
                self.permute(tensors, config)
        family = self.family(permute)
        bits = result_bits(self.made("first", **family))
        for locale in LOCALES:
            shutil.rmtree(self.path(f"m_{locale}"))
        done = result_bits(self.made("second", **family))
        paths = [key for key in bits if bits[key] != done.get(key)]
        self.assertEqual(paths, [])

    # ---- labels ----

    def permute(self, tensors, config):
        """Classes the other way round, in names and head alike: the same classifier."""
        for name in ("classifier.out_proj.weight", "classifier.out_proj.bias"):
            tensors[name] = tensors[name][::-1]
        names = [config["id2label"][str(k)] for k in range(len(config["id2label"]))]
        config["id2label"] = {str(k): name for k, name in enumerate(names[::-1])}
        config["label2id"] = {name: k for k, name in enumerate(names[::-1])}

    def test_permuted_labels_are_matched_by_name(self):
        bits = result_bits(self.made("plain", **self.family()))
        def permute(locale, tensors, config):
            if locale == "sw-KE":
                self.permute(tensors, config)
        shutil.rmtree(self.path("shards"))
        permuted = result_bits(self.made("permuted", **self.family(permute)))
        for key in bits:  # but for rounding: the head's product has its columns elsewhere
            if key.startswith(("nxn/predictions/", "nxn/accuracy", "nxn_select/accuracy", "labels")):
                self.assertEqual(permuted[key], bits[key], key)

    def test_other_labels_are_an_error(self):
        def rename(locale, tensors, config):
            if locale == "sw-KE":
                config["id2label"]["3"] = "something-else"
        self.refused("lacks the label", "m_sw-KE", **self.family(rename))

    def test_numbered_labels(self):
        names = []

        def number(locale, tensors, config):
            names[:] = [config["id2label"][str(k)] for k in range(len(config["id2label"]))]
            config["id2label"] = {str(k): f"LABEL_{k}" for k in range(len(names))}
        family = self.family(number)
        self.refused("texts.labels: FILE", **family)
        with open(self.path("labels.txt"), "w", encoding="utf-8") as file:
            file.writelines(f"{name}\n" for name in names)
        named = {**family, "texts": {**family["texts"], "labels": self.path("labels.txt")}}
        path = self.made("named", **named)
        with h5py.File(path) as f, h5py.File(self.made("plain", shards={"dir": self.path("plain")})) as g:
            np.testing.assert_array_equal(f["nxn/accuracy"][()], g["nxn/accuracy"][()])
            self.assertEqual(strings(f["labels"]), names)

        def unnamed(locale, tensors, config):
            number(locale, tensors, config)
            del config["id2label"], config["label2id"]

        def index(_, records):
            return [{**record, "intent": names.index(record["intent"])} for record in records]
        shutil.rmtree(self.path("shards"))
        with h5py.File(self.made("indexed", **self.family(unnamed, index))) as f, h5py.File(path) as g:
            np.testing.assert_array_equal(f["nxn/accuracy"][()], g["nxn/accuracy"][()])
            self.assertEqual(strings(f["labels"])[:2], ["LABEL_0", "LABEL_1"])

    # ---- targets and partitions ----

    def test_targets(self):
        path = self.made(locales=("sw-KE", "af-ZA"), nxn={"targets": ["cy-GB", "sw-KE"], "logits": False})
        with h5py.File(path) as f:
            self.assertEqual(strings(f["targets"]), ["cy-GB", "sw-KE"])  # texts, and no checkpoint
            self.assertEqual(f["nxn/accuracy"].shape, (2, 2))
            self.assertNotIn("logits", f["nxn"])
        self.assertIn("none", self.good("show", path).stdout)
        family = self.family()
        for locale in ("sw-KE", "af-ZA"):
            shutil.copy(self.path("en-US.jsonl"), self.path(f"xx-{locale}.jsonl"))
        os.remove(self.path("af-ZA.jsonl"))
        all_of_them = {"locales": ("sw-KE", "af-ZA"), "nxn": {"targets": "all"}, **family}
        config, path = self.config("all", **all_of_them)
        self.assertIn("source af-ZA has no texts", self.good("run", "-c", config, "--fresh", ranks=2).stderr)
        with h5py.File(path) as f:
            self.assertEqual(strings(f["targets"]), ["sw-KE", "en-US", "xx-af-ZA", "xx-sw-KE"])
            np.testing.assert_array_equal(f["nxn/accuracy"][:, 1], f["nxn/accuracy"][:, 2])  # the same texts

    def test_one_stage_of_two(self):
        config, path = self.config("only", stages=["compatibility", "nxn"])
        self.good("run", "-c", config, "--stages", "nxn", ranks=2)
        with h5py.File(path) as f:
            self.assertIn("nxn", f)
            self.assertNotIn("compatibility", f)
        done = self.good("run", "-c", config, ranks=2)  # what is there is taken over
        self.assertIn("answers of 3 of 3 sources are taken", done.stderr)
        bits = result_bits(path)
        self.good("run", "-c", config, "--fresh", ranks=2)
        self.assertEqual(bits, result_bits(path))
        done = self.good("run", "-c", config, "--stages", "nxn", ranks=2)  # and nothing is taken away
        self.assertIn("nothing to do", done.stderr)
        self.assertEqual(bits, result_bits(path))

    def test_without_dev(self):
        def no_dev(locale, records):
            return [record for record in records if record["partition"] != "dev" or locale == "af-ZA"]
        family = self.family(texts=no_dev)
        config, path = self.config(**family)
        self.assertIn("no texts of partition dev for 2 of 3 targets (en-US, sw-KE)", self.good("run", "-c", config).stderr)
        with h5py.File(path) as f:
            self.assertEqual(list(f["nxn_select/stands_in"][()]), [False, True, True])
            np.testing.assert_array_equal(f["nxn_select/accuracy"][:, 1:], f["nxn/accuracy"][:, 1:])
            self.assertEqual(f["nxn_select"].attrs["partition"], "dev")
        subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", path], check=True)
        config, path = self.config("none", nxn={"targets": ["sw-KE"]}, **family)
        self.good("run", "-c", config, ranks=2)
        with h5py.File(path) as f:
            self.assertEqual(f["nxn_select"].attrs["partition"], "test")  # what it is of
            self.assertEqual(f["nxn_select"].attrs["asked_partition"], "dev")
        same = self.made("same", nxn={"targets": ["sw-KE"], "select": "test"})
        with h5py.File(same) as f:
            np.testing.assert_array_equal(f["nxn_select/logits/sw-KE"][()], f["nxn/logits/sw-KE"][()])
            self.assertEqual(set(strings(f["texts/sw-KE/partition"])), {"test"})

    def test_validation_is_dev(self):
        def rename(_, records):
            return [{**record, "partition": record["partition"].replace("dev", "validation")} for record in records]
        with h5py.File(self.made(**self.family(texts=rename))) as f, h5py.File(self.made("plain", shards={"dir": self.path("p")})) as g:
            np.testing.assert_array_equal(f["nxn_select/accuracy"][()], g["nxn_select/accuracy"][()])
            self.assertEqual(set(strings(f["texts/sw-KE/partition"])), {"dev", "test"})

    # ---- what can be wrong ----

    def test_bad_texts(self):
        family = self.family(texts=lambda _, records: [{**record, "partition": "train"} for record in records])
        self.refused("af-ZA.jsonl: no text of partition test", **family)
        self.refused("texts of xx-XX", nxn={"targets": ["xx-XX"]})
        family = self.family(texts=lambda _, records: [{**record, "intent": "no-such"} for record in records])
        for ranks in (2, 3, 5):  # several of which read: the first target's fault is what all say
            self.refused("af-ZA.jsonl:1: label 'no-such' is none of the models' 41 classes", ranks=ranks, **family)
        family = self.family(texts=lambda locale, records: [{**record, "intent": "no-such"} for record in records] if locale == "sw-KE" else records)
        self.refused("sw-KE.jsonl:1: label 'no-such'", ranks=3, **family)
        self.refused("no file matches", nxn={"targets": "all"}, texts={"files": self.path("none-{locale}")})
        self.refused("{locale}", nxn={"targets": "all"}, texts={"files": self.path("af-ZA.jsonl")})

    def test_bad_models(self):
        def headless(locale, tensors, config):
            for name in [name for name in tensors if name.startswith("classifier")]:
                del tensors[name]
        self.refused("needs sequence classifiers", **self.family(headless))

        def poisoned(locale, tensors, config):
            if locale == "sw-KE":
                tensors["classifier.out_proj.bias"] = np.full(41, np.inf)
        self.refused("m_sw-KE/model.safetensors: tensor classifier.out_proj.bias", "not finite", **self.family(poisoned))
        config, path = self.config(**self.family(poisoned), **{"family": {"locales": list(LOCALES), "allow_nonfinite": True}})
        done = run("run", "-c", config, "--fresh", ranks=2)  # then it is that source that fails (test_nxn_failures.py)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("source sw-KE has failed on 3 of 3 targets: its logits are not finite, first for text", done.stderr)
        with h5py.File(path) as f:
            np.testing.assert_array_equal(np.isnan(f["nxn/accuracy"][()]).all(axis=1), [False, False, True])

        def fewer(locale, tensors, config):
            for key in ("39", "40"):
                del config["id2label"][key]
        self.refused("39 labels", "41", **self.family(fewer))

    def test_bad_base(self):
        base = shutil.copytree(BASE, self.path("base"))
        os.remove(f"{base}/sentencepiece.bpe.model")
        self.refused("no tokenizer", base=base)
        shutil.copy(f"{BASE}/sentencepiece.bpe.model", base)
        with open(f"{BASE}/config.json", encoding="utf-8") as file:
            original = json.load(file)
        for key, value, message in (("max_position_embeddings", 8, "the model has positions for 6"), ("hidden_act", "relu", "hidden_act")):
            with open(f"{base}/config.json", "w", encoding="utf-8") as file:
                json.dump({**original, key: value}, file)
            self.refused(message, base=base)

    def test_changed_texts_are_refused_by_name(self):
        family = self.family()
        config, _ = self.config(**family)
        self.good("run", "-c", config, ranks=2)
        with open(self.path("sw-KE.jsonl"), encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        records[-1]["utt"] += " x"
        records[-1]["partition"] = "test"
        with open(self.path("sw-KE.jsonl"), "w", encoding="utf-8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)
        done = run("run", "-c", config, ranks=2)
        self.assertEqual(done.returncode, 1)
        self.assertIn("texts of the targets", done.stderr)
        self.assertIn("--fresh", done.stderr)

    def test_plan_and_budget(self):
        config, path = self.config(locales=[], nxn={"targets": "all"}, stages=["compatibility", "nxn"],
                                   compatibility={"metrics": ["task_vector_cosine", "cka"]})
        self.assertIn("nxn", self.good("plan", "-c", config).stdout)
        plan = json.loads(self.good("plan", "-c", config, "-n", 2, "--json").stdout)
        self.assertEqual(plan["nxn"]["targets"], 48)
        self.assertGreater(plan["nxn"]["hours"], plan["cka"]["hours"])
        self.assertEqual(plan["hours"], plan["pack"]["hours"] + plan["compatibility"]["hours"] + plan["cka"]["hours"] + plan["nxn"]["hours"])
        small, _ = self.config("small", compute={"memory_budget": "70MiB"})
        for verb in ("plan", "run"):
            done = run(verb, "-c", small)
            self.assertEqual(done.returncode, 1)
            self.assertIn("memory_budget", done.stderr)
        config, path = self.config("peak", stages=["compatibility", "nxn"], compatibility={"metrics": ["task_vector_cosine", "cka"]})
        plan = json.loads(self.good("plan", "-c", config, "-n", 2, "--json").stdout)
        self.good("run", "-c", config, ranks=2)
        with h5py.File(path) as f:
            self.assertLessEqual(f["provenance/ranks"][()]["peak_bytes"].max(), plan["memory"]["rank_bytes"])
            self.assertEqual(f["provenance"].attrs["nxn"], "done")

    def test_whole_family(self):
        """The run that the README tells of: compatibility, CKA and nxn of all 48; one partition, a million texts, is enough of them."""
        config, path = self.config("all", locales=[], nxn={"targets": "all", "select": "test"}, stages=["compatibility", "nxn"],
                                   compatibility={"metrics": ["task_vector_cosine", "cka"]})
        self.good("run", "-c", config, ranks=2, timeout=600)
        subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", path], check=True)
        with h5py.File(path) as f:
            accuracy = f["nxn/accuracy"][()]
            self.assertLess(f["provenance/ranks"][()]["peak_bytes"].max(), 300 << 20)
        own = np.diag(accuracy).copy()
        other = accuracy[~np.eye(48, dtype=bool)]
        np.fill_diagonal(accuracy, 0)
        for value, expected in ((own.mean(), 0.444), (own.min(), 0.336), (own.max(), 0.572), (other.mean(), 0.288),
                                (accuracy.max(axis=0).mean(), 0.343)):  # from the family's README: transformers, fp32
            self.assertAlmostEqual(value, expected, delta=6e-4)


if __name__ == "__main__":
    unittest.main()
