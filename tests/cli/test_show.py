"""What show says of a run whose result is not there yet: which cells of its grid are finished, as the finished result has them, and what is not known."""
import csv
import fcntl
import io
import json
import math
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from common import BINARY, EMOJI, Case, command, environment, h5py, run, write_yaml

LOCALES = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
METHODS = ["similarity", "average", {"ties": {"density": [0.2, 0.5]}}, "model_stock", "own", "best_source", "majority"]
GRID = {"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv", "REAL": "nxn"}, "fixed": {"num_languages": 3},
        "sweep": {"locale": ["sw-KE", "nl-NL"], "similarity_type": ["URIEL", "REAL"], "method": METHODS},
        "phases": [{"name": "too many", "fixed": {"locale": "nl-NL", "similarity_type": "URIEL", "num_languages": 9, "method": "average"}},
                   {"name": "again", "fixed": {"locale": "nl-NL", "similarity_type": "URIEL", "num_languages": 3, "method": "similarity", "seed": 7}},
                   {"name": "later", "fixed": {"locale": "nl-NL", "similarity_type": "URIEL", "num_languages": 2, "method": "average"}}]}
WHERE = ("--where", "num_languages=3|9")  # leaves out the last phase
VOTES, BASELINES = ("majority",), ("own", "best_source")


def configuration(folder, name, **more):
    sections = {"family": {"locales": LOCALES}, "shards": {"dir": f"{folder}/shards"}, "texts": {"files": f"{EMOJI}/texts/{{locale}}.jsonl"},
                "stages": ["compatibility", "nxn", "grid"], "nxn": {"targets": ["nl-NL", "sw-KE"]}, "grid": GRID, "result": f"{folder}/{name}.h5", **more}
    return write_yaml(f"{folder}/{name}.yaml", **sections)


def journals(result):
    """All journals of a result and of its parts: contents by path."""
    found = {}
    folder, name = os.path.split(result)
    for entry in os.listdir(folder):
        for top, _, files in os.walk(f"{folder}/{entry}") if entry.startswith(name) else ():
            for file in files:
                if file == "journal" and os.path.exists(f"{top}/{file}"):  # a run may be done with it
                    with open(f"{top}/{file}", "rb") as journal:
                        found[f"{top}/{file}"] = journal.read()
    return found


class HalfDone(unittest.TestCase):
    """A run in two parts of which one has done its share of the merges: half of them are journaled, always the same ones."""

    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="mergegrid-test-")
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        done = run("run", "-c", configuration(cls.dir, "whole"), *WHERE, ranks=2)
        assert done.returncode == 3, done.stderr  # one cell has not as many candidates
        cls.whole = f"{cls.dir}/whole.h5"
        cls.reference = {cell["key"]: cell for cell in json.loads(run("show", cls.whole, "--json", "--sort", "key").stdout)["grid"]["listed"]}
        cls.config, cls.result = configuration(cls.dir, "half"), f"{cls.dir}/half.h5"
        codes = [run("run", "-c", cls.config, "--part", part, *WHERE).returncode for part in ("1/2", "2/2")]
        assert codes == [75, 0], codes  # the first one's share of the grid waits for what the second does of nxn

    def show(self, *args, code=0, result=None):
        done = run("show", result or self.result, *args)
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def grid(self, *args, result=None):
        return json.loads(self.show("--json", *args, result=result).stdout)["grid"]

    def check_cells(self, listed):
        """Every column is as the finished result has it, but for what hangs on cells that are not finished."""
        finished = {cell["key"] for cell in self.grid()["listed"]}
        for cell in listed:
            reference = dict(self.reference[cell["key"]])
            self.assertEqual(cell.pop("prediction_row"), -1)
            reference.pop("prediction_row")
            matched = list(self.order())[cell["matched"]] if cell["matched"] >= 0 else None
            if matched is not None and matched not in finished:
                self.assertIsNone(cell["delta_vs_similarity"])
                reference["delta_vs_similarity"] = None
            self.assertEqual(cell, reference)

    def order(self):
        with h5py.File(self.whole) as file:
            return list(file["grid/cells/key"].asstr()[:])

    def test_finished_cells(self):
        grid = self.grid()
        self.assertIs(grid["complete"], False)
        self.assertEqual(grid["not_yet_known"], ["methods", "best"])
        self.assertFalse({"methods", "best"} & set(grid))
        self.assertEqual((grid["cells"], grid["to_finish"]), (len(self.reference), len(self.reference) - 1))  # one is left out
        self.assertEqual(grid["finished"], len(grid["listed"]))
        self.assertEqual(grid["completed"] + grid["failed"], grid["finished"])
        self.assertEqual(grid["completed"] + grid["failed"] + grid["planned"], grid["cells"])
        self.assertEqual([cell["error"] for cell in grid["listed"] if cell["status"] == "failed"],
                         [cell["error"] for cell in self.reference.values() if cell["status"] == "failed"])
        self.assertEqual([failure["key"] for failure in grid["failures"]], [cell["key"] for cell in self.reference.values() if cell["status"] == "failed"])
        keys = [cell["key"] for cell in grid["listed"]]
        self.assertEqual(keys, [key for key in self.order() if key in set(keys)])  # in the order of the grid
        merges = [key for key, cell in self.reference.items() if cell["status"] == "completed" and cell["method"] not in VOTES + BASELINES]
        done = set(keys) & set(merges)
        self.assertLess(0, len(done))
        self.assertLess(len(done), len(merges))
        for key, cell in self.reference.items():  # sources as they are need no merge; votes come last
            if cell["method"] in BASELINES:
                self.assertIn(key, keys)
            if cell["method"] in VOTES:
                self.assertNotIn(key, keys)
        first = {self.order()[cell["same_as"]] for key, cell in self.reference.items() if cell["same_as"] >= 0 and key in keys}
        self.assertLessEqual(first, set(keys))
        self.check_cells(grid["listed"])

    def test_conditions_and_order(self):
        every = self.grid()["listed"]
        mine = [cell["key"] for cell in every if cell["method"] in ("ties", "own") and cell["locale"] == "nl-NL"]
        self.assertEqual([cell["key"] for cell in self.grid("--where", "method=ties|own,locale=nl-NL")["listed"]], mine)
        best = sorted((cell["accuracy"] for cell in every if cell["accuracy"] is not None), reverse=True)
        self.assertEqual([cell["accuracy"] for cell in self.grid("--top", 4)["listed"]], best[:4])
        self.assertEqual([cell["macro_f1"] for cell in self.grid("--sort", "macro_f1", "--top", 3)["listed"]],
                         sorted(cell["macro_f1"] for cell in every if cell["macro_f1"] is not None)[:3])
        votes = self.grid("--where", "method=majority")  # there are some, none of them finished
        self.assertEqual((votes["matching"], votes["planned"], votes["listed"]), (4, 4, []))
        planned = self.grid("--where", "status=planned")["listed"]
        self.assertEqual({cell["key"] for cell in planned}, set(self.reference) - {cell["key"] for cell in every})
        self.assertEqual({(cell["accuracy"], cell["merging_effect"]) for cell in planned}, {(None, None)})
        self.assertIn("no cell has locale=nl-BE; there are sw-KE, nl-NL", self.show("--where", "locale=nl-BE", code=1).stderr)
        self.assertIn("'langauge' is no column of the cells", self.show("--where", "langauge=nl-NL", code=2).stderr)

    def test_text(self):
        grid = self.grid()
        text = self.show().stdout
        self.assertIn("half.h5: no result yet", text)
        self.assertIn("part 2 of 2: done", text)
        self.assertIn(f"not complete: {grid['finished']} of {grid['to_finish']} cells are finished so far (not counted: 1 that this run leaves out)", text)
        self.assertIn("are known once all are finished", text)
        self.assertNotIn("p (Holm)", text)
        self.assertNotIn("best recipe of each target:", text)
        self.assertRegex(text, r"failed: [0-9a-f]{16} nl-NL average: .*num_languages is 9")
        for cell in grid["listed"][:5]:
            self.assertRegex(text, f"{cell['key']} {cell['locale']} .*{cell['accuracy']:.4f}")
        self.assertEqual(len([line for line in self.show("--top", 3).stdout.splitlines() if line[:16] in self.reference]), 3)

    def test_csv(self):
        for result, args in ((self.result, ()), (self.result, ("--where", "locale=nl-NL", "--sort", "-accuracy", "--top", 5)), (self.whole, ("--sort", "key"))):
            done = self.show("--csv", *args, result=result)
            rows = list(csv.DictReader(io.StringIO(done.stdout)))
            shown = self.grid(*args, result=result)
            self.assertEqual([row["key"] for row in rows], [cell["key"] for cell in shown["listed"]])
            self.assertEqual([float(row["accuracy"] or math.nan) for row in rows if row["accuracy"]],
                             [cell["accuracy"] for cell in shown["listed"] if cell["accuracy"] is not None])
            self.assertEqual("not complete" in done.stderr, result == self.result)
            if result == self.result:
                self.assertIn(f"not complete: {shown['finished']} of {shown['to_finish']} cells", done.stderr)
        self.assertEqual(run("export", self.whole, "-o", f"{self.dir}/out").returncode, 0)
        with open(f"{self.dir}/out/grid_cells.csv", encoding="utf-8", newline="") as file:
            self.assertEqual(self.show("--csv", result=self.whole).stdout, file.read())
        self.assertIn("exclude each other", self.show("--csv", "--json", code=2).stderr)

    def test_one_part(self):
        """A part by its own name: what it has done itself."""
        grid = self.grid(result=f"{self.result}.part-2-of-2")
        self.assertEqual([cell["key"] for cell in grid["listed"]], [cell["key"] for cell in self.grid()["listed"]])
        self.assertIsNone(json.loads(self.show("--json", result=f"{self.result}.part-1-of-2").stdout).get("grid"))
        self.assertIn("no cells either", self.show("--sort", "accuracy", code=1, result=f"{self.result}.part-1-of-2").stderr)
        self.assertIn("part 1 of 2: stopped", self.show().stdout)

    def test_nothing_is_disturbed(self):
        """The owner's lock is not waited for, and no file is written."""
        before, names = journals(self.result), sorted(os.listdir(self.dir))
        with open(f"{self.result}.part-2-of-2.lock", "rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            began = time.time()
            self.show()
            self.assertLess(time.time() - began, 5)
        self.assertEqual(journals(self.result), before)
        self.assertEqual(sorted(os.listdir(self.dir)), names)

    def test_torn_and_growing(self):
        """The last record is cut off at any byte, or there is the beginning of another."""
        folder = tempfile.mkdtemp(dir=self.dir)
        for name in os.listdir(self.dir):
            if name.startswith("half.h5."):
                (shutil.copytree if os.path.isdir(f"{self.dir}/{name}") else shutil.copy)(f"{self.dir}/{name}", f"{folder}/{name}")
        result = f"{folder}/half.h5"
        all_of_it = self.grid(result=result)["finished"]
        path, whole = max(journals(result).items(), key=lambda item: item[1].count(b"MGJ1\x06\0\0\0"))
        last = whole.rindex(b"MGJ1\x04\0\0\0")
        for cut in (last + 1, last + 20, last + 24, last + 60, len(whole) - 1):
            with open(path, "wb") as file:
                file.write(whole[:cut])
            grid = self.grid(result=result)
            self.assertEqual((grid["finished"], grid["complete"]), (all_of_it - 1, False), cut)
        for more in (whole[last:last + 30], b"MGJ1", b"\0" * 100):
            with open(path, "wb") as file:
                file.write(whole + more)
            self.assertEqual(self.grid(result=result)["finished"], all_of_it)

    def test_other_versions(self):
        """A manifest of other columns, or none: the run is shown, without cells."""
        folder = tempfile.mkdtemp(dir=self.dir)
        shutil.copytree(f"{self.result}.part-2-of-2.journal", f"{folder}/r.h5.journal")
        shutil.copy(f"{self.result}.part-2-of-2.state", f"{folder}/r.h5.state")
        path, whole = max(journals(f"{folder}/r.h5").items(), key=lambda item: item[1].count(b"MGJ1\x06\0\0\0"))
        with open(path, "wb") as file:
            file.write(whole[:whole.index(b"MGJ1\x06\0\0\0")])
        self.assertNotIn("cells", self.show(result=f"{folder}/r.h5").stdout)


class UnderWay(Case):
    def test_while_it_runs(self):
        """Asked again and again until it is done: ever more cells, each as the result has it in the end."""
        grid = {**GRID, "sweep": {"locale": ["sw-KE", "nl-NL"], "similarity_type": ["URIEL", "REAL"], "num_languages": [2, 3, 4],
                                  "method": ["similarity", "average", {"ties": {"density": [0.1, 0.2, 0.3, 0.5]}}, "breadcrumbs", "own"]}, "fixed": {}, "phases": []}
        config, result = configuration(self.dir, "r", grid=grid), self.path("r.h5")
        self.refused("show", result, says="no run of that name is under way")
        process = subprocess.Popen(command("run", "-c", config, ranks=2), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        seen, between = {}, 0
        before = 0
        while process.poll() is None:
            done = run("show", result, "--json", "--sort", "key")
            if done.returncode != 0:
                self.assertRegex(done.stderr, "no such result|no cells either")
                continue
            shown = json.loads(done.stdout)["grid"]
            if shown["complete"]:
                break
            self.assertGreaterEqual(shown["finished"], before)
            before = shown["finished"]
            between += 0 < sum(cell["method"] != "own" for cell in shown["listed"]) and shown["finished"] < shown["to_finish"]
            seen.update({cell["key"]: cell["accuracy"] for cell in shown["listed"]})
        self.assertEqual(process.wait(timeout=120), 0, process.stderr.read())
        process.stderr.close()
        self.assertGreater(between, 0, "it was never met between its first merge and its last")
        final = {cell["key"]: cell["accuracy"] for cell in json.loads(self.good("show", result, "--json", "--sort", "key").stdout)["grid"]["listed"]}
        self.assertEqual(seen, {key: final[key] for key in seen})

    def test_stopped_and_continued(self):
        """Cells of all attempts count."""
        config, result = configuration(self.dir, "r"), self.path("r.h5")
        process = subprocess.Popen(command("run", "-c", config), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.time() + 60
        while time.time() < deadline and not any(b"MGJ1\x04\0\0\0" in journal for journal in journals(result).values()):
            time.sleep(0.002)
        process.send_signal(signal.SIGTERM)
        self.assertIn(process.wait(timeout=60), (75, 3))  # 3: it was faster
        if os.path.exists(result):
            self.skipTest("the run was over before it could be stopped")
        stopped = json.loads(self.good("show", result, "--json").stdout)
        self.assertEqual((stopped["result"], stopped["state"], stopped["grid"]["complete"]), (None, "stopped", False))
        merged = {cell["key"]: cell["accuracy"] for cell in stopped["grid"]["listed"]}
        self.refused("run", "-c", config, "--max-hours", "0.0000001", code=75)
        again = json.loads(self.good("show", result, "--json").stdout)["grid"]
        self.assertLessEqual(set(merged), {cell["key"] for cell in again["listed"]})
        self.refused("run", "-c", config, code=3)
        final = {cell["key"]: cell["accuracy"] for cell in json.loads(self.good("show", result, "--json", "--sort", "key").stdout)["grid"]["listed"]}
        self.assertEqual(merged, {key: final[key] for key in merged})

    def test_adding_to_a_result(self):
        """The result as it is, and beside it what the run has that the result has not: whole, stopped, or in parts."""
        sweep = {"locale": ["sw-KE"], "similarity_type": ["URIEL"], "method": ["average", "own"]}
        small, large = ({**GRID, "sweep": {**sweep, "num_languages": sizes}, "fixed": {}, "phases": []} for sizes in ([3], [3, 2]))
        config, result = configuration(self.dir, "r", grid=small), self.path("r.h5")
        self.good("run", "-c", config)
        held = {cell["key"] for cell in json.loads(self.good("show", result, "--json", "--sort", "key").stdout)["grid"]["listed"]}
        self.assertNotIn("addition", json.loads(self.good("show", result, "--json").stdout))
        config = configuration(self.dir, "r", grid=large)
        self.refused("run", "-c", config, "--max-hours", "0.0000001", code=75)
        for args in ((), ("--sort", "key")):
            shown = json.loads(self.good("show", result, "--json", *args).stdout)
            self.assertEqual((shown["grid"]["cells"], shown["addition"]["state"]), (2, "stopped"))
        self.assertIn("a run that adds to this result is stopped", self.good("show", result).stdout)
        codes = [run("run", "-c", config, "--part", part).returncode for part in ("1/2", "2/2")]
        self.assertEqual(codes, [0, 0])
        added = json.loads(self.good("show", result, "--json").stdout)["addition"]["grid"]
        self.assertEqual((added["finished"], added["to_finish"], len(added["listed"])), (4, 4, 2))
        self.assertTrue(held.isdisjoint(cell["key"] for cell in added["listed"]))
        self.good("gather", "-c", config)
        self.assertEqual(json.loads(self.good("show", result, "--json").stdout)["grid"]["cells"], 4)
        self.assertNotIn("adds to this result", self.good("show", result).stdout)

    def test_what_adds_to_a_result_outlives_what_is_there(self):
        """A larger run that ended before it had its result is gone on with, also after the smaller one was asked for once more."""
        sweep = {"locale": ["sw-KE"], "similarity_type": ["URIEL"], "method": ["average", "ties"]}
        small, large = ({**GRID, "sweep": {**sweep, "num_languages": sizes}, "fixed": {}, "phases": []} for sizes in ([3], [3, 2]))
        result = self.path("r.h5")
        self.good("run", "-c", configuration(self.dir, "r", grid=small))
        fault = {"LD_PRELOAD": os.path.join(os.path.dirname(BINARY), "libmg_fault.so"), "MG_FAULT": "write */r.h5.tmp.* 0 EIO"}
        self.refused("run", "-c", configuration(self.dir, "r", grid=large), env=fault)
        small = self.good("run", "-c", configuration(self.dir, "r", grid=small))
        self.assertIn("nothing to do", small.stderr)
        journal = os.listdir(f"{result}.journal")
        self.assertEqual(len(journal), 1, journal)
        done = self.good("run", "-c", configuration(self.dir, "r", grid=large))
        self.assertIn(" 0 of them to be computed", done.stderr)
        self.assertEqual(json.loads(self.good("show", result, "--json").stdout)["grid"]["cells"], 4)
        self.assertFalse(os.path.exists(f"{result}.journal"))

    def test_without_a_grid(self):
        config = configuration(self.dir, "r", stages=["compatibility", "nxn"])
        self.refused("run", "-c", config, "--max-hours", "0.0000001", code=75)
        shown = json.loads(self.good("show", self.path("r.h5"), "--json").stdout)
        self.assertEqual((shown["result"], shown["state"]), (None, "stopped"))
        self.assertNotIn("grid", shown)
        text = self.good("show", self.path("r.h5")).stdout
        self.assertIn("no result yet", text)
        self.assertIn("state stopped", text)
        self.refused("show", self.path("r.h5"), "--where", "method=ties", says="no cells either: the run's stage grid has not chosen its sources")


if __name__ == "__main__":
    unittest.main(verbosity=2)
