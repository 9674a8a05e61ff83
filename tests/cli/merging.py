"""What the tests of merges share: a family of three random sources of odd shapes, and formulas that several methods have."""
import glob
import os
import shutil
import tempfile
import unittest

from common import np, run, safetensors, write_checkpoint, write_yaml

RNG = np.random.default_rng(5)
SHAPES = {"encoder.layer.0.w": (300, 250), "encoder.layer.0.b": (37,), "encoder.layer.1.w": (64, 64), "encoder.layer.2.w": (7, 30),
          "embed": (1000, 70), "one": (1,)}
HEAD = {"classifier.w": (5, 8), "classifier.b": (5,)}


def by_source(weights, stacked):
    return np.asarray(weights, float).reshape((-1,) + (1,) * (stacked.ndim - 1))


def elect(deltas, weights, combine="mean", votes=None, majority=False, floor=0):
    """TIES' sign election and what follows, element by element as the paper's formulas have it. majority: where votes cancel, the sign of
    most elements wins; True, or that sign."""
    stacked = np.stack(deltas)
    w = by_source(weights, stacked)
    vote = (by_source(weights if votes is None else votes, stacked) * stacked).sum(axis=0)
    tie = 1.0
    if majority is True:
        tie = -1.0 if np.sign(vote).sum() < 0 else 1.0
    elif majority:
        tie = majority
    sign = np.where(vote == 0, tie, np.sign(vote))
    agrees = stacked * sign > 0
    total = (w * stacked * agrees).sum(axis=0)
    if combine == "sum":
        return total
    if combine == "max":
        return sign * np.abs(stacked * agrees).max(axis=0)
    share = (w * agrees).sum(axis=0)
    return np.divide(total, np.maximum(share, floor), out=np.zeros_like(total), where=share > 0)


def largest(delta, density):
    """The floor(density · n) largest magnitudes (at least one; equals stay together)."""
    kept = max(int(density * delta.size), 1)
    threshold = np.sort(np.abs(delta), axis=None)[delta.size - kept]
    return np.where(np.abs(delta) >= threshold, delta, 0)


def without_smallest(delta, rate):
    """All but the floor(rate · n) smallest magnitudes."""
    threshold = np.sort(np.abs(delta), axis=None)[int(rate * delta.size)]
    return np.where(np.abs(delta) >= threshold, delta, 0)


class Merging(unittest.TestCase):
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

    def rewrite(self, name, base, **sources):
        """Another tensor in the base and in those sources."""
        self.base[name] = np.asarray(base, np.float32)
        write_checkpoint(self.path("base"), self.base)
        for id, value in sources.items():
            self.sources[id][name] = np.asarray(value, np.float32)
            write_checkpoint(self.path(id), self.sources[id], labels=list("vwxyz"))

    def check(self, got, change, weights=(0.5, 0.25, 0.25), ids=("aa", "bb", "cc")):
        """change(name, deltas) is what the body's task vectors become; heads are means by `weights`."""
        self.assertEqual(set(got), set(SHAPES) | set(HEAD))
        for name, value in got.items():
            if name in HEAD:
                expected = sum(w * d for w, d in zip(weights, self.deltas(name, ids)))
            else:
                expected = self.base[name].astype(float) + change(name, [d.astype(np.float32).astype(float) for d in self.deltas(name, ids)])
            np.testing.assert_allclose(value, expected, rtol=3e-7, atol=3e-7, err_msg=name)

    def check_theta(self, got, change, weights=(0.5, 0.25, 0.25), ids=("aa", "bb", "cc")):
        """change(name, thetas) is what the body's weights become."""
        def delta(name, d):
            base = self.base[name].astype(float)
            return change(name, [base + x for x in d]) - base
        self.check(got, delta, weights, ids)

    def refused(self, message, method="linear", sources=None, code=1, ranks=0, **more):
        done = run("merge", "-c", self.config(method, sources, **more), "-o", self.path("no"), ranks=ranks)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertIn(message, done.stderr)
        self.assertEqual(glob.glob(self.path("no*")), [])
