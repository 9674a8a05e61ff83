"""Corners of merges: one source, sources that changed nothing, equal magnitudes, tensors of a few elements."""
import unittest

from common import np, write_checkpoint
from merging import HEAD, SHAPES, Merging

# Parameters with which a method gives back its only source.
ITSELF = ["linear", "average", "similarity", {"task_arithmetic": {"lambda": 1}}, {"ties": {"density": 1}}, {"ties": {"density": 1, "trim": "global"}},
          {"dare_linear": {"density": 1}}, {"dare_ties": {"density": 1}}, {"magmax": {"lambda": 1}}, {"breadcrumbs": {"density": 1}},
          {"breadcrumbs_ties": {"density": 1}}, {"ram": {"epsilon": 0}}, "model_stock", {"model_stock": {"filter_wise": True}},
          {"model_stock": {"average": "angles"}}, "directional_consensus", {"directional_consensus": {"alpha": 0.5}}, "fisher_simple", "slerp",
          "multislerp", {"multislerp": {"of": "theta"}}, "karcher", {"exclude_layers": {"layers": "1"}},
          {"include_layers": {"layers": "1", "elsewhere": "best_source"}}, {"neuromerging": {"mask_rate": 0, "lambda1": 1}}, {"della": {"density": 1}},
          {"della_linear": {"density": 1}}, "sce", {"sce": {"select_topk": 0.1}}, {"nearswap": {"t": 100}},
          {"ramplus_tl": {"epsilon": 0, "r": 0}}]
OF_TWO = ["layer_swap", "nuslerp", {"nuslerp": {"of": "theta", "flatten": False}}, "nearswap", "arcee_fusion"]
OF_ANY = ["task_arithmetic", "ties", {"ties": {"zeros": "majority", "trim": "global"}}, {"ties": {"dare_drop_rate": 0.5}}, "dare_linear",
          {"dare_linear": {"rescale": "l1"}}, "dare_ties", "magmax", "breadcrumbs", "breadcrumbs_ties", "ram", "ramplus_tl", "model_stock",
          {"model_stock": {"filter_wise": True}}, "directional_consensus", "fisher_simple", "slerp", "multislerp", "karcher", "exclude_layers",
          "include_layers", "neuromerging", {"neuromerging": {"lambda1": 1}}, "della", {"della_linear": {"rescale": "inverse"}}, "sce",
          {"sce": {"select_topk": 0.5}}]


class Edges(Merging):
    def test_one_source(self):
        for method in ITSELF:
            got = self.merged(method, ["bb"])
            for name, value in self.sources["bb"].items():
                np.testing.assert_allclose(got[name], value, rtol=3e-7, atol=3e-7, err_msg=f"{method} {name}")

    def test_nothing_changed(self):
        """Of a tensor that no source changed, everything leaves what it was; nothing is divided by 0."""
        for id in self.sources:
            self.sources[id].update({name: self.base[name] for name in SHAPES if name != "embed"})
            write_checkpoint(self.path(id), self.sources[id], labels=list("vwxyz"))
        for method, sources in [(m, ["bb", "cc"]) for m in OF_TWO] + [(m, None) for m in OF_ANY]:
            got = self.merged(method, sources)
            for name in SHAPES:
                if name != "embed":
                    np.testing.assert_allclose(got[name], self.base[name], rtol=2e-7, atol=1e-12, err_msg=f"{method} {name}")
            self.assertTrue(np.isfinite(got["embed"]).all())

    def test_equal_magnitudes(self):
        """Where no element is larger than another, none is dropped for its size, of few elements or of many."""
        random = np.random.default_rng(13)
        signs = {name: np.sign(random.normal(size=shape)) for name, shape in SHAPES.items()}
        for name, sign in signs.items():
            base = random.integers(-64, 64, sign.shape) / 8
            self.rewrite(name, base, **{id: base + sign / 8 for id in self.sources})
        for method in ({"ties": {"density": 0.1}}, {"ties": {"density": 0.1, "trim": "global"}}, {"breadcrumbs": {"density": 0.2, "gamma": 0.3}},
                       "breadcrumbs", "breadcrumbs_ties", {"linear": {"mask_rate": 0.5}}, {"neuromerging": {"lambda1": 1}},
                       {"sce": {"select_topk": 0.5}}, "ram"):
            got = self.merged(method)
            for name, sign in signs.items():
                np.testing.assert_allclose(got[name], self.base[name] + sign / 8, rtol=3e-7, atol=3e-7, err_msg=f"{method} {name}")

    def test_few_elements(self):
        """At least one element stays of any tensor, whatever share of it that is."""
        for method in ({"ties": {"density": 0.001}}, {"breadcrumbs": {"density": 0.001}}, {"linear": {"mask_rate": 0.999}},
                       {"breadcrumbs_ties": {"density": 0.001}}, {"sce": {"select_topk": 0.001}}):
            got = self.merged(method)
            for name in SHAPES:
                self.assertGreater(np.count_nonzero(got[name] != self.base[name]), 0, (method, name))

    def test_a_random_head_beside_another_base(self):
        """A trim over all tensors keeps its share of those that are relative to the source, which a random head is not."""
        got = self.merged({"ties": {"trim": "global", "density": 0.5}}, {"aa": 2, "bb": 1}, recipe={"drop_strongest": True, "head": "random"})
        changed = sum(np.count_nonzero(abs(got[name] - self.sources["aa"][name]) > 1e-5) for name in SHAPES)
        self.assertEqual(changed, sum(self.base[name].size for name in SHAPES) // 2)

    def test_heads_are_means(self):
        for method in ("nearswap", "arcee_fusion", "nuslerp", {"layer_swap": {"rest": "second"}}):
            got = self.merged(method, {"aa": 1, "cc": 3})
            for name in HEAD:
                np.testing.assert_allclose(got[name], (self.sources["aa"][name] + 3 * self.sources["cc"][name].astype(float)) / 4, rtol=3e-7, atol=3e-7)

    def test_heads_go_by_weights_where_the_method_does(self):
        for name, weighted in (("ties", True), ("task_arithmetic", True), ("della", True), ("ties", False), ("dare_linear", False)):
            got = self.merged({name: {"weighted": weighted}}, {"aa": 1, "cc": 3})
            for tensor in HEAD:
                share = 0.25 if weighted else 0.5
                mean = share * self.sources["aa"][tensor] + (1 - share) * self.sources["cc"][tensor].astype(float)
                np.testing.assert_allclose(got[tensor], mean, rtol=3e-7, atol=3e-7, err_msg=f"{name} {weighted}")


if __name__ == "__main__":
    unittest.main()
