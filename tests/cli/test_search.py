"""mergegrid search: every subset against NumPy and itertools, what it goes by, what it prints, and what can be wrong."""
import csv
import io
import itertools
import json
import os
import signal
import subprocess
import time
import unittest

from common import BINARY, EMOJI, SOURCE, Case, command, environment, h5py, np, write_checkpoint, write_yaml

SMALL = f"{SOURCE}/tests/data/small-result.h5"
URIEL = f"{EMOJI}/uriel_similarity.csv"
SCORES = ("similarity", "compatibility", "cka", "interference")
IDS = ["a", "b", "c", "d", "e", "f", "g", "h", "t"]
LOCALES = ["af-ZA", "de-DE", "en-US", "fr-FR", "nl-NL", "sw-KE"]


def scores(members, weights, similarity, cosine, dot, cka=None):
    """Of a subset (indexes), by the formulas of the documentation."""
    pairs = list(itertools.combinations(members, 2))
    w = np.array([weights[m] for m in members]) / sum(weights[m] for m in members)
    gram = dot[np.ix_(members, members)]
    return {"similarity": np.mean([similarity[m] for m in members]),
            "compatibility": np.mean([cosine[p] for p in pairs]) if pairs else None,
            "cka": np.mean([cka[p] for p in pairs]) if pairs and cka is not None else None,
            "interference": 1 - np.sqrt(w @ gram @ w) / (w @ np.sqrt(np.diag(gram))) if pairs else None}


class Search(Case):
    def search(self, result, locale, k, *args):
        return json.loads(self.good("search", result, "--locale", locale, "-k", k, "--json", *args).stdout)

    def refuse(self, result, locale, k, *args, **expected):
        return self.refused("search", result, "--locale", locale, "-k", k, *args, **expected)

    # ---- a family of random tensors, and what its sources are to t ----

    def family(self):
        """Nine sources, the last one t's own; d is not similar, h is the base itself, and x has no checkpoint."""
        rng = np.random.default_rng(5)
        shapes = {"embed.weight": (40, 8), "layer.0.weight": (30, 8), "layer.1.weight": (20, 8), "classifier.weight": (5, 8)}
        base = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        common = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        self.tau = []
        write_checkpoint(self.path("base"), base, dtype="F64")
        for k, name in enumerate(IDS):
            size = 0 if name == "h" else 1 + k / 4
            tau = {t: size * (rng.standard_normal(shape) + 0.5 * common[t]) for t, shape in shapes.items()}
            write_checkpoint(self.path(f"source_{name}"), {t: base[t] + tau[t] for t in base}, dtype="F64")
            self.tau.append(np.concatenate([tau[t].ravel() for t in shapes if t != "classifier.weight"]))
        labels = IDS + ["x"]
        self.matrix = rng.uniform(0.1, 1, (len(labels), len(labels)))
        self.matrix[labels.index("d"), labels.index("t")] = -0.25
        self.write_matrix("m.csv", labels, self.matrix)
        return {name: self.matrix[k, labels.index("t")] for k, name in enumerate(labels)}

    def write_matrix(self, name, labels, values):
        with open(self.path(name), "w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["", *labels])
            rows.writerows([label, *map(repr, map(float, row))] for label, row in zip(labels, values))
        return self.path(name)

    def compared(self, level="tensor"):
        config = write_yaml(self.path(f"{level}.yaml"), base=self.path("base"), sources=self.path("source_{locale}"), shards={"dir": "none"},
                            compatibility={"gram": level}, result=self.path(f"{level}.h5"))
        self.good("run", "-c", config)
        return self.path(f"{level}.h5")

    def check(self, found, k, candidates, expected, top=None):
        """Lists against all subsets of the candidates in their order; expected: members -> scores."""
        every = [(subset, expected(subset)) for subset in itertools.combinations(candidates, k)]
        self.assertEqual((found["subsets"], found["searched"]), (len(every), len(every)))
        for by, listed in found["best"].items():
            ranked = sorted((s for s in every), key=lambda s: s[1][by] if by == "interference" else -s[1][by])
            self.assertEqual(len(listed), min(top or len(every), len(every)))
            for got, (subset, wanted) in zip(listed, ranked):
                self.assertEqual(sorted(got["sources"]), sorted(subset))
                for name in SCORES:
                    if wanted[name] is None:
                        self.assertIsNone(got[name])
                    else:
                        self.assertAlmostEqual(got[name], wanted[name], places=6)
                self.assertAlmostEqual(sum(got["sources"].values()), 1, places=12)

    def test_against_the_task_vectors_themselves(self):
        similarity = self.family()
        tau = np.array(self.tau)
        dot = tau @ tau.T
        with np.errstate(invalid="ignore"):
            cosine = dot / np.sqrt(np.outer(np.diag(dot), np.diag(dot)))
        line = [similarity[name] for name in IDS]
        for level in ("tensor", "layer", "total"):
            result = self.compared(level)
            for options, weights in (((), line), (("--weights", "equal"), [1] * len(IDS))):
                for k in (1, 2, 4, 6):
                    of = lambda subset: scores([IDS.index(s) for s in subset], weights, line, cosine, dot)
                    found = self.search(result, "t", k, "--similarity", self.path("m.csv"), "--top", 1000, *options)
                    self.assertEqual(list(found["best"]), ["similarity"] if k == 1 else ["similarity", "compatibility", "interference"])
                    self.check(found, k, "abcefg", of)
        found = self.search(result, "t", 3, "--similarity", self.path("m.csv"), "--include-target", "--top", 7)
        self.check(found, 3, "abcefgt", lambda s: scores([IDS.index(m) for m in s], line, line, cosine, dot), top=7)
        self.assertEqual(found["candidates"], {name: similarity[name] for name in "abcefgt"})
        nearest = sorted(sorted("abcefg", key=lambda name: -similarity[name])[:4])
        found = self.search(result, "t", 2, "--similarity", self.path("m.csv"), "--candidates", 4, "--top", 100)
        self.check(found, 2, nearest, lambda s: scores([IDS.index(m) for m in s], line, line, cosine, dot))

    def test_what_has_no_direction_is_left_out_and_said(self):
        self.family()
        result = self.compared()
        args = ("search", result, "--locale", "t", "-k", 6, "--similarity", self.path("m.csv"))
        self.assertIn("h is left out", self.good(*args, "--quiet").stderr)
        self.refuse(result, "t", 7, "--similarity", self.path("m.csv"), says=(result, "-k 7", "target t has 6 candidates"))

    def test_ties_keep_the_order_of_the_sources(self):
        self.family()
        result = self.compared()
        same = self.write_matrix("same.csv", list(reversed(IDS)), np.full((9, 9), 0.5))
        found = self.search(result, "t", 3, "--similarity", same, "--by", "similarity", "--top", 50)
        self.assertEqual([list(s["sources"]) for s in found["best"]["similarity"]], [list(s) for s in itertools.combinations("abcdefg", 3)])

    def test_scale_of_a_similarity_does_not_matter(self):
        self.family()
        result = self.compared()
        tiny = self.write_matrix("tiny.csv", IDS + ["x"], self.matrix * 2.0**-900)
        plain, scaled = (self.search(result, "t", 3, "--similarity", path)["best"]["interference"] for path in (self.path("m.csv"), tiny))
        for a, b in zip(plain, scaled):
            self.assertEqual((a["sources"], a["interference"]), (b["sources"], b["interference"]))

    def test_nan_in_a_matrix_counts_as_0_and_is_said(self):
        self.family()
        result = self.compared()
        self.matrix[IDS.index("b"), IDS.index("t")] = np.nan
        path = self.write_matrix("nan.csv", IDS + ["x"], self.matrix)
        done = self.good("search", result, "--locale", "t", "-k", 2, "--similarity", path, "--json")
        self.assertIn("NaN count as 0: b t", done.stderr)
        self.assertEqual(list(json.loads(done.stdout)["candidates"]), list("acefg"))

    # ---- the committed result: CKA, and nxn as similarity ----

    def test_cka_and_nxn(self):
        with h5py.File(SMALL) as file:
            ids, targets = list(file["sources/id"].asstr()[:]), list(file["targets"].asstr()[:])
            dot = file["compatibility/gram/source_dot"][:][file["tensors/selected"][:]].sum(axis=0)
            cosine, cka = file["compatibility/task_vector_cosine"][:], file["compatibility/cka"][-1]
            accuracy = file["nxn_select/accuracy"][:]
        for target in targets:
            line = accuracy[:, targets.index(target)]
            of = lambda s: scores([ids.index(m) for m in s], line, line, cosine, dot, cka)
            candidates = [name for name in ids if name != target and line[ids.index(name)] > 0]
            for k in range(1, len(candidates) + 1):
                self.check(self.search(SMALL, target, k, "--similarity", "nxn"), k, candidates, of, top=5)

    def test_text_and_csv_say_the_same(self):
        args = ("search", SMALL, "--locale", "sw-KE", "-k", 2, "--similarity", "nxn")
        found = self.search(SMALL, "sw-KE", 2, "--similarity", "nxn")
        rows = list(csv.DictReader(io.StringIO(self.good(*args, "--csv").stdout)))
        text = self.good(*args).stdout
        self.assertIn("3 subsets of 2 of 3 candidates for sw-KE", text)
        listed = [(by, k + 1, row) for by in SCORES for k, row in enumerate(found["best"][by])]
        self.assertEqual(len(rows), len(listed))
        for row, (by, rank, wanted) in zip(rows, listed):
            self.assertEqual((row["by"], int(row["rank"])), (by, rank))
            self.assertEqual([float(row[name]) for name in SCORES], [wanted[name] for name in SCORES])
            sources = ",".join(f"{name}:{share:.3f}" for name, share in wanted["sources"].items())
            self.assertEqual(row["sources"], sources)
            self.assertIn(f"{rank:4}  {wanted['similarity']:10.6g}  {wanted['compatibility']:13.5f}  {wanted['cka']:8.5f}  "
                          f"{wanted['interference']:12.5f}  {sources}\n", text[text.index(f"best by {by}"):])
        self.assertEqual(text, self.good(*args, "--quiet").stdout)
        self.assertEqual(self.good(*args, "--quiet").stderr, "")

    # ---- a grid, and what it is told to sweep ----

    def grid(self, name, sections):
        sections = {"family": {"locales": LOCALES}, "shards": {"dir": self.path("shards")}, "texts": {"files": f"{EMOJI}/texts/{{locale}}.jsonl"},
                    "stages": ["grid"], "nxn": {"targets": ["sw-KE"], "logits": False}, "result": self.path(f"{name}.h5"), **sections}
        return write_yaml(self.path(f"{name}.yaml"), **sections), self.path(f"{name}.h5")

    def test_a_grid_takes_what_is_found(self):
        """By the grid's own matrices; the first by similarity is its choice, and what --yaml prints is planned and merged."""
        config, result = self.grid("a", {"compatibility": {"metrics": ["task_vector_cosine", "cka"]}, "grid": {"similarity": {"URIEL": URIEL, "REAL": "nxn"}, "fixed": {"num_languages": 3, "locale": "sw-KE"},
                                                  "sweep": {"similarity_type": ["URIEL", "REAL"], "method": ["similarity"]}}})
        self.good("run", "-c", config, ranks=2)
        with h5py.File(result) as file:
            chosen = file["grid/cells/sources"].asstr()[:]
        for name, cell in zip(("URIEL", "REAL"), chosen):
            found = self.search(result, "sw-KE", 3, "--similarity", name)
            self.assertEqual(found["similarity"], name)
            first = found["best"]["similarity"][0]["sources"]
            self.assertEqual(",".join(f"{source}:{share:.3f}" for source, share in first.items()), cell)
        self.assertEqual(self.search(result, "sw-KE", 3)["similarity"], "URIEL")
        self.assertIn("similarity URIEL (there is also REAL), weights", self.good("search", result, "--locale", "sw-KE", "-k", 3).stdout)
        self.assertEqual(self.search(result, "sw-KE", 3, "--similarity", "nxn")["best"], self.search(result, "sw-KE", 3, "--similarity", "REAL")["best"])
        self.refuse(result, "sw-KE", 3, "--similarity", "URIAL", says=("URIAL (URIEL?)", result, "URIEL, REAL", "nxn"))
        for options, method in ((("--top", 2), "linear"), (("--weights", "equal", "--top", 2), "average")):
            found = self.search(result, "sw-KE", 3, *options)
            wanted = []
            for row in (row for by in SCORES for row in found["best"][by]):
                if row["sources"] not in wanted:
                    wanted.append(row["sources"])
            section = self.good("search", result, "--locale", "sw-KE", "-k", 3, "--yaml", *options).stdout
            swept, path = self.grid(method, {})
            with open(swept, "a") as file:
                file.write(section)
            self.assertIn(f"{len(wanted)} cells", self.good("plan", "-c", swept).stdout)
            self.good("run", "-c", swept, ranks=2)
            with h5py.File(path) as file:
                ids, weights = list(file["sources/id"].asstr()[:]), file["grid/weights"][:]
                self.assertEqual(set(file["grid/cells/method"].asstr()[:]), {method})
                self.assertEqual(set(file["grid/cells/status"].asstr()[:]), {"completed"})
            np.testing.assert_allclose(weights, [[row.get(name, 0) for name in ids] for row in wanted], rtol=1e-12)

    # ---- results that hold only some stages ----

    def test_without_compatibility(self):
        result = self.path("r.h5")
        subprocess.run([f"{os.path.dirname(BINARY)}/test_grid", result], check=True)
        self.refuse(result, "sw-KE", 2, says=(result, "has no stage compatibility", "--by similarity"))
        self.refuse(result, "sw-KE", 2, "--by", "interference", says=("--by interference", result, "has no stage compatibility"))
        found = self.search(result, "sw-KE", 2, "--by", "similarity", "--top", 9)
        with h5py.File(result) as file:
            labels, value = list(file["grid/similarity/URIEL/label"].asstr()[:]), file["grid/similarity/URIEL/value"][:]
            ids = list(file["sources/id"].asstr()[:])
        line = {name: value[labels.index(name), labels.index("sw-KE")] for name in ids if name != "sw-KE"}
        candidates = [name for name in line if line[name] > 0]
        ranked = sorted(itertools.combinations(candidates, 2), key=lambda s: -sum(line[name] for name in s))
        self.assertEqual([set(row["sources"]) for row in found["best"]["similarity"]], [set(s) for s in ranked])
        self.assertTrue(all(row["interference"] is None for row in found["best"]["similarity"]))

    def test_without_similarity_cka_or_nxn(self):
        self.family()
        result = self.compared()
        self.refuse(result, "t", 2, says=(result, "no similarity matrix", "--similarity"))
        self.refuse(result, "t", 2, "--similarity", "nxn", says=(result, "no stage nxn"))
        self.refuse(result, "t", 2, "--similarity", self.path("m.csv"), "--by", "cka", says=("--by cka", result, "/compatibility/cka"))

    # ---- what is wrong ----

    def test_wrong_arguments(self):
        for args, says in (([], "argument"), ([SMALL], "--locale"), ([SMALL, "--locale", "sw-KE"], "-k K"), ([SMALL, "again.h5"], "again.h5"),
                           ([SMALL, "--locale", "sw-KE", "-k", "0"], "(-k): '0'"), ([SMALL, "--locale", "sw-KE", "-k", "two"], "(-k): 'two'"),
                           ([SMALL, "--locale", "sw-KE", "-k", "2", "--weights", "even"], "--weights: 'even'"),
                           ([SMALL, "--locale", "sw-KE", "-k", "2", "--json", "--yaml"], "exclude each other"),
                           ([SMALL, "--locale", "sw-KE", "-k", "2", "--similarity", "nxn", "--by", "cak"], "is cka meant?"),
                           ([SMALL, "--locale", "sw-KE", "-k", "2", "--similarty", "nxn"], "--similarity is meant?")):
            self.refused("search", *args, code=2, says=says)
        nxn = ("--similarity", "nxn")
        self.refuse(self.path("none.h5"), "sw-KE", 2, *nxn, says="none.h5")
        self.refuse(f"{SOURCE}/configs/example.yaml", "sw-KE", 2, *nxn, says=("example.yaml", "no mergegrid result"))
        self.refuse(SMALL, "sw-EK", 2, *nxn, says=(SMALL, "target sw-EK", "sw-KE?"))
        self.refuse(SMALL, "sw-EK", 2, "--similarity", URIEL, says=(SMALL, URIEL, "target sw-EK", "sw-KE?"))
        self.refuse(SMALL, "sw-KE", 4, *nxn, says=(SMALL, "-k 4", "sw-KE has 3 candidates", "nxn"))
        self.refuse(SMALL, "sw-KE", 2, "--similarity", self.path("none.csv"), says=("none.csv", "there is no such file"))
        self.refuse(SMALL, "sw-KE", 1, *nxn, "--by", "interference", says=("--by interference", "-k 2"))

    def many(self):
        """Seventy sources: subsets of 20 of them would take ages."""
        base, sources = self.make_family("many", "-n", 70, "--shape", "tiny")
        config = write_yaml(self.path("many.yaml"), base=base, sources=sources, shards={"dir": "none"}, result=self.path("many.h5"))
        self.good("run", "-c", config)
        with h5py.File(self.path("many.h5")) as file:
            ids = list(file["sources/locale"].asstr()[:])
        return self.path("many.h5"), ids[0], self.write_matrix("many.csv", ids, np.random.default_rng(1).uniform(0.1, 1, (70, 70)))

    def test_too_many_are_refused_and_a_signal_ends_it(self):
        result, target, matrix = self.many()
        began = time.monotonic()
        done = self.refuse(result, target, 20, "--similarity", matrix, says=("1.16e+17 subsets of 20 of 69 candidates", "--candidates", "--max-hours"))
        self.assertLess(time.monotonic() - began, 30)
        self.assertRegex(done.stderr, r"would take [0-9.e+]+ years, at [0-9]+ million a second")
        args = command("search", result, "--locale", target, "-k", 20, "--similarity", matrix, "--max-hours", "1e12", "--json", "--top", 2)
        process = subprocess.Popen(args, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 75, err)
        self.assertIn("million subsets", err)
        self.assertRegex(err, r"stopped: [0-9]+ of 1[.]16e[+]17 subsets were searched")
        found = json.loads(out)
        self.assertLess(found["searched"], found["subsets"])
        self.assertEqual([len(found["best"][by]) for by in ("similarity", "compatibility", "interference")], [2, 2, 2])


if __name__ == "__main__":
    unittest.main(verbosity=2)
