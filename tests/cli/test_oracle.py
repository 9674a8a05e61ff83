"""The demo family against float64 NumPy, and one set of bits for every way of running it."""
import glob
import os
import unittest

from common import BASE, EMOJI, Case, h5py, np, result_bits, safetensors, write_yaml, run


class Oracle(Case):
    def config(self, name, **sections):
        sections.setdefault("shards", {"dir": "shards"})
        return write_yaml(self.path(f"{name}.yaml"), result=f"{name}.h5", **sections)

    def test_numpy(self):
        self.good("run", "-c", self.config("r"), ranks=2)
        base = safetensors(f"{BASE}/model.safetensors")
        locales = sorted(path.rsplit("_k_", 1)[1] for path in glob.glob(f"{EMOJI}/xlm-roberta-emoji_k_*"))
        sources = [safetensors(f"{BASE}_k_{locale}/model.safetensors") for locale in locales]
        with h5py.File(self.path("r.h5")) as file:
            self.assertEqual([s.decode() for s in file["sources/id"][()]], locales)
            names = [s.decode() for s in file["tensors/name"][()]]
            selected = file["tensors/selected"][()].astype(bool)
            layers = [s.decode() for s in file["tensors/layer"][()]]
            source_only = file["tensors/source_only"][()].astype(bool)
            group = file["compatibility"]
            dot, base_dot = group["gram/source_dot"][()], group["gram/base_dot"][()]
            base_norm2 = group["gram/base_norm2"][()]
            cosine, encoder = group["task_vector_cosine"][()], group["task_vector_cosine_encoder"][()]
            by_layer, layer_names = group["task_vector_cosine_layers"][()], [s.decode() for s in group["layers"][()]]
        self.assertEqual(sorted(names), sorted(sources[0]))
        exact = []
        for k, name in enumerate(names):
            bare = name.removeprefix("roberta.")
            self.assertEqual(bool(source_only[k]), bare not in base and name not in base, name)
            origin = base.get(bare, base.get(name, np.zeros_like(sources[0][name]))).ravel()
            tau = np.stack([s[name].ravel() - origin for s in sources])
            gram = tau @ tau.T
            exact.append(gram)
            norm = np.sqrt(np.diag(gram))
            scale = np.outer(norm, norm) + 1e-300
            self.assertLessEqual(np.max(np.abs(dot[k] - gram) / scale), 1e-6, name)
            zero = np.linalg.norm(origin)
            self.assertLessEqual(np.max(np.abs(base_dot[k] - tau @ origin) / (norm * zero + 1e-300)), 1e-6, name)
            self.assertLessEqual(abs(base_norm2[k] - zero ** 2), 1e-6 * zero ** 2 + 1e-300)
        exact, layers = np.array(exact), np.array(layers)

        def check(got, take):
            gram = exact[take].sum(axis=0)
            norm = np.sqrt(np.diag(gram))
            self.assertLessEqual(np.max(np.abs(got - gram / np.outer(norm, norm))), 1e-7)
            self.assertTrue(np.all(np.diag(got) == 1) and np.array_equal(got, got.T))

        check(cosine, selected)
        check(encoder, selected & (layers != ""))
        self.assertEqual(layer_names, [f"roberta.encoder.layer.{k}" for k in range(4)])
        for k, layer in enumerate(layer_names):
            check(by_layer[k], selected & (layers == layer))
        off = cosine[~np.eye(len(cosine), dtype=bool)]
        self.assertAlmostEqual(off.mean(), 0.201, places=3)  # as the family's README says
        self.assertAlmostEqual(off.std(), 0.024, places=3)

    def test_one_set_of_bits(self):
        self.good("pack", "-c", self.config("a"), ranks=3)
        self.good("run", "-c", self.config("a"))
        reference = result_bits(self.path("a.h5"))
        self.assertGreater(len(reference), 20)
        none = {"shards": {"dir": "none"}}
        ways = [(1, {}, {}), (2, {}, {}), (3, {}, {}), (5, {}, {}), (0, {}, {"compute": {"threads": 3}}),
                (2, {"MERGEGRID_KERNEL": "portable"}, {}), (1, {"MERGEGRID_KERNEL": "avx2"}, {}), (3, {}, none),
                (0, {}, {"compute": {"backend": "ref"}, **none}), (5, {"MERGEGRID_KERNEL": "avx512"}, {})]
        for k, (ranks, env, sections) in enumerate(ways):
            with self.subTest(ranks=ranks, env=env, sections=sections):
                name = f"w{k}"
                config = self.config(name, **sections)
                done = run("run", "-c", config, ranks=ranks, env=env)
                if done.returncode == 1 and "does not run" in done.stderr:
                    print(f"not on this processor: {env}")
                    continue
                self.assertEqual(done.returncode, 0, done.stderr)
                self.same_bits(self.path(f"{name}.h5"), reference)

    def test_one_set_of_bits_of_bf16(self):
        """Multiplied in an order of their own, which only a matrix unit has in hardware."""
        shards = {"shards": {"dir": "bf16", "dtype": "bf16"}}
        self.good("run", "-c", self.config("b", **shards))
        reference = result_bits(self.path("b.h5"))
        ways = [(3, {}, {}), (5, {"MERGEGRID_KERNEL": "avx2"}, {}), (1, {"MERGEGRID_KERNEL": "avx512"}, {}),
                (2, {"MERGEGRID_KERNEL": "amx"}, {}), (0, {"MERGEGRID_KERNEL": "portable"}, {"compute": {"threads": 2}}),
                (0, {}, {"compute": {"backend": "ref"}})]
        for k, (ranks, env, sections) in enumerate(ways):
            with self.subTest(ranks=ranks, env=env, sections=sections):
                done = run("run", "-c", self.config(f"b{k}", **shards, **sections), ranks=ranks, env=env)
                if done.returncode == 1 and "does not run" in done.stderr:
                    print(f"not on this processor: {env}")
                    continue
                self.assertEqual(done.returncode, 0, done.stderr)
                self.same_bits(self.path(f"b{k}.h5"), reference)
        with h5py.File(self.path("b.h5")) as file:
            self.assertIn("links of 32 bf16", file["provenance"].attrs["numeric_mode"])

    def test_shards_alone(self):
        for name in os.listdir(EMOJI):
            if name.endswith(("emoji", "_k_af-ZA", "_k_sw-KE", "_k_fr-FR")):
                os.makedirs(self.path("models"), exist_ok=True)
                os.symlink(f"{EMOJI}/{name}", self.path("models", name))
        sections = {"base": self.path("models/xlm-roberta-emoji"), "sources": self.path("models/xlm-roberta-emoji_k_{locale}"),
                    "shards": {"dir": "shards"}}
        config = write_yaml(self.path("r.yaml"), result="r.h5", **sections)
        self.good("run", "-c", config)
        os.rename(self.path("models"), self.path("gone"))
        again = write_yaml(self.path("again.yaml"), result="again.h5", **sections)
        self.good("run", "-c", again, ranks=2)
        self.same_bits(self.path("again.h5"), result_bits(self.path("r.h5")))
        self.good("pack", "-c", again)
        self.good("plan", "-c", again)


if __name__ == "__main__":
    unittest.main(verbosity=2)
