"""The command merge: every method against NumPy, the checkpoint it writes, and what a user can get wrong."""
import glob
import json
import os
import shutil
import tempfile
import unittest

import pandas as pd

from common import BASE, EMOJI, PATTERN, h5py, np, run, safetensors, write_checkpoint, write_yaml

TEXTS = f"{EMOJI}/texts/{{locale}}.jsonl"
RNG = np.random.default_rng(5)
SHAPES = {"encoder.layer.0.w": (300, 250), "encoder.layer.0.b": (37,), "encoder.layer.1.w": (64, 64), "embed": (1000, 70), "one": (1,)}
HEAD = {"classifier.w": (5, 8), "classifier.b": (5,)}


def elect(deltas, weights, combine="mean"):
    """TIES' sign election and what follows, element by element as the paper's formulas have it."""
    stacked = np.stack(deltas)
    w = np.asarray(weights, float).reshape((-1,) + (1,) * (stacked.ndim - 1))
    sign = np.where((w * stacked).sum(axis=0) >= 0, 1.0, -1.0)
    agrees = stacked * sign > 0
    total = (w * stacked * agrees).sum(axis=0)
    if combine == "sum":
        return total
    if combine == "max":
        return sign * np.abs(stacked * agrees).max(axis=0)
    share = (w * agrees).sum(axis=0)
    return np.divide(total, share, out=np.zeros_like(total), where=share > 0)


def largest(delta, density):
    """The floor(density · n) largest magnitudes (at least one; equals stay together)."""
    kept = max(int(density * delta.size), 1)
    threshold = np.sort(np.abs(delta), axis=None)[delta.size - kept]
    return np.where(np.abs(delta) >= threshold, delta, 0)


class Merge(unittest.TestCase):
    """A family of three random sources of odd shapes, with a head that the base lacks."""

    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)
        self.base = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
        write_checkpoint(self.path("base"), self.base)
        self.sources = {}
        for id in ("aa", "bb", "cc"):
            tensors = {name: (value + 0.1 * RNG.normal(size=value.shape)).astype(np.float32) for name, value in self.base.items()}
            tensors["encoder.layer.1.w"][:5] = self.base["encoder.layer.1.w"][:5]  # rows that were never touched
            tensors.update({name: RNG.normal(size=shape).astype(np.float32) for name, shape in HEAD.items()})
            self.sources[id] = tensors
            write_checkpoint(self.path(id), tensors, labels=list("vwxyz"))
        self.count = 0

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def config(self, method, sources=None, **more):
        recipe = {"method": method, "sources": {"aa": 2, "bb": 1, "cc": 1} if sources is None else sources, **more.pop("recipe", {})}
        more.setdefault("shards", {"dir": "none"})
        return write_yaml(self.path("m.yaml"), base=self.path("base"), sources={id: self.path(id) for id in self.sources}, recipe=recipe, **more)

    def merged(self, method, sources=None, ranks=0, **more):
        self.count += 1
        out = self.path(f"out{self.count}")
        done = run("merge", "-c", self.config(method, sources, **more), "-o", out, ranks=ranks)
        self.assertEqual(done.returncode, 0, done.stderr)
        return safetensors(f"{out}/model.safetensors")

    def deltas(self, name, ids=("aa", "bb", "cc")):
        return [self.sources[id][name].astype(float) - self.base.get(name, np.float32(0)).astype(float) for id in ids]

    def check(self, got, change, weights=(0.5, 0.25, 0.25)):
        """change(name, deltas) is what the body's task vectors become; heads are means by `weights`."""
        self.assertEqual(set(got), set(SHAPES) | set(HEAD))
        for name, value in got.items():
            if name in HEAD:
                expected = sum(w * d for w, d in zip(weights, self.deltas(name)))
            else:
                expected = self.base[name].astype(float) + change(name, [d.astype(np.float32).astype(float) for d in self.deltas(name)])
            np.testing.assert_allclose(value, expected, rtol=3e-7, atol=3e-7, err_msg=name)

    # ---- methods ----

    def test_linear(self):
        weights = (0.5, 0.25, 0.25)
        self.check(self.merged("linear"), lambda _, d: sum(w * x for w, x in zip(weights, d)))
        self.check(self.merged({"linear": {"lambda": 1.5}}), lambda _, d: 1.5 * sum(w * x for w, x in zip(weights, d)))
        self.check(self.merged("average"), lambda _, d: sum(d) / 3, weights=(1 / 3,) * 3)
        alone = self.merged("linear", ["bb"])
        for name, value in self.sources["bb"].items():  # τ was rounded once, θ0 + τ once more
            np.testing.assert_allclose(alone[name], value, rtol=0, atol=3e-7)

    def test_task_arithmetic(self):
        self.check(self.merged("task_arithmetic"), lambda _, d: 0.3 * sum(d), weights=(1 / 3,) * 3)
        self.check(self.merged({"task_arithmetic": {"lambda": -1, "weighted": True}}),
                   lambda _, d: -sum(w * x for w, x in zip((0.5, 0.25, 0.25), d)), weights=(1 / 3,) * 3)

    def test_ties(self):
        third = (1 / 3,) * 3
        for combine in ("mean", "sum", "max"):
            self.check(self.merged({"ties": {"density": 0.3, "combine": combine}}),
                       lambda _, d, combine=combine: elect([largest(x, 0.3) for x in d], (1, 1, 1), combine), weights=third)
        self.check(self.merged({"ties": {"density": 0.3, "weighted": True, "lambda": 0.7}}),
                   lambda _, d: 0.7 * elect([largest(x, 0.3) for x in d], (0.5, 0.25, 0.25)), weights=third)
        everything = [np.concatenate([d[k].astype(np.float32).ravel() for d in map(self.deltas, SHAPES)]) for k in range(3)]
        thresholds = [np.sort(np.abs(x))[x.size - int(0.2 * x.size)] for x in everything]
        self.check(self.merged({"ties": {"trim": "global"}}),
                   lambda _, d: elect([np.where(np.abs(x) >= t, x, 0) for x, t in zip(d, thresholds)], (1, 1, 1)), weights=third)
        alone = self.merged({"ties": {"density": 1}}, ["cc"])  # one source, nothing trimmed: that source
        np.testing.assert_allclose(alone["embed"], self.sources["cc"]["embed"], rtol=0, atol=3e-7)

    def test_breadcrumbs(self):
        def between(delta, density, gamma):
            n, order = delta.size, np.sort(np.abs(delta), axis=None)
            kept = max(int(density * n), 1)
            top = min(int(gamma * n), n - kept)
            keep = np.abs(delta) >= order[n - kept - top]
            return np.where(keep & (np.abs(delta) < order[n - top]) if top else keep, delta, 0)
        for density, gamma in ((0.9, 0.01), (0.5, 0.1), (0.95, 0.3), (1, 0.01)):
            parameters = {"density": density, "gamma": gamma}
            def thin(d, density=density, gamma=gamma):
                return [between(x, density, gamma) for x in d]
            self.check(self.merged({"breadcrumbs": parameters}), lambda _, d: sum(w * x for w, x in zip((0.5, 0.25, 0.25), thin(d))))
            self.check(self.merged({"breadcrumbs_ties": parameters}), lambda _, d: elect(thin(d), (1, 1, 1)), weights=(1 / 3,) * 3)

    def test_ram(self):
        def change(_, d):
            active = [np.abs(x) > 0.05 for x in d]
            count = sum(active)
            return np.divide(sum(x * a for x, a in zip(d, active)), count, out=np.zeros_like(d[0]), where=count > 0)
        self.check(self.merged({"ram": {"epsilon": 0.05}}), change, weights=(1 / 3,) * 3)

    def test_magmax(self):
        def change(_, d):
            stacked = np.stack(d)
            return 0.5 * np.take_along_axis(stacked, np.abs(stacked).argmax(axis=0)[None], axis=0)[0]
        self.check(self.merged("magmax"), change, weights=(1 / 3,) * 3)

    def masked(self, density=0.3, **more):
        """What DARE keeps of each source, from merges of one source: zero, or the task vector."""
        masks = {}
        for id in self.sources:
            alone = self.merged({"dare_linear": {"density": density, "rescale": "none"}}, [id], **more)
            masks[id] = {}
            for name in SHAPES:
                delta, kept = self.deltas(name, [id])[0], alone[name] - self.base[name]
                masks[id][name] = np.abs(kept) > 0
                off = np.where(masks[id][name], np.abs(kept - delta), np.abs(kept))
                self.assertLess(off.max(), 6e-7)
        return masks

    def test_dare(self):
        masks = self.masked()
        for id in masks:
            for name in ("embed", "encoder.layer.0.w"):
                mask = masks[id][name]
                self.assertLess(abs(mask.mean() - 0.3), 5 * np.sqrt(0.21 / mask.size))
            self.assertFalse(np.array_equal(masks[id]["embed"].ravel()[:4096], masks["aa" if id != "aa" else "bb"]["embed"].ravel()[:4096]))
        def kept(name, d):
            return [x * masks[id][name] for id, x in zip(self.sources, d)]
        self.check(self.merged({"dare_linear": {"density": 0.3}}), lambda n, d: sum(w * x / 0.3 for w, x in zip((0.5, 0.25, 0.25), kept(n, d))))
        self.check(self.merged({"dare_linear": {"density": 0.3, "weighted": False, "lambda": 0.5}}), lambda n, d: sum(kept(n, d)) * 0.5 / 0.3,
                   weights=(1 / 3,) * 3)
        def l1(name, d):
            out = 0
            for w, full, part in zip((0.5, 0.25, 0.25), d, kept(name, d)):
                out = out + w * part * (np.abs(full).sum() / np.abs(part).sum() if np.abs(part).sum() > 0 else 1)
            return out
        self.check(self.merged({"dare_linear": {"density": 0.3, "rescale": "l1"}}), l1)
        self.check(self.merged({"dare_ties": {"density": 0.3}}), lambda n, d: elect([x / 0.3 for x in kept(n, d)], (1, 1, 1)), weights=(1 / 3,) * 3)
        other = self.masked(seed=43)
        self.assertFalse(np.array_equal(other["aa"]["embed"], masks["aa"]["embed"]))

    # ---- coefficients from a tensor's geometry ----

    def check_theta(self, got, change, weights=(0.5, 0.25, 0.25)):
        """change(name, thetas) is what the body's weights become."""
        def delta(name, d):
            base = self.base[name].astype(float)
            return change(name, [base + x for x in d]) - base
        self.check(got, delta, weights)

    def test_model_stock(self):
        def change(_, d):
            flat = [x.ravel() for x in d]
            cosines = [np.clip(flat[i] @ flat[j] / max(np.linalg.norm(flat[i]) * np.linalg.norm(flat[j]), 1e-6), -1, 1)
                       for i in range(3) for j in range(i)]
            c = np.mean(cosines)
            return 3 * c / (1 + 2 * c) * sum(d) / 3
        self.check(self.merged("model_stock"), change, weights=(1 / 3,) * 3)
        alone = self.merged("model_stock", ["bb"])  # one source, and identical ones: t = 1
        np.testing.assert_allclose(alone["embed"], self.sources["bb"]["embed"], rtol=0, atol=3e-7)

    def test_opposite_changes(self):
        """Of one element, say: model stock has its pole there and stays with the base, as does a straight line between the two."""
        self.base["one"][:] = 0.5
        for id, value in (("aa", 0.75), ("bb", 0.25)):
            self.sources[id]["one"][:] = value
            write_checkpoint(self.path(id), self.sources[id], labels=list("vwxyz"))
        write_checkpoint(self.path("base"), self.base)
        for method in ("model_stock", "multislerp"):
            self.assertEqual(self.merged(method, {"aa": 1, "bb": 1})["one"], 0.5)
        self.refused("tensor one: multislerp: the sources' directions cancel", "multislerp", {"aa": 2, "bb": 1, "cc": 1}, **self.like_bb())

    def like_bb(self):
        self.sources["cc"]["one"] = self.sources["bb"]["one"]
        write_checkpoint(self.path("cc"), self.sources["cc"], labels=list("vwxyz"))
        return {}

    def test_directional_consensus(self):
        weights = (0.5, 0.25, 0.25)
        for alpha in (0, 0.5, 1):
            def change(_, d, alpha=alpha):
                total = sum(d)
                direction = total / np.linalg.norm(total)
                return sum(w * (alpha * np.sum(x * direction) * direction + (1 - alpha) * x) for w, x in zip(weights, d))
            self.check(self.merged({"directional_consensus": {"alpha": alpha}}), change)
        linear, zero = self.merged("linear"), self.merged({"directional_consensus": {"alpha": 0}})
        for name in linear:
            np.testing.assert_array_equal(linear[name], zero[name])

    def test_fisher_simple(self):
        def change(_, thetas):
            norms = np.array([0.5, 0.25, 0.25]) * [np.linalg.norm(x) for x in thetas]
            return sum(w * x for w, x in zip(norms / norms.sum(), thetas))
        self.check_theta(self.merged("fisher_simple"), change)

    def test_slerp(self):
        def slerp(a, b, t, threshold):
            dot = np.clip(np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b)), -1, 1)
            if abs(dot) > threshold:
                return (1 - t) * a + t * b
            angle = np.arccos(dot)
            return (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
        for threshold in (0.9995, 0.5, 0.0):
            self.check_theta(self.merged({"slerp": {"dot_threshold": threshold}}, {"aa": 1, "bb": 3, "cc": 2}),
                             lambda _, x, threshold=threshold: slerp(slerp(x[1], x[2], 2 / 5, threshold), x[0], 1 / 6, threshold),
                             weights=(1 / 6, 3 / 6, 2 / 6))

    def test_multislerp(self):
        weights = (4 / 7, 2 / 7, 1 / 7)  # no two of them make up for the third, as signs of one element could have it
        def change(_, d):
            norms = [np.linalg.norm(x) for x in d]
            mean = sum(w * x / n for w, x, n in zip(weights, d, norms))
            return mean / np.linalg.norm(mean) * sum(w * n for w, n in zip(weights, norms))
        self.check(self.merged("multislerp", {"aa": 4, "bb": 2, "cc": 1}), change, weights)

    def test_karcher(self):
        def change(_, thetas):
            norms = [np.linalg.norm(x) for x in thetas]
            units = [x / n for x, n in zip(thetas, norms)]
            u = sum(units) / np.linalg.norm(sum(units))
            for _ in range(10):
                step = 0
                for x in units:
                    angle = np.arccos(np.clip(np.sum(x * u), -1, 1))
                    step = step + (angle / np.sin(angle) if angle > 1e-8 else 1) * (x - np.cos(angle) * u) / 3
                size = np.linalg.norm(step)
                if size < 1e-5:
                    break
                u = np.cos(size) * u + np.sin(size) * step / size
            return u * np.mean(norms)
        self.check_theta(self.merged("karcher"), change, weights=(1 / 3,) * 3)

    def test_heads(self):
        got = self.merged({"task_arithmetic": {"lambda": 0.4}}, recipe={"head": "method"})
        np.testing.assert_allclose(got["classifier.w"], 0.4 * sum(self.deltas("classifier.w")), rtol=3e-7, atol=3e-7)

    def test_same_bits(self):
        """From shards or checkpoints, at any number of ranks, whatever order the recipe names the sources in."""
        method = {"dare_ties": {"density": 0.5, "rescale": "l1", "weighted": True}}
        expected = self.merged(method)
        for got in (self.merged(method, shards={"dir": self.path("shards")}), self.merged(method, ranks=3),
                    self.merged(method, {"cc": 0.25, "bb": 0.25, "aa": 0.5})):
            for name, value in expected.items():
                np.testing.assert_array_equal(got[name], value)
        for id in self.sources:
            shutil.rmtree(self.path(id))
        self.count += 1
        done = run("merge", "-c", self.config(method, shards={"dir": self.path("shards")}), "-o", self.path("gone"))
        self.assertEqual(done.returncode, 1)  # weights are in the shards, but whose architecture and labels?
        self.assertIn("aa/config.json", done.stderr)
        self.assertEqual(glob.glob(self.path("gone*")), [])

    # ---- what can be wrong ----

    def refused(self, message, method="linear", sources=None, code=1, ranks=0, **more):
        done = run("merge", "-c", self.config(method, sources, **more), "-o", self.path("no"), ranks=ranks)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(message, done.stderr)
        self.assertEqual(glob.glob(self.path("no*")), [])

    def test_refusals(self):
        self.refused("method 'tise' is unknown (ties?); known: linear", "tise", ranks=2)
        self.refused("method 'della' is not in this version", "della")
        self.refused("method ties has no parameter 'k'; it has density", {"ties": {"k": 1}})
        for value in (0, 1.5, -1, "many", "nan"):
            self.refused("ties.density", {"ties": {"density": value}})
        self.refused("linear.lambda", {"linear": {"lambda": "nan"}})
        self.refused("ties.trim: 'all'; one of tensor, global", {"ties": {"trim": "all"}})
        self.refused("ties.weighted", {"ties": {"weighted": "perhaps"}})
        self.refused("one method", {"ties": {}, "linear": {}})
        self.refused("'dd' is no source of the family", sources={"aa": 1, "dd": 1})
        for weight in (0, -1, "nan", "inf", "a"):
            self.refused("a weight above 0", sources={"aa": weight})
        self.refused("is empty", sources={})
        self.refused("recipe.head: 'rnadom' is unknown; linear, method or random was expected (random?)", recipe={"head": "rnadom"})
        self.refused("majority is a vote over several models' answers", "majority", ranks=2)
        self.refused("recipe.locale is missing: method own is of a target", "own")
        self.refused("recipe.seed: '-1'", recipe={"seed": -1})
        self.refused("is for grid.sweep and grid.fixed", {"ties": {"density": [0.1, 0.2]}})
        self.refused("drop_strongest: bb is the only source", sources=["bb"], recipe={"drop_strongest": True})
        self.refused("element 0 of tensor", {"linear": {"lambda": 100}}, ranks=2, **self.huge())
        os.mkdir(self.path("there"))
        done = run("merge", "-c", self.config("linear"), "-o", self.path("there"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("is there already", done.stderr)
        config = write_yaml(self.path("none.yaml"), base=self.path("base"), sources={"aa": self.path("aa")})
        self.assertIn("recipe.method", run("merge", "-c", config, "-o", self.path("x")).stderr)
        self.assertEqual(run("merge", "-c", config).returncode, 2)

    def huge(self):
        """A merge that overflows: λ times what is already large."""
        for id in self.sources:
            self.sources[id]["one"][0] = 3e37
            write_checkpoint(self.path(id), self.sources[id], labels=list("vwxyz"))
        return {}

    def test_other_labels(self):
        """Heads are put into the order of the family's first source, and config.json says so."""
        order = [1, 0, 2, 3, 4]
        for tensors in self.sources.values():
            tensors["classifier.dense.weight"] = RNG.normal(size=(5, 5)).astype(np.float32)  # as wide as there are classes, by chance
        for id in ("aa", "bb", "cc"):
            write_checkpoint(self.path(id), self.sources[id], labels=list("vwxyz"))
        expected = self.merged("linear", {"bb": 2, "cc": 1})
        moved = {**self.sources["bb"], **{name: self.sources["bb"][name][order] for name in HEAD}}
        write_checkpoint(self.path("bb"), moved, labels=list("wvxyz"))
        got = self.merged("linear", {"bb": 2, "cc": 1})
        for name, value in expected.items():
            np.testing.assert_array_equal(got[name], value, err_msg=name)
        with open(self.path(f"out{self.count}", "config.json"), encoding="utf-8") as file:
            config = json.load(file)
        self.assertEqual((list(config["id2label"].values()), config["label2id"]["w"]), (list("vwxyz"), 1))
        write_checkpoint(self.path("bb"), moved, labels=list("wvxyv"))
        self.refused("id2label", sources={"bb": 2, "cc": 1})
        write_checkpoint(self.path("bb"), moved, labels=list("wvxyz"))
        write_checkpoint(self.path("base"), {**self.base, **self.sources["aa"]})
        self.refused("source bb has its labels in another order than the first, and no tensor that the base lacks has 5 rows", sources=["aa", "bb"])


class Demo(unittest.TestCase):
    def test_is_a_checkpoint(self):
        """What is written is a source like any other: mergegrid evaluates it, and its tokenizer and labels are there."""
        with tempfile.TemporaryDirectory() as folder:
            config = write_yaml(f"{folder}/m.yaml", recipe={"method": "average", "sources": ["es-ES", "fr-FR", "it-IT"]}, shards={"dir": "none"})
            done = run("merge", "-c", config, "-o", f"{folder}/merged/deep")
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(f"{folder}/merged/deep/merge_details.json", encoding="utf-8") as file:
                details = json.load(file)
            self.assertEqual([source["id"] for source in details["sources"]], ["es-ES", "fr-FR", "it-IT"])
            self.assertEqual((details["method"], details["parameters"]), ("average", {}))
            self.assertTrue(os.path.exists(f"{folder}/merged/deep/sentencepiece.bpe.model"))
            config = write_yaml(f"{folder}/e.yaml", sources={"merged": f"{folder}/merged/deep", "fr-FR": PATTERN.format(locale="fr-FR")},
                                base=BASE, texts={"files": TEXTS}, stages=["nxn"], nxn={"targets": ["fr-FR", "pt-PT"]}, shards={"dir": "none"},
                                result=f"{folder}/r.h5")
            done = run("run", "-c", config, ranks=2)
            self.assertEqual(done.returncode, 0, done.stderr)
            with h5py.File(f"{folder}/r.h5") as file:
                accuracy = file["nxn/accuracy"][()]
            self.assertGreater(accuracy[0, 1], accuracy[1, 1])  # three neighbours do better on Portuguese than French alone


class Chosen(unittest.TestCase):
    """Sources by a similarity matrix: the demonstration's URIEL, or the result's own evaluation."""

    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.dir)

    def merge(self, name, similarity=None, result=None, code=0, grid=None, locales=None, **recipe):
        grid = {"similarity": similarity or {"URIEL": f"{EMOJI}/uriel_similarity.csv"}, **(grid or {})}
        config = write_yaml(f"{self.dir}/{name}.yaml", recipe={"method": "similarity", **recipe}, grid=grid, shards={"dir": "none"},
                            family={"locales": locales or []}, result=result or f"{self.dir}/none.h5")
        done = run("merge", "-c", config, "-o", f"{self.dir}/{name}")
        self.assertEqual(done.returncode, code, done.stderr)
        if code:
            return done.stderr
        with open(f"{self.dir}/{name}/merge_details.json", encoding="utf-8") as file:
            self.details = json.load(file)
        return {source["id"]: source["weight"] for source in self.details["sources"]}

    def test_the_most_similar(self):
        frame = pd.read_csv(f"{EMOJI}/uriel_similarity.csv", index_col=0)
        best = frame["sw-KE"].drop("sw-KE").sort_values(ascending=False, kind="stable")[:4]
        got = self.merge("a", locale="sw-KE", num_languages=4)
        self.assertEqual(set(got), set(best.index))
        for id, weight in got.items():
            self.assertAlmostEqual(weight, best[id] / best.sum(), places=12)
        with_target = self.merge("b", locale="sw-KE", num_languages=4, include_target=True)
        self.assertIn("sw-KE", with_target)

    def test_as_merginguriel_chooses(self):
        quirks = {"axis": "row", "select": "sinkhorn", "duplicates": "keep", "locale": "af-ZA"}
        old = {"OLD": f"{EMOJI}/uriel_similarity_50.csv"}
        got = self.merge("a", old, **quirks)
        self.assertAlmostEqual(got["id-ID"], 0.334, delta=1e-3)
        for id, weight in (("hy-AM", 0.283), ("hu-HU", 0.177), ("ka-GE", 0.114), ("nl-NL", 0.091)):  # what its notebook printed
            self.assertAlmostEqual(got[id], weight, delta=1e-3)
        dropped = self.merge("b", old, drop_strongest=True, **quirks)
        self.assertEqual(set(dropped), {"hy-AM", "hu-HU", "ka-GE", "nl-NL"})
        for id, weight in dropped.items():
            self.assertAlmostEqual(weight, got[id] / (1 - got["id-ID"]), places=12)

    def test_the_preset(self):
        """merginguriel's bundle: the strongest source is what the others are merged into, or lambda follows from the weights."""
        old = {"OLD": f"{EMOJI}/uriel_similarity_50.csv"}
        terms = {"preset": "merginguriel", "duplicates": "keep", "locale": "af-ZA"}
        got = self.merge("a", old, method="directional_consensus", **terms)
        self.assertEqual(set(got), {"hy-AM", "hu-HU", "ka-GE", "nl-NL"})
        self.assertIn("xlm-roberta-emoji_k_id-ID", self.details["base"])
        self.assertEqual(self.details["head"], "linear")
        for method, value in (("ties", 0.283), ("task_arithmetic", (0.283 + 0.177 + 0.114 + 0.091) / 4)):
            got = self.merge(method, old, method=method, **terms)
            self.assertEqual(list(got.values()), [0.2] * 5)
            self.assertAlmostEqual(self.details["parameters"]["lambda"], value, delta=1e-3)
            self.assertEqual(self.details["head"], "random")
        self.merge("said", old, method={"ties": {"lambda": 0.5}}, **terms)
        self.assertEqual(self.details["parameters"]["lambda"], 0.5)

    def test_by_measured_transfer(self):
        locales = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
        config = write_yaml(f"{self.dir}/run.yaml", family={"locales": locales}, texts={"files": TEXTS}, stages=["nxn"],
                            nxn={"targets": ["nl-NL", "cy-GB"]}, shards={"dir": "none"}, result=f"{self.dir}/r.h5")
        done = run("run", "-c", config, ranks=2)
        self.assertEqual(done.returncode, 0, done.stderr)
        with h5py.File(f"{self.dir}/r.h5") as file:
            select = file["nxn_select/accuracy"][()]
        for k, target in enumerate(("nl-NL", "cy-GB")):  # chosen by dev, not by test; cy-GB has texts and no source here
            column = pd.Series(select[:, k], locales).drop(target, errors="ignore").sort_values(ascending=False, kind="stable")[:2]
            got = self.merge(target, {"REAL": "nxn"}, f"{self.dir}/r.h5", locale=target, num_languages=2)
            self.assertEqual(set(got), set(column.index))
            for id, weight in got.items():
                self.assertAlmostEqual(weight, column[id] / column.sum(), places=12)
        self.baselines(f"{self.dir}/r.h5", locales, select)
        self.assertIn("has no stage nxn", self.without_nxn())

    def baselines(self, result, locales, select):
        """Single models, from nl-NL's column: its own, the best of all others, the best of those that URIEL chooses."""
        column = pd.Series(select[:, 0], locales)
        self.assertEqual(self.merge("own", result=result, locale="nl-NL", method="own"), {"nl-NL": 1})
        self.assertEqual(self.merge("best", result=result, locale="nl-NL", method="best_zero_shot"), {column.drop("nl-NL").idxmax(): 1})
        similar = self.merge("two", result=result, locale="nl-NL", num_languages=2, method="average")
        best = self.merge("of", result=result, locale="nl-NL", num_languages=2, method="best_source")
        self.assertEqual(best, {column[list(similar)].idxmax(): 1})

    def test_compatibility(self):
        """Similarity times the mean cosine with the other chosen sources; from a result, and from a CSV as pandas writes it."""
        locales = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
        config = write_yaml(f"{self.dir}/run.yaml", family={"locales": locales}, shards={"dir": "none"}, result=f"{self.dir}/r.h5")
        self.assertEqual(run("run", "-c", config).returncode, 0)
        with h5py.File(f"{self.dir}/r.h5") as file:
            cosine = pd.DataFrame(file["compatibility/task_vector_cosine"][()], locales, locales)
        cosine.to_csv(f"{self.dir}/cosine.csv")
        plain = self.merge("plain", locale="nl-NL", num_languages=3, locales=locales)
        chosen = list(plain)
        for name, grid in (("stage", {}), ("file", {"compatibility": {"tv": f"{self.dir}/cosine.csv", "cka": f"{self.dir}/cosine.csv"}})):
            method = "similarity_x_tv_compatibility" if name == "stage" else "similarity_x_cka_compatibility"
            got = self.merge(name, result=f"{self.dir}/r.h5", locale="nl-NL", num_languages=3, method=method, grid=grid, locales=locales)
            expected = pd.Series({i: plain[i] * cosine.loc[i, [j for j in chosen if j != i]].mean() for i in chosen})
            for id, weight in got.items():
                self.assertAlmostEqual(weight, expected[id] / expected.sum(), places=12)
        message = self.merge("x", result=f"{self.dir}/r.h5", code=1, locale="nl-NL", method="similarity_x_cka_compatibility")
        self.assertIn("has no CKA", message)

    def without_nxn(self):
        config = write_yaml(f"{self.dir}/c.yaml", family={"locales": ["af-ZA", "sw-KE"]}, shards={"dir": "none"}, result=f"{self.dir}/c.h5")
        self.assertEqual(run("run", "-c", config).returncode, 0)
        return self.merge("b", {"REAL": "nxn"}, f"{self.dir}/c.h5", code=1, locale="sw-KE", num_languages=1)

    def test_refusals(self):
        for message, terms in (("target zz-ZZ is not in the similarity matrix", {"locale": "zz-ZZ"}),
                               ("target sw-KE has 47 candidates, and num_languages is 60", {"locale": "sw-KE", "num_languages": 60}),
                               ("'REAL' is none of grid.similarity's 1", {"locale": "sw-KE", "similarity_type": "REAL"}),
                               ("goes by the evaluation of the stage nxn, and ", {"locale": "sw-KE", "method": "best_source"}),
                               ("none.h5: No such file", {"locale": "sw-KE", "method": "similarity_x_tv_compatibility"}),
                               ("target zz-ZZ has no source of its own", {"locale": "zz-ZZ", "method": "own"})):
            self.assertIn(message, self.merge("x", code=1, **terms))
        self.assertIn("nothing.csv", self.merge("x", {"A": f"{self.dir}/nothing.csv"}, code=1, locale="sw-KE"))


if __name__ == "__main__":
    unittest.main()
