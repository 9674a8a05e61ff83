"""Synthetic families whose Grams are known exactly: architectures, dtypes, index files, many sources, levels, locations."""
import json
import os
import unittest

from common import Case, h5py, np, result_bits, write_checkpoint, write_yaml


class Families(Case):
    def gram_of(self, base, sources, ranks=0, name="r", **sections):
        sections.setdefault("compatibility", {"exclude": []})
        config = write_yaml(self.path(f"{name}.yaml"), base=base, sources=sources, result=f"{name}.h5", **sections)
        self.good("run", "-c", config, ranks=ranks)
        with h5py.File(self.path(f"{name}.h5")) as file:
            names = [s.decode() for s in file["tensors/name"][()]]
            gram = file["compatibility/gram"]
            return names, gram["source_dot"][()], gram["base_dot"][()], gram["base_norm2"][()]

    def check_known(self, family, **kwargs):
        names, dot, base_dot, base_norm2 = self.gram_of(*family[:2], **kwargs)
        known = np.load(os.path.join(os.path.dirname(family[0]), "known_gram.npz"))
        order = [list(known["names"]).index(name) for name in names]
        self.assertEqual(len(order), len(known["names"]))
        np.testing.assert_array_equal(dot, known["source_dot"][order])
        np.testing.assert_array_equal(base_dot, known["base_dot"][order])
        np.testing.assert_array_equal(base_norm2, known["base_norm2"][order])

    def test_dtypes_and_architectures(self):
        for k, args in enumerate([("--shape", "tiny", "--dtype", "f64"), ("--shape", "tiny", "--dtype", "bf16", "--files", 3),
                                  ("--shape", "llama", "--dtype", "f16"), ("--shape", "vision", "--files", 2),
                                  ("--shape", "emoji", "--dtype", "f32")]):
            with self.subTest(args=args):
                family = self.make_family(f"f{k}", "-n", 5, *args)
                self.check_known(family, ranks=2, name=f"a{k}", shards={"dir": f"s{k}"})
                self.check_known(family, name=f"b{k}", shards={"dir": "none"})

    def test_sixteen_bit_shards_of_exact_values(self):
        family = self.make_family("f", "-n", 4, "--shape", "tiny")
        for dtype in ("bf16", "f16"):  # every value is exact in both
            self.check_known(family, ranks=2, name=dtype, shards={"dir": f"s-{dtype}", "dtype": dtype})

    def test_layers_of_other_architectures(self):
        for shape, layer in (("llama", "model.layers.1"), ("vision", "blocks.1")):
            family = self.make_family(shape, "-n", 3, "--shape", shape)
            self.gram_of(*family, name=shape, shards={"dir": f"s-{shape}"})
            with h5py.File(self.path(f"{shape}.h5")) as file:
                self.assertIn(layer.encode(), list(file["compatibility/layers"][()]))

    def test_many_sources(self):
        family = self.make_family("f", "-n", 230, "--shape", "tiny")  # three pair blocks a side
        self.check_known(family, ranks=3, shards={"dir": "s"})
        self.check_known(family, ranks=2, name="bf16", shards={"dir": "s-bf16", "dtype": "bf16"})

    def test_levels(self):
        family = self.make_family("f", "-n", 6, "--shape", "emoji")
        exclude = {"exclude": ["classifier.*"]}
        cosines = []
        for level in ("tensor", "layer", "total"):
            self.gram_of(*family, ranks=2, name=level, shards={"dir": "s"}, compatibility={"gram": level, **exclude})
            with h5py.File(self.path(f"{level}.h5")) as file:
                group = file["compatibility"]
                cosines.append((group["task_vector_cosine"][()], group["task_vector_cosine_encoder"][()]))
                self.assertEqual("task_vector_cosine_layers" in group, level != "total")
        for all_, encoder in cosines[1:]:
            np.testing.assert_allclose(all_, cosines[0][0], atol=1e-14)
            np.testing.assert_allclose(encoder, cosines[0][1], atol=1e-14)

    def test_lists_maps_and_links(self):
        base, pattern = self.make_family("f", "-n", 3, "--shape", "tiny")
        dirs = [pattern.replace("{locale}", f"s{k:04d}") for k in range(3)]
        os.makedirs(self.path("hub/snapshots"))
        for k, dir_ in enumerate(dirs):  # as in a cache: a directory of links to blobs
            os.makedirs(self.path(f"hub/snapshots/{k}"))
            for file in os.listdir(dir_):
                os.symlink(os.path.join(dir_, file), self.path(f"hub/snapshots/{k}", file))
        links = [self.path(f"hub/snapshots/{k}") for k in range(3)]
        want = self.gram_of(base, pattern, name="pattern", shards={"dir": "s0"})[1]
        for name, sources in (("list", dirs), ("links", links), ("map", dict(zip("abc", dirs))),
                              ("full", {"x": {"path": dirs[0], "locale": "fr-FR"}, "y": dirs[1], "z": {"path": dirs[2]}})):
            np.testing.assert_array_equal(self.gram_of(base, sources, name=name, shards={"dir": f"s-{name}"})[1], want)
        with h5py.File(self.path("full.h5")) as file:
            self.assertEqual(list(file["sources/id"][()]), [b"x", b"y", b"z"])
            self.assertEqual(list(file["sources/locale"][()]), [b"fr-FR", b"y", b"z"])
        config = write_yaml(self.path("two.yaml"), base=base, sources=pattern, family={"locales": ["s0002", "s0000"]},
                            shards={"dir": "s0"}, result="two.h5", compatibility={"exclude": []})
        self.good("run", "-c", config)
        with h5py.File(self.path("two.h5")) as file:
            self.assertEqual(list(file["sources/id"][()]), [b"s0002", b"s0000"])
            np.testing.assert_array_equal(file["compatibility/gram/source_dot"][()], want[:, [2, 0]][:, :, [2, 0]])

    def test_prefixes(self):
        rng = np.random.default_rng(0)
        body = {"embeddings.w": rng.random((5, 4)), "encoder.layer.0.w": rng.random((4, 4)), "encoder.layer.1.w": rng.random((4, 4))}

        def named(prefix):
            return {prefix + name: value for name, value in body.items()}

        sources = {"roberta.": {"classifier.out.weight": np.ones((2, 4)), "roberta.pooler.w": np.ones(4)}, "": {"classifier.out.weight": np.ones((2, 4))}}
        for k, (base_prefix, source_prefix, extra) in enumerate([("", "roberta.", {}), ("roberta.", "roberta.", {"lm_head.bias": np.ones(7)}),
                                                                 ("roberta.", "", {"roberta.pooler.w": np.ones(9)}), ("", "", {})]):
            with self.subTest(base=base_prefix, source=source_prefix):
                write_checkpoint(self.path(f"p{k}/base"), {**named(base_prefix), **extra})
                for s in range(2):
                    tau = {name: value + (s + 1) / 8 for name, value in named(source_prefix).items()}
                    write_checkpoint(self.path(f"p{k}/src_{s}"), {**tau, **sources[source_prefix]})
                names, dot, _, _ = self.gram_of(self.path(f"p{k}/base"), self.path(f"p{k}/src_{{locale}}"), name=f"p{k}", shards={"dir": f"ps{k}"})
                at = names.index(source_prefix + "encoder.layer.0.w")
                self.assertAlmostEqual(dot[at][0][1], 16 * 2 / 64, places=6)

    def test_small_and_empty_tensors(self):
        base = {"a.empty": np.zeros((0, 3)), "a.one": np.ones(1), "a.scalar": np.float64(2), "a.five": np.arange(5.0), "a.big": np.zeros(70001)}
        write_checkpoint(self.path("b"), base)
        for s in range(3):
            write_checkpoint(self.path(f"s_{s}"), {name: value + s for name, value in base.items()})
        names, dot, _, _ = self.gram_of(self.path("b"), self.path("s_{locale}"), ranks=2, shards={"dir": "sh"})
        counts = {"a.empty": 0, "a.one": 1, "a.scalar": 1, "a.five": 5, "a.big": 70001}
        for name, gram in zip(names, dot):
            np.testing.assert_array_equal(gram, counts[name] * np.outer(range(3), range(3)))
        with h5py.File(self.path("r.h5")) as file:  # source 0 is the base itself: its cosines are not defined
            cosine = file["compatibility/task_vector_cosine"][()]
        self.assertTrue(np.isnan(cosine[0]).all() and np.isnan(cosine[:, 0]).all() and cosine[1, 2] == 1 and cosine[1, 1] == 1)

    def test_one_source(self):
        base, pattern = self.make_family("f", "-n", 1, "--shape", "tiny")
        _, dot, _, _ = self.gram_of(base, pattern, ranks=3, shards={"dir": "s"})
        self.assertEqual(dot.shape[1:], (1, 1))

    def test_repacking(self):
        base, pattern = self.make_family("f", "-n", 3, "--shape", "tiny")
        config = write_yaml(self.path("r.yaml"), base=base, sources=pattern, shards={"dir": "s"}, result="r.h5")
        self.assertIn("3 written", self.good("pack", "-c", config).stderr)
        self.assertIn("0 written, 3 up to date", self.good("pack", "-c", config, ranks=2).stderr)
        stamps = {name: os.stat(self.path("s", name)).st_mtime_ns for name in os.listdir(self.path("s")) if name.endswith(".h5")}
        os.utime(pattern.replace("{locale}", "s0001") + "/model.safetensors")
        self.assertIn("0 written, 3 up to date", self.good("pack", "-c", config).stderr)
        self.assertIn("0 written, 3 up to date", self.good("pack", "-c", config, "--rehash").stderr)
        self.assertEqual(stamps, {name: os.stat(self.path("s", name)).st_mtime_ns for name in stamps})
        path = pattern.replace("{locale}", "s0002") + "/model.safetensors"
        with open(path, "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\x3f")
        self.assertIn("1 written, 2 up to date", self.good("pack", "-c", config).stderr)
        self.assertIn("3 written", self.good("pack", "-c", config, "--set", "shards.dtype=bf16").stderr)
        with open(f"{base}/model.safetensors", "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\x3f")
        self.assertIn("3 written", self.good("pack", "-c", config, "--set", "shards.dtype=bf16").stderr)

    def test_rounding_error_is_recorded(self):
        base, pattern = self.make_family("f", "-n", 2, "--shape", "tiny", "--random")
        for dtype, bound in (("f32", 0), ("bf16", 2 ** -8), ("f16", 2 ** -11)):
            config = write_yaml(self.path("r.yaml"), base=base, sources=pattern, shards={"dir": f"s-{dtype}", "dtype": dtype})
            self.good("pack", "-c", config)
            with h5py.File(self.path(f"s-{dtype}", "s0000.h5")) as shard, h5py.File(self.path("s-f32", "s0000.h5")) as exact:
                error, tau = shard.attrs["rounding_error"], exact["values"][()].astype(np.float64)
                stored = shard["values"][()].astype(np.float64)
                if dtype == "f16":
                    scale = np.concatenate([np.full(c, s) for c, s in zip(self.block_sizes(shard), shard["blocks/scale"][()])])
                    stored = stored / scale
                self.assertAlmostEqual(error, np.linalg.norm(stored - tau) / np.linalg.norm(tau), delta=1e-9)
                self.assertLessEqual(error, bound)

    @staticmethod
    def block_sizes(shard):
        for shape, ndim in zip(shard["tensors/shape"][()], shard["tensors/ndim"][()]):
            numel = int(np.prod(shape[:ndim]))
            for first in range(0, numel, 65536):
                yield min(65536, numel - first)


if __name__ == "__main__":
    unittest.main(verbosity=2)
