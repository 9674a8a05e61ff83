"""mergegrid diff: what changed between two results, against the same computed from the files with h5py."""
import json
import math
import os
import random
import shutil
import unittest

from common import BASE, EMOJI, PATTERN, SOURCE, Case, h5py, np, write_yaml

IDS = ["af-ZA", "cy-GB", "en-US", "sw-KE", "de-DE"]
TARGETS = ["cy-GB", "sw-KE"]


def mcnemar(a, b):
    n, k = a + b, min(a, b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2 ** n) if n > 0 else 1.0


def holm(p):
    out, so_far = [0.0] * len(p), 0.0
    for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
        so_far = max(so_far, min(1.0, (len(p) - rank) * p[k]))
        out[k] = so_far
    return out


class Differences(Case):
    def diff(self, old, new):
        return json.loads(self.good("diff", "--json", old, new).stdout)


class Diff(Differences):
    def grid_run(self, name, sources=None, texts=f"{EMOJI}/texts/{{locale}}.jsonl", methods=("similarity", "ties", "best_source"), **more):
        sources = {id: PATTERN.format(locale=id) for id in IDS} if sources is None else sources
        config = write_yaml(self.path(f"{name}.yaml"), base=BASE, sources=sources, texts={"files": texts}, shards={"dir": "none"},
                            stages=["compatibility", "nxn", "grid"], nxn={"targets": TARGETS},
                            grid={"similarity": {"REAL": "nxn"}, "fixed": {"include_target": True, "similarity_type": "REAL"},
                                  "sweep": {"locale": "all", "num_languages": [2, 3], "method": list(methods)}},
                            result=self.path(f"{name}.h5"), **more)
        self.good("run", "-q", "-c", config)
        return self.path(f"{name}.h5")

    def retrained(self):
        """The old night, and one with another checkpoint for sw-KE and other methods."""
        other = {id: PATTERN.format(locale="it-IT" if id == "sw-KE" else id) for id in IDS}
        return self.grid_run("old"), self.grid_run("new", other, methods=("similarity", {"ties": {"density": [0.2, 0.5]}}, "best_source"))

    def test_nothing_changed(self):
        old = self.grid_run("old")
        shutil.copy(old, self.path("copy.h5"))
        changes = self.diff(old, self.path("copy.h5"))
        self.assertEqual([], changes["inputs"]["changed"] + changes["configuration"]["changed"] + changes["other_texts"])
        self.assertGreater(changes["configuration"]["compared"], 30)
        self.assertEqual((len(IDS) * 2, []), (changes["nxn"]["compared"], changes["nxn"]["changed"]))
        grid = changes["grid"]
        self.assertEqual((12, 0, 0, 12), (grid["both"], grid["only_old"], grid["only_new"], grid["same_recipe"]))
        self.assertEqual([], grid["cells"]["changed"])
        self.assertTrue(all(method["delta"] == 0 for method in grid["methods"]))
        text = self.good("diff", old, self.path("copy.h5")).stdout
        for said in ("computed from: all", "configuration: all", "12 cells in both, 0 only in the old", "0 predict something else"):
            self.assertIn(said, text)

    def check_pairs(self, changes, old_rows, new_rows, right):
        """Counts, accuracies and p of what changed."""
        corrected = holm([mcnemar(item["only_old"], item["only_new"]) for item in changes])
        for item, p_holm in zip(changes, corrected):
            old, new = old_rows(item), new_rows(item)
            label = right(item)
            was, now = old == label, new == label
            self.assertEqual((int((was & ~now).sum()), int((now & ~was).sum()), int((old != new).sum()), len(label)),
                             (item["only_old"], item["only_new"], item["differ"], item["texts"]))
            self.assertAlmostEqual(was.mean(), item["old"], places=12)
            self.assertAlmostEqual(now.mean(), item["new"], places=12)
            self.assertAlmostEqual(mcnemar(item["only_old"], item["only_new"]), item["p"], places=12)
            self.assertAlmostEqual(p_holm, item["p_holm"], places=12)

    def test_a_retrained_source(self):
        old, new = self.retrained()
        changes = self.diff(old, new)
        self.assertEqual(["source sw-KE"], [item["name"] for item in changes["inputs"]["changed"]])
        self.assertEqual(["family.sources", "grid.sweep"], [item["name"] for item in changes["configuration"]["changed"]])
        with h5py.File(old) as a, h5py.File(new) as b:
            scored = {t: a[f"texts/{t}/partition"].asstr()[:] == "test" for t in TARGETS}
            label = {t: a[f"texts/{t}/label"][:] for t in TARGETS}
            row = {id: k for k, id in enumerate(a["sources/id"].asstr()[:])}
            self.check_pairs(changes["nxn"]["changed"], lambda item: a[f"nxn/predictions/{item['target']}"][row[item["source"]]],
                             lambda item: b[f"nxn/predictions/{item['target']}"][row[item["source"]]],
                             lambda item: label[item["target"]][scored[item["target"]]])
            self.assertEqual({"sw-KE"}, {item["source"] for item in changes["nxn"]["changed"]})
            keys = [list(file["grid/cells/key"].asstr()[:]) for file in (a, b)]

            def cell(file, number):
                return lambda item: file[f"grid/predictions/{item['target']}"][
                    file["grid/cells/prediction_row"][keys[number].index(item["key"])]][scored[item["target"]]]
            grid = changes["grid"]
            self.check_pairs(grid["cells"]["changed"], cell(a, 0), cell(b, 1), lambda item: label[item["target"]][scored[item["target"]]])
            both = set(keys[0]) & set(keys[1])
            self.assertEqual((len(both), len(keys[0]) - len(both), len(keys[1]) - len(both)), (grid["both"], grid["only_old"], grid["only_new"]))
            recipes = [dict(zip(k, file["grid/cells/recipe"].asstr()[:])) for k, file in zip(keys, (a, b))]
            self.assertEqual(sum(recipes[0][key] == recipes[1][key] for key in both), grid["same_recipe"])
            cosines = [file["compatibility/task_vector_cosine"][:] for file in (a, b)]
            change = (cosines[1] - cosines[0])[np.triu_indices(len(IDS), 1)]
            self.assertEqual((np.count_nonzero(change), len(change)), (changes["task_vector_cosine"]["changed"], changes["task_vector_cosine"]["pairs"]))
            self.assertEqual(change[np.abs(change).argmax()], changes["task_vector_cosine"]["largest"])
            for method in grid["methods"]:  # pooled over texts and cells: each target's cells have the same texts
                cells = [k for k in both if method["method"] == b["grid/cells/method"].asstr()[:][keys[1].index(k)]
                         and method["parameters"] == json.loads(b["grid/cells/parameters"].asstr()[:][keys[1].index(k)])]
                self.assertEqual(len(cells), method["cells"])
                sums, texts = 0, 0
                for k in cells:
                    item = {"key": k, "target": b["grid/cells/locale"].asstr()[:][keys[1].index(k)]}
                    right = label[item["target"]][scored[item["target"]]]
                    sums += int((cell(b, 1)(item) == right).sum()) - int((cell(a, 0)(item) == right).sum())
                    texts += len(right)
                self.assertAlmostEqual(sums / texts, method["delta"], places=12)
                self.assertLessEqual(method["low"], method["delta"])
                self.assertLessEqual(method["delta"], method["high"])
        text = self.good("diff", old, new, "--top", "2").stdout
        self.assertIn("1 of ", text)
        self.assertIn("more (--top)", text)

    def test_other_texts(self):
        """Lines in another order are the same texts; a line that is gone, and a new one, are left out and said."""
        os.makedirs(self.path("texts"))
        for t in TARGETS:
            with open(f"{EMOJI}/texts/{t}.jsonl", encoding="utf-8") as file:
                lines = file.readlines()
            ids = [json.loads(line)["id"] for line in lines]
            if t == "sw-KE":
                gone = next(k for k, line in enumerate(lines) if '"test"' in line and ids.count(ids[k]) == 1)
                del lines[gone]
            by_id = {}  # equal ids keep their order
            for line in lines:
                by_id.setdefault(json.loads(line)["id"], []).append(line)
            groups = list(by_id.values())
            random.Random(1).shuffle(groups)
            with open(self.path(f"texts/{t}.jsonl"), "w", encoding="utf-8") as file:
                file.writelines(line for group in groups for line in group)
        changes = self.diff(self.grid_run("old"), self.grid_run("new", texts=self.path("texts/{locale}.jsonl")))
        self.assertEqual(["sw-KE"], changes["other_texts"])
        self.assertEqual([], [item for item in changes["nxn"]["changed"] if item["target"] == "cy-GB"])
        self.assertEqual([], [item for item in changes["nxn"]["changed"] if item["only_old"] + item["only_new"] > 0])

    def test_stages_that_one_lacks(self):
        plain = write_yaml(self.path("plain.yaml"), family={"locales": ["af-ZA", "fr-FR", "sw-KE"]}, shards={"dir": "none"}, result=self.path("plain.h5"))
        self.good("run", "-q", "-c", plain)
        small = f"{SOURCE}/tests/data/small-result.h5"
        changes = self.diff(self.path("plain.h5"), small)
        self.assertIsNone(changes["grid"])
        self.assertEqual((["fr-FR"], ["cy-GB", "en-US"]), (changes["sources"]["only_old"], changes["sources"]["only_new"]))
        self.assertEqual((1, 0), (changes["task_vector_cosine"]["pairs"], changes["nxn"]["compared"]))
        self.assertIn("targets only in the new: cy-GB sw-KE", self.good("diff", self.path("plain.h5"), small).stdout)

    def test_refused(self):
        small = f"{SOURCE}/tests/data/small-result.h5"
        self.refused("diff", small, code=2, says="an argument is missing")
        self.refused("diff", small, small, small, code=2, says="one argument too many")
        self.refused("diff", small, self.path("none.h5"), says="none.h5")
        self.refused("diff", f"{BASE}/config.json", small, says="config.json")
        damaged = self.path("damaged.h5")
        shutil.copy(small, damaged)
        with open(damaged, "r+b") as file:
            file.seek(os.path.getsize(damaged) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        self.refused("diff", small, damaged, says="damaged.h5")


class Microscopes(Differences):
    """Setups, and every number of theirs against what h5py reads."""
    IDS = ["af-ZA", "fr-FR", "sw-KE", "de-DE"]
    OLD = {"same": {"source": "fr-FR"}, "gone": {"source": "de-DE"}, "retrained": {"method": "average", "sources": ["fr-FR", "sw-KE"]},
           "denser": {"method": {"ties": {"density": 0.2}}, "sources": ["fr-FR", "de-DE"]}, "base": {"base": True},
           "few": {"method": "average", "locale": "af-ZA", "num_languages": 2}, "more": {"method": "average", "locale": "af-ZA", "num_languages": 20},
           "back": {"path": "none"}}
    TABLES = {"parameter_deltas": ["parameter"], "attentions": ["layer", "head"], "hidden_states": ["layer"], "logits": []}

    def scope_run(self, name, setups, retrained=False, failed=0, reference=None, shards="none", **more):
        sources = {id: PATTERN.format(locale="it-IT" if retrained and id == "sw-KE" else id) for id in self.IDS}
        config = write_yaml(self.path(f"{name}.yaml"), base=BASE, sources=sources, shards={"dir": shards}, stages=["compatibility", "microscope"],
                            texts={"files": f"{EMOJI}/texts/{{locale}}.jsonl"}, grid={"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv"}},
                            microscope={"reference": reference or {"source": "af-ZA"}, "setups": setups, **more}, result=self.path(f"{name}.h5"))
        if failed:
            self.refused("run", "-q", "-c", config, code=3, says=f"{failed} setups of the microscope failed")
        else:
            self.good("run", "-q", "-c", config)
        return self.path(f"{name}.h5")

    def rows(self, path, table, setup):
        """By what names a row: its numbers, in the order of the file."""
        with h5py.File(path) as file:
            columns = {name: item.asstr()[:] if item.dtype.kind == "O" else item[:] for name, item in file[f"microscope/{table}"].items()}
        numbers = [name for name in columns if columns[name].dtype == np.float64]
        return {tuple(columns[label][k] for label in self.TABLES[table]): {name: columns[name][k] for name in numbers}
                for k in range(len(columns["model"])) if columns["model"][k] == setup}

    def check_numbers(self, old, new, item):
        told = {table["table"]: table for table in item["numbers"]}
        if (item["old"], item["new"]) != ("completed", "completed"):  # there is nothing to compare
            return self.assertEqual({}, told)
        for table in self.TABLES:
            was, now = self.rows(old, table, item["setup"]), self.rows(new, table, item["setup"])
            both = [key for key in now if key in was]
            changed = {name: [key for key in both if was[key][name] != now[key][name]] for key in both[:1] for name in now[key]}
            rows = {key for keys in changed.values() for key in keys}
            if not rows and was.keys() == now.keys():
                self.assertNotIn(table, told, item["setup"])
                continue
            mine = told.pop(table)
            self.assertEqual((len(both), len(rows), len(was) - len(both), len(now) - len(both)),
                             (mine["rows"], mine["changed"], mine["only_old"], mine["only_new"]))
            self.assertEqual({name for name, keys in changed.items() if keys}, {column["column"] for column in mine["columns"]})
            for column in mine["columns"]:
                name = column["column"]
                most = max(changed[name], key=lambda key: abs(now[key][name] - was[key][name]))
                self.assertEqual((len(changed[name]), now[most][name] - was[most][name]), (column["changed"], column["largest"]))
                self.assertEqual(column["at"], " ".join(f"{label} {part}" for label, part in zip(self.TABLES[table], most)).removeprefix("parameter "))
        self.assertEqual({}, told)

    def changed(self, old, new):
        """What diff says of setups that changed, by name, once its numbers are checked; and all of it."""
        scope = self.diff(old, new)["microscope"]
        for item in scope["setups"]["changed"]:
            self.check_numbers(old, new, item)
        return {item["setup"]: item for item in scope["setups"]["changed"]}, scope

    def test_nothing_changed(self):
        setups = {name: setup for name, setup in self.OLD.items() if name != "more"}
        old = self.scope_run("old", setups)
        new = self.scope_run("new", {**setups, "same": {"source": "fr-FR", "note": "a note is no input"}})
        changed, scope = self.changed(old, new)
        self.assertEqual({}, changed)
        self.assertEqual((8, 8 - 1, [], [], 0, 0), tuple(scope[name] for name in (
            "both", "same_recipe", "only_old", "only_new", "newly_failed", "newly_completed")))  # of `back` nothing is known
        self.assertEqual([], scope["conditions"]["changed"])
        text = self.good("diff", old, new).stdout
        self.assertIn("8 setups in both (the reference among them), 0 only in the old, 0 only in the new", text)
        self.assertIn("0 have other inputs, another status or other numbers", text)

    def test_what_changed(self):
        old = self.scope_run("old", self.OLD, failed=1)
        shutil.copytree(PATTERN.format(locale="bn-BD"), self.path("none"))
        new = self.scope_run("new", {"fresh": {"source": "de-DE"}, **{name: setup for name, setup in self.OLD.items() if name != "gone"},
                                     "denser": {"method": {"ties": {"density": 0.5}}, "sources": ["fr-FR", "de-DE"]},
                                     "few": {"method": "average", "locale": "af-ZA", "num_languages": 20},
                                     "more": {"method": "average", "locale": "af-ZA", "num_languages": 2}}, retrained=True, failed=1)
        changed, scope = self.changed(old, new)
        self.assertEqual((8, ["gone"], ["fresh"], 3, 1, 2), tuple(scope[name] for name in (
            "both", "only_old", "only_new", "same_recipe", "newly_failed", "newly_completed")))
        self.assertEqual(["retrained", "denser", "few", "more", "back"], list(changed))
        inputs = {name: {value["name"]: (value["old"], value["new"]) for value in item["inputs"]["changed"]} for name, item in changed.items()}
        source, = self.diff(old, new)["inputs"]["changed"]
        self.assertEqual({"source sw-KE": (source["old"], source["new"])}, inputs["retrained"])
        self.assertEqual({"ties.density": ("0.2", "0.5")}, inputs["denser"])
        self.assertEqual(({"num_languages": ("2", "20")}, {"num_languages": ("20", "2")}, {}), (inputs["few"], inputs["more"], inputs["back"]))
        self.assertEqual([("completed", "failed"), ("failed", "completed"), ("skipped", "completed")],
                         [(changed[name]["old"], changed[name]["new"]) for name in ("few", "more", "back")])
        self.assertIn("num_languages is 20", changed["few"]["new_error"])
        self.assertEqual(set(self.TABLES), {table["table"] for table in changed["retrained"]["numbers"]})
        text = self.good("diff", old, new).stdout
        for said in ("only in the old: gone", "only in the new: fresh", "3 are made from the same; 1 failed now and not before, 2 completed now",
                     "5 have other inputs", "ties.density                 0.2\n", " rows changed; delta_l2 most at roberta."):
            self.assertIn(said, text)
        self.assertIn("… and 3 more (--top)", self.good("diff", old, new, "--top", "2").stdout)

    def test_how_they_are_looked_at(self):
        """Another reference and other padding change numbers, not what setups are made from."""
        setups = {"one": {"source": "fr-FR"}, "base": {"base": True}}
        old = self.scope_run("old", setups)
        new = self.scope_run("new", setups, reference={"base": True}, padding="include", probes={"locale": "af-ZA", "partition": "test", "limit": 9})
        changed, scope = self.changed(old, new)
        self.assertEqual(["reference", "probe_source", "probes", "padding"], [value["name"] for value in scope["conditions"]["changed"]])
        self.assertEqual((3, 2), (scope["both"], scope["same_recipe"]))
        self.assertEqual(["reference", "one", "base"], list(changed))
        self.assertEqual((["source", "source af-ZA"], []), tuple([value["name"] for value in changed[name]["inputs"]["changed"]] for name in (
            "reference", "one")))
        deltas = next(table for table in changed["one"]["numbers"] if table["table"] == "parameter_deltas")
        self.assertEqual((4, 0), (deltas["only_old"], deltas["only_new"]))  # the base has no head
        self.assertIn("all are looked at with something else:", self.good("diff", old, new).stdout)

    def test_where_files_lie(self):
        """A checkpoint that lies elsewhere, and sources of another order, are the same: a shard goes by what is in it."""
        setups = {"one": {"source": "fr-FR"}, "two": {"method": "linear", "sources": {"fr-FR": 1, "af-ZA": 3}}}
        old = self.scope_run("old", setups, shards="shards")
        moved = self.path("moved")
        shutil.copytree(PATTERN.format(locale="fr-FR"), moved)
        config = write_yaml(self.path("new.yaml"), base=BASE, shards={"dir": "shards"}, stages=["compatibility", "microscope"], result=self.path("new.h5"),
                            sources={"fr-FR": moved, **{id: PATTERN.format(locale=id) for id in self.IDS if id != "fr-FR"}},
                            microscope={"reference": {"source": "af-ZA"}, "setups": setups})
        self.good("run", "-q", "-c", config)
        changed, scope = self.changed(old, self.path("new.h5"))
        self.assertEqual((3, 3), (scope["both"], scope["same_recipe"]))
        self.assertEqual([], [item["inputs"]["changed"] for item in changed.values() if item["inputs"]["changed"]])

    def test_cells(self):
        """A setup that is a cell has the cell's recipe."""
        paths, keys = {}, None
        for name in ("plain", "old", "new"):
            setups = {"cell": {"cell": keys[0][:8]}, "other": {"cell": keys[0][:9] if name == "old" else keys[1]}} if keys else {}
            sources = {id: PATTERN.format(locale="it-IT" if name == "new" and id == "fr-FR" else id) for id in self.IDS}
            config = write_yaml(self.path(f"{name}.yaml"), base=BASE, sources=sources, shards={"dir": "none"}, stages=["grid", "microscope"],
                                texts={"files": f"{EMOJI}/texts/{{locale}}.jsonl"}, nxn={"targets": ["sw-KE"]},
                                grid={"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv"}, "fixed": {"locale": "sw-KE", "num_languages": 3},
                                      "sweep": {"method": ["average", "ties"]}},
                                microscope={"reference": {"base": True}, "setups": setups}, result=self.path(f"{name}.h5"))
            self.good("run", "-q", "-c", config)
            paths[name] = self.path(f"{name}.h5")
            with h5py.File(paths[name]) as file:
                keys = list(file["grid/cells/key"].asstr()[:])
        changed, _ = self.changed(paths["old"], paths["new"])
        inputs = {name: [value["name"] for value in item["inputs"]["changed"]] for name, item in changed.items()}
        self.assertEqual({"cell": ["recipe", "source fr-FR"], "other": ["method", "cell", "recipe", "source fr-FR"]}, inputs)

    def test_only_one_has_it(self):
        path, plain = self.scope_run("a", {"one": {"source": "fr-FR"}}), self.path("plain.h5")
        self.good("run", "-q", "-c", write_yaml(self.path("plain.yaml"), family={"locales": ["af-ZA", "fr-FR"]}, shards={"dir": "none"}, result=plain))
        self.assertIsNone(self.diff(path, plain)["microscope"])
        self.assertIn("microscope: only the old has one", self.good("diff", path, plain).stdout)
        self.assertIn("microscope: only the new has one", self.good("diff", plain, path).stdout)


if __name__ == "__main__":
    unittest.main()
