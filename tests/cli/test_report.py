"""scripts/report, scripts/mergegrid_result.py and the example notebook: on results that the program makes, and in a browser."""
import base64
import collections
import html.parser
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from common import BINARY, EMOJI, SOURCE, Case, environment, h5py, np, run, write_yaml

try:
    import pandas
    import plotly  # pylint: disable=unused-import
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

sys.path.insert(0, f"{SOURCE}/scripts")
from mergegrid_result import MICROSCOPE_COLUMNS, MissingStage, Result, ResultError

SMALL = f"{SOURCE}/tests/data/small-result.h5"
LOCALES = ["af-ZA", "sw-KE"]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# What plotly draws for a trace: classes of SVG elements.
MARKS = {"heatmap": {"hm"}, "histogram": {"point"}, "bar": {"point"}, "scatter": {"point", "js-line"}, "box": {"box"}}


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def column(dataset):
    return dataset.asstr()[()] if h5py.check_string_dtype(dataset.dtype) else dataset[()]


def plain(entry):
    """Newer plotly writes arrays as their bytes."""
    if "bdata" not in entry:
        return entry
    values = np.frombuffer(base64.b64decode(entry["bdata"]), entry["dtype"])
    return values.reshape([int(size) for size in str(entry.get("shape", len(values))).split(",")]).tolist()


class Parser(html.parser.HTMLParser):
    """What a page holds: figures' data by place, tables by id, notes, links, references, and what is drawn inside each figure."""

    def __init__(self, text):
        super().__init__()
        self.figures, self.tables, self.notes, self.anchors, self.ids, self.references = {}, {}, [], [], [], []
        self.drawn = collections.defaultdict(collections.Counter)
        self.into = self.place = self.note = self.table = None
        self.in_cell = False
        self.depth, self.after = 0, ""
        # plotly's own text is long, and nothing in it is looked at
        self.feed(re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))

    def handle_starttag(self, tag, attributes):
        got = dict(attributes)
        classes = (got.get("class") or "").split()
        if "id" in got:
            self.ids.append(got["id"])
        for name in ("src", "href", "srcset", "action", "data", "xlink:href"):
            if name in got and tag != "a":
                self.references.append(got[name])
        if tag == "a" and (got.get("href") or "").startswith("#"):
            self.anchors.append(got["href"][1:])
        if tag == "script" and got.get("type") == "application/json":
            self.into = got["data-place"]
        if tag in ("h2", "h3"):
            self.after = got.get("id", "")
        if tag == "p" and classes and classes[0] in ("missing", "warning"):
            self.notes.append([self.after, ""])
            self.note = self.notes[-1]
        if tag == "table":
            self.table = self.tables.setdefault(got["id"], [])
        if tag == "tr" and self.table is not None:
            self.table.append([])
        if tag in ("td", "th") and self.table is not None:
            self.table[-1].append("")
            self.in_cell = True
        if tag == "div":
            self.depth += 1
            if "plot" in classes:
                self.place, self.top = got["id"], self.depth
                self.drawn[self.place].update(classes)
        if self.place:
            self.drawn[self.place].update(classes)

    def handle_endtag(self, tag):
        if tag == "script":
            self.into = None
        if tag == "p":
            self.note = None
        if tag in ("td", "th"):
            self.in_cell = False
        if tag == "table":
            self.table = None
        if tag == "div":
            if self.place and self.depth == self.top:
                self.place = None
            self.depth -= 1

    def handle_data(self, data):
        if self.into:
            self.figures[self.into] = json.loads(data, object_hook=plain) if data.lstrip().startswith("{") else data
        elif self.note is not None:
            self.note[1] += data
        elif self.in_cell:
            self.table[-1][-1] += data

    def missing(self):
        return dict(map(tuple, self.notes))


class Report(Case):
    @classmethod
    def setUpClass(cls):
        """Results of one stage, of two, and of all, which tests read and do not change."""
        cls.made = tempfile.mkdtemp(prefix="mergegrid-test-")
        cls.addClassCleanup(shutil.rmtree, cls.made, ignore_errors=True)
        cls.grid = f"{cls.made}/grid.h5"
        subprocess.run([f"{os.path.dirname(BINARY)}/test_grid", cls.grid], check=True)
        cls.cosines = cls.make("cosines", stages=["compatibility"])
        texts = {"texts": {"files": f"{EMOJI}/texts/{{locale}}.jsonl"}, "nxn": {"targets": LOCALES}}
        cls.nxn = cls.make("nxn", stages=["nxn"], **texts)
        sweep = {"locale": "all", "num_languages": [1, 2], "method": ["average", "similarity", {"ties": {"density": [0.1, 0.5]}}]}
        cls.three = cls.make("three", family={"locales": LOCALES + ["nl-NL"]}, stages=["grid"], **{**texts, "nxn": {"targets": LOCALES + ["nl-NL"]}},
                             grid={"similarity": {"REAL": "nxn"}, "fixed": {"similarity_type": "REAL"}, "sweep": sweep})

    @classmethod
    def make(cls, name, **sections):
        sections = {"family": {"locales": LOCALES}, "shards": {"dir": f"{cls.made}/shards"}, **sections}
        done = run("run", "-c", write_yaml(f"{cls.made}/{name}.yaml", result=f"{cls.made}/{name}.h5", **sections), timeout=300)
        if done.returncode:
            raise AssertionError(done.stderr)
        return f"{cls.made}/{name}.h5"

    def report(self, *args):
        return subprocess.run([sys.executable, f"{SOURCE}/scripts/report", *args], capture_output=True, text=True, timeout=120, cwd=self.dir)

    def page(self, result, name="page.html"):
        done = self.report(result, "-o", self.path(name))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{self.path(name)}\n", ""))
        return Parser(read(self.path(name)))

    def copy(self, result, **changes):
        """A copy whose datasets (by path, with `__` for /) are deleted for None, or get the value."""
        path = self.path("copy.h5")
        shutil.copy(result, path)
        with h5py.File(path, "r+") as file:
            for name, value in changes.items():
                name = name.replace("__", "/")
                if value is None:
                    del file[name]
                else:
                    file[name][...] = value
        return path

    # ---- the module ----

    def same_table(self, frame, group, names=None):
        self.assertEqual(set(frame.columns), set(names or group))
        for name in frame.columns:
            np.testing.assert_array_equal(frame[name].to_numpy(), column(group[name]), name)

    def test_tables_are_those_of_the_file(self):
        for path in (SMALL, self.grid, self.three):
            with Result(path) as result, h5py.File(path) as file:
                self.same_table(result.cells(), file["grid/cells"])
                self.assertEqual(list(result.cells().columns[:4]), ["key", "recipe", "locale", "method"])
                self.assertEqual(list(result.cells(["accuracy", "key"]).columns), ["accuracy", "key"])
                self.same_table(result.methods(), file["grid/methods"])
                self.same_table(result.best(), file["grid/best"])
                self.assertEqual(result.swept(), list(file["grid/swept"].asstr()))
                self.same_table(result.sources(), file["sources"], ("locale", "path"))
                self.assertEqual(list(result.sources().index), list(file["sources/id"].asstr()))
                self.assertEqual(result.targets(), list(file["targets"].asstr()))
                self.assertEqual(result.labels(), list(file["labels"].asstr()))
                for name, frame in (("weights", result.weights()), ("selected", result.selected())):
                    np.testing.assert_array_equal(frame, file[f"grid/{name}"])
                    self.assertEqual(list(frame.index), list(file["grid/cells/key"].asstr()))
                    self.assertEqual(list(frame.columns), list(file["sources/id"].asstr()))
                for name in file["grid/similarity"]:
                    np.testing.assert_array_equal(result.similarity(name), file[f"grid/similarity/{name}/value"])

    def test_tensors_and_the_run(self):
        with Result(SMALL) as result, h5py.File(SMALL) as file:
            tensors = result.tensors()
            self.assertEqual(list(tensors.index), list(file["tensors/name"].asstr()))
            for shape, ndim, wanted in zip(tensors["shape"], file["tensors/ndim"], file["tensors/shape"][()].tolist()):
                self.assertEqual(shape, tuple(wanted[:ndim]))
            np.testing.assert_array_equal(tensors.selected, file["tensors/selected"])
            ranks, rows = result.ranks(), file["provenance/ranks"][()]
            self.assertEqual(list(ranks.columns), list(rows.dtype.names))
            np.testing.assert_array_equal(ranks.busy_seconds, rows["busy_seconds"])
            self.assertEqual(list(ranks.host), [host.decode() for host in rows["host"]])
            timings = result.timings()
            self.assertEqual(list(timings.name), [name.decode() for name in file["provenance/timings"]["name"]])
            np.testing.assert_array_equal(timings.seconds, file["provenance/timings"]["seconds"])
            self.assertEqual(list(result.inputs().value), [value.decode() for value in file["provenance/inputs"]["value"]])
            facts = result.provenance()
            self.assertEqual((facts["version"], facts["ranks"]), (file["provenance"].attrs["version"], 2))
            self.assertIn("family:", facts["config"])

    def test_matrices_have_ids(self):
        with Result(SMALL) as result, h5py.File(SMALL) as file:
            ids, compatibility = list(file["sources/id"].asstr()), file["compatibility"]
            layers = list(compatibility["layers"].asstr())
            found = [(result.compatibility(), compatibility["task_vector_cosine"][()]),
                     (result.compatibility("encoder"), compatibility["task_vector_cosine_encoder"][()]),
                     (result.compatibility("layers", layers[2]), compatibility["task_vector_cosine_layers"][2]),
                     (result.compatibility("cka"), compatibility["cka"][-1]), (result.compatibility("cka_unbiased", compatibility["cka_layers"][0]),
                                                                               compatibility["cka_unbiased"][0])]
            for frame, values in found:
                np.testing.assert_array_equal(frame, values)
                self.assertEqual((list(frame.index), list(frame.columns)), (ids, ids))
            for kind, name in (("accuracy", "nxn/accuracy"), ("macro_f1", "nxn/macro_f1"), ("select", "nxn_select/accuracy")):
                frame = result.nxn(kind)
                np.testing.assert_array_equal(frame, file[name])
                self.assertEqual((list(frame.index), list(frame.columns)), (ids, list(file["targets"].asstr())))
            self.assertEqual(result.layers(), layers)
            with self.assertRaisesRegex(MissingStage, "no layer 'x'; there are"):
                result.compatibility("layers", "x")
            for ask in (result.compatibility, result.nxn, result.microscope):
                with self.assertRaisesRegex(ValueError, "there are"):
                    ask("nothing")

    def test_predictions_give_the_accuracies(self):
        for path in (SMALL, self.grid):
            with Result(path) as result:
                cells = result.cells().set_index("key")
                for target in result.targets():
                    said = result.predictions(target)
                    mine = said[said.partition == result.partition("grid")]
                    done = cells[(cells.locale == target) & (cells.status == "completed") & (cells.prediction_row >= 0)]
                    self.assertGreater(len(done), 0)
                    for key in done.index:
                        self.assertEqual((mine[key] == mine.label).mean(), done.accuracy[key])
                    for select, kind in ((False, "accuracy"), (True, "select")):
                        said = result.source_predictions(target, select)
                        for source, accuracy in result.nxn(kind)[target].items():
                            self.assertEqual((said[source] == said.label).mean(), accuracy)

    def test_microscope_tables(self):
        with Result(SMALL) as result, h5py.File(SMALL) as file:
            for name, group in file["microscope"].items():
                if name == "cell_deltas":
                    continue
                frame = result.microscope(name)
                self.assertEqual(list(frame.columns), list(MICROSCOPE_COLUMNS[name]))
                self.same_table(frame, group)
                self.assertGreater(len(frame), 0)
            for kind in ("delta_l2", "cosine_with_reference", "candidate_norm"):
                frame = result.cell_deltas(kind)
                np.testing.assert_array_equal(frame, file[f"microscope/cell_deltas/{kind}"])
                self.assertEqual((list(frame.index), list(frame.columns)), (list(file["grid/cell"].asstr()), list(file["tensors/name"].asstr())))
            facts = result.microscope_facts()
            self.assertEqual((facts["reference"], facts["padding"], facts["probes"]), ("source sw-KE", "exclude", 6))
            with self.assertRaisesRegex(ValueError, "no array 'x'"):
                result.cell_deltas("x")
        path = self.copy(SMALL, microscope__logits=None, microscope__cell_deltas=None)
        with Result(path) as result:
            with self.assertRaisesRegex(MissingStage, "microscope has no logits"):
                result.microscope("logits")
            with self.assertRaisesRegex(MissingStage, "no cell_deltas"):
                result.cell_deltas()

    def test_stages_that_are_not_there(self):
        with Result(self.cosines) as result:
            self.assertEqual(result.stages, ["compatibility"])
            for stage, ask in (("grid", result.cells), ("grid", result.weights), ("nxn", result.nxn), ("nxn", result.targets)):
                with self.assertRaisesRegex(MissingStage, f"no stage {stage} .it has: compatibility"):
                    ask()
            with self.assertRaisesRegex(MissingStage, "no CKA: its run did not list cka"):
                result.compatibility("cka")
            with self.assertRaisesRegex(MissingStage, "no stage microscope"):
                result.microscope("logits")
            with self.assertRaisesRegex(MissingStage, "no stage microscope"):
                result.cell_deltas()
        with Result(self.grid) as result:
            with self.assertRaisesRegex(MissingStage, "no stage compatibility"):
                result.compatibility()
            with self.assertRaisesRegex(MissingStage, "no target 'zz'"):
                result.predictions("zz")

    # ---- wrong input, to both ----

    def refused_by_both(self, path, message):
        with self.assertRaisesRegex(ResultError, message):
            Result(path)
        done = self.report(path, "-o", self.path("page.html"))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, message)
        self.assertNotIn("Traceback", done.stderr)
        self.assertEqual([name for name in os.listdir(self.dir) if "page.html" in name], [])

    def test_files_that_are_no_results(self):
        self.refused_by_both(self.path("none.h5"), "none.h5: no such file")
        self.refused_by_both(self.dir, "is a directory")
        with open(self.path("text.h5"), "w", encoding="utf-8") as file:
            file.write("not HDF5\n")
        self.refused_by_both(self.path("text.h5"), "not a mergegrid result .no HDF5 file")
        with open(SMALL, "rb") as whole, open(self.path("half.h5"), "wb") as half:
            half.write(whole.read()[:300_000])
        self.refused_by_both(self.path("half.h5"), "not a mergegrid result .no HDF5 file, or one that was cut off")
        with h5py.File(self.path("other.h5"), "w") as file:
            file["x"] = 1
        self.refused_by_both(self.path("other.h5"), "no attribute format")

    def test_another_schema(self):
        path = self.copy(SMALL)
        with h5py.File(path, "r+") as file:
            file.attrs["schema_version"] = 2
        self.refused_by_both(path, "has schema version 2; this reads version 1")

    def test_results_that_are_not_finished(self):
        path = self.copy(SMALL)

        def state(text):
            with open(f"{path}.state", "w", encoding="utf-8") as file:
                file.write(text)

        state("done\nattempt 1\n")
        Result(path).close()
        state("running\nattempt 2\nhost node7\npid 4711\n")
        self.refused_by_both(path, "still being written by a run .attempt 2, host node7, pid 4711")
        os.unlink(path)
        self.refused_by_both(path, "still being written")
        state("stopped\nattempt 2\nmessage stopped on a signal\n")
        self.refused_by_both(path, "not finished .its last run: stopped, stopped on a signal")
        os.unlink(f"{path}.state")
        os.mkdir(f"{path}.journal")
        self.refused_by_both(path, "is not finished")

    def test_a_run_that_is_under_way(self):
        """The state that the program itself writes, seen while it runs."""
        name = self.path("slow")
        config = write_yaml(f"{name}.yaml", family={"locales": LOCALES + ["en-US", "nl-NL", "de-DE"]}, shards={"dir": "none"}, stages=["nxn"],
                            texts={"files": f"{EMOJI}/texts/{{locale}}.jsonl"}, result=f"{name}.h5")
        with subprocess.Popen([BINARY, "run", "-c", config], env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            self.addCleanup(process.kill)
            while not os.path.exists(f"{name}.h5.state") and process.poll() is None:
                time.sleep(0.01)
            with self.assertRaisesRegex(ResultError, "still being written by a run .attempt 1, host "):
                Result(f"{name}.h5")
            process.terminate()
            process.wait(timeout=60)
        with self.assertRaisesRegex(ResultError, "is not finished .its last run: stopped"):
            Result(f"{name}.h5")

    def test_usage(self):
        self.assertEqual(self.report().returncode, 2)
        path = self.copy(SMALL)
        done = self.report(path, "-o", path)
        self.assertEqual(done.returncode, 2)
        self.assertIn("written over the result", done.stderr)
        Result(path).close()
        done = self.report(SMALL, "-o", self.path("nowhere", "page.html"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "^report: .*nowhere")
        done = self.report("--help")
        self.assertEqual(done.returncode, 0)
        self.assertIn("opens without network", done.stdout)

    def test_a_page_that_fails_leaves_the_old_one(self):
        with open(self.path("page.html"), "w", encoding="utf-8") as file:
            file.write("old")
        broken = self.copy(SMALL, grid__methods__accuracy=None)
        self.assertEqual(self.report(broken, "-o", self.path("page.html")).returncode, 1)
        self.assertEqual(read(self.path("page.html")), "old")
        self.page(SMALL)
        self.assertEqual(sorted(os.listdir(self.dir)), ["copy.h5", "page.html"])

    # ---- the page ----

    def heat(self, page, name, trace=0):
        data = page.figures[f"figure-{name}"]["data"][trace]
        return pandas.DataFrame(np.array(data["z"], float), data["y"], data["x"])

    def check_maps(self, page, path):
        with Result(path) as result:
            for name, kind in (("cosine", "cosine"), ("cka", "cka")):
                frame, wanted = self.heat(page, name), result.compatibility(kind)
                self.assertEqual(list(frame.index), list(frame.columns))
                wanted = wanted.loc[frame.index, frame.columns].to_numpy().copy()
                np.fill_diagonal(wanted, np.nan)
                np.testing.assert_array_equal(frame, wanted)
                rows, columns = np.triu_indices(len(frame), 1)
                bars = page.figures[f"figure-{name}-histogram"]["data"][0]["x"]
                np.testing.assert_array_equal(sorted(bars), sorted(wanted[rows, columns]))
            np.testing.assert_array_equal(self.heat(page, "accuracy"), result.nxn())
            np.testing.assert_array_equal(self.heat(page, "accuracy", 1), result.nxn("select"))
            points = page.figures["figure-cosine-cka"]["data"][0]
            for name, x, y in zip(points["text"], points["x"], points["y"]):
                a, b = name.split(" – ")
                self.assertEqual((x, y), (result.compatibility().loc[a, b], result.compatibility("cka").loc[a, b]))
            self.assertEqual(len(points["x"]), len(rows))

    def check_grid(self, page, path):
        with Result(path) as result:
            cells, methods, best = result.cells(), result.methods(), result.best()
            done = cells[cells.status == "completed"]
            accuracy, gain = self.heat(page, "grid-accuracy"), self.heat(page, "grid-gain")
            self.assertEqual(accuracy.size, len(done.groupby(["method", "parameters"])) * done.locale.nunique())
            for (method, parameters, locale), mine in done.groupby(["method", "parameters", "locale"]):
                name = self.setting(method, parameters, result.swept())
                self.assertAlmostEqual(accuracy.loc[name, locale], mine.accuracy.mean(), places=14)
                if mine.best_source.notna().any():
                    self.assertAlmostEqual(gain.loc[name, locale], (mine.accuracy - mine.best_source).mean(), places=14)
            scale = page.figures["figure-grid-gain"]["data"][0]
            self.assertEqual(scale["zmin"], -scale["zmax"])
            self.check_methods(page, methods, result.swept())
            self.check_best(page, best, cells)

    def setting(self, method, parameters, swept):
        names = [name.split(".")[1] for name in swept if name.split(".")[0] == method]
        return " ".join([method] + [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name in names
                                    for value in [json.loads(parameters)[name]]])

    def check_methods(self, page, methods, swept):
        rows = {row[0]: row for row in page.tables["table-methods"][1:]}
        self.assertEqual(len(rows), len(methods))
        points = page.figures["figure-differences"]["data"][0]
        points = {name: values for name, *values in zip(points["y"], points["x"], points["error_x"]["array"], points["error_x"]["arrayminus"])}
        bars = {bar["name"]: dict(zip(bar["y"], bar["x"])) for bar in page.figures["figure-wins"]["data"]}
        for row in methods.itertuples():
            name = self.setting(row.method, row.parameters, swept)
            shown = rows[name]
            self.assertEqual(shown[1:4], [str(row.cells), str(row.failed), "–" if np.isnan(row.accuracy) else f"{row.accuracy:.4f}"])
            self.assertEqual(name in points, row.pairs > 0)
            if not row.pairs:
                self.assertEqual(shown[4:6], ["–", "–"])
                continue
            self.assertEqual(shown[4:6], [f"{row.delta:+.4f}", f"{row.delta_low:+.4f} … {row.delta_high:+.4f}"])
            self.assertEqual(shown[7], f"{row.wins} / {row.draws} / {row.losses}")
            np.testing.assert_allclose(points[name], [row.delta, row.delta_high - row.delta, row.delta - row.delta_low], atol=1e-15)
            np.testing.assert_allclose([bars[k][name] for k in ("better", "equal", "worse")], np.array([row.wins, row.draws, row.losses]) / row.pairs)

    def check_best(self, page, best, cells):
        rows = page.tables["table-best"][1:]
        self.assertEqual(len(rows), len(best))
        for row, shown in zip(best.itertuples(), rows):
            cell = cells.loc[row.cell]
            self.assertEqual((shown[0], shown[3].replace(", ", ","), shown[5], shown[-1]), (row.locale, cell.sources, f"{row.accuracy:.4f}", cell.key))
            self.assertEqual(shown[7], f"{row.low:+.4f} … {row.high:+.4f}")

    def test_numbers_of_all_stages(self):
        page = self.page(SMALL)
        self.check_maps(page, SMALL)
        self.check_grid(page, SMALL)
        failed = page.tables["table-failed"][1:]
        with Result(SMALL) as result:
            cells = result.cells()
            self.assertEqual([row[0] for row in failed], list(cells.key[cells.status == "failed"]))
            self.assertEqual([row[3] for row in failed], list(cells.error[cells.status == "failed"]))
            busy = page.figures["figure-busy"]["data"][0]
            seconds = result.timings().set_index("name").seconds
            np.testing.assert_allclose(busy["y"], result.ranks().busy_seconds / seconds[["gram", "grid", "microscope"]].sum())
            self.assertEqual(page.figures["figure-timings"]["data"][0]["x"], list(result.timings().seconds))
        self.check_microscope(page, SMALL)
        self.assertEqual(page.missing()["sources"], "All merges are of the same number of sources (2), so there is no axis.")

    def check_microscope(self, page, path):
        with Result(path) as result:
            layers, heads, states, logits, setups = (result.microscope(name) for name in
                                                     ("layer_deltas", "attentions", "hidden_states", "logits", "setups"))
            moved, cells, tensors = result.cell_deltas(), result.cells(["key", "method"]), result.tensors()
        for bar in page.figures["figure-movement"]["data"]:
            mine = layers[layers.model == bar["name"]]
            self.assertEqual(dict(zip(bar["x"], bar["y"])), dict(zip(mine.layer, mine.delta_l2_sum)))
        self.assertEqual([bar["name"] for bar in page.figures["figure-movement"]["data"]], list(setups.model[setups.exists])[1:])
        for box in page.figures["figure-entropy"]["data"]:
            mine = heads[heads.model == box["name"]]
            self.assertEqual((box["x"], box["y"]), (list(mine.layer), list(mine.entropy)))
        for name, frame, column in (("cls", heads, "cls_focus"), ("norms", states, "mean_token_norm")):
            for line in page.figures[f"figure-{name}"]["data"]:
                mine = frame[frame.model == line["name"]].groupby("layer")[column].mean()
                np.testing.assert_array_equal(line["y"], mine)
            self.assertEqual(len(page.figures[f"figure-{name}"]["data"]), setups.exists.sum())
        self.assertEqual([row[0] for row in page.tables["table-logits"][1:]], list(logits.model))
        self.assertEqual([row[3] for row in page.tables["table-logits"][1:]], [f"{value:.4f}" for value in logits.confidence_mean])
        for shown, row in zip(page.tables["table-setups"][1:], setups.itertuples()):
            self.assertEqual((shown[0], shown[-1]), (row.model, "there" if row.exists else f"skipped: {row.error}"))
        shown = self.heat(page, "cell-movement")
        whole = moved[moved.notna().all(axis=1)]
        for method in shown.index:
            keys = [key for key in whole.index if cells.method[cells.key == key].item() == method]
            for part in (part for part in shown.columns if part.startswith("layer.")):
                names = tensors.index[tensors.layer == f"roberta.encoder.{part}"]
                wanted = np.sqrt((whole.loc[keys, names] ** 2).sum(axis=1)).mean()
                self.assertAlmostEqual(shown.loc[method, part], wanted, places=12)

    def test_microscope_without_this_and_that(self):
        """No figure is empty without a reason."""
        llama = f"{self.made}/llama"
        subprocess.run([sys.executable, f"{SOURCE}/scripts/make-family", llama, "-n", "3", "--shape", "llama", "--parameters", "200K"], check=True,
                       capture_output=True)
        path = self.make("scope", family={"base": f"{llama}/base", "sources": f"{llama}/source_{{locale}}"}, shards={"dir": "none"},
                         stages=["compatibility", "microscope"], microscope={"reference": {"base": True}})
        missing = self.page(path).missing()
        for name in ("entropy", "cls", "norms", "logits"):
            self.assertIn("There were no forward passes: ", missing[name])
        self.assertIn("No setup but the reference is there", missing["movement"])
        self.assertIn("The grid's cells are not compared with the reference: the run has no stage grid", missing["cell-movement"])

    def test_numbers_of_grids(self):
        for path in (self.grid, self.three):
            self.check_grid(self.page(path), path)

    def test_number_of_sources_as_an_axis(self):
        page = self.page(self.three)
        lines = {line["name"]: dict(zip(line["x"], line["y"])) for line in page.figures["figure-sources"]["data"]}
        with Result(self.three) as result:
            done = result.cells()
        self.assertEqual(sorted(lines), ["average", "similarity", "ties density=0.1", "ties density=0.5"])
        for name, line in lines.items():
            self.assertEqual(sorted(line), [1, 2])
            mine = done[done.method == name.split(" ")[0]]
            if "=" in name:
                mine = mine[mine["ties.density"] == name.split("=")[1]]
            for many, accuracy in line.items():
                self.assertAlmostEqual(accuracy, mine.accuracy[mine.num_sources == many].mean(), places=14)

    def test_sections_of_what_is_not_there(self):
        page = self.page(self.cosines)
        missing = page.missing()
        for stage in ("nxn", "grid", "microscope"):
            self.assertEqual(missing[stage], f"This result has no stage {stage}.")
        self.assertIn("did not list cka in compatibility.metrics", missing["cosine-cka"])
        self.assertEqual(sorted(page.figures), [f"figure-{name}" for name in ("busy", "cosine", "cosine-histogram", "timings")])
        missing = self.page(self.nxn).missing()
        self.assertEqual(missing["compatibility"], "This result has no stage compatibility.")
        self.assertIn("computed no Grams and no cells", missing["busy"])

    def test_values_that_are_not_there(self):
        nothing = self.page(self.copy(self.cosines, compatibility__task_vector_cosine=np.nan)).missing()
        self.assertIn("No pair of sources has a finite cosine", nothing["cosine"])
        self.assertIn("No pair of sources has a finite cosine", nothing["cosine-histogram"])
        with h5py.File(self.grid) as file:
            count = len(file["grid/cells/key"])
        missing = self.page(self.copy(self.grid, grid__cells__best_source=np.full(count, np.nan), grid__methods__delta=np.nan, grid__methods__pairs=0)).missing()
        self.assertIn("No completed cell has a value of: gain", missing["grid-gain"])
        self.assertIn("no difference to show", missing["differences"])
        self.assertIn("No cell has a counterpart", missing["wins"])
        self.assertIn("No completed cell is a merge whose sources", missing["wins-source"])
        missing = self.page(self.copy(self.grid, grid__cells__status=np.array(["planned"] * count, object))).missing()
        self.assertIn("No cell of the grid was completed", missing["grid"])

    def test_without_layers(self):
        path = self.copy(SMALL, compatibility__task_vector_cosine_layers=None)
        with Result(path) as result, self.assertRaisesRegex(MissingStage, "gram: total"):
            result.compatibility("layers", result.file["compatibility/layers"].asstr()[0])
        self.assertEqual([trace["name"] for trace in self.page(path).figures["figure-cosine"]["data"]], ["selected tensors", "encoder"])
        self.assertIn("Layers are not shown one by one", read(self.path("page.html")))
        self.page(SMALL)
        self.assertNotIn("Layers are not shown one by one", read(self.path("page.html")))

    def test_chosen_on_what_is_scored(self):
        path = self.copy(SMALL)
        with h5py.File(path, "r+") as file:
            file["grid"].attrs["selected_on_partition"] = np.bool_(True)
        self.assertIn("too high", self.page(path).missing()["grid"])
        self.assertNotIn("grid", self.page(SMALL).missing())

    def test_every_figure_has_values(self):
        for path in (SMALL, self.grid, self.three, self.cosines, self.nxn):
            page = self.page(path)
            self.assertGreater(len(page.figures), 1)
            for name, figure in page.figures.items():
                for trace in figure["data"]:
                    axes = [np.ravel(np.array(trace[axis], object)) for axis in ("z", "y", "x") if axis in trace]
                    numbers = next(values for values in axes if not isinstance(values[0], str))
                    self.assertTrue(np.isfinite(numbers.astype(float)).any(), name)

    def test_a_file_of_its_own(self):
        page = self.page(SMALL)
        self.assertEqual([text for text in page.references if not text.startswith("data:")], [])
        text = read(self.path("page.html"))
        self.assertEqual(len(re.findall("<script>", text)), 2)  # plotly, and what calls it
        self.assertIn("default-src 'none'", text)
        style = re.search(r"<style>(.*?)</style>", text, re.DOTALL).group(1)
        self.assertNotRegex(style, r"url\(|@import")
        self.assertLess(os.path.getsize(self.path("page.html")), 15e6)
        self.assertEqual(len(page.ids), len(set(page.ids)))
        self.assertEqual(set(page.anchors) - set(page.ids), set())
        self.assertIn("grid-gain", page.anchors)

    # ---- many sources ----

    def many(self, n, targets=None, states=2):
        """A result of the committed one's schema with so many sources, some of which have failed, and a grid over as many targets."""
        path, random, m = self.path(f"many-{n}.h5"), np.random.default_rng(n), targets or n
        groups = random.integers(0, 7, n)
        alike = 0.2 + 0.3 * (groups[:, None] == groups) + random.normal(0, 0.05, (n, n))
        cosine, cka = (np.clip((a + a.T) / 2, -1, 1) for a in (alike, alike + random.normal(0, 0.02, (n, n))))
        for matrix in (cosine, cka):
            np.fill_diagonal(matrix, 1)
        ids, names = (np.array([f"{kind}-{k:04}" for k in range(size)], object) for kind, size in (("source", n), ("target", m)))
        accuracy = random.uniform(0, 1, (n, m))
        accuracy[3] = np.nan
        failures = {"source": np.full(m, ids[3], object), "target": names, "error": np.full(m, "the source's logits are not finite", object)}
        with h5py.File(SMALL) as small:
            cells, best = ({name: column(d) for name, d in small[f"grid/{table}"].items()} for table in ("cells", "best"))
        take = np.flatnonzero(cells["locale"] == cells["locale"][best["cell"][0]])  # each target has the first one's cells
        cells = {name: np.tile(values[take], m) for name, values in cells.items()}
        cells["locale"] = np.repeat(names, len(take))
        cells["sources"] = np.full(len(take) * m, ",".join(f"{id}:0.020" for id in ids[:50]), object)
        best = {name: np.repeat(values[:1], m) for name, values in best.items()}
        best["cell"] = np.arange(m) * len(take) + int(np.flatnonzero(take == best["cell"][0])[0])
        best["locale"] = names
        new = {"sources/id": ids, "sources/locale": names[np.arange(n) % m], "sources/path": ids, "targets": names, "compatibility/source": ids,
               "compatibility/task_vector_cosine": cosine, "compatibility/task_vector_cosine_encoder": cosine ** 2,
               "compatibility/cka": np.stack([cka * (1 - k / 100) for k in range(states)][::-1]), "compatibility/cka_layers": np.arange(states),
               "nxn/source": ids, "nxn/target": names, "nxn/accuracy": accuracy, "nxn/macro_f1": accuracy ** 2, "nxn_select/accuracy": 1 - accuracy,
               **{f"nxn/failures/{name}": values for name, values in failures.items()}, **{f"grid/cells/{name}": v for name, v in cells.items()},
               **{f"grid/best/{name}": v for name, v in best.items()}}
        shutil.copy(SMALL, path)
        with h5py.File(path, "r+") as file:
            del file["compatibility/task_vector_cosine_layers"], file["texts"], file["microscope"]
            for name, values in new.items():
                if name in file:
                    del file[name]
                file.create_dataset(name, data=values, dtype=h5py.string_dtype() if values.dtype.kind == "O" else values.dtype)
        return path

    def unpacked(self, page, figure, trace=0):
        """A packed matrix as the page unpacks it, and the step of its values."""
        data = page.figures[f"figure-{figure}"]["data"][trace]
        z = data["z"]
        codes = np.frombuffer(base64.b64decode(z["packed"]), f"<u{z['bits'] // 8}").astype(float)
        values = np.where(codes > 0, z["low"] + (codes - 1) * z["step"], np.nan)
        matrix = np.full((z["rows"], z["columns"]), np.nan)
        if z["half"]:
            matrix[np.triu_indices(len(matrix))] = values
            matrix = np.where(np.isnan(matrix), matrix.T, matrix)
        else:
            matrix = values.reshape(matrix.shape)
        self.assertEqual(matrix.shape, (len(data["y"]), len(data["x"])))
        return pandas.DataFrame(matrix, data["y"], data["x"]), z["step"]

    def check_many(self, n, states=2, kept=(2, 2, 3)):
        """Page size, and every value that the page still has, against the file."""
        path = self.many(n, states=states)
        page, text = self.page(path), read(self.path("page.html"))
        self.assertLess(os.path.getsize(self.path("page.html")), 15e6)
        with Result(path) as result:
            wanted = {"cosine": result.compatibility("cosine"), "cka": result.compatibility("cka"), "accuracy": result.nxn()}
            for (name, frame), traces in zip(wanted.items(), kept):
                self.assertEqual(len(page.figures[f"figure-{name}"]["data"]), traces, name)
                shown, step = self.unpacked(page, name)
                values = frame.loc[shown.index, shown.columns].to_numpy().copy()
                if name != "accuracy":
                    np.fill_diagonal(values, np.nan)
                np.testing.assert_allclose(shown, values, atol=step * 0.51, rtol=0)
                self.assertLess(step, 0.005)
            pairs = n * (n - 1) // 2
            self.assertEqual(sum(page.figures["figure-cosine-histogram"]["data"][0]["y"]), pairs)
            counts, named = page.figures["figure-cosine-cka"]["data"]
            self.assertEqual(sum(sum(row) for row in counts["customdata"]), pairs)
            for name, x, y in zip(named["text"], named["x"], named["y"]):
                a, b = name.split(" – ")
                self.assertEqual((x, y), (wanted["cosine"].loc[a, b], wanted["cka"].loc[a, b]))
        self.assertIn(f"How many of the {pairs:,} pairs of sources are where", text)
        self.assertIn("mergegrid export writes every number (task_vector_cosine_matrix.csv and others)", text)
        self.assertIn(f"Gaps are the {n:,} that failed.", text)
        self.assertEqual({row[0] for row in page.tables["table-nxn-failed"][1:]}, {"source-0003"})
        self.assertEqual(len(page.tables["table-best"]), 401)
        self.assertIn(f"The first 400 of {n:,} rows", text)
        self.assertIn(" … and 38 more", page.tables["table-best"][1][3])
        return page, text

    def test_500_sources(self):
        _, text = self.check_many(500)
        self.assertNotIn("Left out, since", text)

    def test_500_sources_of_many_states(self):
        _, text = self.check_many(500, states=13, kept=(2, 8, 3))
        self.assertIn("Left out, since the page would be too large: hidden state 4, hidden state 3, hidden state 2, hidden state 1, hidden state 0.", text)

    def test_1000_sources(self):
        page, text = self.check_many(1000, kept=(2, 2, 1))
        self.assertEqual(text.count("Left out, since the page would be too large: "), 1)
        self.assertIn("Left out, since the page would be too large: accuracy (dev), macro-F1 (test).", text)
        self.assertEqual(page.figures["figure-accuracy"]["layout"]["yaxis"]["title"]["text"], "source")

    def test_more_are_averaged(self):
        """A page of any family is small enough; each square is the mean of the values that its block has."""
        path = self.many(1100, targets=600, states=1)
        page, text = self.page(path), read(self.path("page.html"))
        self.assertLess(os.path.getsize(self.path("page.html")), 15e6)
        self.assertIn("Each square is the mean of up to 2 × 2 neighbours.", text)
        self.assertIn("Each square is the mean of up to 2 × 1 neighbours.", text)
        shown, step = self.unpacked(page, "accuracy")
        self.assertEqual((shown.shape, shown.index[0], shown.columns[1]), ((550, 600), "source-0000 … source-0001", "target-0001"))
        with Result(path) as result:
            values = result.nxn().to_numpy()
        np.testing.assert_allclose(shown, np.nanmean(values.reshape(550, 2, 600), axis=1), atol=step * 0.51, rtol=0)
        for name in ("cosine", "cka"):
            shown, step = self.unpacked(page, name)
            self.assertEqual(shown.shape, (550, 550))

    def test_a_browser_unpacks(self):
        """Every figure of many sources is drawn, and what was packed has the values that it had."""
        path = self.many(300)
        self.page(path)
        probe = """<script>setTimeout(function () {
          document.querySelectorAll('.plot').forEach(function (place) {
            (place.data || []).forEach(function (trace, k) {
              if (trace.type === 'heatmap' && trace.z.length > 150) {
                var sum = 0, none = 0;
                trace.z.forEach(function (row) { row.forEach(function (v) { if (v === null) none++; else sum += v; }); });
                var at = document.createElement('p'); at.className = 'missing'; at.textContent = [place.id, k, sum.toFixed(2), none].join(' ');
                document.body.appendChild(at);
              }
            });
          });
        }, 4000);</script>"""
        text = read(self.path("page.html")).replace("</body>", probe + "</body>")
        with open(self.path("probed.html"), "w", encoding="utf-8") as file:
            file.write(text)
        page, console = self.browse(self.path("probed.html"))
        self.assertEqual(console, [])
        self.assertEqual(self.not_drawn(page), [])
        sums = {tuple(line.split()[:2]): line.split()[2:] for _, line in page.notes if line.startswith("figure-")}
        with Result(path) as result:
            cosine, accuracy = result.compatibility("cosine").to_numpy(), result.nxn().to_numpy()
        for (figure, values, none) in (("cosine", cosine.sum() - 300, 300), ("accuracy", np.nansum(accuracy), 300)):
            total, gaps = sums[f"figure-{figure}", "0"]
            self.assertAlmostEqual(float(total), values, delta=5)
            self.assertEqual(int(gaps), none)

    def test_ids_are_no_markup(self):
        with h5py.File(SMALL) as file:
            count = len(file["sources/id"])
        ids = np.array(["</script><b>x", "a&b"] + [f"s{k}" for k in range(count - 2)], object)
        page = self.page(self.copy(SMALL, compatibility__source=ids, sources__id=ids, nxn__source=ids))
        self.assertLessEqual({"&lt;/script>&lt;b>x", "a&amp;b"}, set(self.heat(page, "cosine").index))
        self.assertIn("figure-busy", page.figures)

    def test_reads_no_logits_and_no_predictions(self):
        """They are most of a large result; the page is the same without them."""
        whole = self.copy(SMALL)
        self.page(whole, "whole.html")
        less = self.copy(SMALL, nxn__logits=None, nxn_select__logits=None, nxn__predictions=None, nxn_select__predictions=None,
                         grid__predictions=None, texts=None)
        self.page(less, "less.html")
        self.assertEqual(read(self.path("whole.html")), read(self.path("less.html")))

    def test_similar_sources_stand_together(self):
        loader = importlib.machinery.SourceFileLoader("report", f"{SOURCE}/scripts/report")
        report = importlib.util.module_from_spec(importlib.util.spec_from_loader("report", loader))
        loader.exec_module(report)
        groups = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
        random = np.random.default_rng(3).uniform(0, 0.2, (9, 9))
        matrix = np.where(groups[:, None] == groups, 0.9, 0.3) + (random + random.T) / 4
        order = report.similar_together(matrix)
        self.assertEqual(sorted(order), list(range(9)))
        self.assertEqual(np.count_nonzero(np.diff(groups[order])), 2)
        self.assertEqual(report.similar_together(np.ones((1, 1))), [0])

    # ---- in a browser ----

    def browse(self, path):
        """The page as a browser draws it, and what it prints to the console; there is no network."""
        if BROWSER is None:
            self.skipTest("no chromium and no google-chrome here: scripts/install-packages browser")
        done = subprocess.run([BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={self.path('browser')}",
                               "--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1400,1000", "--virtual-time-budget=20000",
                               "--enable-logging=stderr", "--dump-dom", f"file://{path}"],
                              capture_output=True, text=True, timeout=240, env={**os.environ, "HOME": self.dir})
        self.assertEqual(done.returncode, 0, done.stderr)
        return Parser(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def not_drawn(self, page):
        """Figures of which a browser has not drawn every kind of visible trace."""
        wanted = {name: {trace["type"] for trace in figure["data"] if trace.get("visible", True) is True} if isinstance(figure, dict) else set()
                  for name, figure in page.figures.items()}
        return [name for name, kinds in wanted.items() if not kinds or not page.drawn[name]["main-svg"] or
                any(not any(page.drawn[name][mark] for mark in MARKS[kind]) for kind in kinds)]

    def test_in_a_browser(self):
        for path in (SMALL, self.grid, self.three, self.cosines, self.nxn):
            made = self.page(path)
            page, console = self.browse(self.path("page.html"))
            self.assertEqual(console, [], path)
            self.assertEqual(sorted(page.figures), sorted(made.figures))
            self.assertEqual(sum(counts["js-plotly-plot"] > 0 for counts in page.drawn.values()), len(made.figures))
            self.assertEqual(self.not_drawn(page), [], path)

    def test_the_browser_finds_what_is_not_drawn(self):
        """An empty figure, one that fails, and a file from elsewhere would not pass."""
        self.page(self.cosines)
        text = read(self.path("page.html"))
        text = re.sub(r'(data-place="figure-cosine-histogram">).*?(</script>)', r'\1{"data": [], "layout": {}}\2', text, flags=re.DOTALL)
        text = re.sub(r'(data-place="figure-busy">).*?(</script>)', r"\1no JSON\2", text, flags=re.DOTALL)
        text = text.replace("</main>", '<img src="http://127.0.0.1:9/picture.png"></main>')
        with open(self.path("changed.html"), "w", encoding="utf-8") as file:
            file.write(text)
        page, console = self.browse(self.path("changed.html"))
        self.assertEqual(sorted(self.not_drawn(page)), ["figure-busy", "figure-cosine-histogram"])
        self.assertTrue(any("figure-busy" in line for line in console), console)
        self.assertTrue(any("picture.png" in line for line in console), console)

    # ---- the notebook ----

    def test_example_notebook(self):
        with open(f"{SOURCE}/docs/example.ipynb", encoding="utf-8") as file:
            cells = json.load(file)["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        self.assertGreater(len(code), 5)
        self.assertEqual([cell["outputs"] for cell in cells if cell["cell_type"] == "code"], [[]] * len(code))
        names = {}
        before = os.getcwd()
        os.chdir(f"{SOURCE}/docs")
        self.addCleanup(os.chdir, before)
        for k, text in enumerate(code):
            exec(compile(text, f"example.ipynb, code cell {k + 1}", "exec"), names)  # pylint: disable=exec-used
        with h5py.File(SMALL) as file:
            self.assertEqual(names["pairs"].iloc[0], file["compatibility/task_vector_cosine"].attrs["max"])
            done = names["done"]
            self.assertEqual(len(done), np.sum(file["grid/cells/status"].asstr()[()] == "completed"))
            self.assertEqual((names["scored"][names["key"]] == names["scored"].label).mean(), file["grid/best/accuracy"][0])
        self.assertEqual(names["figure"].data[0].type, "heatmap")
        self.assertEqual(list(names["moved"].columns), ["cell", "nearest", "theirs"])

    def test_xarray_selects_a_row(self):
        try:
            import xarray
            xarray.backends.list_engines()["h5netcdf"]
        except (ImportError, KeyError) as error:
            self.skipTest(f"no xarray with h5netcdf here: {error}")
        with Result(SMALL) as result:
            wanted = result.compatibility().loc["sw-KE"]
        with xarray.open_dataset(SMALL, group="/compatibility", engine="h5netcdf") as opened:
            np.testing.assert_array_equal(opened.task_vector_cosine.sel(source="sw-KE"), wanted)
        with Result(SMALL) as result:
            moved, layers = result.cell_deltas(), result.microscope("layer_deltas")
        with xarray.open_dataset(SMALL, group="/microscope/cell_deltas", engine="h5netcdf") as opened:
            np.testing.assert_array_equal(opened.delta_l2.sel(cell=moved.index[0]), moved.iloc[0])
        with xarray.open_dataset(SMALL, group="/microscope/layer_deltas", engine="h5netcdf") as opened:
            mine = opened.delta_l2_sum.sel(layer="layer.0.attention.self")
            np.testing.assert_array_equal(mine, layers.delta_l2_sum[layers.layer == "layer.0.attention.self"])


if __name__ == "__main__":
    unittest.main()
