"""What ranks, threads and processors a run has is said where it begins; ranks that are bound too narrowly are warned of."""
import json
import os
import socket
import subprocess
import unittest

from common import BINARY, Case, environment, write_yaml


class Places(Case):
    def setUp(self):
        super().setUp()
        base, pattern = self.make_family("f", "-n", 3, "--shape", "tiny")
        self.config = write_yaml(self.path("run.yaml"), base, pattern, shards={"dir": "shards"}, result="r.h5")
        self.host = socket.gethostname().split(".")[0]

    def launch(self, launcher, *options):
        done = subprocess.run([*launcher, BINARY, "run", "-c", self.config, "--fresh", *options], env=environment(), capture_output=True, text=True,
                              timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr

    def test_a_line_a_node(self):
        said = self.launch(["mpirun", "-n", "3"], "--set", "compute.threads=1")
        self.assertRegex(said, rf"mergegrid: node {self.host}\S*: ranks 0-2, 1 thread each(, all)? on processors? [0-9;, -]+\n")
        self.assertEqual(said.count(": node "), 1 + said.count("warning: node "))

    def test_bound_apart_or_not(self):
        first = min(os.sched_getaffinity(0))
        said = self.launch(["taskset", "-c", str(first)], "--set", "compute.threads=1")
        self.assertRegex(said, rf"node \S+: rank 0, 1 thread on processor {first}\n")
        self.assertNotIn("share a processor", said)
        if os.cpu_count() < 2:
            self.skipTest("one processor: nothing can be bound to a part of it")
        said = self.launch(["taskset", "-c", str(first), "mpirun", "-n", "2", "--bind-to", "none"], "--set", "compute.threads=2")
        self.assertRegex(said, rf"ranks 0-1, 2 threads each, all on processors {first}\n")
        self.assertRegex(said, rf"warning: node \S+: ranks 0-1 have 4 threads on processor {first}, so that threads share a processor")

    def test_plan(self):
        env = {"MG_SCRATCH": self.path("not/there/yet")}
        args = ("plan", "-c", self.config, "-n", 2, "--set", "shards.stage_to=$MG_SCRATCH")
        said = self.good(*args, env=env).stdout
        self.assertRegex(said, r"node +\S+, as this command is bound: processors \S+ of \d+ for 2 ranks, \d+ threads? each")
        self.assertRegex(said, rf"copied to \$MG_SCRATCH: \S+ .iB a node \(here {self.path('not/there/yet')}, \S+ .iB free\)")
        self.assertIn("the environment has no MG_SCRATCH", self.good(*args, env={"MG_SCRATCH": ""}).stdout)
        plan = json.loads(self.good(*args, "--json", env=env).stdout)
        self.assertEqual(plan["stage_to"]["dir"], "$MG_SCRATCH")
        self.assertGreater(plan["stage_to"]["bytes"], 0)
        self.assertEqual(sorted(plan["node"]), ["host", "online", "processors"])


if __name__ == "__main__":
    unittest.main()
