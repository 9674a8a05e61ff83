"""The stage microscope: its numbers against PyTorch's, one set of bits, cells from inner products, and what a user can get wrong."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from common import BASE, EMOJI, PATTERN, SOURCE, Case, command, environment, h5py, np, result_bits, run, safetensors, write_safetensors, write_yaml

import pandas as pd

TEXTS = {"files": f"{EMOJI}/texts/{{locale}}.jsonl"}
URIEL = f"{EMOJI}/uriel_similarity.csv"
LOCALES = ["af-ZA", "am-ET", "ar-SA", "fr-FR", "sw-KE"]
with open(f"{SOURCE}/tests/data/microscope/expected.json", encoding="utf-8") as file:
    EXPECTED = json.load(file)
THREE = {"theirs": {"source": "fr-FR", "note": "another"}, "mine": {"method": "linear", "sources": {"fr-FR": 0.5, "sw-KE": 0.5}},
         "three": {"method": "linear", "sources": {"am-ET": 0.2, "ar-SA": 0.3, "fr-FR": 0.5}}}


def frames(path):
    """The tables by name."""
    with h5py.File(path) as file:
        tables = {name: pd.DataFrame({column: item.asstr()[()] if item.dtype.kind == "O" else item[()] for column, item in group.items()})
                  for name, group in file["microscope"].items() if name != "cell_deltas"}
    return tables


class Microscope(Case):
    def config(self, name="a", stages=("compatibility", "microscope"), setups=None, reference=None, locales=LOCALES, grid=None, microscope=None,
               **sections):
        scope = {"reference": reference or {"source": "af-ZA"}, "setups": THREE if setups is None else setups, **(microscope or {})}
        return write_yaml(self.path(f"{name}.yaml"), family={"locales": locales}, shards={"dir": "shards"}, texts=TEXTS, stages=list(stages),
                          grid={"similarity": {"URIEL": URIEL}, **(grid or {})}, microscope=scope, result=f"{name}.h5", **sections)

    def run_good(self, name="a", ranks=0, **options):
        self.good("run", "-c", self.config(name, **options), ranks=ranks)
        return self.checked(name)

    def run_failing(self, name, count, ranks=0, **options):
        """So many setups fail: the result is whole all the same, and the exit code tells. What was run, and the result."""
        done = self.refused("run", "-c", self.config(name, **options), code=3, says=f"{name}.h5 is done, but {count} setups of the microscope failed",
                            ranks=ranks)
        self.assertEqual(self.state(self.path(f"{name}.h5")), "done")
        return done, self.checked(name)

    def checked(self, name):
        path = self.path(f"{name}.h5")
        subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", path], check=True)
        return path

    def not_run(self, says, ranks=0, code=1, **options):
        self.refused("run", "-c", self.config(**options), code=code, says=says, ranks=ranks)
        self.assertFalse(os.path.exists(self.path("a.h5")))


class Numbers(Microscope):
    """Against what tests/oracle/microscope.py had PyTorch compute."""

    def bounds(self, path):
        """By setup and parameter: 1e-6 of the task vectors that went in, and a rounding of the weights."""
        with h5py.File(path) as file:
            names = list(file["tensors/name"].asstr()[()])
            dot = file["compatibility/gram/source_dot"][()]
            index = {name: k for k, name in enumerate(file["sources/id"].asstr()[()])}
        norms = np.sqrt(dot.diagonal(axis1=1, axis2=2))
        for setup, weights in EXPECTED["setups"].items():
            for row in EXPECTED["parameter_deltas"].get(setup, ()):
                of = norms[names.index(row["parameter"])]
                yield setup, row, 1e-6 * (sum(w * of[index[l]] for l, w in weights.items()) + of[index["af-ZA"]]) + 2**-24 * row["candidate_norm"]

    def test_parameters(self):
        path = self.run_good()
        tables = frames(path)
        mine = tables["parameter_deltas"].set_index(["model", "parameter"])
        seen = 0
        for setup, row, bound in self.bounds(path):
            got = mine.loc[(setup, row["parameter"])]
            for column in ("delta_l2", "reference_norm", "candidate_norm"):
                self.assertLessEqual(abs(got[column] - row[column]), bound + 1e-8 * row[column], f"{setup} {row['parameter']} {column}")
            self.assertLessEqual(abs(got.delta_mean_abs - row["delta_mean_abs"]), bound, f"{setup} {row['parameter']}")
            self.assertLessEqual(abs(got.cosine_with_reference - row["cosine_with_reference"]), 1e-6)
            self.assertEqual(got.layer, row["layer"])
            seen += 1
        self.assertEqual(seen, len(mine))
        layers = tables["layer_deltas"].set_index(["model", "layer"])
        for setup, rows in EXPECTED["parameter_deltas"].items():
            wanted = pd.DataFrame(rows).groupby("layer").agg(
                delta_l2_sum=("delta_l2", "sum"), delta_l2_mean=("delta_l2", "mean"), delta_mean_abs=("delta_mean_abs", "mean"),
                cosine_mean=("cosine_with_reference", "mean"), reference_norm_mean=("reference_norm", "mean"),
                candidate_norm_mean=("candidate_norm", "mean"))
            self.assertEqual(list(layers.loc[setup].index), list(wanted.index))
            np.testing.assert_allclose(layers.loc[setup][wanted.columns], wanted, rtol=2e-6)

    def compare(self, path, wanted):
        tables = frames(path)
        for setup, signals in wanted.items():
            attention = tables["attentions"][tables["attentions"].model == setup]
            states = tables["hidden_states"][tables["hidden_states"].model == setup]
            answers = tables["logits"].set_index("model").loc[setup]
            expected = pd.DataFrame(signals["attentions"])
            self.assertEqual(list(zip(attention.layer, attention["head"])), list(zip(expected.layer, expected["head"])))
            for column in ("mean_prob", "cls_focus", "diagonal_focus"):
                np.testing.assert_allclose(attention[column], expected[column], rtol=1e-5, err_msg=f"{setup} {column}")
            np.testing.assert_allclose(attention.entropy, expected.entropy, atol=1e-4)
            expected = pd.DataFrame(signals["hidden_states"])
            for column in ("mean_token_norm", "max_token_norm", "sequence_mean_norm"):
                np.testing.assert_allclose(states[column], expected[column], rtol=1e-5, err_msg=f"{setup} {column}")
            np.testing.assert_allclose(states.std_token_norm, expected.std_token_norm, rtol=1e-5)
            for column in ("logit_std", "confidence_mean", "confidence_std", "entropy_mean"):
                self.assertAlmostEqual(answers[column], signals["logits"][column], delta=1e-4 * signals["logits"][column])
            self.assertAlmostEqual(answers.logit_mean, signals["logits"]["logit_mean"], delta=1e-5)

    def test_six_sentences(self):
        for padding in ("include", "exclude"):
            path = self.run_good(padding, microscope={"padding": padding})
            self.compare(path, EXPECTED["signals"]["six"][padding])
        # padding is not looked at twice: what a model answers is the same
        include, exclude = (frames(self.path(f"{p}.h5"))["logits"].set_index("model") for p in ("include", "exclude"))
        np.testing.assert_allclose(include, exclude, rtol=1e-5)

    def test_texts_of_a_locale(self):
        for padding in ("include", "exclude"):
            path = self.run_good(padding, microscope={"padding": padding, "probes": {"locale": "sw-KE", "partition": "test", "limit": 20}})
            self.compare(path, EXPECTED["signals"]["locale"][padding])

    def test_texts_of_a_file(self):
        """The six from a file, with blank lines, spaces, and one of them twice, which counts twice."""
        six = ["How can I upgrade my flight booking?", "  Show me the weather forecast for tomorrow evening.  ", "",
               "I need to reset the password for my online banking.", "Find vegetarian restaurants near my location.\r", " ",
               "Translate this sentence into French.", "Remind me to call my mom at 6 PM."]
        with open(self.path("probes.txt"), "w", newline="") as file:
            file.write("\n".join(six))
        self.compare(self.run_good("file", microscope={"probes": "probes.txt"}), EXPECTED["signals"]["six"]["exclude"])
        with open(self.path("probes.txt"), "a", newline="") as file:
            file.write("\nTranslate this sentence into French.")
        twice, once = (frames(self.path(f"{n}.h5"))["hidden_states"] for n in ("twice", "file") if n == "file" or self.run_good(
            "twice", microscope={"probes": "probes.txt"}))
        self.assertFalse(np.allclose(twice.mean_token_norm, once.mean_token_norm, rtol=1e-6))
        np.testing.assert_array_equal(twice.max_token_norm, once.max_token_norm)


class Bits(Microscope):
    def test_ranks_and_threads(self):
        setups = {**THREE, "ties": {"method": "ties", "locale": "af-ZA", "num_languages": 3}, "stock": {"method": "model_stock", "locale": "af-ZA",
                                                                                                     "num_languages": 3}}
        one = result_bits(self.run_good("one", setups=setups))
        for ranks in (2, 3, 5):
            self.assertEqual(one, result_bits(self.run_good(f"r{ranks}", ranks=ranks, setups=setups)), f"{ranks} ranks")
        self.assertEqual(one, result_bits(self.run_good("t1", setups=setups, compute={"threads": 1})))

    def test_killed_and_continued(self):
        """Whatever it had done is taken from the journal, and the bits are the same."""
        setups = {f"m{k}": {"method": "ties", "sources": {"fr-FR": 1, "sw-KE": 1 + k}} for k in range(40)}
        options = {"setups": setups, "microscope": {"probes": {"locale": "af-ZA", "partition": "test"}}}
        whole = result_bits(self.run_good("whole", ranks=2, **options))
        config = self.config("cut", **options)
        running = subprocess.Popen(command("run", "-c", config), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        state = ""
        for _ in range(600):
            time.sleep(0.05)
            if os.path.exists(self.path("cut.h5.state")):
                with open(self.path("cut.h5.state")) as file:
                    state = file.read()
            if "stage: microscope" in state.replace('"', "") and "0 of" not in state:
                break
        running.send_signal(signal.SIGUSR1)
        stderr = running.communicate(timeout=60)[1]
        self.assertIn(running.returncode, (0, 75), stderr)
        done = self.good("run", "-c", config, ranks=3)
        if running.returncode == 75 and "microscope" in state:
            self.assertIn("units of the microscope are in the journal", done.stderr)
        self.assertEqual(whole, result_bits(self.path("cut.h5")))

    def test_again(self):
        """The same configuration has nothing to do; another setup is computed, and the rest stays."""
        config = self.config()
        self.good("run", "-c", config)
        self.assertIn("nothing to do", self.good("run", "-c", config).stderr)
        more = self.config(setups={**THREE, "fourth": {"source": "sw-KE"}})
        before = result_bits(self.path("a.h5"))
        self.assertNotIn("nothing to do", self.good("run", "-c", more).stderr)
        now = result_bits(self.path("a.h5"))
        self.assertEqual(before["compatibility/gram/source_dot"], now["compatibility/gram/source_dot"])
        self.assertEqual(set(frames(self.path("a.h5"))["logits"].model), {"reference", *THREE, "fourth"})
        with open(self.path("probes.txt"), "w") as file:
            file.write("one\n")
        other = self.config(microscope={"probes": "probes.txt"})
        self.good("run", "-c", other)
        with open(self.path("probes.txt"), "w") as file:
            file.write("two\n")
        self.assertNotIn("nothing to do", self.good("run", "-c", other).stderr)

    def test_stage_by_stage(self):
        config = self.config()
        self.good("run", "-c", config, "--stages", "compatibility")
        self.assertNotIn("microscope", h5py.File(self.path("a.h5")))
        self.good("run", "-c", config, "--stages", "microscope")
        with h5py.File(self.path("a.h5")) as file:
            self.assertIn("compatibility", file)
        bits = result_bits(self.path("a.h5"))
        shutil.copy(self.path("a.h5"), self.path("b.h5"))
        self.good("run", "-c", config, "--fresh")
        self.assertEqual(bits, result_bits(self.path("a.h5")))


class Cells(Microscope):
    GRID = {"fixed": {"num_languages": 3}, "sweep": {"locale": ["af-ZA", "sw-KE"], "method": [
        "average", "similarity", {"linear": {"lambda": 0.7}}, "task_arithmetic", "model_stock", "slerp", "exclude_layers", "ties",
        {"dare_linear": {"density": 0.5}}, "own", "soft"]}}
    STAGES = ("compatibility", "nxn", "grid", "microscope")
    LINEAR = {"average", "similarity", "linear", "task_arithmetic", "model_stock", "slerp", "exclude_layers", "own"}

    def options(self, **more):
        grid = json.loads(json.dumps(self.GRID))
        grid["sweep"]["method"] = [m if m != "exclude_layers" else {"exclude_layers": {"layers": "0"}} for m in grid["sweep"]["method"]]
        return {"stages": self.STAGES, "grid": grid, "nxn": {"targets": ["af-ZA", "sw-KE"]}, **more}

    def deltas(self, path):
        with h5py.File(path) as file:
            group = file["microscope/cell_deltas"]
            return {name: (item.asstr()[()] if item.dtype.kind == "O" else item[()]) for name, item in group.items()}

    def test_against_weights(self):
        """Every cell's arrays, from inner products, are what its weights say, where it is a linear merge; else NaN."""
        path = self.run_good("plain", **self.options())
        with h5py.File(path) as file:
            keys, methods = (file[f"grid/cells/{c}"].asstr()[()] for c in ("key", "method"))
            dot = file["compatibility/gram/source_dot"][()]
        merges = [k for k, method in enumerate(methods) if method != "soft"]
        path = self.run_good("all", ranks=2, **self.options(setups={f"c{k}": {"cell": keys[k]} for k in merges}))
        arrays, rows = self.deltas(path), frames(path)["parameter_deltas"].set_index(["model", "parameter"])
        scale = np.sqrt(dot.diagonal(axis1=1, axis2=2)).max(axis=1)
        self.assertEqual(list(arrays["cell"]), list(keys))
        for k, method in enumerate(methods):
            if method not in self.LINEAR:
                body = [not name.startswith("classifier") for name in arrays["parameter"]]
                self.assertTrue(np.isnan(arrays["delta_l2"][k][body]).all(), method)
                continue
            for t, name in enumerate(arrays["parameter"]):
                row = rows.loc[(f"c{k}", name)]
                bound = 1e-6 * scale[t] + 2**-24 * row.candidate_norm
                self.assertAlmostEqual(arrays["delta_l2"][k, t], row.delta_l2, delta=bound, msg=f"{method} {name}")
                self.assertAlmostEqual(arrays["candidate_norm"][k, t], row.candidate_norm, delta=bound)
                self.assertAlmostEqual(arrays["reference_norm"][t], row.reference_norm, delta=bound)
                if row.reference_norm > 1e-3:
                    self.assertAlmostEqual(arrays["cosine_with_reference"][k, t], row.cosine_with_reference, delta=2e-5)
        own = [k for k, method in enumerate(methods) if method == "own"][0]
        self.assertEqual(arrays["delta_l2"][own].max(), 0)  # the target's own model is the reference

    def test_references(self):
        """The base, a cell, and a checkpoint that is none of the family's."""
        self.run_good("plain", **self.options())
        with h5py.File(self.path("plain.h5")) as file:
            key = file["grid/cells/key"].asstr()[0]
        base = self.deltas(self.run_good("base", **self.options(reference={"base": True}, setups={})))
        head = [name.startswith("classifier") for name in base["parameter"]]
        self.assertTrue(np.isnan(base["delta_l2"][0][head]).all() and np.isfinite(base["candidate_norm"][0]).all())
        cell = self.deltas(self.run_good("cell", **self.options(reference={"cell": key[:8]}, setups={})))
        self.assertEqual(cell["delta_l2"][0].max(), 0)
        beside = self.run_good("beside", **self.options(reference={"path": PATTERN.format(locale="bn-BD")}, setups={}))
        with h5py.File(beside) as file:
            self.assertIn("not of the family", file["microscope"].attrs["no_cells"])
            self.assertNotIn("cell_deltas", file["microscope"])

    def test_setups_of_a_grid(self):
        path = self.run_good("plain", **self.options())
        with h5py.File(path) as file:
            keys, sources = file["grid/cells/key"].asstr()[()], file["grid/cells/sources"].asstr()[()]
        setups = {"cell": {"cell": keys[1]}, "terms": {"method": "similarity", "locale": "af-ZA", "num_languages": 3}, "none": {"cell": "ffff"}}
        tables = frames(self.run_good("a", **self.options(setups=setups)))
        rows = tables["setups"].set_index("model")
        self.assertEqual(rows.loc["cell", "sources"], sources[1].replace(",", ", "))
        self.assertEqual(rows.loc["cell", "sources"], rows.loc["terms", "sources"])
        self.assertEqual(rows.loc["cell", "cell"], keys[1])
        self.assertEqual(list(rows.loc["terms", ["kind", "mode", "target_lang", "num_languages", "preweight"]]), ["merge", "similarity", "af-ZA", 3, "URIEL"])
        self.assertFalse(rows.loc["none", "exists"])
        self.assertIn("no cell whose key begins with ffff", rows.loc["none", "error"])
        deltas = tables["parameter_deltas"].set_index("model").drop(columns=["parameter", "layer"])
        np.testing.assert_array_equal(deltas.loc["cell"], deltas.loc["terms"])


class Checkpoints(Microscope):
    def copy(self, name, locale="fr-FR", tensors=None, config=None):
        """A source's checkpoint elsewhere; tensors: changes their map; config: its."""
        target = self.path(name)
        shutil.copytree(PATTERN.format(locale=locale), target)
        if tensors:
            write_safetensors(f"{target}/model.safetensors", tensors(safetensors(f"{target}/model.safetensors")))
        if config:
            with open(f"{target}/config.json") as file:
                values = json.load(file)
            config(values)
            with open(f"{target}/config.json", "w") as file:
                json.dump(values, file)
        return {"path": name}

    def test_any_directory(self):
        """A merge that was written to a directory is what it is as a recipe; without prefix, without head, with labels in another order."""
        recipe = {"method": "ties", "sources": {"fr-FR": 1, "sw-KE": 1}}
        self.good("merge", "-c", write_yaml(self.path("m.yaml"), family={"locales": LOCALES}, shards={"dir": "shards"}, recipe=recipe), "-o", self.path("merged"))
        order = list(range(1, 72))

        def turn(tensors):
            classes = len(tensors["classifier.out_proj.bias"])
            order[:] = [*range(1, classes), 0]
            return {name: value[order] if name.startswith("classifier.out_proj") else value for name, value in tensors.items()}

        def relabel(config):
            names = [config["id2label"][str(k)] for k in order]
            config["id2label"] = {str(k): name for k, name in enumerate(names)}
            config["label2id"] = {name: k for k, name in enumerate(names)}

        setups = {"recipe": recipe, "written": {"path": "merged"}, "source": {"source": "fr-FR"}, "copied": self.copy("copied"),
                  "turned": self.copy("turned", tensors=turn, config=relabel),
                  "short": self.copy("short", tensors=lambda t: {n.removeprefix("roberta."): v for n, v in t.items()}),
                  "bare": self.copy("bare", tensors=lambda t: {n: v for n, v in t.items() if not n.startswith("classifier")})}
        path = self.run_good(setups=setups, ranks=2)
        tables = frames(path)
        rows = tables["parameter_deltas"].set_index(["model", "parameter"]).drop(columns="layer")
        np.testing.assert_allclose(rows.loc["recipe"], rows.loc["written"], rtol=1e-6)
        for name in ("copied", "turned", "short"):
            np.testing.assert_allclose(rows.loc["source"], rows.loc[name].loc[rows.loc["source"].index], rtol=2e-6, atol=1e-7, err_msg=name)
        self.assertFalse(any(name.startswith("classifier") for name in rows.loc["bare"].index))
        logits = tables["logits"].set_index("model")
        self.assertNotIn("bare", logits.index)
        for name in ("copied", "turned", "short"):
            np.testing.assert_allclose(logits.loc["source"], logits.loc[name], rtol=1e-4, atol=1e-6)
        self.assertEqual(len(tables["hidden_states"][tables["hidden_states"].model == "bare"]), 5)
        self.assertEqual(list(tables["setups"].kind), ["pretrained", "merge", "pretrained", "pretrained", "pretrained", "pretrained", "pretrained", "pretrained"])

    def test_not_of_the_family(self):
        """Every mismatch at once, before anything is computed."""
        def cut(tensors):
            tensors["roberta.encoder.layer.1.output.dense.bias"] = np.zeros(7)
            del tensors["roberta.encoder.layer.2.output.dense.bias"]
            return tensors
        setups = {"other": self.copy("other", tensors=cut, config=lambda c: c.update(num_attention_heads=2))}
        self.not_run(["microscope's other", "other is not of the family", "layer.1.output.dense.bias: shape [7], [", "layer.2.output.dense.bias: is missing",
                      "2 heads"], setups=setups, ranks=2)
        setups = {"other": self.copy("labels", config=lambda c: c["id2label"].update({"0": "nothing"}))}
        self.not_run(["a.yaml:", "does not have the family's label"], setups=setups)
        setups = {"other": self.copy("fewer", config=lambda c: c.update(id2label={"0": "a", "1": "b"}))}
        self.not_run("names 2 labels, the family", setups=setups)
        os.makedirs(self.path("empty"))
        self.not_run("empty", setups={"other": {"path": "empty"}})

    def said_to_fail(self, done, path, count, names):
        """The end of a run and `show` say how many setups failed, and which."""
        counts = f"{count - len(names)} completed, {len(names)} failed, 0 skipped"
        self.assertIn(f"microscope: {count} setups with the reference, {counts}", done.stderr)
        self.assertEqual(re.findall("warning: microscope: (.*) failed: ", done.stderr), names)
        self.assertIn(f"{count} setups with the reference: {counts}", self.good("show", path).stdout)
        shown = json.loads(self.good("show", path, "--json").stdout)["microscope"]
        self.assertEqual((shown["completed"], shown["failed"], shown["skipped"]), (count - len(names), len(names), 0))
        self.assertEqual([setup["model"] for setup in shown["setups"] if setup["status"] == "failed"], names)

    def test_failures(self):
        """Each on its own, with the same words whoever meets it first; what is whole stays."""
        def spoil(name):
            return lambda tensors: {n: np.where(np.arange(v.size).reshape(v.shape) == 3, np.nan, v) if n == name else v for n, v in tensors.items()}
        self.copy("big", tensors=lambda tensors: {n: v * (5e38 if n == "classifier.dense.weight" else 1) for n, v in tensors.items()})
        sources = {**{locale: PATTERN.format(locale=locale) for locale in LOCALES}, "big": self.path("big")}
        options = {"stages": ["microscope"], "sources": sources, "locales": []}
        huge = {"method": {"task_arithmetic": {"lambda": 100}}, "sources": ["big", "sw-KE"], "head": "method"}
        setups = {"good": {"source": "fr-FR"}, "huge": huge, "large": {**huge, "sources": ["am-ET", "big"]},
                  "nan": self.copy("nan", tensors=spoil("roberta.encoder.layer.1.output.dense.weight")),
                  "lost": self.copy("lost", tensors=spoil("roberta.embeddings.word_embeddings.weight"))}
        done, one = self.run_failing("one", 4, setups=setups, **options)
        self.said_to_fail(done, one, 6, ["huge", "large", "nan", "lost"])
        rows = frames(one)["setups"].set_index("model")
        self.assertEqual(list(rows.index[rows.error != ""]), ["huge", "large", "nan", "lost"])
        self.assertTrue(rows.exists.all())
        self.assertEqual(rows.loc["nan", "error"], "tensor roberta.encoder.layer.1.output.dense.weight: it is not finite")
        self.assertRegex(rows.loc["huge", "error"], "^the merge's element .* of tensor .* is not finite$")
        self.assertEqual(set(frames(one)["parameter_deltas"].model), {"good"})
        self.assertEqual(set(frames(one)["logits"].model), {"reference", "good"})
        self.assertEqual(result_bits(one), result_bits(self.run_failing("three", 4, ranks=3, setups=setups, **options)[1]))
        self.assertIn("failed: the merge's element", self.good("show", one).stdout)
        done, lost = self.run_failing("lost", 1, setups={"good": {"source": "fr-FR"}}, reference={"path": "nan"}, **options)
        self.said_to_fail(done, lost, 2, ["reference"])
        self.assertEqual(len(frames(lost)["parameter_deltas"]), 0)
        for ranks in (0, 2):  # nothing is computed again, and it is not forgotten either
            again, _ = self.run_failing("one", 4, ranks=ranks, setups=setups, **options)
            self.assertIn("nothing to do", again.stderr)
        del setups["huge"], setups["large"], setups["nan"], setups["lost"]
        self.run_good("one", setups=setups, **options)

    def test_failures_in_parts(self):
        """A part ends well whatever fails in it; what writes the result says so."""
        nan = self.copy("nan", tensors=lambda tensors: {n: v * np.nan if n.endswith("layer.1.output.dense.bias") else v for n, v in tensors.items()})
        setups = {**THREE, "nan": nan, "few": {"method": "average", "locale": "af-ZA", "num_languages": 99}}
        _, whole = self.run_failing("whole", 2, stages=["microscope"], setups=setups)
        config = self.config("parts", stages=["microscope"], setups=setups)
        for part in ("1/2", "2/2"):
            self.good("run", "-c", config, "--part", part)
        self.refused("gather", "-c", config, code=3, says="parts.h5 is done, but 2 setups of the microscope failed")
        self.same_bits(self.path("parts.h5"), result_bits(whole))

    def test_changed_directory(self):
        """A checkpoint that is another one now is looked at again."""
        config = self.config(setups={"copied": self.copy("copied")})
        self.good("run", "-c", config)
        self.assertIn("nothing to do", self.good("run", "-c", config).stderr)
        write_safetensors(self.path("copied/model.safetensors"), {n: 2 * v for n, v in safetensors(self.path("copied/model.safetensors")).items()})
        before = frames(self.path("a.h5"))["parameter_deltas"].candidate_norm
        self.good("run", "-c", config)
        np.testing.assert_allclose(frames(self.path("a.h5"))["parameter_deltas"].candidate_norm, 2 * before, rtol=1e-6)


class Wrong(Microscope):
    def test_missing(self):
        """What is missing is skipped and named; the reference can't be."""
        setups = {**THREE, "gone": {"source": "fr-FX"}, "nowhere": {"path": "nowhere"}}
        done = self.good("run", "-c", self.config(setups=setups))
        for text in ("gone is skipped: there is no source fr-FX (fr-FR?)", "nowhere is skipped",
                     "6 setups with the reference, 4 completed, 0 failed, 2 skipped"):
            self.assertIn(text, done.stderr)
        rows = frames(self.path("a.h5"))["setups"].set_index("model")
        self.assertEqual(list(rows.index[~rows.exists]), ["gone", "nowhere"])
        shown = self.good("show", self.path("a.h5")).stdout
        self.assertIn("skipped: there is no source fr-FX", shown)
        os.remove(self.path("a.h5"))
        self.not_run(["a.yaml", "microscope.reference: there is no source xx-XX"], reference={"source": "xx-XX"}, ranks=3)
        self.not_run("microscope.reference: ", reference={"path": "nowhere"})
        self.not_run("microscope.reference: ", reference={"method": "average", "locale": "af-ZA", "num_languages": 99})

    def test_no_merge(self):
        """Terms that come to no merge fail, as they do in a grid, and so does a setup that names such a cell."""
        few = {"method": "average", "locale": "af-ZA", "num_languages": 99}
        done, path = self.run_failing("one", 1, ranks=2, setups={**THREE, "few": few})
        self.assertRegex(done.stderr, "microscope: few failed: .*num_languages is 99")
        rows = frames(path)["setups"].set_index("model")
        self.assertTrue(rows.exists.all())
        self.assertEqual(list(rows.index[rows.error != ""]), ["few"])
        self.assertEqual(set(frames(path)["logits"].model), {"reference", *THREE})
        options = {"stages": ("compatibility", "nxn", "grid", "microscope"), "nxn": {"targets": ["af-ZA"]},
                   "grid": {"fixed": {"locale": "af-ZA", "method": "average"}, "sweep": {"num_languages": [2, 99]}}}
        self.refused("run", "-c", self.config("plain", setups={}, **options), code=3, says="1 cells failed")
        with h5py.File(self.path("plain.h5")) as file:
            keys = list(file["grid/cells/key"].asstr()[()])
        config = self.config("both", setups={"good": {"cell": keys[0]}, "bad": {"cell": keys[1]}, "few": few, "gone": {"source": "xx-XX"}}, **options)
        for _ in range(2):
            self.refused("run", "-c", config, code=3, says=("1 cells failed", "2 setups of the microscope"))
        shown = json.loads(self.good("show", self.path("both.h5"), "--json").stdout)["microscope"]["setups"]
        self.assertEqual([setup["status"] for setup in shown], ["completed", "completed", "failed", "failed", "skipped"])

    def test_probes(self):
        for text, says in ((b"", "no text in it"), (b" \n\n", "no text in it"), (b"caf\xe9\n", "probes.txt:1"), (None, "probes.txt")):
            if text is None:
                os.remove(self.path("probes.txt"))
            else:
                with open(self.path("probes.txt"), "wb") as file:
                    file.write(text)
            self.not_run(says, ranks=2, microscope={"probes": "probes.txt"})
        self.not_run("no text of partition nothing", microscope={"probes": {"locale": "af-ZA", "partition": "nothing"}})
        self.not_run("xx-XX", microscope={"probes": {"locale": "xx-XX"}})

    def test_configuration(self):
        for scope, says in (({"setups": {"a": {"source": "af-ZA", "base": True}}}, "more than one model"),
                            ({"setups": {"a": {"sourc": "af-ZA"}}}, "'sourc' is no known key (source?)"),
                            ({"setups": {"a": {}}}, "says no model"),
                            ({"setups": {"a": {"base": "yes"}}}, "true was expected"),
                            ({"setups": {"a": {"locale": "af-ZA"}}}, "say what to merge"),
                            ({"setups": {"a": {"method": "soft", "locale": "af-ZA"}}}, "a vote"),
                            ({"setups": {"a": {"path": "x", "method": "average"}}}, "more than one model"),
                            ({"setups": {"reference": {"base": True}}}, "can't be called reference"),
                            ({"setups": {"a/b": {"base": True}}}, "neither '/'"),
                            ({"setups": []}, "a map"),
                            ({"setups": {"a": {"cell": "abcd"}}}, "stage grid"),
                            ({"setups": {"a": {"method": "average", "locale": "af-ZA", "similarity_type": "REAL"}}}, "none of grid.similarity's"),
                            ({"probes": {"partition": "test"}}, "locale is missing"),
                            ({"probes": {"locale": "af-ZA", "limit": 0}}, "limit"),
                            ({"probes": {"file": "x"}}, "'file' is no known key"),
                            ({"padding": "some"}, "exclude or include")):
            config = self.config(setups=scope.pop("setups", {}), microscope=scope)
            done = run("run", "-c", config)
            self.assertEqual(done.returncode, 1, f"{says}: {done.stderr}")
            self.assertIn(says, done.stderr)
            self.assertIn("a.yaml:", done.stderr)
        config = write_yaml(self.path("a.yaml"), family={"locales": LOCALES}, stages=["microscope"])
        self.refused("run", "-c", config, says="microscope.reference does not say")

    def test_family_that_is_no_encoder(self):
        """A llama is compared; there are no forward passes, and it is said why."""
        base, sources = self.make_family("f", "-n", 3, "--shape", "llama", "--parameters", "200K")
        config = write_yaml(self.path("l.yaml"), base=base, sources=sources, stages=["compatibility", "microscope"], result="l.h5", microscope={
            "reference": {"base": True}, "setups": {"average": {"method": "linear", "sources": self.ids(sources)}}})
        done = self.good("run", "-c", config)
        self.assertIn("no attention, hidden states and logits", done.stderr)
        subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", self.path("l.h5")], check=True)
        tables = frames(self.path("l.h5"))
        self.assertTrue(len(tables["parameter_deltas"]) > 10 and not len(tables["hidden_states"]))

    def test_tokenizer_of_another_kind(self):
        """RoBERTa's own tokenizer is byte-level BPE: there are no forward passes either, and the comparison is what it is otherwise."""
        shutil.copytree(BASE, self.path("base"))
        expected = frames(self.run_good("whole"))
        os.remove(self.path("base/sentencepiece.bpe.model"))
        with open(self.path("base/tokenizer.json"), "w", encoding="utf-8") as file:
            json.dump({"model": {"type": "BPE", "vocab": {}, "merges": []}}, file)
        self.good("plan", "-c", self.config("bpe", base=self.path("base")))
        done = self.good("run", "-c", self.config("bpe", base=self.path("base")), ranks=2)
        self.assertIn("no attention, hidden states and logits: " + self.path("base/tokenizer.json: the model is not Unigram"), done.stderr)
        tables = frames(self.checked("bpe"))
        pd.testing.assert_frame_equal(tables["parameter_deltas"], expected["parameter_deltas"])
        self.assertEqual([len(tables[name]) for name in ("attentions", "hidden_states", "logits")], [0, 0, 0])

    def ids(self, sources):
        directory, pattern = os.path.split(sources)
        before, after = pattern.split("{locale}")
        return sorted(name[len(before):len(name) - len(after)] for name in os.listdir(directory) if name.startswith(before) and name.endswith(after))


class Printed(Microscope):
    def test_show_and_export(self):
        path = self.run_good()
        shown = self.good("show", path).stdout
        self.assertIn("microscope: against source af-ZA; 6 probe texts (six sentences in English, padding excluded)", shown)
        self.assertIn("most: roberta.embeddings.word_embeddings", shown)
        scope = json.loads(self.good("show", path, "--json").stdout)["microscope"]
        layers = frames(path)["layer_deltas"]
        for setup in scope["setups"][1:]:
            mine = layers[layers.model == setup["model"]].sort_values("delta_l2_sum", ascending=False)
            self.assertEqual([m["layer"] for m in setup["moved_most"]], list(mine.layer[:5]))
        self.good("export", path, "-o", self.path("out"))
        columns = {"parameter_deltas": ["parameter", "layer", "delta_l2", "delta_mean_abs", "cosine_with_reference", "reference_norm", "candidate_norm", "model"],
                   "layer_deltas": ["layer", "delta_l2_sum", "delta_l2_mean", "delta_mean_abs", "cosine_mean", "reference_norm_mean", "candidate_norm_mean", "model"],
                   "attentions": ["layer", "head", "mean_prob", "entropy", "cls_focus", "diagonal_focus", "model"],
                   "hidden_states": ["layer", "mean_token_norm", "max_token_norm", "std_token_norm", "sequence_mean_norm", "model"],
                   "logits": ["logit_mean", "logit_std", "confidence_mean", "confidence_std", "entropy_mean", "model"],
                   "setups": ["model", "kind", "notes", "path", "exists", "error", "mode", "target_lang", "num_languages", "preweight", "base_model",
                              "sources", "cell"]}
        for name, table in frames(path).items():
            read = pd.read_csv(self.path("out", "microscope", f"{name}.csv"), keep_default_na=False, float_precision="round_trip")
            self.assertEqual(list(read.columns), columns[name])
            for column in read.columns:
                np.testing.assert_array_equal(read[column], table[column])
        self.good("verify", path)
        for sentence in ("models and the reference", "forward"):
            self.assertIn(sentence, self.good("plan", "-c", self.config()).stdout)

    def test_resolved_configuration(self):
        """What the result says it was computed with computes the same."""
        os.symlink(PATTERN.format(locale="bn-BD"), self.path("beside"))
        path = self.run_good(setups={**THREE, "beside": {"path": "beside", "note": "a \"note\""}}, microscope={
            "probes": {"locale": "sw-KE", "partition": "dev", "limit": 3}, "padding": "include", "max_length": 20})
        with h5py.File(path) as file:
            yaml = file["provenance/config"].asstr()[()]
        os.makedirs(self.path("elsewhere"))
        with open(self.path("elsewhere/r.yaml"), "w") as file:
            file.write(yaml)
        self.good("run", "-c", self.path("elsewhere/r.yaml"), "--set", "result=r.h5")
        self.assertEqual(result_bits(path), result_bits(self.path("elsewhere/r.h5")))


if __name__ == "__main__":
    unittest.main(verbosity=1)
