"""What users see of a result's grid: show, export, explain, and the file itself. The result is one that test_grid makes up."""
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import unittest

from common import BINARY, SOURCE, Case, h5py, np, result_bits, write_yaml

try:
    import pandas
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def read_column(column):
    return column.asstr()[:] if h5py.check_string_dtype(column.dtype) else column[:]


class GridResult(Case):
    def setUp(self):
        super().setUp()
        self.result = self.path("r.h5")
        subprocess.run([f"{os.path.dirname(BINARY)}/test_grid", self.result], check=True)
        with h5py.File(self.result) as file:
            self.cells, self.methods, self.best = (pandas.DataFrame({name: read_column(column) for name, column in file[f"grid/{table}"].items()})
                                                   for table in ("cells", "methods", "best"))
            self.predictions = {name: rows[:] for name, rows in file["grid/predictions"].items()}
            self.labels = {name: texts["label"][:] for name, texts in file["texts"].items()}
            self.scored = {name: texts["partition"].asstr()[:] == "test" for name, texts in file["texts"].items()}

    def check_result(self, *paths):
        return subprocess.run([sys.executable, f"{SOURCE}/scripts/check-result", *paths], capture_output=True, text=True)

    def without_grid(self):
        config = write_yaml(self.path("plain.yaml"), family={"locales": ["af-ZA", "sw-KE"]}, shards={"dir": "none"}, result=self.path("plain.h5"))
        self.good("run", "-c", config)
        return self.path("plain.h5")

    def show(self, *args):
        return json.loads(self.good("show", self.result, "--json", *args).stdout)["grid"]

    def right(self, cell):
        """Of a cell: is it right on each text that cells are scored on."""
        row = self.cells.loc[cell]
        scored = self.scored[row.locale]
        return (self.predictions[row.locale][row.prediction_row] == self.labels[row.locale])[scored]

    # ---- the file ----

    def test_schema(self):
        done = self.check_result(self.result)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.good("verify", self.result)

    def test_equal_input_gives_equal_bits(self):
        again = self.path("again.h5")
        subprocess.run([f"{os.path.dirname(BINARY)}/test_grid", again], check=True)
        self.same_bits(again, result_bits(self.result))
        self.assertEqual(self.check_result("--identical", self.result, again).returncode, 0)

    def test_check_result_finds_what_does_not_follow(self):
        changes = {"/grid/cells/accuracy": (0, "is not its predictions"), "/grid/weights": (0, "/grid/weights"),
                   "/grid/methods/wins": (2, "wins, losses and draws"), "/grid/best/cell": (1, "/grid/best of")}
        for name, (at, message) in changes.items():
            path = self.path("changed.h5")
            shutil.copy(self.result, path)
            with h5py.File(path, "r+") as file:
                values = file[name][()]
                values[at] += 1
                file[name][...] = values
            done = self.check_result(path)
            self.assertEqual(done.returncode, 1)
            self.assertIn(message, done.stdout)

    def test_xarray_opens_it(self):
        try:
            import xarray
            xarray.backends.list_engines()["h5netcdf"]
        except (ImportError, KeyError) as error:
            self.skipTest(f"no xarray with h5netcdf here: {error}")
        cells = xarray.open_dataset(self.result, group="/grid/cells", engine="h5netcdf")
        self.assertEqual(dict(cells.sizes), {"key": len(self.cells)})
        grid = xarray.open_dataset(self.result, group="/grid", engine="h5netcdf")
        self.assertEqual(grid.weights.dims, ("cell", "source"))

    # ---- show ----

    def test_show_ends_with_the_methods(self):
        text = self.good("show", self.result).stdout
        self.assertLess(text.index("accuracy by target"), text.index("methods:"))
        self.assertIn("42 cells: 40 completed, 1 failed, 1 planned", text)
        self.assertIn('xx-XX majority: tensor "x": the merge is not finite, in 2 elements', text)
        lines = [line.split() for line in text[text.index("methods:"):].splitlines()]
        best = next(line for line in lines if line[:2] == ["ties", "density=0.1"])
        row = self.methods[(self.methods.method == "ties")].iloc[0]
        self.assertEqual(best[2:5], [str(row.cells), f"{row.accuracy:.4f}", f"{row.delta:+.4f}"])
        self.assertIn(f"{row.wins}/{row.losses}/{row.draws}", best)

    def test_show_json_has_the_file(self):
        shown = self.show()
        self.assertEqual((shown["cells"], shown["completed"], shown["failed"], shown["planned"]), (42, 40, 1, 1))
        self.assertEqual([method["method"] for method in shown["methods"]], list(self.methods.method))
        for method, (_, row) in zip(shown["methods"], self.methods.iterrows()):
            self.assertEqual(method["parameters"], json.loads(row.parameters))
            for name in ("accuracy", "delta", "p_holm"):
                self.assertEqual(method[name], None if np.isnan(row[name]) else row[name])
        self.assertEqual([best["cell"] for best in shown["best"]], list(self.best.cell))
        self.assertEqual([failure["key"] for failure in shown["failures"]], list(self.cells[self.cells.status == "failed"].key))
        self.assertEqual(shown["listed"], [])

    def test_the_tables_over_all_cells_are_those_of_the_file(self):
        stored, computed = self.show(), self.show("--where", "status=completed|failed|planned")
        self.assertEqual(computed["matching"], 42)
        self.assertEqual(stored["methods"], computed["methods"])
        self.assertEqual(stored["best"], computed["best"])

    def test_where_computes_anew(self):
        shown = self.show("--where", "method=ties|average, locale=sw-KE|fr-FR ,ties.density=0.10|")
        mine = self.cells[self.cells.method.isin(["ties", "average"]) & self.cells.locale.isin(["sw-KE", "fr-FR"]) &
                          self.cells["ties.density"].isin(["0.1", ""])]
        self.assertEqual([cell["key"] for cell in shown["listed"]], list(mine.key))
        self.assertEqual([method["method"] for method in shown["methods"]], ["average", "ties"])
        for method in shown["methods"]:
            pairs = [(k, row.matched) for k, row in mine.iterrows() if row.method == method["method"] and row.status == "completed"]
            self.assertEqual(method["pairs"], len(pairs))
            difference = np.concatenate([self.right(a).astype(int) - self.right(b) for a, b in pairs])
            self.assertAlmostEqual(method["delta"], difference.mean(), places=12)
            self.assertEqual(method["wins"], sum(self.right(a).mean() > self.right(b).mean() for a, b in pairs))

    def test_sorting_and_cutting(self):
        shown = self.show("--sort", "-delta_vs_similarity", "--top", 4)["listed"]
        wanted = self.cells.sort_values("delta_vs_similarity", ascending=False, kind="stable")[:4]
        self.assertEqual([cell["key"] for cell in shown], list(wanted.key))
        shown = self.show("--top", 3)["listed"]
        self.assertEqual([cell["accuracy"] for cell in shown], sorted(self.cells.accuracy.dropna(), reverse=True)[:3])
        shown = self.show("--sort", "accuracy")["listed"]
        self.assertEqual([cell["accuracy"] for cell in shown][-2:], [None, None])
        text = self.good("show", self.result, "--where", "method=ties", "--top", 2).stdout
        self.assertIn("… and 10 more", text)
        key = self.cells.key[5]
        self.assertEqual(self.show("--where", f"key={key[:9]}")["listed"][0]["key"], key)

    def test_wrong_conditions_are_named(self):
        for where, code, message in (("metod=ties", 2, "method is meant"), ("method", 2, "COLUMN=VALUE"), ("method=tie", 1, "there are similarity, average"),
                                     ("num_languages=many", 2, "a number was expected"), ("include_target=yes", 2, "true or false"),
                                     ("num_languages=9", 1, "no cell has num_languages=9")):
            self.refused("show", self.result, "--where", where, code=code, says=message)
        self.refused("show", self.result, "--sort", "acuracy", code=2, says="accuracy is meant")
        self.assertEqual(self.show("--where", "method=ties,ties.density=")["matching"], 0)

    # ---- export ----

    def exported(self, *results):
        self.good("export", *(results or [self.result]), "-o", self.path("out"))
        return lambda name: pandas.read_csv(self.path("out", name), float_precision="round_trip", keep_default_na=False, na_values=[""])

    def text(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def stamped(self, name):
        found = [file for file in os.listdir(self.path("out")) if file.startswith(name)]
        self.assertEqual(len(found), 1)
        self.assertRegex(found[0], r"_[0-9]{8}_[0-9]{6}[.]csv$")
        return found[0]

    def test_all_cells_as_a_table(self):
        cells = self.exported()("grid_cells.csv")
        self.assertEqual(set(cells.columns), set(self.cells.columns))
        for name in cells.columns:
            read, wrote = cells[name], self.cells[name]
            if not pandas.api.types.is_numeric_dtype(wrote):
                pandas.testing.assert_series_equal(read.fillna("").astype(str), wrote.astype(str), check_dtype=False)
            else:
                self.assertEqual(read.dtype.kind, "i" if wrote.dtype.kind == "u" else wrote.dtype.kind, name)
                np.testing.assert_array_equal(read, wrote)
        self.assertEqual(cells.include_target.dtype, bool)
        best = self.exported()("best_per_target.csv")
        self.assertEqual(list(best.key), list(self.cells.key[self.best.cell]))
        np.testing.assert_array_equal(best.delta_vs_best_source, self.best.delta_vs_best_source)

    def test_several_results_in_one_table(self):
        second = self.path("second.h5")
        shutil.copy(self.result, second)
        cells = self.exported(self.result, second)("grid_cells.csv")
        self.assertEqual(list(cells.result), [self.result] * 42 + [second] * 42)
        self.assertEqual(self.text("out/comparison.md").count("## "), 2)
        plain = self.without_grid()
        for results in ((self.result, plain), (plain, self.result)):
            self.refused("export", *results, "-o", self.path("none"), says=(plain, "no stage grid"))
        self.assertFalse(os.path.exists(self.path("none")))

    def test_tables_of_methods(self):
        self.exported()
        rows = [[field.strip() for field in line.split("|")[1:-1]] for line in self.text("out/comparison.md").splitlines() if line.startswith("| ")][2:]
        ordered = self.methods.sort_values("accuracy", ascending=False)
        self.assertEqual([row[2] for row in rows], [f"{value:.4f}" for value in ordered.accuracy])
        self.assertEqual([row[3] for row in rows], ["" if np.isnan(value) else f"{value:+.4f}" for value in ordered.delta])
        self.assertIn(["ties density=0.1", "5"], [row[:2] for row in rows])
        latex = self.text("out/comparison.tex")
        self.assertEqual(latex.count(r"\\" + "\n"), len(self.methods) + 1)
        self.assertIn(r"exclude\_layers layers=0,1 & 6 &", latex)

    def test_aggregates_as_the_python_tools_have_them(self):
        read = self.exported()
        rows = read(self.stamped("results_aggregated"))
        done = self.cells[self.cells.status == "completed"]
        self.assertEqual(len(rows), len(done))
        for column in ("locale", "experiment_type", "experiment_variant", "folder_name", "correct_predictions", "error_rate", "target_lang", "merge_mode",
                       "num_languages", "similarity_type", "best_source_accuracy", "best_source_language", "best_overall_language"):
            self.assertIn(column, rows.columns)
        np.testing.assert_array_equal(rows.accuracy, done.accuracy)
        np.testing.assert_allclose(rows.correct_predictions / rows.total_predictions, rows.accuracy, rtol=1e-12)
        np.testing.assert_array_equal(rows.best_source_accuracy, done.best_source)
        np.testing.assert_array_equal(rows.best_overall_accuracy, done.best_zero_shot)
        self.assertEqual(set(json.loads(rows.weights[0])), set(json.loads(rows.source_languages[0])))
        self.assertEqual(set(rows.experiment_type), {"merging", "ensemble", "baseline"})
        merged = rows[rows.experiment_type != "baseline"]
        self.assertFalse(merged.duplicated(["locale", "experiment_variant"]).any())
        pivot = read(self.stamped("results_comparison")).set_index("locale")
        for _, row in merged.iterrows():
            self.assertEqual(pivot.loc[row.locale, row.experiment_variant], row.accuracy)
        name = "ties_density0.1_REAL_xlm-roberta-base_2lang_ExcTar"
        np.testing.assert_array_equal(pivot[f"{name}_improvement"], pivot[name] - pivot["baseline"])

    def test_the_database_answers_users_queries(self):
        self.exported()
        with sqlite3.connect(self.path("out/experiments.db")) as database:
            database.row_factory = sqlite3.Row
            ask = lambda sql, *values: [dict(row) for row in database.execute(sql, values)]
            self.assertEqual(ask("PRAGMA integrity_check")[0]["integrity_check"], "ok")
            done = self.cells[self.cells.status == "completed"]
            listed = ask("SELECT * FROM experiments WHERE locale = ? AND method = ? ORDER BY id", "sw-KE", "ties")
            self.assertEqual([row["accuracy"] for row in listed], list(done[(done.locale == "sw-KE") & (done.method == "ties")].accuracy))
            self.assertEqual(json.loads(listed[0]["config_json"])["parameters"]["density"], 0.1)
            summary = ask("SELECT method, COUNT(*) AS total, SUM(CASE WHEN status = 'completed' THEN 1 ELSE 0 END) AS completed,"
                          " AVG(CASE WHEN status = 'completed' THEN accuracy END) AS mean FROM experiments GROUP BY method")
            for row in summary:
                mine = self.cells[self.cells.method == row["method"]]
                self.assertEqual((row["total"], row["completed"]), (len(mine), (mine.status == "completed").sum()))
                self.assertAlmostEqual(row["mean"], mine.accuracy.mean())
            best = ask("SELECT e.locale, e.accuracy FROM experiments e JOIN (SELECT locale, MAX(accuracy) AS most FROM experiments WHERE status = 'completed'"
                       " GROUP BY locale) b ON e.locale = b.locale AND e.accuracy = b.most ORDER BY e.locale")
            self.assertEqual({row["locale"]: row["accuracy"] for row in best}, dict(done.groupby("locale").accuracy.max()))
            study = ask("SELECT locale, method, num_languages, include_target, accuracy, status FROM experiments WHERE ablation_name = ?"
                        " ORDER BY locale, accuracy DESC", "r")
            self.assertEqual(len(study), 42)
            self.assertEqual([row["status"] for row in study if row["accuracy"] is None], ["planned", "failed"])
            layers = ask("SELECT * FROM layer_ablation ORDER BY id")
            mine = self.cells[self.cells.method == "exclude_layers"]
            self.assertEqual([row["holdout_locale"] for row in layers], list(mine.locale))
            for row, (_, cell) in zip(layers, mine.iterrows()):
                self.assertEqual((row["ablation_point"], row["exclude_layers"]), ("exclude_layers_0_1", "[0, 1]"))
                self.assertEqual(row["delta"], cell.delta_vs_similarity)
                wanted = "neutral" if abs(row["delta"]) <= 0.005 else "positive_transfer" if row["delta"] < 0 else "interference"
                self.assertEqual(row["transfer_interpretation"], wanted)
        self.assertEqual([name for name in os.listdir(self.path("out")) if ".tmp" in name], [])

    # ---- explain ----

    def explained(self, *keys):
        return self.good("explain", self.result, *keys).stdout

    def mcnemar(self, a, b):
        """Two-sided, exact: twice the smaller tail of a fair coin, at most 1."""
        n, least = a + b, min(a, b)
        return min(1, 2 * sum(math.comb(n, k) for k in range(least + 1)) / 2 ** n)

    def test_how_a_cell_came_about(self):
        cell = self.cells.index[(self.cells.method == "ties") & (self.cells.locale == "xx-XX") & (self.cells.similarity_type == "URIEL")][0]
        row = self.cells.loc[cell]
        text = self.explained("--cell", row.key[:8])
        self.assertIn(f"cell {row.key}: ties density=0.1 for xx-XX, completed", text)
        self.assertIn("keeps each source's largest changes", text)
        self.assertIn("with density 0.1, trim tensor", text)
        with h5py.File(self.result) as file:
            ids, weights = list(file["sources/id"].asstr()), file["grid/weights"][cell]
            labels, matrix = list(file["grid/similarity/URIEL/label"].asstr()), file["grid/similarity/URIEL/value"][:]
            target = list(file["targets"].asstr()).index("xx-XX")
            accuracy = file["nxn/accuracy"][:, target]
        taken = text[text.index("sources: 2 asked for"):text.index("not taken")].splitlines()[2:]
        self.assertEqual(len(taken), 2)
        for line in taken:
            label, similarity, _, weight, test, _ = line.split()
            self.assertEqual(float(similarity), matrix[labels.index(label), labels.index("xx-XX")])
            self.assertAlmostEqual(float(weight), weights[ids.index(label)], places=4)
            self.assertAlmostEqual(float(test), accuracy[ids.index(label)], places=4)
        left = text[text.index("not taken"):text.index("result (test)")]
        self.assertRegex(left, r"hu-HU +0[.0-9]+ +no checkpoint")
        self.assertRegex(left, r"xx-XX +1 +is the target")
        self.assertIn("enough others", left)
        self.assertIn(f"{row.merging_effect:+.4f}", text)
        mine, other = self.right(cell), self.right(row.matched)
        only = (mine & ~other).sum(), (~mine & other).sum()
        self.assertIn(f"only the first {only[0]}, only the second {only[1]}", text)
        self.assertIn(f"difference {mine.mean() - other.mean():+.4f}, 95% interval [", text)
        self.assertIn(f"p {self.mcnemar(*map(int, only)):.4g} (McNemar", text)

    def test_cells_that_did_not_come_about(self):
        failed, planned = (self.cells[self.cells.status == status].iloc[0] for status in ("failed", "planned"))
        text = self.explained("--cell", failed.key)
        self.assertIn('error: tensor "x": the merge is not finite', text)
        self.assertIn("sources: 2 asked for", text)
        self.assertNotIn("result (test)", text)
        self.assertIn("planned", self.explained(planned.key))

    def test_why_two_cells_differ(self):
        a, b = self.cells.index[(self.cells.method == "ties") & (self.cells.locale == "sw-KE")][[0, 3]]
        text = self.explained("--cell", self.cells.key[a], self.cells.key[b])
        self.assertEqual(text, self.explained("--cell", self.cells.key[a], "--cell", self.cells.key[b]))
        differ = text[text.index("coordinates that differ"):text.index("sources and weights")]
        self.assertRegex(differ, r"density +0[.]1 +0[.]2\n")
        self.assertRegex(differ, r"similarity_type +URIEL +REAL\n")
        self.assertNotIn("locale", differ)
        mine, other = self.right(a), self.right(b)
        self.assertIn(f"both right {(mine & other).sum()}, only the first {(mine & ~other).sum()}, only the second {(~mine & other).sum()}", text)
        named = text[text.index("texts that only one"):].splitlines()[1:]
        self.assertEqual(len(named), 11)
        id_, label, first, second = named[0].split()
        self.assertNotEqual(first == label, second == label)
        self.assertIn("the same cell", self.explained(self.cells.key[a], self.cells.key[a]))
        elsewhere = self.cells.key[self.cells.locale == "fr-FR"].iloc[0]
        self.assertIn("the targets differ", self.explained(self.cells.key[a], elsewhere))

    def test_cells_that_are_none(self):
        self.refused("explain", self.result, "--cell", "nothing", says="begins with 'nothing'")
        keys = sorted(self.cells.key)
        shared = next(key[0] for key, following in zip(keys, keys[1:]) if key[0] == following[0])
        self.refused("explain", self.result, shared, says=f"begins with '{shared}'")
        plain = self.without_grid()
        self.refused("explain", plain, "--cell", "0", says="no stage grid")
        self.refused("show", plain, "--where", "method=ties", says="no stage grid")


if __name__ == "__main__":
    unittest.main()
