"""Sources whose forward passes overflow: each is named and recorded as failed, the rest goes on, and nothing makes a number of them."""
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

from common import EMOJI, PATTERN, SOURCE, Case, command, environment, h5py, np, result_bits, run, safetensors, write_safetensors, write_yaml

import pandas as pd

sys.path.insert(0, f"{SOURCE}/scripts")
from mergegrid_result import Result

URIEL = f"{EMOJI}/uriel_similarity.csv"
LOCALES = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
LONG = 40  # tokens, more than any other text has


def strings(dataset):
    return [value.decode() for value in dataset[()]]


def overflow_everywhere(tensors):
    """Finite weights, as a half-precision training that diverged leaves them, whose logits are not."""
    tensors["classifier.out_proj.weight"] = np.where(tensors["classifier.out_proj.weight"] < 0, -3e38, 3e38)


def overflow_in_long_texts(tensors):
    name = next(name for name in tensors if name.endswith("position_embeddings.weight"))
    tensors[name][LONG:] = 3e38  # whose sum over a row overflows, and with it the mean of the layer norm


class Failing(Case):
    """A family of five: de-DE fails on all targets, nl-NL on sw-KE, which has one long text among those that are chosen by."""

    def family(self, broken=None):
        broken = {"de-DE": overflow_everywhere, "nl-NL": overflow_in_long_texts} if broken is None else broken
        for locale in LOCALES:
            to = self.path(f"m_{locale}")
            shutil.rmtree(to, ignore_errors=True)
            shutil.copytree(PATTERN.format(locale=locale), to)
            if locale in broken:
                tensors = safetensors(f"{to}/model.safetensors")
                broken[locale](tensors)
                write_safetensors(f"{to}/model.safetensors", tensors)
            with open(f"{EMOJI}/texts/{locale}.jsonl", encoding="utf-8") as file:
                records = [record for record in map(json.loads, file) if len(record["utt"]) < LONG]
            kept = [r for part, count in (("test", 60), ("dev", 40)) for r in [r for r in records if r["partition"] == part][:count]]
            if locale == "sw-KE":
                kept.append({**kept[-1], "id": "long", "utt": " ".join(["alama"] * (LONG + 5))})
            with open(self.path(f"{locale}.jsonl"), "w", encoding="utf-8") as file:
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in kept)

    def config(self, name="a", targets=("af-ZA", "de-DE", "sw-KE"), **more):
        sections = {"family": {"locales": LOCALES}, "shards": {"dir": self.path("shards")}, "texts": {"files": self.path("{locale}.jsonl")},
                    "stages": ["nxn"], "nxn": {"targets": list(targets)}, "result": self.path(f"{name}.h5"), **more}
        return write_yaml(self.path(f"{name}.yaml"), sources=self.path("m_{locale}"), **sections), self.path(f"{name}.h5")

    def made(self, *args, ranks=2, code=3, **more):
        """A run of which some has failed: its result, held to the schema, and what it said."""
        config, path = self.config(*args, **more)
        done = self.refused("run", "-c", config, ranks=ranks, code=code)
        subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", path], check=True)
        return path, done.stderr


class Stage(Failing):
    def setUp(self):
        super().setUp()
        self.family()

    def test_what_fails_is_named_and_recorded(self):
        path, said = self.made()
        self.assertEqual(said.count("source de-DE has failed on 3 of 3 targets: its logits are not finite, first for text"), 1, said)
        self.assertEqual(said.count("source nl-NL has failed on 1 of 3 targets (sw-KE): its logits are not finite, first for text long ("), 1, said)
        self.assertIn("sw-KE.jsonl:101)", said)
        self.assertIn("4 evaluations of the stage nxn failed", said)
        self.assertEqual(self.state(path), "done")
        failed = np.zeros((5, 3), bool)
        failed[1] = failed[3, 2] = True
        with h5py.File(path) as f:
            for group in ("nxn", "nxn_select"):
                np.testing.assert_array_equal(f[f"{group}/failed"][()], failed)
                for name in ("accuracy", "macro_f1"):
                    np.testing.assert_array_equal(np.isnan(f[f"{group}/{name}"][()]), failed)
                np.testing.assert_array_equal(f[f"{group}/predictions/af-ZA"][1], -1)
                self.assertTrue(np.isnan(f[f"{group}/logits/af-ZA"][1]).all())
            self.assertEqual((f["nxn_select/predictions/sw-KE"][3] == -1).sum(), 1)  # the others are answers all the same
            self.assertEqual(strings(f["nxn/failures/source"]), ["de-DE"] * 3 + ["nl-NL"])
            self.assertEqual(strings(f["nxn/failures/target"]), ["af-ZA", "de-DE", "sw-KE", "sw-KE"])
            errors = strings(f["nxn/failures/error"])
            self.assertIn("not finite for 100 of 100 texts", errors[0])
            self.assertEqual(errors[3], "the source's logits are not finite for 1 of 101 texts, the first is long")

    def test_the_others_have_the_numbers_that_they_have_alone(self):
        path, _ = self.made()
        sound = [0, 2, 4]
        config, alone = self.config("alone", family={"locales": [LOCALES[k] for k in sound]})
        self.good("run", "-c", config, ranks=2)
        with h5py.File(path) as f, h5py.File(alone) as g:
            self.assertFalse(g["nxn/failed"][()].any())
            self.assertEqual(len(g["nxn/failures/source"]), 0)
            for name in ("nxn/accuracy", "nxn_select/macro_f1", "nxn/predictions/sw-KE", "nxn_select/logits/de-DE"):
                np.testing.assert_array_equal(f[name][()][sound], g[name][()])

    def test_same_bits_however_it_comes_about(self):
        path, _ = self.made(ranks=0)
        bits = result_bits(path)
        for ranks in (2, 3):
            self.same_bits(self.made(f"r{ranks}", ranks=ranks)[0], bits)
        config, _ = self.config()
        again = self.refused("run", "-c", config, ranks=2, code=3, says=["nothing to do", "4 evaluations of the stage nxn failed"])
        self.assertNotIn("has failed on", again.stderr)
        reused, said = self.made("reused", reuse=[path])  # what has failed before is taken over as well
        self.assertIn("answers of 5 of 5 sources are taken", said)
        self.same_bits(reused, bits)
        config, part = self.config("parts")
        for k in (1, 2):
            self.good("run", "-c", config, "--part", f"{k}/2", ranks=2)
        self.refused("gather", "-c", config, ranks=2, code=3, says="source de-DE has failed on 3 of 3 targets")
        self.same_bits(part, bits)

    def test_killed_and_continued(self):
        bits = result_bits(self.made("whole")[0])
        config, path = self.config("cut")
        process = subprocess.Popen(command("run", "-c", config, ranks=2), env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None and sum(map(os.path.getsize, glob.glob(f"{path}.journal/*/journal"))) < 20000:
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        said = self.refused("run", "-c", config, ranks=3, code=3).stderr
        self.assertEqual(said.count("source de-DE has failed"), 1, said)
        self.same_bits(path, bits)

    def test_where_everything_fails_there_is_no_result(self):
        self.family({locale: overflow_everywhere for locale in LOCALES})
        config, path = self.config()
        for _ in range(2):  # from the journal, the second time
            done = self.refused("run", "-c", config, ranks=2, says="nxn: every source has failed on every target")
            self.assertFalse(os.path.exists(path))
            self.assertEqual(self.state(path), "failed", done.stderr)

    def test_what_reads_it(self):
        path, _ = self.made()
        text = self.good("show", path).stdout
        for line in ("de-DE        on 3 of 3 targets: af-ZA de-DE sw-KE", "nl-NL        on 1 of 3 targets: sw-KE", "  de-DE        failed"):
            self.assertIn(line, text)
        self.assertNotIn("nan", text.lower())
        shown = json.loads(self.good("show", path, "--json").stdout)["nxn"]
        self.assertIsNone(shown["targets"]["de-DE"]["own"])
        self.assertIn(shown["targets"]["de-DE"]["best_other_source"], ("af-ZA", "en-US", "nl-NL", "sw-KE"))
        self.assertEqual([(row["source"], row["target"]) for row in shown["failed"]],
                         [("de-DE", "af-ZA"), ("de-DE", "de-DE"), ("de-DE", "sw-KE"), ("nl-NL", "sw-KE")])
        self.assertIn("checksums hold", self.good("verify", path).stdout)
        self.good("export", path, "-o", self.path("out"))
        frame = pd.read_csv(self.path("out/evaluation_matrix.csv"), index_col=0)
        self.assertEqual(frame.isna().to_numpy().sum(), 4)
        self.assertTrue(frame.loc["de-DE"].isna().all())
        with open(self.path("out/evaluation_summary.json"), encoding="utf-8") as file:
            summary = json.load(file)
        self.assertEqual((summary["count"], len(summary["failed"])), (11, 4))
        self.assertAlmostEqual(summary["mean"], np.nanmean(frame.to_numpy()), places=12)
        failures = Result(path).failures()
        self.assertEqual(list(failures.source), ["de-DE"] * 3 + ["nl-NL"])

    def test_diff_names_what_failed_in_one(self):
        path, _ = self.made()
        self.family({"de-DE": overflow_everywhere})
        config, mended = self.config("mended")
        self.refused("run", "-c", config, ranks=2, code=3)
        diff = json.loads(self.good("diff", path, mended, "--json").stdout)["nxn"]
        self.assertEqual((diff["failed_only_old"], diff["failed_only_new"], diff["failed_in_both"], diff["compared"]), (["nl-NL on sw-KE"], [], 3, 11))
        text = self.good("diff", mended, path).stdout
        self.assertIn("1 failed in the new and not in the old, so nothing is compared:\n  nl-NL on sw-KE", text)


METHODS = ["similarity", "average", "ties", "own", "best_source", "best_zero_shot", "majority", "soft", {"exclude_layers": {"layers": "0"}}]


class Grid(Failing):
    def setUp(self):
        super().setUp()
        self.family()

    def grid(self, name="a", stages=("nxn", "grid"), **more):
        sections = {"similarity": {"URIEL": URIEL, "REAL": "nxn"}, "fixed": {"num_languages": 3}, **more}
        path, said = self.made(name, stages=list(stages), grid=sections, targets=LOCALES)
        return path, said, Result(path)

    def test_cells(self):
        path, said, result = self.grid(sweep={"locale": LOCALES, "similarity_type": ["URIEL", "REAL"], "method": METHODS})
        cells, accuracy, select = result.cells(), result.nxn(), result.nxn("select")
        self.assertIn("6 evaluations of the stage nxn failed: mergegrid show", said)
        self.assertIn(f"; {(cells.status == 'failed').sum()} cells failed: mergegrid show", said)
        for _, cell in cells.iterrows():
            used = [part.split(":")[0] for part in cell.sources.split(",") if part]
            here, chosen = accuracy[cell.locale], select[cell.locale]
            lost = [source for source in used if np.isnan(here[source])]
            with self.subTest(cell=f"{cell.locale} {cell.similarity_type} {cell.method}"):
                others = chosen.drop(cell.locale)
                for name, expected in (("own", here[cell.locale]), ("best_zero_shot", here.drop(cell.locale).max()), ("best_source", here[used].max()),
                                       ("merging_effect", np.nan if lost else cell.accuracy - here[used].mean())):
                    np.testing.assert_allclose(cell[name], expected, atol=1e-12, err_msg=name)
                if cell.method in ("own", "majority", "soft") and lost:
                    self.assertEqual(cell.status, "failed")
                    self.assertIn(f"needs the answers of {lost[0]} on {cell.locale}, which has failed in the stage nxn", cell.error)
                elif cell.method == "best_zero_shot":
                    self.assertEqual(used, [others.idxmax()])
                    left_out = ", ".join(others.index[others.isna()])
                    self.assertEqual(cell.note, f"not considered as the best source, since the stage nxn has no accuracy of them: {left_out}" * bool(left_out))
                elif cell.similarity_type == "REAL" and cell.method != "own":  # two of four candidates are left on sw-KE
                    self.assertEqual(lost, [])
                    self.assertEqual(cell.status, "failed" if cell.locale == "sw-KE" else "completed")
                    self.assertIn("the evaluation failed (nxn): 2" if cell.locale == "sw-KE" else "", cell.error)
        named = cells[(cells.locale == "af-ZA") & (cells.similarity_type == "URIEL")].set_index("method")
        for method in ("best_source", "exclude_layers"):
            self.assertIn("no accuracy of them: de-DE", named.note[method])
        self.check_readers(path, cells)

    def check_readers(self, path, cells):
        with h5py.File(path) as f:
            labels, values = strings(f["grid/similarity/REAL/label"]), f["grid/similarity/REAL/value"][()]
            failed = np.isnan(f["nxn_select/accuracy"][()])
            self.assertEqual(labels, LOCALES)
            np.testing.assert_array_equal(np.isnan(values), failed)
            best = {name: d[()] for name, d in f["grid/best"].items()}
        # against the best source that has an accuracy; of sw-KE that is neither de-DE nor nl-NL
        self.assertTrue(np.isfinite(best["delta_vs_best_source"]).all())
        shown = json.loads(self.good("show", path, "--where", "status=completed|failed", "--json").stdout)["grid"]["best"]
        np.testing.assert_allclose([row["delta_vs_best_source"] for row in shown], best["delta_vs_best_source"], atol=1e-12)
        key = cells[(cells.locale == "sw-KE") & (cells.similarity_type == "REAL") & (cells.method == "average")].key.iloc[0]
        text = self.good("explain", path, "--cell", key).stdout
        self.assertIn("the evaluation failed (nxn)", text)
        self.assertEqual(text.count("    failed    failed\n"), 2, text)
        self.assertNotIn("nan  ", text)
        key = cells[(cells.locale == "de-DE") & (cells.method == "own")].key.iloc[0]
        self.refused("merge", path, "--cell", key, "-o", self.path("merged"), says="which has failed in the stage nxn")
        self.good("export", path, "-o", self.path("out"))
        for name in glob.glob(self.path("out", "**"), recursive=True):
            if name.endswith((".csv", ".json", ".md", ".tex")):
                with open(name, encoding="utf-8") as file:
                    self.assertNotRegex(file.read(), r"(?i)[,:\s]-?nan\b", name)

    def test_same_bits_with_a_grid(self):
        sweep = {"locale": ["af-ZA", "sw-KE"], "similarity_type": ["URIEL", "REAL"], "method": METHODS}
        bits = result_bits(self.grid(sweep=sweep)[0])
        config, path = self.config("cut", stages=["nxn", "grid"], targets=LOCALES,
                                   grid={"similarity": {"URIEL": URIEL, "REAL": "nxn"}, "fixed": {"num_languages": 3}, "sweep": sweep})
        self.refused("run", "-c", config, "--stages", "nxn", code=3, ranks=2)
        done = self.refused("run", "-c", config, code=3, ranks=3)  # the grid onto a result that has failures
        self.assertIn("answers of 5 of 5 sources are taken", done.stderr)
        self.same_bits(path, bits)

    def test_search_leaves_out_by_name(self):
        path, _, _ = self.grid(sweep={"locale": ["sw-KE"], "similarity_type": ["URIEL"], "method": ["own"]})
        done = self.good("search", path, "--locale", "sw-KE", "-k", "2", "--similarity", "nxn", "--by", "similarity")
        self.assertIn("de-DE is left out: nxn has no number for sw-KE (the evaluation failed (nxn))", done.stderr)
        self.assertIn("nl-NL is left out: nxn has no number for sw-KE", done.stderr)
        self.assertIn("af-ZA", done.stdout)
        for source in ("de-DE", "nl-NL"):
            self.assertNotIn(source, done.stdout)
        self.refused("search", path, "--locale", "sw-KE", "-k", "3", "--similarity", "nxn", says="target sw-KE has 2 candidates")

    def test_microscope(self):
        """It looks at weights and states of a model that has failed, and takes none for the best."""
        setups = {"broken": {"source": "de-DE"}, "best": {"method": "best_zero_shot", "locale": "sw-KE"}}
        path, said = self.made(stages=["nxn", "microscope"], microscope={"reference": {"source": "af-ZA"}, "setups": setups,
                                                                         "probes": {"locale": "af-ZA", "partition": "test", "limit": 3}})
        rows = Result(path).microscope("setups").set_index("model")
        self.assertEqual(rows.loc["best", "sources"], f"{Result(path).nxn('select')['sw-KE'].drop('sw-KE').idxmax()}:1.000")
        self.assertIn("no accuracy of them: de-DE, nl-NL", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
