"""Methods that are sums, elections and thinned-out task vectors, against NumPy."""
import unittest

from common import np
from merging import SHAPES, Merging, elect, largest, without_smallest

THIRD = (1 / 3,) * 3
WEIGHTS = (0.5, 0.25, 0.25)


def weighted(deltas, weights=WEIGHTS):
    return sum(w * d for w, d in zip(weights, deltas))


def l1_ratio(whole, part):
    return np.abs(whole).sum() / np.abs(part).sum() if np.abs(part).sum() > 0 else 1


class Sums(Merging):
    def test_linear(self):
        self.check(self.merged("linear"), lambda _, d: weighted(d))
        self.check(self.merged({"linear": {"lambda": 1.5}}), lambda _, d: 1.5 * weighted(d))
        self.check(self.merged("average"), lambda _, d: sum(d) / 3, THIRD)
        alone = self.merged("linear", ["bb"])
        for name, value in self.sources["bb"].items():  # τ was rounded once, θ0 + τ once more
            np.testing.assert_allclose(alone[name], value, rtol=0, atol=3e-7)

    def test_mask_rate(self):
        for rate in (0.3, 0.999):
            def masked(d, rate=rate):
                return [without_smallest(x, rate) for x in d]
            self.check(self.merged({"linear": {"mask_rate": rate}}), lambda _, d: weighted(masked(d)))
            self.check(self.merged({"average": {"mask_rate": rate}}), lambda _, d: sum(masked(d)) / 3, THIRD)

    def test_task_arithmetic(self):
        self.check(self.merged("task_arithmetic"), lambda _, d: 0.3 * sum(d), THIRD)
        self.check(self.merged({"task_arithmetic": {"lambda": -1, "weighted": True}}), lambda _, d: -weighted(d))
        self.check(self.merged({"task_arithmetic": {"lambda": 2, "normalize": True}}), lambda _, d: 2 * sum(d) / 3, THIRD)

    def test_magmax(self):
        def change(_, d):
            stacked = np.stack(d)
            return 0.5 * np.take_along_axis(stacked, np.abs(stacked).argmax(axis=0)[None], axis=0)[0]
        self.check(self.merged("magmax"), change, THIRD)

    def test_ram(self):
        def change(_, d, r=0, alpha=0):
            active = [np.abs(x) > 0.05 for x in d]
            count = sum(active)
            mean = np.divide(sum(x * a for x, a in zip(d, active)), count, out=np.zeros_like(d[0]), where=count > 0)
            for x, a in zip(d, active):
                own, shared = (a & (count == 1)).sum(), (a & (count > 1)).sum()
                mean = np.where(a & (count == 1), x * (1 + r * min(shared / max(own, 1e-5), alpha)), mean)
            return mean
        self.check(self.merged({"ram": {"epsilon": 0.05}}), change, THIRD)
        for alpha in (0.2, 5):
            self.check(self.merged({"ramplus_tl": {"epsilon": 0.05, "r": 0.4, "alpha": alpha}}),
                       lambda n, d, alpha=alpha: change(n, d, 0.4, alpha), THIRD)

    def test_layers(self):
        """Which layer is whose; two sources for a swap, of which the first is the one of larger weight."""
        def layer(name):
            return int(name.split(".")[2]) if "layer" in name else None
        pair, halves = {"aa": 1, "bb": 3}, (0.25, 0.75)
        for layers, named in (("none", ()), ("0,2", (0, 2)), ("bottom", (0,)), ("middle,top", (1, 2)), ("0-1,top", (0, 1, 2))):
            def swapped(name, d, named=named):
                return d[0] if layer(name) in named else d[1]
            self.check(self.merged({"layer_swap": {"layers": layers}}, pair), swapped, halves, ("aa", "bb"))
            self.check(self.merged({"exclude_layers": {"layers": layers, "lambda": 2}}),
                       lambda n, d, named=named: d[0] if layer(n) in named else 2 * weighted(d))
            for elsewhere in ("pretrained", "best_source"):
                def included(name, d, named=named, elsewhere=elsewhere):
                    return weighted(d) if layer(name) is None or layer(name) in named else d[0] * (elsewhere == "best_source")
                self.check(self.merged({"include_layers": {"layers": layers, "elsewhere": elsewhere}}), included)
        got = self.merged({"layer_swap": {"layers": "1", "rest": "second"}}, pair, recipe={"head": "method"})
        for name, value in self.sources["aa"].items():  # of equal weights the first one named in the family is the first
            np.testing.assert_allclose(got[name], self.sources["bb"][name] if layer(name) in (0, 2) else value, rtol=0, atol=3e-7)
        got = self.merged({"layer_swap": {"layers": "0"}}, ["cc", "bb"])
        np.testing.assert_allclose(got["embed"], self.sources["bb"]["embed"], rtol=0, atol=3e-7)
        self.refused("layer_swap merges 2 sources, not 3", "layer_swap")
        self.refused("layer_swap merges 2 sources, not 1", "layer_swap", ["aa"])
        self.refused("exclude_layers.layers: there is no layer 3; the family has 0 to 2", {"exclude_layers": {"layers": "1-3"}})


class Elections(Merging):
    def test_ties(self):
        for combine in ("mean", "sum", "max"):
            self.check(self.merged({"ties": {"density": 0.3, "combine": combine}}),
                       lambda _, d, combine=combine: elect([largest(x, 0.3) for x in d], (1, 1, 1), combine), THIRD)
            self.check(self.merged({"ties": {"density": 0.3, "weighted": True, "combine": combine, "equal_votes": True}}),
                       lambda _, d, combine=combine: elect([largest(x, 0.3) for x in d], WEIGHTS, combine, votes=(1, 1, 1)))
        self.check(self.merged({"ties": {"density": 0.3, "weighted": True, "lambda": 0.7}}),
                   lambda _, d: 0.7 * elect([largest(x, 0.3) for x in d], WEIGHTS))
        alone = self.merged({"ties": {"density": 1}}, ["cc"])  # one source, nothing trimmed: that source
        np.testing.assert_allclose(alone["embed"], self.sources["cc"]["embed"], rtol=0, atol=3e-7)

    def whole(self, k, part=lambda name, d: d):
        return np.concatenate([part(name, d[k].astype(np.float32)).ravel() for name, d in ((n, self.deltas(n)) for n in SHAPES)])

    def test_global_trim(self):
        thresholds = [np.sort(np.abs(x))[x.size - int(0.2 * x.size)] for x in map(self.whole, range(3))]
        self.check(self.merged({"ties": {"trim": "global"}}),
                   lambda _, d: elect([np.where(np.abs(x) >= t, x, 0) for x, t in zip(d, thresholds)], (1, 1, 1)), THIRD)

    def test_votes_that_cancel(self):
        """Equal changes up and down: + wins, or the sign of most elements, of the tensor or, under a global trim, of all."""
        random = np.random.default_rng(11)
        base, up = random.integers(-64, 64, (7, 30)) / 8, np.full((7, 30), 1 / 8)
        up[:, ::3] = 1 / 4
        down = -up
        down[0, :4] = -3 / 4  # that is where votes do not cancel: most of this tensor is down
        self.rewrite("encoder.layer.2.w", base, aa=base + up, bb=base + down, cc=base)
        for zeros in (False, True):
            for combine in ("mean", "max"):
                self.check(self.merged({"ties": {"density": 1, "zeros": "majority" if zeros else "plus", "combine": combine}}),
                           lambda _, d, zeros=zeros, combine=combine: elect(d, (1, 1, 1), combine, majority=zeros), THIRD)
        votes = np.concatenate([sum(d).ravel() for d in map(self.deltas, SHAPES)])
        everywhere = 1.0 if np.sign(votes).sum() >= 0 else -1.0
        self.check(self.merged({"ties": {"density": 1, "zeros": "majority", "trim": "global"}}),
                   lambda _, d: elect(d, (1, 1, 1), majority=everywhere), THIRD)

    def test_sce(self):
        weights = {0.0: None}
        def change(_, d, topk=1, below=1e-6):
            stacked = np.stack(d)
            variance = stacked.var(axis=0).astype(np.float32)
            kept = max(int(topk * np.count_nonzero(variance)), 1)
            if topk < 1:
                stacked = stacked * (variance >= np.sort(variance, axis=None)[variance.size - kept])
            energy = (stacked ** 2).reshape(3, -1).mean(axis=1)
            weights[topk] = energy / energy.sum() if energy.sum() >= below and energy.sum() > 0 else np.full(3, 1 / 3)
            return elect(list(stacked), weights[topk], votes=(1, 1, 1), floor=1e-6)
        self.check(self.merged("sce"), change, THIRD)
        self.check(self.merged({"sce": {"equal_below": 1}}), lambda n, d: change(n, d, below=1), THIRD)
        for topk in (0.1, 0.5):
            self.check(self.merged({"sce": {"select_topk": topk}}), lambda n, d, topk=topk: change(n, d, topk), THIRD)
        for method in ("sce", {"sce": {"select_topk": 0.2}}):  # of one source nothing differs: that source
            alone = self.merged(method, ["cc"])
            np.testing.assert_allclose(alone["embed"], self.sources["cc"]["embed"], rtol=0, atol=3e-7)


class Thinning(Merging):
    def test_breadcrumbs(self):
        def between(delta, density, gamma):
            n, order = delta.size, np.sort(np.abs(delta), axis=None)
            kept = max(int(density * n), 1)
            top = min(int(gamma * n), n - kept)
            return np.where((np.abs(delta) >= order[n - kept - top]) & (np.abs(delta) <= order[n - top - 1]), delta, 0)
        for density, gamma in ((0.9, 0.01), (0.5, 0.1), (0.95, 0.3), (1, 0.01)):
            parameters = {"density": density, "gamma": gamma}
            def thin(d, density=density, gamma=gamma):
                return [between(x, density, gamma) for x in d]
            self.check(self.merged({"breadcrumbs": parameters}), lambda _, d: weighted(thin(d)))
            self.check(self.merged({"breadcrumbs_ties": parameters}), lambda _, d: elect(thin(d), (1, 1, 1)), THIRD)
        self.check(self.merged({"breadcrumbs": {"weighted": False, "normalize": True}}),
                   lambda _, d: sum(between(x, 0.9, 0.01) for x in d) / 3, THIRD)

    def masks(self, method, **more):
        """What is kept of each source, from merges of one source: zero, or the task vector."""
        masks = {}
        for id in self.sources:
            alone = self.merged(method, [id], **more)
            masks[id] = {}
            for name in SHAPES:
                delta, kept = self.deltas(name, [id])[0], alone[name] - self.base[name]
                masks[id][name] = np.abs(kept) > 0
                off = np.where(masks[id][name], np.abs(kept - delta), np.abs(kept))
                self.assertLess(off.max(), 6e-7)
        return lambda name, d: [x * masks[id][name] for id, x in zip(self.sources, d)], masks

    def test_dare(self):
        kept, masks = self.masks({"dare_linear": {"density": 0.3, "rescale": "none"}})
        for id in masks:
            for name in ("embed", "encoder.layer.0.w"):
                mask = masks[id][name]
                self.assertLess(abs(mask.mean() - 0.3), 5 * np.sqrt(0.21 / mask.size))
            self.assertFalse(np.array_equal(masks[id]["embed"].ravel()[:4096], masks["aa" if id != "aa" else "bb"]["embed"].ravel()[:4096]))
        self.check(self.merged({"dare_linear": {"density": 0.3}}), lambda n, d: weighted(kept(n, d)) / 0.3)
        self.check(self.merged({"dare_linear": {"density": 0.3, "weighted": False, "lambda": 0.5}}), lambda n, d: sum(kept(n, d)) * 0.5 / 0.3,
                   THIRD)
        self.check(self.merged({"dare_linear": {"density": 0.3, "weighted": False, "normalize": True}}), lambda n, d: sum(kept(n, d)) / 0.9,
                   THIRD)
        self.check(self.merged({"dare_linear": {"density": 0.3, "linear_layers": True}}),
                   lambda n, d: weighted(kept(n, d)) / 0.3 if n.endswith("w") else weighted(d))
        self.check(self.merged({"dare_linear": {"density": 0.3, "rescale": "l1"}}),
                   lambda n, d: weighted([x * l1_ratio(y, x) for x, y in zip(kept(n, d), d)]))
        self.check(self.merged({"dare_ties": {"density": 0.3}}), lambda n, d: elect([x / 0.3 for x in kept(n, d)], (1, 1, 1)), THIRD)
        other = self.masks({"dare_linear": {"density": 0.3, "rescale": "none"}}, seed=43)[1]
        self.assertFalse(np.array_equal(other["aa"]["embed"], masks["aa"]["embed"]))

    def test_dare_before(self):
        """As AML has it: what is dropped at random is gone before anything else is done."""
        drop = {"dare_drop_rate": 0.6}
        kept = self.masks({"task_arithmetic": {"lambda": 1, "dare_rescale": False, **drop}})[0]
        self.check(self.merged({"task_arithmetic": drop}), lambda n, d: 0.3 * sum(kept(n, d)) / 0.4, THIRD)
        self.check(self.merged({"ties": {"density": 0.3, **drop}}),
                   lambda n, d: elect([largest(x / 0.4, 0.3) for x in kept(n, d)], (1, 1, 1)), THIRD)
        thresholds = []
        for k in range(3):
            whole = np.concatenate([kept(n, [x.astype(np.float32) for x in self.deltas(n)])[k].ravel() for n in SHAPES])
            thresholds.append(np.sort(np.abs(whole))[whole.size - int(0.2 * whole.size)])
        self.check(self.merged({"ties": {"trim": "global", "dare_rescale": False, **drop}}),
                   lambda n, d: elect([np.where(np.abs(x) >= t, x, 0) for x, t in zip(kept(n, d), thresholds)], (1, 1, 1)), THIRD)

    def test_della(self):
        parameters = {"density": 0.5, "epsilon": 0.3}
        kept, masks = self.masks({"della_linear": {**parameters, "rescale": "none"}})

        def probabilities(delta):
            rows = np.abs(np.atleast_2d(delta))
            ranks = rows.argsort(axis=1, kind="stable").argsort(axis=1) / max(rows.shape[1] - 1, 1)
            return np.reshape(0.2 + 0.6 * ranks if rows.shape[1] > 1 else np.full(rows.shape, 0.5), delta.shape)
        for name in ("embed", "encoder.layer.0.w"):
            p = np.concatenate([probabilities(d.astype(np.float32)).ravel() for d in self.deltas(name)])
            mask = np.concatenate([masks[id][name].ravel() for id in masks])
            for low in np.arange(0.2, 0.75, 0.1):
                here = (p >= low) & (p < low + 0.1)
                self.assertLess(abs(mask[here].mean() - p[here].mean()), 5 * np.sqrt(0.25 / here.sum()))
        self.check(self.merged({"della_linear": parameters}), lambda n, d: weighted([x * l1_ratio(y, x) for x, y in zip(kept(n, d), d)]))
        self.check(self.merged({"della_linear": {**parameters, "rescale": "inverse", "weighted": False}}),
                   lambda n, d: sum(x / probabilities(y) for x, y in zip(kept(n, d), d)), THIRD)
        self.check(self.merged({"della": {**parameters, "rescale": "none", "combine": "sum", "weighted": True}}),
                   lambda n, d: elect(kept(n, d), WEIGHTS, "sum"))
        self.check(self.merged({"della": {"density": 1}}), lambda _, d: elect(d, (1, 1, 1)), THIRD)
        self.refused("density - epsilon = -0.05", {"della": {"density": 0.1}})
        self.refused("density + epsilon = 1.05", {"della_linear": {"density": 0.9}})

    def test_neuromerging(self):
        def share_below(k):
            whole = np.concatenate([np.abs(self.deltas(n)[k].astype(np.float32)).astype(float).ravel() for n in SHAPES])
            return whole[whole < np.sort(whole)[int(0.4 * whole.size)]].sum() / whole.sum()
        lambda2 = 1 / (1 - min(max(map(share_below, range(3))), 0.95) + 1e-8)
        self.assertGreater(lambda2, 1.1)

        def change(name, d, lambda1, lambda2, weights=(1, 1, 1), rate=0.4):
            d = [without_smallest(x, rate) for x in d]
            if name[-1] != "w":
                return lambda2 * elect(d, weights, majority=True)
            w = self.base[name].astype(float)
            along = [(x * w).sum(axis=1, keepdims=True) / ((w * w).sum(axis=1, keepdims=True) + 1e-8) * w for x in d]
            apart = [x - y for x, y in zip(d, along)]
            return lambda1 * elect(along, weights, majority=True) + lambda2 * elect(apart, weights, majority=True)
        self.check(self.merged({"neuromerging": {"mask_rate": 0.4}}), lambda n, d: change(n, d, 0, lambda2), THIRD)
        given = {"mask_rate": 0.4, "lambda1": 0.5, "lambda2_from": "given", "lambda2": 0.8}
        self.check(self.merged({"neuromerging": {**given, "weighted": True}}), lambda n, d: change(n, d, 0.5, 0.8, WEIGHTS))
        random = np.random.default_rng(12)  # two that undo each other: every vote cancels
        base, step = random.integers(-64, 64, (7, 30)) / 8, random.integers(-8, 9, (7, 30)) / 64
        self.rewrite("encoder.layer.2.w", base, aa=base + step, bb=base - step, cc=base)
        self.check(self.merged({"neuromerging": {**given, "mask_rate": 0, "lambda": 2}}, ["aa", "bb"]), lambda n, d: 2 * (
            change(n, d, 0.5, 0.8, (1, 1), 0) if n != "encoder.layer.2.w" else self.undone(d)), (0.5, 0.5), ("aa", "bb"))

    def undone(self, d):
        w = self.base["encoder.layer.2.w"].astype(float)
        shift = (d[0] * w).sum(axis=1, keepdims=True) / ((w * w).sum(axis=1, keepdims=True) + 1e-8)
        return 0.5 * np.abs(shift * w) + 0.8 * np.abs(d[0] - shift * w)


if __name__ == "__main__":
    unittest.main()
