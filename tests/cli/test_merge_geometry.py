"""Methods whose coefficients follow from a tensor's inner products, and methods of two models, against NumPy."""
import unittest

from common import np, write_checkpoint
from merging import RNG, Merging, without_smallest

THIRD = (1 / 3,) * 3
WEIGHTS = (0.5, 0.25, 0.25)


class Geometry(Merging):
    def test_model_stock(self):
        def rate(flat, angles):
            cosines = [np.clip(flat[i] @ flat[j] / max(np.linalg.norm(flat[i]) * np.linalg.norm(flat[j]), 1e-6), -1, 1)
                       for i in range(3) for j in range(i)]
            c = np.cos(np.mean(np.arccos(cosines))) if angles else np.mean(cosines)
            return 3 * c / (1 + 2 * c) if abs(1 + 2 * c) > 1e-6 else 0  # the angles of three signs that differ: the pole
        for average in ("cosines", "angles"):
            def change(_, d, average=average):
                return rate([x.ravel() for x in d], average == "angles") * sum(d) / 3

            def by_row(_, d, average=average):
                rows = [np.atleast_2d(x) for x in d]
                rates = np.array([rate([x[k] for x in rows], average == "angles") for k in range(len(rows[0]))])
                return np.reshape(rates[:, None] * sum(rows) / 3, d[0].shape)
            self.check(self.merged({"model_stock": {"average": average}}), change, THIRD)
            self.check(self.merged({"model_stock": {"average": average, "filter_wise": True}}), by_row, THIRD)
        for sources in (["bb"], ["bb", "cc"]):  # one source, and identical ones: t = 1
            for filter_wise in (False, True):
                alone = self.merged({"model_stock": {"filter_wise": filter_wise}}, sources)
                np.testing.assert_allclose(alone["embed"], self.sources["bb"]["embed"], rtol=0, atol=3e-7)
            self.sources["cc"] = dict(self.sources["bb"])
            write_checkpoint(self.path("cc"), self.sources["cc"], labels=list("vwxyz"))

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
        def change(d, alpha, weights=WEIGHTS):
            total = sum(d)
            norm = np.linalg.norm(total)
            direction = total / norm if norm > 1e-8 else 0 * total
            return sum(w * (alpha * np.sum(x * direction) * direction + (1 - alpha) * x) for w, x in zip(weights, d))
        for alpha in (0, 0.5, 1):
            self.check(self.merged({"directional_consensus": {"alpha": alpha}}), lambda _, d, alpha=alpha: change(d, alpha))
        for aggregation, weights in (("sum", (1, 1, 1)), ("average", THIRD)):
            self.check(self.merged({"directional_consensus": {"alpha": 0.7, "lambda": 0.5, "aggregation": aggregation}}),
                       lambda _, d, weights=weights: 0.5 * change(d, 0.7, weights))
        self.check(self.merged({"directional_consensus": {"alpha": 0.7, "mask_rate": 0.4}}),
                   lambda _, d: change([without_smallest(x, 0.4) for x in d], 0.7))
        drop = {"dare_drop_rate": 0.6}
        thin = {id: self.merged({"task_arithmetic": {"lambda": 1, **drop}}, [id]) for id in self.sources}
        self.check(self.merged({"directional_consensus": {"alpha": 0.7, **drop}}),
                   lambda n, _: change([thin[id][n] - self.base[n] for id in thin], 0.7))
        linear, zero = self.merged("linear"), self.merged({"directional_consensus": {"alpha": 0}})
        for name in linear:
            np.testing.assert_array_equal(linear[name], zero[name])

    def test_fisher_simple(self):
        def change(thetas, weights=WEIGHTS):
            norms = np.array(weights) * [np.linalg.norm(x) for x in thetas]
            return sum(w * x for w, x in zip(norms / norms.sum(), thetas))
        self.check_theta(self.merged("fisher_simple"), lambda _, x: change(x))
        self.check_theta(self.merged({"fisher_simple": {"weighted": False}}), lambda _, x: change(x, (1, 1, 1)), THIRD)
        self.check_theta(self.merged({"fisher_simple": {"mask_rate": 0.4}}),
                         lambda n, x: change([self.base[n] + without_smallest(y - self.base[n], 0.4) for y in x]))

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
        self.check_theta(self.merged({"slerp": {"share": "merginguriel"}}, {"aa": 1, "bb": 3, "cc": 2}),
                         lambda _, x: slerp(slerp(x[1], x[2], 3 / 5, 0.9995), x[0], 2 / 3, 0.9995), weights=(1 / 6, 3 / 6, 2 / 6))

    def test_multislerp(self):
        weights = (4 / 7, 2 / 7, 1 / 7)  # no two of them make up for the third, as signs of one element could have it
        def change(_, d):
            norms = [np.linalg.norm(x) for x in d]
            mean = sum(w * x / n for w, x, n in zip(weights, d, norms))
            return mean / np.linalg.norm(mean) * sum(w * n for w, n in zip(weights, norms))
        self.check(self.merged("multislerp", {"aa": 4, "bb": 2, "cc": 1}), change, weights)
        self.check_theta(self.merged({"multislerp": {"of": "theta"}}, {"aa": 4, "bb": 2, "cc": 1}), change, weights)

    def test_karcher(self):
        def change(_, thetas, turns=10, tolerance=1e-5):
            norms = [np.linalg.norm(x) for x in thetas]
            units = [x / n for x, n in zip(thetas, norms)]
            u = sum(units) / np.linalg.norm(sum(units))
            for _ in range(turns):
                step = 0
                for x in units:
                    angle = np.arccos(np.clip(np.sum(x * u), -1, 1))
                    step = step + (angle / np.sin(angle) if angle > 1e-8 else 1) * (x - np.cos(angle) * u) / 3
                size = np.linalg.norm(step)
                if size < tolerance:
                    break
                u = np.cos(size) * u + np.sin(size) * step / size
            return u * np.mean(norms)
        self.check_theta(self.merged("karcher"), change, THIRD)
        self.check_theta(self.merged({"karcher": {"max_iter": 1, "tol": 1e-12}}), lambda n, x: change(n, x, 1, 1e-12), THIRD)

    def test_karcher_of_nothing(self):
        """A tensor that is 0 has no direction, and the length 0."""
        self.sources["bb"]["embed"][:] = 0
        write_checkpoint(self.path("bb"), self.sources["bb"], labels=list("vwxyz"))
        a, c = (self.sources[id]["embed"].astype(float) for id in ("aa", "cc"))
        norms = [np.linalg.norm(x) for x in (a, c)]
        middle = a / norms[0] + c / norms[1]
        np.testing.assert_allclose(self.merged("karcher")["embed"], middle / np.linalg.norm(middle) * sum(norms) / 3, rtol=3e-7, atol=3e-7)


class TwoModels(Merging):
    """The first is the one of larger weight."""

    PAIR, HALVES, IDS = {"aa": 1, "cc": 4}, (0.2, 0.8), ("aa", "cc")

    def test_nuslerp_of_opposite_rows(self):
        """Between them is a straight line, whatever rounding makes of their cosine."""
        self.base["embed"] = np.round(8 * self.base["embed"]) / np.float32(8)
        step = RNG.integers(1, 9, self.base["embed"].shape).astype(np.float32) / 8
        write_checkpoint(self.path("base"), self.base)
        for id, sign in (("aa", 1), ("cc", -1)):
            self.sources[id]["embed"] = self.base["embed"] + sign * step
            write_checkpoint(self.path(id), self.sources[id], labels=list("vwxyz"))
        for parameters in ({"flatten": False}, {"flatten": False, "row_wise": True}, {"flatten": True}):
            got = self.merged({"nuslerp": parameters}, {"aa": 3, "cc": 1})
            np.testing.assert_array_equal(got["embed"], self.base["embed"] + step / 2)

    def test_nuslerp(self):
        def slerp(a, b, t=0.2):
            norms = np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-7) * np.maximum(np.linalg.norm(b, axis=-1, keepdims=True), 1e-7)
            cosine = np.clip((a * b).sum(axis=-1, keepdims=True) / norms, -1, 1)
            with np.errstate(all="ignore"):
                angle = np.arccos(cosine)
                arc = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
            return np.where(1 - cosine ** 2 <= 1e-14, (1 - t) * a + t * b, arc)
        for parameters, shape in (({}, lambda x: x.ravel()), ({"flatten": False}, lambda x: x), ({"flatten": False, "row_wise": True}, lambda x: x.T)):
            def change(_, d, shape=shape):
                out = slerp(shape(d[1]), shape(d[0]))
                return (out.T if out.T.shape == d[0].shape and out.shape != d[0].shape else out).reshape(d[0].shape)

            def square(name, d, change=change, columns=bool(parameters.get("row_wise"))):
                out = change(name, d)
                return out.T if columns and d[0].ndim == 2 and d[0].shape[0] == d[0].shape[1] else out
            self.check(self.merged({"nuslerp": parameters}, self.PAIR), square, self.HALVES, self.IDS)
            self.check_theta(self.merged({"nuslerp": {**parameters, "of": "theta"}}, self.PAIR), square, self.HALVES, self.IDS)
        self.refused("nuslerp merges 2 sources, not 3", "nuslerp")

    def test_nearswap(self):
        def near(a, b, t):
            u = np.clip(t / np.maximum(np.abs(a - b), 1e-6), 0, 1)
            return u * b + (1 - u) * a
        for t in (0, 0.001, 0.1, 100):
            self.check(self.merged({"nearswap": {"t": t}}, self.PAIR), lambda _, d, t=t: near(d[1], d[0], t), self.HALVES, self.IDS)
            self.check(self.merged({"nearswap": {"t": t}}, ["bb"]), lambda _, d, t=t: near(0 * d[0], d[0], t), (1,), ("bb",))
        self.refused("nearswap merges one or 2 sources, not 3", "nearswap")

    def test_arcee_fusion(self):
        def fused(a, b):
            def logs(x):
                return x - x.max(axis=-1, keepdims=True) - np.log(np.exp(x - x.max(axis=-1, keepdims=True)).sum(axis=-1, keepdims=True))
            apart = np.maximum((np.exp(logs(b)) * (logs(b) - logs(a))).sum(axis=-1, keepdims=True), 0)
            importance = (np.abs(b - a) * apart).astype(np.float32)
            order = np.sort(importance, axis=None)
            q1, median, q3 = (float(order[k * (order.size - 1) // 4]) for k in (1, 2, 3))
            taken = importance >= median + 1.5 * (q3 - q1)
            self.taken += np.count_nonzero(taken) / taken.size
            return np.where(taken, b, a)
        self.taken = 0
        for name, value in self.base.items():  # smaller, so that no softmax is all one element's
            self.rewrite(name, 0.1 * value, **{id: 0.1 * tensors[name] for id, tensors in self.sources.items()})
        self.check_theta(self.merged("arcee_fusion", self.PAIR), lambda _, x: fused(x[1], x[0]), self.HALVES, self.IDS)
        self.assertLess(self.taken, 3)  # of seven tensors one has a single element
        self.check_theta(self.merged("arcee_fusion", ["bb"]), lambda n, x: fused(self.base[n].astype(float), x[0]), (1,), ("bb",))


if __name__ == "__main__":
    unittest.main()
