"""What someone sees who comes to it new: numbers that can be read, and mistakes that are named before anything is computed."""
import os
import re
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


if __name__ == "__main__":
    unittest.main()
