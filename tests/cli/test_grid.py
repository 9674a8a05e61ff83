"""The stage grid over the whole program: what cells come to, one set of bits, continuing and extending, and what can go wrong."""
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

from common import BASE, EMOJI, PATTERN, SOURCE, Case, command, environment, h5py, np, result_bits, run, safetensors, write_safetensors, write_yaml

TEXTS = f"{EMOJI}/texts/{{locale}}.jsonl"
URIEL = f"{EMOJI}/uriel_similarity.csv"
LOCALES = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
METHODS = ["similarity", "average", "task_arithmetic", {"ties": {"density": [0.2, 0.5]}}, {"ties": {"trim": "global"}},
           {"dare_linear": {"density": 0.5}}, {"dare_ties": {"density": 0.5, "rescale": "l1"}}, "magmax", "model_stock", "slerp",
           "similarity_x_tv_compatibility", "own", "best_source", "best_zero_shot", "majority", "weighted_majority", "soft", "uriel_logits"]
SWEEP = {"locale": ["sw-KE", "af-ZA"], "similarity_type": ["URIEL", "REAL"], "method": METHODS}


def strings(dataset):
    return [value.decode() for value in dataset[()]]


class Cells:
    """A result's cells as columns of numpy arrays."""

    def __init__(self, path):
        with h5py.File(path) as f:
            self.columns = {name: np.array(strings(d)) if d.dtype.kind == "O" else d[()] for name, d in f["grid/cells"].items()}
            self.weights, self.selected = f["grid/weights"][()], f["grid/selected"][()]
            self.predictions = {target: d[()] for target, d in f["grid/predictions"].items()}
            self.sources, self.locales, self.targets = strings(f["sources/id"]), strings(f["sources/locale"]), strings(f["targets"])
            self.labels = {target: f[f"texts/{target}/label"][()] for target in self.targets}
            self.partition = {target: np.array(strings(f[f"texts/{target}/partition"])) for target in self.targets}
            self.accuracy, self.select = f["nxn/accuracy"][()], f["nxn_select/accuracy"][()]
            self.nxn = {target: d[()] for target, d in f["nxn/predictions"].items()}
            self.logits = {target: d[()] for target, d in f["nxn/logits"].items()} if "nxn/logits" in f else {}

    def __getattr__(self, name):
        return self.columns[name]

    def __len__(self):
        return len(self.key)

    def where(self, **conditions):
        mask = np.ones(len(self), bool)
        for name, value in conditions.items():
            mask &= self.columns[name] == value
        return np.flatnonzero(mask)

    def row(self, k):
        return self.predictions[self.locale[k]][self.prediction_row[k]]


class Grid(Case):
    def config(self, name="a", locales=LOCALES, **more):
        sections = {"family": {"locales": list(locales)}, "shards": {"dir": self.path("shards")}, "texts": {"files": TEXTS},
                    "stages": ["compatibility", "nxn", "grid"], "nxn": {"targets": list(locales)},
                    "grid": {"similarity": {"URIEL": URIEL, "REAL": "nxn"}, "fixed": {"num_languages": 3}, "sweep": SWEEP},
                    "result": self.path(f"{name}.h5")}
        for key, value in more.items():
            sections[key] = {**sections[key], **value} if isinstance(sections.get(key), dict) else value
        return write_yaml(self.path(f"{name}.yaml"), **sections), self.path(f"{name}.h5")

    def made(self, *args, ranks=2, env=None, **options):
        config, path = self.config(*args, **options)
        self.good("run", "-c", config, ranks=ranks, env=env)
        return path

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    # ---- what cells come to ----

    def check_scores(self, cells):
        for k in cells.where(status="completed"):
            target = cells.locale[k]
            right = cells.row(k) == cells.labels[target]
            self.assertAlmostEqual(cells.columns["accuracy"][k], right[cells.partition[target] == "test"].mean(), places=12)
            self.assertAlmostEqual(cells.select_accuracy[k], right[cells.partition[target] == "dev"].mean(), places=12)
            column = cells.targets.index(target)
            accuracy = cells.nxn_accuracy[:, column]
            other = [s for s, locale in enumerate(cells.locales) if locale != target]
            self.assertAlmostEqual(cells.own[k], accuracy[cells.locales.index(target)], places=12)
            self.assertAlmostEqual(cells.best_zero_shot[k], accuracy[other].max(), places=12)
            self.assertAlmostEqual(cells.best_source[k], accuracy[cells.selected[k]].max(), places=12)
            self.assertAlmostEqual(cells.merging_effect[k], cells.columns["accuracy"][k] - accuracy[cells.selected[k]].mean(), places=12)
            self.assertEqual(cells.num_sources[k], cells.selected[k].sum())
            self.assertAlmostEqual(cells.weights[k].sum(), 1, places=12)

    def check_matched(self, cells):
        for k in range(len(cells)):
            matched = cells.where(locale=cells.locale[k], similarity_type=cells.similarity_type[k], method="similarity")
            self.assertEqual(len(matched), 1)
            if matched[0] == k:
                self.assertTrue(np.isnan(cells.delta_vs_similarity[k]))
            else:
                self.assertEqual(cells.matched[k], matched[0])
                self.assertAlmostEqual(cells.delta_vs_similarity[k], cells.columns["accuracy"][k] - cells.columns["accuracy"][matched[0]], places=12)

    def check_baselines(self, cells):
        for k in range(len(cells)):
            target = cells.locale[k]
            column = cells.targets.index(target)
            test = cells.partition[target] == "test"
            if cells.method[k] == "own":
                source = cells.locales.index(target)
            elif cells.method[k] == "best_zero_shot":
                source = max((s for s in range(len(cells.sources)) if cells.locales[s] != target), key=lambda s: cells.select[s, column])
            elif cells.method[k] == "best_source":
                of = cells.where(locale=target, similarity_type=cells.similarity_type[k], method="similarity")[0]
                source = max(np.flatnonzero(cells.selected[of]), key=lambda s: cells.select[s, column])
            else:
                continue
            np.testing.assert_array_equal(cells.row(k)[test], cells.nxn[target][source])

    def check_votes(self, cells):
        for k in range(len(cells)):
            target = cells.locale[k]
            test = cells.partition[target] == "test"
            voters = sorted(np.flatnonzero(cells.selected[k]), key=lambda s: -cells.weights[k, s])
            logits, weights = cells.logits[target][voters].astype(float), cells.weights[k, voters]
            if cells.method[k] in ("soft", "uriel_logits"):
                if cells.method[k] == "soft":
                    logits = np.exp(logits - logits.max(axis=2, keepdims=True))
                    logits /= logits.sum(axis=2, keepdims=True)
                expected = np.einsum("s,suc->uc", weights, logits).argmax(axis=1)
            elif cells.method[k] in ("majority", "weighted_majority"):
                votes, expected = logits.argmax(axis=2), []
                for column in votes.T:
                    tally = {}
                    for vote, weight in zip(column, weights):
                        tally[vote] = tally.get(vote, 0) + (1 if cells.method[k] == "majority" else weight)
                    expected.append(max(tally, key=tally.get))
            else:
                continue
            np.testing.assert_array_equal(cells.row(k)[test], expected)

    def check_choice(self, cells):
        """Plain similarity takes the three most similar others by the column, with their shares."""
        import csv
        with open(URIEL, encoding="utf-8") as file:
            rows = list(csv.reader(file))
        uriel = {(row[0], column): float(value) for row in rows[1:] for column, value in zip(rows[0][1:], row[1:])}
        for k in cells.where(method="similarity"):
            target = cells.locale[k]
            of = {locale: uriel[locale, target] if cells.similarity_type[k] == "URIEL" else cells.select[s, cells.targets.index(target)]
                  for s, locale in enumerate(cells.locales) if locale != target}
            best = sorted(of, key=lambda locale: -of[locale])[:3]
            total = sum(of[locale] for locale in best)
            for s, locale in enumerate(cells.locales):
                self.assertAlmostEqual(cells.weights[k, s], of[locale] / total if locale in best else 0, places=9)
            self.assertEqual(cells.sources_text[k].split(":")[0], best[0])

    def test_numbers(self):
        path = self.made()
        subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", path], check=True)
        self.good("verify", path)
        cells = Cells(path)
        cells.nxn_accuracy, cells.sources_text = cells.__dict__["accuracy"], cells.columns["sources"]
        self.assertEqual(len(cells), 2 * 2 * 19)
        self.assertEqual(set(cells.status), {"completed"})
        self.assertEqual(list(cells.locale[:38]), ["sw-KE"] * 38)
        self.check_scores(cells)
        self.check_matched(cells)
        self.check_baselines(cells)
        self.check_votes(cells)
        self.check_choice(cells)
        equal = cells.same_as >= 0
        self.assertTrue(equal[cells.method == "own"].any())  # the same whatever the similarity
        np.testing.assert_array_equal(cells.recipe[equal], cells.recipe[cells.same_as[equal]])
        self.assertEqual(len(set(cells.recipe[~equal])), (~equal).sum())
        again = self.good("run", "-c", self.path("a.yaml"))
        self.assertIn("nothing to do", again.stderr)

    # ---- one set of bits ----

    def test_same_bits(self):
        reference = result_bits(self.made())
        budget = {"compute": {"memory_budget": "230MiB"}}
        for name, ranks, more in (("one", 1, {}), ("three", 3, {}), ("five", 5, {}), ("plain", 0, {"compute": {"threads": 2}}),
                                  ("tight", 2, budget), ("none", 2, {"shards": {"dir": "none"}})):
            with self.subTest(name):
                path = self.made(name, ranks=ranks, **more)
                bits = result_bits(path)
                differ = [key for key in reference if bits.get(key) != reference[key] and not (name == "none" and key.startswith("grid/cells/recipe"))]
                self.assertEqual(differ, [])
                self.assertEqual(sorted(bits), sorted(reference))

    # ---- continuing and extending ----

    def test_killed_and_stopped(self):
        locales = ["sw-KE", "af-ZA", "en-US", "de-DE", "nl-NL"]
        grid = {"fixed": {}, "sweep": {**SWEEP, "locale": locales, "num_languages": [2, 3, 4]}}
        config, path = self.config("killed", grid=grid)
        whole, _ = self.config("whole", grid=grid)
        self.good("run", "-c", whole, ranks=2)
        reference = result_bits(self.path("whole.h5"))
        stops = 0
        for attempt, sign in enumerate((signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1, signal.SIGKILL)):
            with open(self.path("log"), "w", encoding="utf-8") as log:
                process = subprocess.Popen(command("run", "-c", config), env=environment(), stdout=subprocess.DEVNULL, stderr=log)
            while process.poll() is None and "in memory" not in self.read("log"):
                time.sleep(0.05)  # until it is at work on the grid
            time.sleep(0.3 + 0.2 * attempt)
            if process.poll() is None:
                process.send_signal(sign)
            code = process.wait(timeout=60)
            if code == 0:
                break
            stops += 1
            self.assertEqual(code, 75 if sign != signal.SIGKILL else -sign)
        self.assertGreater(stops, 0)
        done = self.good("run", "-c", config, ranks=3)
        self.same_bits(path, reference)
        self.assertEqual(self.state(path), "done")
        self.assertNotIn("error", done.stderr)

    def test_extended(self):
        small = {"locale": ["sw-KE"], "similarity_type": ["URIEL"], "method": ["similarity", "ties"]}
        config, path = self.config("a", grid={"sweep": small})
        self.good("run", "-c", config, ranks=2)
        before = Cells(path)
        config, _ = self.config("a", grid={"sweep": SWEEP})
        done = self.good("run", "-c", config, ranks=2)
        self.assertIn("2 of", done.stderr)
        self.assertIn("answers of 5 of 5 sources are taken", done.stderr)
        whole = self.made("whole")
        self.same_bits(path, result_bits(whole))
        with h5py.File(path) as f:
            self.assertEqual(sorted(strings(f["provenance/reused"])), sorted(before.recipe))
        config, _ = self.config("a", grid={"sweep": small})
        self.refused("run", "-c", config, says=("does not declare any more", "reuse: ["))
        self.same_bits(path, result_bits(whole))

    def test_a_stage_is_added(self):
        config, path = self.config("a", stages=["compatibility", "nxn"], grid={"sweep": {}})
        self.good("run", "-c", config, ranks=2)
        config, _ = self.config("a")
        done = self.good("run", "-c", config, ranks=2)
        self.assertIn("inner products are taken from", done.stderr)
        self.same_bits(path, result_bits(self.made("whole")))

    def test_reuse_after_one_checkpoint_changed(self):
        first = self.made("first")
        retrained = self.path("retrained")
        shutil.copytree(PATTERN.format(locale="nl-NL"), retrained)
        tensors = safetensors(f"{retrained}/model.safetensors")
        name = next(name for name in tensors if name.endswith("layer.0.output.dense.weight"))
        tensors[name] = tensors[name] * 1.5
        write_safetensors(f"{retrained}/model.safetensors", tensors)
        sources = {locale: retrained if locale == "nl-NL" else PATTERN.format(locale=locale) for locale in LOCALES}
        config, path = self.config("second", sources=sources, reuse=[first], shards={"dir": self.path("shards2")})
        done = self.good("run", "-c", config, ranks=2)
        self.assertIn("answers of 4 of 5 sources are taken", done.stderr)
        old, new = Cells(first), Cells(path)
        kept = np.isin(new.recipe, old.recipe)
        self.assertTrue(kept.any() and not kept.all())
        with h5py.File(path) as f:
            reused = set(strings(f["provenance/reused"]))
        self.assertTrue(reused <= set(old.recipe))
        nl = new.sources.index("nl-NL")
        self.assertFalse((kept & new.selected[:, nl]).any())
        config, fresh = self.config("fresh", sources=sources, shards={"dir": self.path("shards2")})
        self.good("run", "-c", config, ranks=2)
        self.same_bits(path, result_bits(fresh))

    def test_where(self):
        config, path = self.config("a")
        self.good("run", "-c", config, "--where", "method=ties|similarity,locale=sw-KE", ranks=2)
        cells = Cells(path)
        wanted = np.isin(cells.method, ["ties", "similarity"]) & (cells.locale == "sw-KE")
        self.assertEqual(list(cells.status == "completed"), list(wanted))
        self.assertEqual(set(cells.status[~wanted]), {"planned"})
        self.good("run", "-c", config, ranks=2)
        self.same_bits(path, result_bits(self.made("whole")))
        self.refused("run", "-c", config, "--where", "colour=red", code=2, says="colour")
        for no_cell in ("locale=zz-ZZ", "method=ties|nosuch"):
            self.refused("run", "-c", config, "--where", no_cell, ranks=2, code=2, says=(no_cell.split("=")[0], "there are"))

    def test_one_stage_of_three(self):
        """--stages grid brings those that it needs."""
        sweep = {"locale": ["sw-KE"], "similarity_type": ["URIEL"], "method": ["similarity", "soft"]}
        config, path = self.config("a", grid={"sweep": sweep})
        self.good("run", "-c", config, "--stages", "grid", ranks=2)
        self.same_bits(path, result_bits(self.made("whole", grid={"sweep": sweep})))
        config, path = self.config("b", stages=["grid"], grid={"sweep": sweep})
        self.good("run", "-c", config, "--stages", "grid")
        self.assertEqual(list(Cells(path).status), ["completed"] * 2)

    def test_one_stage_after_another(self):
        """What a result has stays, whichever stage is asked for next."""
        sweep = {"locale": ["sw-KE"], "similarity_type": ["REAL"], "method": ["similarity", "ties"]}
        config, path = self.config("a", grid={"sweep": sweep})
        for stage, groups in (("compatibility", ["compatibility"]), ("nxn", ["compatibility", "nxn"]), ("grid", ["compatibility", "grid", "nxn"])):
            self.good("run", "-c", config, "--stages", stage, ranks=2)
            with h5py.File(path) as file:
                self.assertEqual(sorted(set(file) & {"compatibility", "grid", "nxn"}), groups)
        self.good("run", "-c", config, "--stages", "nxn")  # nothing to do
        self.same_bits(path, result_bits(self.made("whole", grid={"sweep": sweep})))

    # ---- what is compared with what ----

    def check_counterparts(self, path, plain, but):
        """Every cell has the plain one that all terms but those of `but` agree with; those themselves have none."""
        cells = Cells(path)
        terms = [{key: value for key, value in json.loads(text).items() if key not in ("method", "parameters", *but)} for text in cells.terms]
        counts = [0, 0]
        for k in range(len(cells)):
            if cells.method[k] == plain:
                self.assertEqual(cells.matched[k], -1)
                self.assertTrue(np.isnan(cells.delta_vs_similarity[k]))
                counts[0] += 1
                continue
            mine = [j for j in range(len(cells)) if cells.method[j] == plain and terms[j] == terms[k]]
            self.assertEqual([cells.matched[k]], mine, (cells.method[k], terms[k]))
            self.assertEqual(cells.delta_vs_similarity[k], cells.columns["accuracy"][k] - cells.columns["accuracy"][mine[0]])
            counts[1] += 1
        return counts

    def test_counterparts_of_swept_terms(self):
        fixed = {"num_languages": 2, "locale": "sw-KE", "similarity_type": "URIEL"}
        methods = ["similarity", "average", "ties"]
        for name, preset, sweep, but in (("axis", "none", {"axis": ["column", "row"], "select": ["topk", "sinkhorn"], "top_k": [45]}, ()),
                                         ("head", "none", {"head": ["linear", "random"], "seed": [1, 2]}, ()),
                                         ("preset", "merginguriel", {"top_k": [40, 45], "duplicates": ["first", "keep"]},
                                          ("head", "drop_strongest", "lambda_rule"))):
            path = self.made(name, nxn={"targets": ["sw-KE"]},
                             grid={"fixed": {**fixed, "preset": preset}, "sweep": {**sweep, "method": methods}})
            if name == "head":  # a linear head goes by no seed: the first of the two is everyone's
                cells = Cells(path)
                for k in cells.where(head="linear", method="ties"):
                    self.assertEqual(cells.matched[k], cells.where(head="linear", method="similarity")[0])
                for k in cells.where(head="random", method="ties"):
                    self.assertEqual([cells.matched[k]], list(cells.where(head="random", method="similarity", seed=cells.seed[k])))
                self.assertTrue((cells.matched[cells.where(method="similarity")] == -1).all())
            else:
                self.assertEqual(self.check_counterparts(path, "similarity", but), [4, 8])

    def test_named_sources(self):
        """Layers left out are compared with the mean of the same sources; baselines take no part of the sources."""
        import sqlite3
        layers = [{"exclude_layers": {"layers": "0-1"}}, {"include_layers": {"layers": "0-1", "elsewhere": "best_source"}}]
        sweep = {"sources": [["en-US", "nl-NL"], ["af-ZA", "sw-KE", "de-DE"]], "method": ["average", *layers, "own", "best_source"]}
        path = self.made(nxn={"targets": ["sw-KE"]}, grid={"fixed": {"locale": "sw-KE"}, "sweep": sweep})
        cells = Cells(path)
        self.assertEqual(set(cells.status), {"completed"})
        self.assertEqual(self.check_counterparts(path, "average", ()), [2, 8])
        for k in cells.where(method="own"):
            self.assertEqual([cells.sources[s] for s in np.flatnonzero(cells.selected[k])], ["sw-KE"])
        self.good("export", path, "-o", self.path("out"))
        with sqlite3.connect(self.path("out/experiments.db")) as database:
            rows = database.execute("SELECT ablation_point, exclude_layers, baseline_accuracy, delta FROM layer_ablation ORDER BY id").fetchall()
        study = [k for k in range(len(cells)) if cells.method[k].endswith("_layers")]
        self.assertEqual(len(rows), 4)
        for row, k in zip(rows, study):
            point = "exclude_layers_0_1" if cells.method[k] == "exclude_layers" else "include_layers_0_1_on_best_source"
            out = "[0, 1]" if cells.method[k] == "exclude_layers" else "[2, 3]"
            self.assertEqual(row[:2], (point, out))
            self.assertAlmostEqual(row[2], cells.columns["accuracy"][cells.matched[k]], places=12)
            self.assertAlmostEqual(row[3], cells.delta_vs_similarity[k], places=12)

    # ---- what explain says of its numbers ----

    def explained(self, path, cells, k):
        return self.good("explain", path, cells.key[k]).stdout

    def test_numbers_that_follow_from_the_choice(self):
        layers = {"method": {"include_layers": {"layers": "0", "elsewhere": "best_source"}}}
        excluded = {"method": {"exclude_layers": {"layers": "0"}}, "drop_strongest": True}
        swapped = {"method": {"layer_swap": {"layers": "1"}}, "num_languages": 2}
        sweep = {"setup": [{"method": "ties", "lambda_rule": "merginguriel"}, {"method": "task_arithmetic", "preset": "merginguriel", "top_k": 50},
                           {"method": {"ties": {"lambda": 0.5}}, "lambda_rule": "merginguriel"},
                           {"method": "task_arithmetic", "lambda_rule": "merginguriel", "sources": {"af-ZA": 5, "en-US": 2, "nl-NL": 1}},
                           layers, excluded, {"method": "similarity"}, swapped]}
        path = self.made(grid={"fixed": {"num_languages": 3, "locale": "sw-KE", "similarity_type": "URIEL"}, "sweep": sweep})
        cells = Cells(path)
        texts = [self.explained(path, cells, k) for k in range(len(cells))]
        ids, shares = cells.sources, np.sort(cells.weights[6][cells.selected[6]])
        strongest = ids[cells.weights[6].argmax()]
        self.assertIn(f"lambda {shares[1]:.6g} by the rule merginguriel: the largest share of all but {strongest}, the strongest", texts[0])
        self.assertRegex(texts[1], r"lambda 0[.]\d+ by the rule merginguriel: the mean share of all but ..-.., the strongest")
        self.assertNotIn("by the rule", texts[2])
        self.assertIn(f"lambda {3 / 8 / 2:.6g} by the rule merginguriel: the mean share of all but af-ZA, the strongest", texts[3])
        for k, which in ((4, "the layers not named"), (5, "the layers named")):
            of = cells.select[:, cells.targets.index("sw-KE")] * (cells.weights[k] > 0)
            self.assertIn(f"{which} are those of {ids[of.argmax()]}, the best source: {of.max():.4f} on dev", texts[k])
        self.assertNotIn("the best source", texts[6])
        first, second = (ids[s] for s in np.argsort(-cells.weights[7])[:2])
        self.assertIn(f"the layers named are those of {second}, the others those of {first}", texts[7])

    def test_weights_by_compatibility(self):
        """Of the result's own stage and of a CSV: share, mean compatibility and weight; the file by name, and what became of it."""
        fixed = {"num_languages": 3, "locale": "sw-KE", "similarity_type": "URIEL"}
        sweep = {"method": ["similarity_x_tv_compatibility", "similarity"]}
        file = self.path("c.csv")
        value = np.random.default_rng(3).random((5, 5))
        with open(file, "w", encoding="utf-8") as out:
            out.write("," + ",".join(LOCALES) + "\n" + "".join(f"{a}," + ",".join(map(repr, map(float, row))) + "\n" for a, row in zip(LOCALES, value)))
        for name, more in (("stage", {}), ("file", {"compatibility": {"tv": file}})):
            path = self.made(name, grid={"fixed": fixed, "sweep": sweep, **more})
            cells = Cells(path)
            text = self.explained(path, cells, 0)
            if name == "stage":
                with h5py.File(path) as f:
                    table = dict(zip(cells.sources, f["compatibility/task_vector_cosine"][()]))
                self.assertIn("times the mean task-vector cosine with the other sources\n", text)
            else:
                table = dict(zip(LOCALES, value[:, [LOCALES.index(id_) for id_ in cells.sources]]))
                self.assertIn(f"times the mean compatibility of {file} with the other sources\n", text)
                self.assertNotIn("cosine", text)
            lines = text[text.index("\nweights: "):text.index("\nresult (test)")].split("\n")[3:-1]
            self.assertEqual(len(lines), 3, text)
            for line in lines:
                id_, share, mean, weight = line.split()
                s, chosen = cells.sources.index(id_), np.flatnonzero(cells.selected[0])
                self.assertAlmostEqual(float(share), cells.weights[1, s], places=3)
                self.assertAlmostEqual(float(mean), np.mean([table[id_][j] for j in chosen if j != s]), places=3)
                self.assertAlmostEqual(float(weight), cells.weights[0, s], places=3)
        with open(file, "w", encoding="utf-8") as out:
            out.write("," + ",".join(LOCALES) + "\n" + "".join(f"{a}," + ",".join("1" * 5) + "\n" for a in LOCALES))
        self.assertIn("the compatibilities have changed since", self.explained(path, cells, 0))
        os.remove(file)
        self.assertRegex(self.explained(path, cells, 0), "not to be had any more: .*c.csv")

    # ---- what can go wrong ----

    def test_a_compatibility_without_a_number(self):
        with open(self.path("c.csv"), "w", encoding="utf-8") as file:
            file.write("," + ",".join(LOCALES) + "\n")
            for row in LOCALES:
                pairs = {("en-US", "af-ZA"): "", ("sw-KE", "de-DE"): "nan", ("de-DE", "de-DE"): ""}
                file.write(row + "," + ",".join(pairs.get((row, column), "0.5") for column in LOCALES) + "\n")
        named = {"af-ZA": 1, "en-US": 1, "nl-NL": 1}
        sweep = {"setup": [{"sources": named}, {"sources": {"af-ZA": 1, "nl-NL": 1}}]}
        config, path = self.config("a", grid={"compatibility": {"tv": self.path("c.csv")}, "sweep": sweep,
                                              "fixed": {"method": "similarity_x_tv_compatibility", "locale": "sw-KE"}})
        done = self.good("run", "-c", config)
        note = f"{self.path('c.csv')}: entries that are NaN count as 0 (row and column): en-US af-ZA, sw-KE de-DE"
        self.assertEqual(done.stderr.count(note), 1, done.stderr)
        self.assertEqual(list(Cells(path).note), ["compatibilities (tv) that are NaN or lacking count as 0: en-US af-ZA", ""])

    def test_cells_that_fail(self):
        sweep = {"setup": [{"method": "similarity"}, {"method": "similarity", "num_languages": 40}, {"method": {"task_arithmetic": {"lambda": 100}}},
                           {"method": "ties", "locale": "xx-XX"}, {"method": "own", "locale": "vi-VN"},
                           {"method": {"linear": {"lambda": 100}}, "sources": {"af-ZA": 1, "huge": 1}}]}
        huge = self.path("huge")
        shutil.copytree(PATTERN.format(locale="nl-NL"), huge)
        tensors = safetensors(f"{huge}/model.safetensors")
        name = next(name for name in tensors if name.endswith("position_embeddings.weight"))
        tensors[name][-1] = 1e38  # no text is that long, so the model alone is in order
        write_safetensors(f"{huge}/model.safetensors", tensors)
        sources = {**{locale: PATTERN.format(locale=locale) for locale in LOCALES}, "huge": {"path": huge, "locale": "fy-NL"}}
        config, path = self.config("a", sources=sources, family={"locales": []}, nxn={"targets": ["sw-KE", "af-ZA"]},
                                   grid={"fixed": {"num_languages": 2, "locale": "sw-KE", "similarity_type": "URIEL"}, "sweep": sweep})
        done = self.refused("run", "-c", config, ranks=2, code=3, says="cells failed")
        cells = Cells(path)
        self.assertEqual(list(cells.status), ["completed", "failed", "completed", "failed", "failed", "failed"], done.stderr)
        for k, text in ((1, "num_languages is 40"), (3, "xx-XX"), (4, "vi-VN"), (5, "not finite")):
            self.assertIn(text, cells.error[k])
        self.assertEqual(self.state(path), "done")
        self.assertIn("position_embeddings.weight", cells.error[5])
        self.refused("run", "-c", config, code=3, says="cells failed")  # and nothing is computed again
        self.assertIn("failed", self.good("show", path).stdout)

    def test_why_there_are_too_few(self):
        """Texts that nxn.targets leaves out, entries that were not evaluated, a target without a model: none is 'not positive'."""
        sweep = {"setup": [{"locale": "af-ZA"}, {"locale": "xx-XX"}, {"axis": "row", "include_target": True}, {"axis": "row", "locale": "vi-VN"},
                           {"similarity_type": "URIEL", "select": "sinkhorn", "top_k": 2}]}
        config, path = self.config("a", nxn={"targets": ["sw-KE", "vi-VN"]},
                                   grid={"fixed": {"method": "similarity", "locale": "sw-KE", "similarity_type": "REAL", "num_languages": 4},
                                         "sweep": sweep})
        done = self.refused("run", "-c", config, code=3, says="cells failed")
        cells = Cells(path)
        for k, text in enumerate(("target af-ZA is not evaluated: it has texts, but nxn.targets leaves it out", "target xx-XX has no texts: there is no ",
                                  "(not evaluated (nxn.targets): 4, no checkpoint: 1)", "target vi-VN has no source of its own", "not among its top_k: ")):
            self.assertIn(text, cells.error[k], done.stderr)
            self.assertNotIn("not positive", cells.error[k])
        with h5py.File(path) as f:
            labels, values = strings(f["grid/similarity/REAL/label"]), f["grid/similarity/REAL/value"][()]
        self.assertEqual(np.isnan(values).all(axis=0).tolist(), [label not in ("sw-KE", "vi-VN") for label in labels])
        text = self.good("explain", path, cells.key[2]).stdout
        self.assertRegex(text, r"nl-NL +0 +not evaluated [(]nxn[.]targets[)]")
        self.assertIn("target vi-VN has no source of its own", self.good("explain", path, cells.key[3]).stdout)

    def test_chosen_on_the_texts_that_are_scored(self):
        """It is marked, however it comes about: the same partition for both, no text of the other, cells scored on the one that is chosen by."""
        os.makedirs(self.path("texts"))
        for locale in LOCALES:
            with open(TEXTS.format(locale=locale), encoding="utf-8") as all_, open(self.path("texts", f"{locale}.jsonl"), "w", encoding="utf-8") as some:
                some.writelines(line for line in all_ if '"partition": "dev"' not in line)
        grid = {"fixed": {"similarity_type": "REAL", "num_languages": 2}, "sweep": {"locale": ["sw-KE"], "method": ["similarity"]}}
        for k, (marked, more, of_grid) in enumerate([(False, {}, {}), (True, {"nxn": {"select": "test"}}, {}), (True, {}, {"partition": "dev"}),
                                                     (True, {"texts": {"files": self.path("texts", "{locale}.jsonl")}}, {})]):
            with h5py.File(self.made(f"m{k}", grid={**grid, **of_grid}, **more)) as file:
                self.assertEqual(bool(file["grid"].attrs["selected_on_partition"]), marked, (more, of_grid))

    def test_repeated_labels(self):
        """What is said of labels that are repeated is what cells do with them."""
        with open(self.path("m.csv"), "w", encoding="utf-8") as file:
            file.write(",sw-KE,af-ZA,de-DE,af-ZA\nsw-KE,1,.5,.4,.3\naf-ZA,.5,1,.2,.1\nde-DE,.4,.2,1,\naf-ZA,.3,.1,,1\n")
        for name, duplicates, first, keep in (("first", ["first"], 1, 0), ("keep", ["keep"], 0, 1), ("both", ["first", "keep"], 1, 1)):
            config, _ = self.config(name, grid={"similarity": {"M": self.path("m.csv")}, "sweep": {"duplicates": duplicates},
                                                "fixed": {"method": "similarity", "locale": "sw-KE", "num_languages": 2}})
            log = self.good("run", "-c", config).stderr
            self.assertEqual((log.count("the first counts: af-ZA"), log.count("all count: af-ZA")), (first, keep), log)

    def test_refused(self):
        base = self.path("base")
        shutil.copytree(BASE, base)
        tensors = safetensors(f"{base}/model.safetensors")
        name = sorted(tensors)[0]
        tensors[name] = tensors[name] + 1
        write_safetensors(f"{base}/model.safetensors", tensors)
        small = {"locale": ["sw-KE"], "similarity_type": ["URIEL"], "method": ["similarity"]}
        other = self.path("other.h5")
        config = write_yaml(self.path("other.yaml"), base=base, family={"locales": LOCALES}, shards={"dir": self.path("other-shards")},
                            texts={"files": TEXTS}, stages=["compatibility"], result=other)
        self.good("run", "-c", config)
        config, path = self.config("a", grid={"sweep": small}, reuse=[other])
        self.refused("run", "-c", config, ranks=2, says=("reuse", other, "another family"))
        config, path = self.config("a", grid={"sweep": small}, reuse=[self.path("none.h5")])
        self.refused("run", "-c", config, ranks=2, says="none.h5")
        config, path = self.config("a", grid={"sweep": small, "similarity": {"URIEL": self.path("none.csv")}})
        self.refused("run", "-c", config, ranks=2, says="none.csv")
        config, path = self.config("a", grid={"sweep": small, "similarity": {"URIEL": URIEL, "a/b": URIEL, "a_b": URIEL}})
        self.refused("run", "-c", config, ranks=2, says=("a/b", "a_b", "one place"))
        with open(self.path("lacking.csv"), "w", encoding="utf-8") as file:
            file.write(",af-ZA,en-US\naf-ZA,1,0.5\nen-US,0.5,1\n")
        config, path = self.config("a", grid={"sweep": small, "similarity": {"URIEL": self.path("lacking.csv")}})
        self.refused("run", "-c", config, ranks=2, code=3, says="sw-KE")
        self.assertFalse(os.path.exists(f"{path}.journal"))

    def test_memory(self):
        """The run stays within what plan says, with room for all sources and with little."""
        for budget in ("2GiB", "230MiB"):
            config, path = self.config(budget, compute={"memory_budget": budget})
            plan = json.loads(self.good("plan", "-c", config, "-n", "2", "--json").stdout)
            self.assertEqual(plan["grid"]["cells"], 76)
            self.assertLessEqual(plan["memory"]["rank_bytes"], plan["memory"]["budget_bytes"])
            self.assertGreater(plan["memory"]["shared_bytes"], plan["grid"]["store_bytes"])
            self.assertLess(plan["memory"]["shared_bytes"], plan["memory"]["held_bytes"] + plan["memory"]["working_bytes"])
            self.good("run", "-c", config, ranks=2)
            with h5py.File(path) as f:
                peak = f["provenance/ranks"]["peak_bytes"]
            self.assertTrue((peak <= plan["memory"]["rank_bytes"]).all(), (peak, plan["memory"]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
