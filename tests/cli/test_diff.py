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


class Diff(Case):
    def grid_run(self, name, sources=None, texts=f"{EMOJI}/texts/{{locale}}.jsonl", methods=("similarity", "ties", "best_source"), **more):
        sources = {id: PATTERN.format(locale=id) for id in IDS} if sources is None else sources
        config = write_yaml(self.path(f"{name}.yaml"), base=BASE, sources=sources, texts={"files": texts}, shards={"dir": "none"},
                            stages=["compatibility", "nxn", "grid"], nxn={"targets": TARGETS},
                            grid={"similarity": {"REAL": "nxn"}, "fixed": {"include_target": True, "similarity_type": "REAL"},
                                  "sweep": {"locale": "all", "num_languages": [2, 3], "method": list(methods)}},
                            result=self.path(f"{name}.h5"), **more)
        self.good("run", "-q", "-c", config)
        return self.path(f"{name}.h5")

    def diff(self, old, new):
        return json.loads(self.good("diff", "--json", old, new).stdout)

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


if __name__ == "__main__":
    unittest.main()
