"""What the other commands print and write: export, show, plan, verify, init, help, and the committed result."""
import glob
import json
import os
import subprocess
import sys
import unittest

from common import BASE, EMOJI, PATTERN, SOURCE, Case, command, environment, h5py, np, run, write_yaml

try:
    import pandas
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


class Commands(Case):
    def demo(self, **sections):
        sections.setdefault("shards", {"dir": "shards"})
        return write_yaml(self.path("r.yaml"), result="r.h5", **sections)

    def check_result(self, *paths):
        done = subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", *paths], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_export(self):
        self.good("run", "-c", self.demo(), ranks=2)
        self.check_result(self.path("r.h5"))
        self.good("export", self.path("r.h5"), "-o", self.path("out"))
        with h5py.File(self.path("r.h5")) as file:
            ids = [s.decode() for s in file["sources/id"][()]]
            cosine = file["compatibility/task_vector_cosine"][()]
            layer = file["compatibility/task_vector_cosine_layers"][1]
        frame = pandas.read_csv(self.path("out/task_vector_cosine_matrix.csv"), index_col=0)
        self.assertEqual(list(frame.index), ids)
        self.assertEqual(list(frame.columns), ids)
        np.testing.assert_allclose(frame.to_numpy(), cosine, rtol=1e-15)  # pandas' own default parser is an ulp off now and then
        frame = pandas.read_csv(self.path("out/task_vector_cosine_matrix.csv"), index_col=0, float_precision="round_trip")
        np.testing.assert_array_equal(frame.to_numpy(), cosine)
        written = open(self.path("out/task_vector_cosine_matrix.csv"), newline="").read()
        self.assertEqual(written, pandas.DataFrame(cosine, ids, ids).to_csv())
        frame = pandas.read_csv(self.path("out/layers/task_vector_cosine_matrix_roberta.encoder.layer.1.csv"), index_col=0, float_precision="round_trip")
        np.testing.assert_array_equal(frame.to_numpy(), layer)
        log = json.load(open(self.path("out/computation_log.json")))
        for key in ("timestamp", "metrics", "num_locales", "locales", "models_dir", "pretrained_model", "cka_samples", "cka_layer"):
            self.assertIn(key, log)
        self.assertEqual((log["num_locales"], log["locales"]), (48, ids))
        off = cosine[~np.eye(48, dtype=bool)]
        statistics = log["statistics"]["task_vector_cosine"]
        for key, value in (("mean", off.mean()), ("std", off.std()), ("min", off.min()), ("max", off.max())):
            self.assertAlmostEqual(statistics[key], value, places=12)
        self.good("export", self.path("r.h5"), "-o", self.path("py"), "--layout", "merginguriel")
        self.assertTrue(os.path.exists(self.path("py/nxn_results/compatibility_matrix/task_vector_cosine_matrix.csv")))

    def test_show_and_verify(self):
        self.good("run", "-c", self.demo(), ranks=2)
        text = self.good("show", self.path("r.h5"), "--top", 3).stdout
        self.assertIn("48", text)
        shown = json.loads(self.good("show", self.path("r.h5"), "--json").stdout)
        self.assertIsInstance(shown, dict)
        self.assertIn("checksums hold", self.good("verify", self.path("r.h5"), self.path("shards")).stdout)
        for path, at in ((self.path("r.h5"), -50000), (self.path("shards", "sw-KE.h5"), 300000)):
            with open(path, "r+b") as file:
                file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(bytes([byte[0] ^ 4]))
            self.refused("verify", path, says=path)
        self.refused("verify", self.path("shards"), says=("sw-KE.h5", "1 of 49"))

    def test_plan(self):
        config = self.demo()
        plan = json.loads(self.good("plan", "-c", config, "-n", 2, "--json").stdout)
        self.assertEqual((plan["sources"], plan["pack"]["shards"]), (48, 49))
        self.good("run", "-c", config, ranks=2)
        plan = json.loads(self.good("plan", "-c", config, "-n", 2, "--json").stdout)
        self.assertEqual(plan["pack"]["shards"], 0)
        with h5py.File(self.path("r.h5")) as file:
            ranks = file["provenance/ranks"][()]
        self.assertLessEqual(ranks["peak_bytes"].max(), plan["memory"]["rank_bytes"])
        self.assertLess(plan["memory"]["rank_bytes"], 300 << 20)
        sources_bytes = ranks["bytes_read"].sum()
        self.assertAlmostEqual(plan["compatibility"]["bytes_read"] / sources_bytes, 1, delta=0.05)
        self.assertIn("48 sources", self.good("plan", "-c", config).stdout)
        self.assertFalse(os.path.exists(self.path("plan.h5")))

    @unittest.skipIf((os.cpu_count() or 1) < 2, "one processor")
    def test_default_binding_leaves_no_core_idle(self):
        config = self.demo()
        every = len(os.sched_getaffinity(0))
        self.assertIn(f"1 rank × {every} threads", self.good("run", "-c", config, ranks=1).stderr)
        bound = subprocess.run(["mpirun", "-n", "1", "--bind-to", "core", *command("run", "-c", config, "--fresh")], env=environment(), cwd=self.dir,
                               capture_output=True, text=True, check=True)
        self.assertIn("1 rank × 1 thread", bound.stderr)  # who asks for it gets it

    def test_init(self):
        done = self.good("init", "--base", BASE, "--sources", PATTERN, "--similarity", f"{EMOJI}/uriel_similarity_50.csv", "--texts",
                         f"{EMOJI}/texts/{{locale}}.jsonl")
        self.assertIn("zh-TW", done.stdout)
        with open(self.path("init.yaml"), "w") as file:
            file.write(done.stdout)
        self.assertIn("stages: [compatibility, nxn]", done.stdout)
        self.assertIn("nxn", self.good("plan", "-c", self.path("init.yaml")).stdout)
        self.assertIn("stages: [compatibility]", self.good("init", "--base", BASE, "--sources", PATTERN).stdout)
        self.refused("init", "--base", self.path("none"), "--sources", PATTERN, says="none")

    def test_help_and_usage(self):
        text = run("--help")
        self.assertEqual(text.returncode, 0)
        for verb in ("init", "pack", "plan", "run", "show", "explain", "search", "export", "diff", "verify"):
            self.assertIn(f"mergegrid {verb}", text.stdout)
            self.assertIn(verb, self.good(verb, "--help").stdout)
        keys = self.good("--help", "config").stdout
        for key in ("family.base", "shards.dtype", "compute.memory_budget", "result"):
            self.assertIn(key, keys)
        methods = self.good("--help", "methods").stdout
        for name in ("linear", "ties", "density", "arXiv:2306.01708", "{ties: {trim: global, zeros: majority}}", "{slerp: {share: merginguriel}}"):
            self.assertIn(name, methods)
        self.assertIn("openblas", self.good("--version").stdout)
        for args, says in (([], "command"), (["rnu"], "run"), (["run"], "-c"), (["run", "-c"], "value"), (["run", "--fersh", "-c", "x"], "--fresh"),
                           (["plan", "-c", "x", "-n", "zero"], "ranks"), (["export", "x"], "-o"), (["merge"], "-c"), (["merge", "-c", "x"], "-o"), (["explain", "x"], "--cell KEY"), (["explain", "x", "a", "b", "--cell", "c"], "not more"), (["diff", "x"], "missing"), (["search", "x"], "locale"),
                           (["show"], "argument"), (["show", "a", "b"], "b"), (["run", "-c", "x", "--fresh", "--resume"], "--fresh"),
                           (["export", "x", "-o", "y", "--layout", "z"], "layout")):
            self.refused(*args, code=2, says=says)
        self.refused("run", "-c", self.demo(), "--stages", "nxn", code=2, says="nxn")
        self.refused("rnu", code=2, ranks=2, says="run")


    def test_openblas_knows_the_processor(self):
        """Or is told: its oldest kernels run only where nothing better does, or where they are asked for."""
        with open("/proc/cpuinfo") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
        if "avx2" in flags and "fma" in flags:
            self.assertNotIn("core Prescott", self.good("--version").stdout)
            self.assertIn("core Prescott", self.good("--version", env={"OPENBLAS_CORETYPE": "Prescott"}).stdout)

    def test_committed_result(self):
        path = f"{SOURCE}/tests/data/small-result.h5"
        self.check_result(path)
        self.good("verify", path)
        self.assertIn("grid: 21 cells: 20 completed, 1 failed", self.good("show", path).stdout)

    def test_configurations_of_the_repository(self):
        for path in sorted(glob.glob(f"{SOURCE}/configs/**/*.yaml", recursive=True)):
            if os.path.basename(path).startswith("emoji48"):
                self.good("plan", "-c", path, "--set", f"shards.dir={self.path('s')}", "--set", f"result={self.path('x.h5')}")
            else:  # valid, but their models are not here
                self.refused("plan", "-c", path, says="models")

    def test_init_from_an_ablation(self):
        """An ablation file, with the demonstration's family: a run.yaml that plan takes."""
        made = self.good("init", "--from", f"{SOURCE}/tests/data/ablations/overnight.yaml", "--base", BASE, "--sources", PATTERN,
                         "--similarity", f"{EMOJI}/uriel_similarity.csv", "--texts", f"{EMOJI}/texts/{{locale}}.jsonl").stdout
        self.assertIn("#   db_path: ", made)
        with open(self.path("run.yaml"), "w", encoding="utf-8") as file:
            file.write(made)
        self.assertIn("24 cells", self.good("plan", "-c", self.path("run.yaml")).stdout)
        untold = self.good("init", "--from", f"{SOURCE}/tests/data/ablations/overnight.yaml", "--base", BASE, "--sources", PATTERN).stdout
        self.assertIn("stages: [grid]", untold)  # a run then says what is missing, rather than leave the grid out
        with open(self.path("untold.yaml"), "w", encoding="utf-8") as file:
            file.write(untold)
        self.refused("plan", "-c", self.path("untold.yaml"), says="texts.files")
        alone = self.good("init", "--from", f"{SOURCE}/tests/data/ablations/constructive.yaml").stdout
        self.assertIn('sources: "haryos_model/xlm-roberta-base_massive_k_{locale}"', alone)
        with open(self.path("bad.yaml"), "w", encoding="utf-8") as file:
            file.write("ablation:\n  sweep: {num_langages: [3]}\n")
        self.refused("init", "--from", self.path("bad.yaml"),
                     says="bad.yaml:2:11: 'num_langages' is no key known here; the nearest is 'num_languages'")
        self.refused("init", "--from", self.path("none.yaml"), says="none.yaml")
        self.refused("init", code=2, says="--base")
        self.refused("init", "--from", self.path("bad.yaml"), "--base", BASE, code=2, says="--sources")


if __name__ == "__main__":
    unittest.main(verbosity=2)
