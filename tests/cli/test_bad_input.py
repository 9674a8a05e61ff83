"""Whatever a user may hand in: a clear message, exit code 1 on all ranks together, no result."""
import json
import os
import shutil
import struct
import subprocess
import unittest

from common import BASE, BINARY, EMOJI, Case, command, environment, h5py, np, run, safetensors, write_checkpoint, write_safetensors, write_yaml

BODY = {"embed.w": np.ones((6, 4)), "encoder.layer.0.w": np.full((4, 4), 2.0), "encoder.layer.1.w": np.full((4, 4), 3.0)}
HEAD = {"classifier.w": np.ones((2, 4))}


def read(path, mode="rb"):
    with open(path, mode) as file:
        return file.read()


class BadInput(Case):
    def setUp(self):
        super().setUp()
        self.family()

    def family(self, sources=3):
        write_checkpoint(self.path("base"), BODY)
        for k in range(sources):
            self.source(k)

    def source(self, k, change=None, labels=("a", "b"), **kwargs):
        tensors = {**{name: value + (k + 1) / 16 for name, value in BODY.items()}, **HEAD}
        if change:
            change(tensors)
        write_checkpoint(self.path(f"src_{k}"), tensors, labels=labels, **kwargs)

    def config(self, name="r", **sections):
        sections.setdefault("shards", {"dir": "shards"})
        sections.setdefault("base", self.path("base"))
        sections.setdefault("sources", self.path("src_{locale}"))
        return write_yaml(self.path(f"{name}.yaml"), result="r.h5", **sections)

    def refused_run(self, *says, ranks=2, **sections):
        done = self.refused("run", "-c", self.config(**sections), ranks=ranks, says=says, timeout=60)
        self.assertFalse(os.path.exists(self.path("r.h5")), "a result is there")
        self.assertEqual([name for name in os.listdir(self.dir) if ".tmp" in name], [])
        if os.path.isdir(self.path("shards")):
            self.assertEqual([name for name in os.listdir(self.path("shards")) if ".tmp" in name], [])
        return done

    def forget_attempts(self):
        """What an attempt finished before it failed is for the same inputs only."""
        shutil.rmtree(self.path("r.h5.journal"), ignore_errors=True)

    def file(self, k=1):
        return self.path(f"src_{k}", "model.safetensors")

    def test_the_family_is_fine_as_it_is(self):
        self.good("run", "-c", self.config(), ranks=2)

    def test_broken_safetensors(self):
        good = read(self.file())
        size, = struct.unpack("<Q", good[:8])

        def header(change):
            entries = json.loads(good[8:8 + size])
            change(entries)
            text = json.dumps(entries).encode()
            return struct.pack("<Q", len(text)) + text + good[8 + size:]

        def set_offsets(name, *offsets):
            return lambda e: e[name].update(data_offsets=list(offsets))

        first = json.loads(good[8:8 + size])["embed.w"]["data_offsets"]
        cases = {"empty": b"", "seven bytes": good[:7], "truncated data": good[:-1], "truncated header": good[:20],
                 "oversized header": struct.pack("<Q", 1 << 60) + good[8:], "no json": struct.pack("<Q", size) + b"{" * size + good[8 + size:],
                 "non-UTF-8": good.replace(b"embed.w", b"emb\xff\xfe.w"), "trailing bytes": good + b"x",
                 "overlap": header(set_offsets("encoder.layer.0.w", first[0], first[0] + 64)),
                 "out of range": header(set_offsets("embed.w", 1 << 40, (1 << 40) + 96)),
                 "reversed": header(set_offsets("embed.w", first[1], first[0])),
                 "size": header(lambda e: e["embed.w"].update(shape=[6, 5])), "negative": header(lambda e: e["embed.w"].update(shape=[-6, -4])),
                 "overflow": header(lambda e: e["embed.w"].update(shape=[1 << 40, 1 << 40])),
                 "dims": header(lambda e: e["embed.w"].update(shape=[1] * 9 + [24])), "dtype": header(lambda e: e["embed.w"].update(dtype="F8_E4M3")),
                 "list": struct.pack("<Q", 2) + b"[]" + good[8 + size:]}
        for name, content in cases.items():
            with self.subTest(name):
                with open(self.file(), "wb") as file:
                    file.write(content)
                self.refused_run("src_1/model.safetensors", ranks=0)

    def test_all_mismatches_at_once(self):
        self.source(0)
        self.source(1, lambda t: t.pop("embed.w"))
        self.source(2, lambda t: t.update({"encoder.layer.0.w": np.ones((4, 5)), "encoder.layer.9.w": np.ones(3)}), labels=("a", "z"))
        done = self.refused_run("src_1", "embed.w", "src_2/model.safetensors", "encoder.layer.0.w", "[4, 5]", "[4, 4]", "encoder.layer.9.w",
                                "src_2/config.json", "'b'")
        self.assertIn("4 mismatches", done.stderr)
        self.assertFalse(os.path.exists(self.path("shards", "0.h5")), "bulk reading began")

    def test_base_and_integer_mismatches(self):
        self.source(1, lambda t: t.update({"encoder.layer.0.w": np.ones((4, 4), dtype=int)}))
        self.refused_run("encoder.layer.0.w", "I64", ranks=0)
        self.family()
        write_checkpoint(self.path("base"), {**BODY, "encoder.layer.2.w": np.ones(3)})
        self.refused_run("encoder.layer.2.w", "base", ranks=0)
        write_checkpoint(self.path("base"), {k: v for k, v in BODY.items() if k != "encoder.layer.1.w"})
        self.refused_run("encoder.layer.1.w", "missing", ranks=0)
        write_checkpoint(self.path("base"), {"other.x": np.ones(3)})
        self.refused_run("shares no tensor", ranks=0)

    def test_not_finite(self):
        for k, value in enumerate((np.nan, np.inf, -np.inf)):
            def spoil(tensors):
                tensors["encoder.layer.1.w"] = tensors["encoder.layer.1.w"].copy()
                tensors["encoder.layer.1.w"][2, 1] = value
            self.source(1, spoil)
            for shards in ({"dir": f"shards{k}"}, {"dir": "none"}):
                self.forget_attempts()
                self.refused_run("src_1", "encoder.layer.1.w", "element 9", shards=shards)
        self.forget_attempts()
        config = self.config(family={"allow_nonfinite": True})
        done = self.good("run", "-c", config, ranks=2)
        self.assertIn("not finite", done.stderr)
        with h5py.File(self.path("r.h5")) as file:
            cosine = file["compatibility/task_vector_cosine"][()]
        self.assertTrue(np.isnan(cosine[1]).all() and cosine[0, 0] == 1 and np.isfinite(cosine[0, 2]))

    def test_missing_checkpoints(self):
        sections = {"family": {"locales": ["0", "7", "1", "8"]}}
        self.refused_run("src_7", "src_8", **sections)
        config = self.config(family={"locales": ["0", "7", "1", "8"], "missing": "skip"})
        self.good("run", "-c", config, ranks=2)
        with h5py.File(self.path("r.h5")) as file:
            self.assertEqual(list(file["sources/id"][()]), [b"0", b"1"])
            self.assertEqual(list(file["sources/skipped"][()]), [b"7", b"8"])
            self.assertTrue((file["compatibility/gram/source_dot"][()].diagonal(axis1=1, axis2=2)[:3] > 0).all())

    def test_places_that_are_not_there(self):
        self.refused_run("nowhere", base=self.path("nowhere"))
        self.refused_run("Hub", base="FacebookAI/xlm-roberta-base")
        self.refused_run("nothing_{locale}", sources=self.path("nothing_{locale}"))
        self.refused_run("no/such/dir", sources=self.path("no/such/dir/x_{locale}"))
        os.remove(self.path("src_1", "config.json"))
        self.refused_run("src_1", "config.json")
        self.family()
        os.rename(self.file(), self.path("src_1", "pytorch_model.bin"))
        self.refused_run("src_1", "scripts/to-safetensors")
        os.remove(self.path("src_1", "pytorch_model.bin"))
        self.refused_run("src_1", "model.safetensors")

    @unittest.skipIf(os.geteuid() == 0 and shutil.which("setpriv") is None, "root reads everything")
    def test_unreadable(self):
        os.chmod(self.path("src_1"), 0)
        prefix = ["setpriv", "--reuid", "65534", "--clear-groups"] if os.geteuid() == 0 else []
        os.chmod(self.dir, 0o777)
        config = self.config()
        done = subprocess.run(prefix + command("run", "-c", config), env=environment(), capture_output=True, text=True, timeout=60)
        os.chmod(self.path("src_1"), 0o755)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("src_1", done.stderr)

    def test_indexes(self):
        os.rename(self.file(), self.path("src_1", "part.safetensors"))

        def index(weight_map):
            with open(self.path("src_1", "model.safetensors.index.json"), "w") as file:
                json.dump({"weight_map": weight_map}, file)

        names = [*BODY, *HEAD]
        for bad, says in (({name: "absent.safetensors" for name in names}, "absent.safetensors"),
                          ({name: "../src_0/model.safetensors" for name in names}, "../src_0"),
                          ({**{name: "part.safetensors" for name in names}, "ghost": "part.safetensors"}, "ghost"),
                          ({name: 3 for name in names}, "embed.w")):
            index(bad)
            self.refused_run("model.safetensors.index.json", says, ranks=0)
        index({name: "part.safetensors" for name in names})
        self.good("run", "-c", self.config())

    def test_duplicates_and_odd_ids(self):
        one = self.path("src_0")
        self.refused_run("src_0", sources=[one, one + "/"])
        self.refused("run", "-c", self.config(sources={"a/b": one}), says="'/'")
        ids = {"ü ä": self.path("src_0"), "_x.y": self.path("src_1"), "100%": self.path("src_2")}
        self.good("run", "-c", self.config(sources=ids), ranks=2)
        with h5py.File(self.path("r.h5")) as file:
            self.assertEqual([s.decode() for s in file["sources/id"][()]], list(ids))

    def test_labels(self):
        self.source(1, labels=("b", "a"))
        self.assertIn("another order", self.good("run", "-c", self.config()).stderr)
        with open(self.path("src_1", "config.json"), "w") as file:
            json.dump({"id2label": {"0": "a", "2": "b"}}, file)
        self.refused("run", "-c", self.config(), "--fresh", says=("src_1/config.json", "id2label"))

    def test_yaml(self):
        good = read(self.config(), "r")
        cases = {"": "is empty", "[]": "map", "a: [": ":1:", good + "familly: {}\n": "family", good + "microscope: {padding: some}\n": "exclude or include",
                 good + good: "twice", "family: {base: b}\n": "family.sources", good + "seed: -1\n": "seed",
                 good + "compute: {threads: many}\n": "compute.threads", good + "compute: {memory_budget: lots}\n": "compute.memory_budget",
                 good + "stages: compatibility\n": "a list", good + "stages: [nxn]\n": "texts.files", good + "a: b: c\n": "YAML",
                 good + "---\nx: 1\n": "second", good + "x: \x01\n": "YAML", good.replace("dir", "drr"): "shards.dir",
                 good + "compatibility: {gram: tensors}\n": "tensor"}
        for text, says in cases.items():
            with self.subTest(text=text[-40:]):
                with open(self.path("bad.yaml"), "w") as file:
                    file.write(text)
                self.refused("run", "-c", self.path("bad.yaml"), says=(self.path("bad.yaml"), says))
        with open(self.path("bad.yaml"), "wb") as file:
            file.write(good.encode() + b"x: \xff\n")
        self.refused("run", "-c", self.path("bad.yaml"), ranks=2, says=self.path("bad.yaml"))
        self.refused("run", "-c", self.path("absent.yaml"), ranks=2, says="absent.yaml")
        self.refused("run", "-c", self.config(), "--set", "compute.thread=2", says=("--set compute.thread=2", "compute.threads"))
        self.refused("run", "-c", self.config(), "--set", "compute.backend=cuda", says="cuda")
        self.refused("run", "-c", self.config(), "--set", "compute.threads", code=2, says="--set compute.threads: KEY=VALUE was expected")

    def test_no_space_left(self):
        os.makedirs(self.path("small"))
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", self.path("small")]).returncode:
            self.skipTest("no permission to mount a small file system")
        try:
            big = {"embed.w": np.zeros((400, 400)), "encoder.layer.0.w": np.zeros(9)}
            write_checkpoint(self.path("base"), big)
            for k in range(3):
                write_checkpoint(self.path(f"src_{k}"), big)
            done = self.refused_run("small", shards={"dir": self.path("small/shards")})
            self.assertRegex(done.stderr, "[Nn]o space")
            self.assertEqual([n for n in os.listdir(self.path("small/shards")) if not n.endswith((".h5", ".seen"))], [])
        finally:
            subprocess.run(["umount", self.path("small")], check=True)

    def test_foreign_and_corrupt_shards(self):
        config = self.config()
        self.good("pack", "-c", config)
        with h5py.File(self.path("foreign.h5"), "w") as file:
            file["x"] = np.arange(5)
        for path in ("foreign.h5", "src_0/config.json"):
            self.refused("verify", self.path(path), says=self.path(path))
        shard = self.path("shards", "1.h5")
        good = read(shard)
        with h5py.File(shard) as file:
            self.assertEqual(file["values"].shape, (sum(v.size for v in {**BODY, **HEAD}.values()),))
        for size in (0, 100, 4096, len(good) // 2, len(good) - 1):
            with open(shard, "wb") as file:
                file.write(good[:size])
            self.refused("verify", shard, says=shard)
        shutil.copy(self.path("foreign.h5"), shard)
        done = self.good("run", "-c", config)  # a shard that is none is written anew from its checkpoint
        self.assertIn("written anew", done.stderr)
        os.remove(self.path("r.h5"))
        with open(shard, "wb") as file:
            file.write(good[:len(good) // 2])
        shutil.rmtree(self.path("src_1"))
        self.refused_run("shards/1.h5", family={"locales": ["0", "1", "2"]})

    def test_memory_budget(self):
        self.refused_run("memory_budget", compute={"memory_budget": "8MiB"})
        self.refused("plan", "-c", self.config(compute={"memory_budget": "8MiB"}), says="memory_budget")

    def test_result_that_is_none(self):
        with open(self.path("r.h5"), "w") as file:
            file.write("my notes")
        self.refused("run", "-c", self.config(), says="r.h5")
        self.assertEqual(read(self.path("r.h5"), "r"), "my notes")
        for verb in ("show", "verify"):
            self.refused(verb, self.path("r.h5"), says="r.h5")
        self.refused("export", self.path("r.h5"), "-o", self.path("out"), says="r.h5")
        self.refused("show", self.path("absent.h5"), says="absent.h5")


if __name__ == "__main__":
    unittest.main(verbosity=2)
