"""What someone sees who comes to it new: numbers that can be read, and mistakes that are named before anything is computed."""
import json
import os
import shutil
import unittest

from common import BASE, EMOJI, PATTERN, Case, write_yaml

LOCALES = ["af-ZA", "en-US", "sw-KE"]


class Messages(Case):
    def config(self, **sections):
        sections = {"family": {"locales": LOCALES}, "shards": {"dir": "shards"}, "texts": {"files": f"{EMOJI}/texts/{{locale}}.jsonl"},
                    "stages": ["nxn"], "nxn": {"targets": LOCALES}, "result": "r.h5", **sections}
        return write_yaml(self.path("r.yaml"), **sections)

    def test_numbers_are_readable(self):
        said = self.good("plan", "-c", self.config()).stdout
        self.assertNotRegex(said, r"\de[-+]\d")
        self.assertRegex(said, r"together +(under 1 s|\d+ s) with 1 rank")
        said = self.good("run", "-c", self.config()).stderr
        self.assertNotRegex(said, r"\de[-+]\d")
        self.assertRegex(said, r"nxn (\d{4,})/\1 texts \(100%\)")

    def test_what_is_missing_is_said_before_packing(self):
        table = self.path("semicolons.csv")
        with open(table, "w") as file:
            file.write(";af-ZA;sw-KE\naf-ZA;1;0.5\nsw-KE;0.5;1\n")
        average = {"sweep": {"locale": "all", "method": ["average"], "similarity_type": ["URIEL"]}, "fixed": {"num_languages": 1}}
        nothing = self.path("nothing")
        cases = (({"stages": ["grid"], "grid": {"similarity": {"URIEL": nothing}, **average}}, ("grid.similarity: ", "nothing")),
                 ({"stages": ["grid"], "grid": {"similarity": {"URIEL": table}, **average}}, ("semicolons.csv:1", "(not behind semicolons or tabs)")),
                 ({"compatibility": {"metrics": ["task_vector_cosine", "cka"], "cka": {"locale": "xx-XX"}}, "stages": ["compatibility"]}, ("compatibility.cka: texts of xx-XX", "xx-XX.jsonl")),
                 ({"texts": {"files": f"{EMOJI}/texts/{{locale}}.jsonl", "labels": nothing}}, ("texts.labels: ", "nothing")),
                 ({"reuse": [nothing]}, ("reuse: ", "nothing")))
        for sections, says in cases:
            for verb in ("plan", "run"):
                self.refused(verb, "-c", self.config(**sections), says=says)
        self.assertFalse(os.path.exists(self.path("shards")))

    def test_plan_names_cells_that_are_bound_to_fail(self):
        grid = {"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv", "REAL": "nxn"}, "fixed": {"num_languages": [1, 7]},
                "sweep": {"locale": ["sw-KE", "xx-XX"], "similarity_type": ["URIEL", "REAL"], "method": ["average", "own"]}}
        config = self.config(stages=["grid"], grid=grid)
        said = self.good("plan", "-c", config).stdout
        for why in ("URIEL: target sw-KE has 2 candidates, and num_languages is 7", "target xx-XX has no texts"):
            self.assertIn(why, said)
        failing = json.loads(self.good("plan", "-c", config, "--json").stdout)["grid"]["failing"]
        self.assertIn(f"{failing} cells are bound to fail:", said)
        self.assertIn(f"but {failing} cells failed", self.refused("run", "-c", config, code=3).stderr)

    def test_weights_that_do_not_count_are_named(self):
        recipe = {"sources": {"af-ZA": 0.7, "sw-KE": 0.3}}
        for method, says in (("average", "whatever weights were named"), ("ties", "`weighted: true`"), ("linear", None), ({"ties": {"weighted": True}}, None)):
            done = self.good("merge", "-c", self.config(stages=["compatibility"], recipe={"method": method, **recipe}), "-o", self.path("out"))
            shutil.rmtree(self.path("out"))
            if says:
                self.assertIn(says, done.stderr)
            else:
                self.assertNotIn("note: every source counts alike", done.stderr)

    def test_init_names_probe_texts_that_are_there(self):
        os.mkdir(self.path("texts"))
        for locale in ("fr-FR", "sw-KE"):
            shutil.copy(f"{EMOJI}/texts/{locale}.jsonl", self.path("texts"))
        done = self.good("init", "--base", BASE, "--sources", PATTERN, "--texts", self.path("texts/{locale}.jsonl"))
        with open(self.path("init.yaml"), "w") as file:
            file.write(done.stdout)
        self.assertIn("cka: {locale: fr-FR}", done.stdout)
        self.good("plan", "-c", self.path("init.yaml"))

    def test_mistakes_are_told_what_to_do(self):
        self.refused("run", self.path("r.yaml"), code=2, says="-c is missing in front of")
        self.refused("show", self.dir, says="is a directory")
        self.refused("plan", "-c", self.config(stages=["compat"]), says="a list of compatibility, nxn, grid, microscope")
        os.makedirs(self.path("models--x--y/snapshots/abc"))
        self.refused("init", "--base", self.path("models--x--y"), "--sources", PATTERN, says="models--x--y/snapshots/REVISION")
        with open(self.path("sw-KE.jsonl"), "w") as file:
            file.write('{"id": "1", "utt": "moja", "partition": "test"}\n')
        self.refused("plan", "-c", self.config(texts={"files": "texts/{lang}.jsonl"}), says=("r.yaml", "has no {locale} in it"))
        texts = {"files": self.path("{locale}.jsonl")}
        self.refused("plan", "-c", self.config(texts=texts, nxn={"targets": ["sw-KE"]}), says=("sw-KE.jsonl:1", "field 'intent' was expected (texts.label)"))


if __name__ == "__main__":
    unittest.main()
