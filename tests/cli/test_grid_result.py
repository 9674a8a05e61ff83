"""What users see of a result's grid: show, export, explain, and the file itself. The result is one that test_grid makes up."""
import json
import os
import shutil
import subprocess
import sys
import unittest

from common import BINARY, SOURCE, Case, h5py, np

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


if __name__ == "__main__":
    unittest.main()
