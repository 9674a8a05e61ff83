"""Cells of a finished result as checkpoints: what they predict is what the cell predicts, also when checkpoints and matrices are gone."""
import json
import os
import shutil
import tempfile
import unittest

from common import BASE, EMOJI, PATTERN, Case, h5py, np, run, safetensors, write_safetensors, write_yaml

TEXTS = f"{EMOJI}/texts/{{locale}}.jsonl"
LOCALES = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
TARGETS = ["nl-NL", "sw-KE"]
BY_SIMILARITY = ["average", "similarity", "similarity_x_tv_compatibility", "similarity_x_cka_compatibility", {"ties": {"density": [0.2, 0.5]}}, {"ties": {"trim": "global"}},
                 {"dare_linear": {"density": 0.7}}, {"dare_ties": {"density": 0.7, "rescale": "l1"}}, "breadcrumbs", "magmax",
                 "model_stock", "directional_consensus", "slerp", "karcher", {"exclude_layers": {"layers": "0"}}, "neuromerging", "sce",
                 "own", "best_source", "best_zero_shot", "majority"]


def family(folder, locales):
    """A copy of some of the demonstration's checkpoints."""
    for name in ["xlm-roberta-emoji"] + [f"xlm-roberta-emoji_k_{locale}" for locale in locales]:
        shutil.copytree(f"{EMOJI}/{name}", f"{folder}/models/{name}")
    return {"base": f"{folder}/models/xlm-roberta-emoji", "sources": f"{folder}/models/xlm-roberta-emoji_k_{{locale}}"}


def cells_of(result):
    """The cells' columns as one dictionary a cell."""
    with h5py.File(result) as file:
        columns = {name: column.asstr()[:] if h5py.check_string_dtype(column.dtype) else column[:] for name, column in file["grid/cells"].items()}
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def predictions_of(result, cells):
    """What the cells say of all texts of their targets: by key, for both partitions."""
    out = {}
    with h5py.File(result) as file:
        for cell in cells:
            row = file[f"grid/predictions/{cell['locale']}"][cell["prediction_row"]]
            partition = file[f"texts/{cell['locale']}/partition"].asstr()[:]
            out[cell["key"]] = {name: row[partition == name] for name in ("test", "dev")}
    return out


def evaluate(folder, checkpoints, locales, base=BASE):
    """What mergegrid's nxn says of checkpoints {name: directory} on locales: by name, locale and partition; and the labels."""
    config = write_yaml(f"{folder}/evaluate.yaml", base=base, sources=checkpoints, texts={"files": TEXTS}, stages=["nxn"], shards={"dir": "none"},
                        nxn={"targets": locales, "logits": False}, result=f"{folder}/evaluate.h5")
    done = run("run", "-c", config, "--fresh", ranks=2)
    assert done.returncode == 0, done.stderr
    with h5py.File(f"{folder}/evaluate.h5") as file:
        names, labels = list(file["sources/id"].asstr()[:]), list(file["labels"].asstr()[:])
        said = {name: {locale: {"test": file[f"nxn/predictions/{locale}"][k], "dev": file[f"nxn_select/predictions/{locale}"][k]}
                       for locale in locales} for k, name in enumerate(names)}
    return said, labels


class Cells(unittest.TestCase):
    """One grid for all tests, which leave it as it was."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="mergegrid-test-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        shutil.copy(f"{EMOJI}/uriel_similarity.csv", f"{cls.dir}/uriel.csv")
        shutil.copy(f"{EMOJI}/uriel_similarity_50.csv", f"{cls.dir}/uriel_50.csv")  # has labels twice
        fixed = {"locale": "nl-NL", "similarity_type": "URIEL", "num_languages": 3}
        grid = {"similarity": {"URIEL": "uriel.csv", "OLD": "uriel_50.csv", "REAL": "nxn"}, "fixed": {"num_languages": 3},
                "sweep": {"locale": "all", "similarity_type": ["URIEL"], "method": BY_SIMILARITY},
                "phases": [{"name": "real", "fixed": {"locale": "sw-KE", "similarity_type": "REAL"},
                            "sweep": {"method": ["similarity", "slerp"], "include_target": [True]}},
                           {"name": "twice", "fixed": {**fixed, "similarity_type": "OLD", "select": "sinkhorn", "method": "similarity"},
                            "sweep": {"duplicates": ["first", "keep"]}},
                           {"name": "theirs", "fixed": {**fixed, "preset": "merginguriel"},
                            "sweep": {"method": ["similarity", "ties", "directional_consensus"]}},
                           {"name": "heads", "fixed": fixed, "sweep": {"method": ["ties", "model_stock"], "head": ["method", "random"]}},
                           {"name": "named", "fixed": {"locale": "sw-KE", "sources": {"en-US": 0.7, "sw-KE": 0.3}}, "sweep": {"method": ["linear", "multislerp"]}},
                           {"name": "too many", "fixed": {**fixed, "num_languages": 9}, "sweep": {"method": ["average"]}},
                           {"name": "later", "fixed": {**fixed, "seed": 7}, "sweep": {"method": ["dare_linear"]}}]}
        cls.config = write_yaml(f"{cls.dir}/run.yaml", **family(cls.dir, LOCALES), family={"locales": LOCALES}, texts={"files": TEXTS},
                                nxn={"targets": TARGETS}, stages=["compatibility", "nxn", "grid"], grid=grid, shards={"dir": "shards"},
                                compatibility={"metrics": ["task_vector_cosine", "cka"]}, result="r.h5")
        done = run("run", "-c", cls.config, "--where", "seed=42", ranks=2)
        assert done.returncode == 3, done.stderr  # one cell has not as many candidates
        cls.result = f"{cls.dir}/r.h5"
        cls.cells = cells_of(cls.result)

    def setUp(self):
        self.out = tempfile.mkdtemp(prefix="mergegrid-test-")
        self.addCleanup(shutil.rmtree, self.out)

    def cell(self, locale="nl-NL", **terms):
        found = [cell for cell in self.cells if cell["locale"] == locale and all(cell[name] == value for name, value in terms.items())]
        self.assertGreater(len(found), 0, terms)
        return found[0]

    def merge(self, name, *args, result=None, code=0, **kwargs):
        done = run("merge", result or self.result, "-o", f"{self.out}/{name}", *args, **kwargs)
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            self.assertFalse(os.path.exists(f"{self.out}/{name}"))
            return done.stderr
        with open(f"{self.out}/{name}/merge_details.json", encoding="utf-8") as file:
            self.details = json.load(file)
        self.said = done.stderr
        return f"{self.out}/{name}"

    def test_every_cell(self):
        """All that are no votes: each written, and evaluated as a source of its own."""
        written = [cell for cell in self.cells if cell["status"] == "completed" and cell["method"] != "majority"]
        self.assertEqual({cell["method"] for cell in self.cells} - {cell["method"] for cell in written}, {"majority"})
        merged = {cell["key"]: self.merge(cell["key"], "--cell", cell["key"]) for cell in written}
        expected = predictions_of(self.result, written)
        said, _ = evaluate(self.out, merged, TARGETS, f"{self.dir}/models/xlm-roberta-emoji")
        for cell in written:
            for partition in ("test", "dev"):
                np.testing.assert_array_equal(said[cell["key"]][cell["locale"]][partition], expected[cell["key"]][partition],
                                              err_msg=f"{cell['method']} {cell['parameters']} {partition}")

    def test_details(self):
        with h5py.File(self.result) as file:
            ids, weights = file["sources/id"].asstr()[:], file["grid/weights"][:]
        for cell in (self.cell(method="similarity"), self.cell(method="similarity", preset="merginguriel"), self.cell(method="own"),
                     self.cell("sw-KE", phase="named"), self.cell("sw-KE", similarity_type="REAL", method="slerp")):
            self.merge(cell["key"], "--cell", cell["key"][:9])
            row = weights[self.cells.index(cell)]
            self.assertEqual({source["id"]: source["weight"] for source in self.details["sources"]}, dict(zip(ids[row > 0], row[row > 0])))
            self.assertEqual((self.details["key"], self.details["method"], self.details["locale"]), (cell["key"], cell["method"], cell["locale"]))
            self.assertEqual(self.details["result"]["path"], os.path.realpath(self.result))
            self.assertEqual(self.details["result"]["select_accuracy"], cell["select_accuracy"])
            self.assertEqual(self.details["terms"], json.loads(cell["terms"]))
            self.assertEqual(self.details["similarity"], cell["similarity_type"] if cell["phase"] != "named" and cell["method"] != "own" else None)
            self.assertEqual(self.details["note"], cell["note"] or None)
            self.assertEqual(cell["note"].startswith("starts from "), cell["preset"] == "merginguriel")
        theirs = self.cell(method="ties", preset="merginguriel")
        self.merge("ties", "--cell", theirs["key"])
        self.assertIsInstance(self.details["parameters"]["lambda"], float)  # the cell's parameters name the rule
        self.assertEqual(json.loads(theirs["parameters"])["lambda"], "merginguriel")
        self.assertEqual(theirs["note"], f"lambda {self.details['parameters']['lambda']!r} by the rule merginguriel")
        dropped = self.cell(method="directional_consensus", preset="merginguriel")
        self.merge("consensus", "--cell", dropped["key"])
        self.assertIn(self.details["base_source"], LOCALES)
        self.assertTrue(self.details["base"].endswith("_k_" + self.details["base_source"]))

    def without(self, *names):
        """The grid's directory without some of it, until the test ends."""
        for name in names:
            gone = f"{self.dir}/gone-{os.path.basename(name)}"
            os.rename(f"{self.dir}/{name}", gone)
            self.addCleanup(os.rename, gone, f"{self.dir}/{name}")

    def test_from_the_result_alone(self):
        """Shards, and the base's directory for config.json and tokenizer: all that is needed besides."""
        cells = [self.cell(method="similarity_x_cka_compatibility"), self.cell(phase="twice"), self.cell(method="slerp"), self.cell(method="ties"), self.cell(method="own"),
                 self.cell("sw-KE", similarity_type="REAL", method="similarity"), self.cell(method="directional_consensus", preset="merginguriel")]
        before = {cell["key"]: self.merge("before" + cell["key"], "--cell", cell["key"]) for cell in cells}
        self.without("uriel.csv", "uriel_50.csv", *[f"models/xlm-roberta-emoji_k_{locale}" for locale in LOCALES])
        for cell in cells:
            after = self.merge(cell["key"], "--cell", cell["key"])
            with open(f"{before[cell['key']]}/model.safetensors", "rb") as old, open(f"{after}/model.safetensors", "rb") as new:
                self.assertEqual(old.read(), new.read())
            with open(f"{before[cell['key']]}/config.json", encoding="utf-8") as old, open(f"{after}/config.json", encoding="utf-8") as new:
                self.assertEqual(json.load(old), json.load(new))
            self.assertTrue(os.path.exists(f"{after}/sentencepiece.bpe.model"))
        self.without("models/xlm-roberta-emoji")
        self.assertIn("config.json is gone, and so are the other sources' (--set family.base=DIR", self.merge("no", "--cell", cells[0]["key"], code=1))

    def test_moved(self):
        """Result, shards and base elsewhere: settings say where, seen from the current directory."""
        cell = self.cell(method="ties")
        expected, there = self.merge("a", "--cell", cell["key"]), f"{self.out}/there"
        for name, to in (("shards", "shards"), ("models/xlm-roberta-emoji", "base")):
            shutil.copytree(f"{self.dir}/{name}", f"{there}/{to}")
        shutil.copy(self.result, f"{there}/r.h5")
        self.without("shards", "models")
        message = self.merge("no", "--cell", cell["key"], code=1, result="r.h5", cwd=there)
        self.assertIn("is said by --set shards.dir=DIR", message)
        got = self.merge("b", "--cell", cell["key"], "--set", "shards.dir=shards", "--set", "family.base=base", result="r.h5", cwd=there, ranks=2)
        with open(f"{expected}/model.safetensors", "rb") as old, open(f"{got}/model.safetensors", "rb") as new:
            self.assertEqual(old.read(), new.read())
        self.assertTrue(os.path.exists(f"{got}/sentencepiece.bpe.model"))

    def test_other_weights(self):
        """A checkpoint that was trained again is none of the cell's; the shards of the old one are."""
        cell = self.cell(method="similarity")
        expected, path = self.merge("a", "--cell", cell["key"]), f"{self.dir}/models/xlm-roberta-emoji_k_en-US"
        self.assertIn("en-US", [source["id"] for source in self.details["sources"]])
        kept = f"{self.out}/kept"
        shutil.copytree(path, kept)
        self.addCleanup(lambda: (shutil.rmtree(path), shutil.copytree(kept, path)))
        tensors = safetensors(f"{path}/model.safetensors")
        tensors["classifier.out_proj.bias"] += 1
        write_safetensors(f"{path}/model.safetensors", tensors)
        got = self.merge("b", "--cell", cell["key"])
        with open(f"{expected}/model.safetensors", "rb") as old, open(f"{got}/model.safetensors", "rb") as new:
            self.assertEqual(old.read(), new.read())
        message = self.merge("no", "--cell", cell["key"], "--set", f"shards.dir={self.out}/other", code=1)
        self.assertIn("en-US is not what", message)
        self.merge("c", "--cell", cell["key"], "--set", "shards.dir=none")
        self.assertIn("whether the base is still the same can't be told", self.said)

    def test_compatibility_file(self):
        """A matrix that only the configuration names: it has to be there, and to say what it said. Sources are a map, without shards."""
        folder = self.out
        with h5py.File(self.result) as file:
            cosine = file["compatibility/task_vector_cosine"][:]

        def write(matrix):
            with open(f"{folder}/cosine.csv", "w", encoding="utf-8") as file:
                file.write("," + ",".join(LOCALES) + "\n" + "".join(f"{locale}," + ",".join(map(repr, map(float, row))) + "\n" for locale, row in zip(LOCALES, matrix)))
        write(cosine ** 2)
        models = f"{self.dir}/models/xlm-roberta-emoji"
        sources = {f"model-{k}": {"path": f"{models}_k_{locale}", "locale": locale} for k, locale in enumerate(LOCALES)}
        config = write_yaml(f"{folder}/run.yaml", base=models, sources=sources, texts={"files": TEXTS}, nxn={"targets": ["nl-NL"]}, stages=["grid"],
                            grid={"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv"}, "compatibility": {"tv": "cosine.csv"},
                                  "fixed": {"locale": "nl-NL", "num_languages": 3, "method": "similarity_x_tv_compatibility"}},
                            shards={"dir": "none"}, result="r.h5")
        done = run("run", "-c", config)
        self.assertEqual(done.returncode, 0, done.stderr)
        best = ("--best", "locale=nl-NL")
        self.merge("a", *best, result=f"{folder}/r.h5")
        self.assertNotIn("can't be told", self.said)
        self.assertEqual({source["id"] for source in self.details["sources"]} - set(sources), set())
        write(cosine)
        message = self.merge("b", *best, result=f"{folder}/r.h5", code=1)
        self.assertRegex(message, "was merged from .*, and would now be from ")
        os.remove(f"{folder}/cosine.csv")
        self.assertIn("cosine.csv: No such file", self.merge("c", *best, result=f"{folder}/r.h5", code=1))

    def test_best(self):
        merges = [cell for cell in self.cells if cell["locale"] == "nl-NL" and cell["status"] == "completed" and cell["method"] not in ("majority", "own", "best_source", "best_zero_shot")]
        best = max(merges, key=lambda cell: cell["select_accuracy"])  # the first of equals
        own = self.cell(method="own")
        self.assertGreater(own["select_accuracy"], best["select_accuracy"])
        self.merge("best", "--best", "locale=nl-NL")
        self.assertEqual(self.details["key"], best["key"])
        self.assertIn(f"best of locale=nl-NL: cell {best['key']}, {best['method']} for nl-NL", self.said)
        self.assertIn(f"note: a baseline scores better: cell {own['key']}, own for nl-NL, one source as it is, accuracy {own['select_accuracy']:.4f}", self.said)
        others = "|".join(sorted({cell["method"] for cell in merges}))
        self.merge("conditions", "--best", f"locale=nl-NL,method={others}")
        self.assertEqual(self.details["key"], best["key"])
        self.assertIn(f"note: a baseline scores better: cell {own['key']}", self.said)  # also where the conditions leave it out
        dense = self.cell(method="ties", **{"ties.density": "0.5"})
        self.merge("dense", "--best", "locale=nl-NL,ties.density=0.5")
        self.assertEqual(self.details["key"], dense["key"])
        self.assertIn("no cell has locale=nl-BE; there are nl-NL, sw-KE", self.merge("no", "--best", "locale=nl-BE", code=1))
        self.assertIn("--best: 'langauge' is no column of the cells", self.merge("no", "--best", "langauge=nl-NL", code=2))
        self.assertIn("none of them is a merge that was completed", self.merge("no", "--best", "method=majority", code=1))
        self.assertIn("none of them is a merge that was completed", self.merge("no", "--best", "seed=7", code=1))
        refused = self.merge("no", "--best", "locale=nl-NL,method=own|majority", code=1)
        self.assertIn("2 cells match, and none of them is a merge that was completed", refused)
        self.assertIn(f"the best baseline among them, own for nl-NL, is written by --cell {own['key']}", refused)

    def test_best_of_a_target_whose_baselines_are_worse(self):
        """Then nothing is said of them, nor of another target's, which are better than the merge."""
        fixed = {"similarity_type": "REAL", "include_target": True}
        grid = {"similarity": {"REAL": "nxn"}, "sweep": {"locale": ["sw-KE"], "similarity_type": ["REAL"], "num_languages": [2], "method": ["best_zero_shot"]},
                "phases": [{"name": "merge", "fixed": {**fixed, "locale": "sw-KE", "num_languages": 1, "method": "average"}},
                           {"name": "other", "fixed": {**fixed, "locale": "nl-NL", "num_languages": 2, "method": "own"}}]}
        result = f"{self.out}/r.h5"
        config = write_yaml(f"{self.out}/run.yaml", **family(self.out, LOCALES), family={"locales": LOCALES}, texts={"files": TEXTS}, nxn={"targets": TARGETS},
                            stages=["compatibility", "nxn", "grid"], grid=grid, shards={"dir": "shards"}, result="r.h5")
        self.assertEqual(run("run", "-c", config).returncode, 0)
        cells = {cell["method"]: cell for cell in cells_of(result)}
        self.assertLess(cells["best_zero_shot"]["select_accuracy"], cells["average"]["select_accuracy"])
        self.assertGreater(cells["own"]["select_accuracy"], cells["average"]["select_accuracy"])
        self.merge("best", "--best", "locale=sw-KE", result=result)
        self.assertEqual(self.details["key"], cells["average"]["key"])
        self.assertNotIn("a baseline scores better", self.said)

    def test_refusals(self):
        self.assertRegex(self.merge("no", "--cell", self.cell(status="failed")["key"], code=1), "average for nl-NL\\) failed: .*num_languages is 9")
        self.assertIn("is planned: the run left it out", self.merge("no", "--cell", self.cell(status="planned")["key"], code=1))
        self.assertIn("majority is a vote over several models' answers", self.merge("no", "--cell", self.cell(method="majority")["key"], code=1, ranks=2))
        key = self.cell(method="ties")["key"]
        self.assertIn("no cell has a key that begins with 'nothing'", self.merge("no", "--cell", "nothing", code=1))
        self.assertIn("is not among the", self.merge("no", "--cell", key, "--set", "seed=3", code=1))
        self.assertIn("/provenance/config", self.merge("no", "--cell", key, "--set", "grid.fixed={locale: nl-NL, similarity_type: NONE, method: ties}", code=1))
        self.assertIn("--set shrads.dir=x", self.merge("no", "--cell", key, "--set", "shrads.dir=x", code=1))
        os.mkdir(f"{self.out}/there")
        self.assertIn("is there already", run("merge", self.result, "--cell", key, "-o", f"{self.out}/there").stderr)
        for message, args in (("-c FILE or a RESULT is missing", []), ("-c FILE and a result exclude each other", [self.result, "-c", self.config]),
                              ("are about a RESULT, not about -c FILE", ["-c", self.config, "--cell", key]), ("which cell?", [self.result]),
                              ("are about a RESULT, not about -c FILE", ["-c", self.config, "--best", "locale=nl-NL"]),
                              ("one --cell KEY, or --best", [self.result, "--cell", key, "--best", "locale=nl-NL"]),
                              ("one --cell KEY, or --best", [self.result, "--cell", key, "--cell", key])):
            done = run("merge", *args, "-o", f"{self.out}/no")
            self.assertEqual((done.returncode, message in done.stderr), (2, True), done.stderr)
        self.assertIn("no such file", self.merge("no", "--cell", key, code=1, result=f"{self.out}/none.h5").lower())


class OtherOrder(Case):
    """A source that has its labels, and so the rows of its head, in another order than the first."""

    ORDER = np.random.default_rng(3).permutation(41)
    METHODS = ["similarity", "model_stock", {"dare_ties": {"density": 0.8}}, "ties"]

    def permute(self, path):
        with open(f"{path}/config.json", encoding="utf-8") as file:
            config = json.load(file)
        labels = [config["id2label"][str(k)] for k in self.ORDER]
        config.update(id2label=dict(enumerate(labels)), label2id={label: k for k, label in enumerate(labels)})
        with open(f"{path}/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        tensors = safetensors(f"{path}/model.safetensors")
        for name in ("classifier.out_proj.weight", "classifier.out_proj.bias"):
            tensors[name] = tensors[name][self.ORDER]
        write_safetensors(f"{path}/model.safetensors", tensors)  # F32 holds what the demonstration's F16 does

    def family(self, name, permuted=()):
        at = family(self.path(name), ["af-ZA", "de-DE", "en-US", "nl-NL"])
        for locale in permuted:
            self.permute(at["sources"].format(locale=locale))
        return at

    def grid(self, name, at):
        sweep = {"method": self.METHODS, "head": ["linear", "method"]}
        config = write_yaml(self.path(f"{name}.yaml"), **at, texts={"files": TEXTS}, nxn={"targets": ["nl-NL"]}, stages=["grid"], shards={"dir": f"{name}/shards"},
                            grid={"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv"}, "fixed": {"locale": "nl-NL", "num_languages": 3}, "sweep": sweep},
                            result=f"{name}.h5")
        self.good("run", "-c", config)
        return {cell["key"]: cell for cell in cells_of(self.path(f"{name}.h5"))}

    def test_cells(self):
        """The same cells whatever the order, in the grid and as checkpoints, whose labels are the family's."""
        plain, moved = self.family("plain"), self.family("moved", ["de-DE"])
        cells, theirs = self.grid("plain", plain), self.grid("moved", moved)
        expected, got = (predictions_of(self.path(f"{name}.h5"), cells.values()) for name in ("plain", "moved"))
        merged = {}
        for key, cell in cells.items():
            np.testing.assert_array_equal(got[key]["test"], expected[key]["test"], err_msg=f"{cell['method']} {cell['head']}")
            self.assertIn("de-DE", theirs[key]["sources"])
            self.good("merge", self.path("moved.h5"), "--cell", key, "-o", self.path(key))
            merged[key] = self.path(key)
        said, labels = evaluate(self.dir, {"af-ZA": plain["sources"].format(locale="af-ZA"), **merged}, ["nl-NL"])
        for key, cell in cells.items():
            np.testing.assert_array_equal(said[key]["nl-NL"]["test"], expected[key]["test"], err_msg=f"{cell['method']} {cell['head']}")
            with open(f"{merged[key]}/config.json", encoding="utf-8") as file:
                config = json.load(file)
            self.assertEqual(([config["id2label"][str(k)] for k in range(41)], config["label2id"][labels[5]]), (labels, 5))

    def test_recipe(self):
        """merge -c puts heads into the order of the family's first source, also where the recipe's first has another."""
        plain, moved = self.family("plain"), self.family("moved", ["de-DE", "en-US"])
        merged = []
        for name, at in (("plain", plain), ("moved", moved)):
            config = write_yaml(self.path("m.yaml"), **at, recipe={"method": "linear", "sources": {"de-DE": 0.3, "en-US": 0.5, "nl-NL": 0.2}}, shards={"dir": "none"})
            self.good("merge", "-c", config, "-o", self.path("out", name))
            with open(self.path("out", name, "config.json"), encoding="utf-8") as file:
                merged.append((safetensors(self.path("out", name, "model.safetensors")), json.load(file)["id2label"]))
        self.assertEqual(merged[0][1], merged[1][1])
        for name, value in merged[0][0].items():
            np.testing.assert_array_equal(merged[1][0][name], value, err_msg=name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
