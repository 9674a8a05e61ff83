"""A result in parts: jobs that know nothing of each other, then gather; the same bits as one job, and what is said where parts are missing or wrong.

With --soak SECONDS: parts killed and stopped at random moments for that long instead.
"""
import json
import os
import random
import shutil
import signal
import subprocess
import time

from common import EMOJI, Case, command, environment, h5py, result_bits, run, write_yaml, tests_or_soak

LOCALES = ["af-ZA", "de-DE", "en-US", "nl-NL", "sw-KE"]
SWEEP = {"locale": ["sw-KE", "af-ZA"], "similarity_type": ["URIEL", "REAL"],
         "method": ["similarity", "model_stock", {"ties": {"density": 0.2}}, "similarity_x_tv_compatibility", "own", "soft"]}
SETUPS = {"theirs": {"source": "de-DE"}, "mine": {"method": "average", "locale": "sw-KE", "similarity_type": "REAL", "num_languages": 2}}


class Parts(Case):
    def left(self, result):
        """What lies beside a result."""
        return sorted(name for name in os.listdir(self.dir) if name.startswith(f"{result}."))

    def begin(self, config, *args, ranks=0, env=None):
        return subprocess.Popen(command("run", "-c", config, *args, ranks=ranks), env=environment(env), stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)

    def journaled(self, result):
        return sum(os.path.getsize(os.path.join(top, name)) for top, _, names in os.walk(self.path(f"{result}.journal")) for name in names
                   if name == "journal")

    def wait_for_journal(self, process, result, size):
        """Until that much is journaled and the process is still at work."""
        deadline = time.time() + 60
        while time.time() < deadline and process.poll() is None and self.journaled(result) < size:
            time.sleep(0.005)
        self.assertIsNone(process.poll(), "it was over before it could be met")


class Stages(Parts):
    """All stages, of which some build on what all parts have done of others."""

    def config(self, name, **more):
        sections = {"family": {"locales": LOCALES}, "shards": {"dir": self.path("shards")}, "texts": {"files": f"{EMOJI}/texts/{{locale}}.jsonl"},
                    "stages": ["compatibility", "nxn", "grid", "microscope"], "nxn": {"targets": LOCALES},
                    "compatibility": {"metrics": ["task_vector_cosine", "cka"], "cka": {"locale": "en-US", "partition": "train", "samples": 50}},
                    "grid": {"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv", "REAL": "nxn"}, "fixed": {"num_languages": 3}, "sweep": SWEEP},
                    "microscope": {"reference": {"source": "af-ZA"}, "setups": SETUPS}, "result": self.path(f"{name}.h5"), **more}
        return write_yaml(self.path(f"{name}.yaml"), **sections)

    def array(self, config, parts, ranks):
        """All parts at once, as often as it takes. How often that was."""
        for turn in range(1, 4):
            jobs = [self.begin(config, "--part", f"{part}/{parts}", ranks=ranks[part - 1]) for part in range(1, parts + 1)]
            ends = [(job.communicate(timeout=300)[1], job.returncode) for job in jobs]
            codes = [code for _, code in ends]
            self.assertLessEqual(set(codes), {0, 75}, ends)
            for text, code in ends:
                if code == 75:
                    self.assertIn("the rest begins when the others have", text)
            if codes == [0] * parts:
                return turn
        self.fail("the parts don't come to an end")

    def test_plan(self):
        """What each part takes is as run divides it: together it is the whole."""
        config = self.config("planned")
        for parts in (1, 2, 3, 5):
            plans = [json.loads(self.good("plan", "-c", config, "--part", f"{k}/{parts}", "--json").stdout) for k in range(1, parts + 1)]
            whole = plans[0]
            for stage, counts in (("compatibility", ("leaves", "bytes_read", "flops")), ("cka", ("models", "flops")), ("nxn", ("texts", "flops")),
                                  ("grid", ("merges", "bytes_moved", "flops")), ("microscope", ("bytes_moved", "flops"))):
                for count in counts:
                    each = [plan["part"][stage][count] for plan in plans]
                    all_of_it = {"leaves": sum(each), "models": len(LOCALES), "texts": len(LOCALES) * whole["nxn"]["different"]}.get(
                        count, whole[stage].get(count))
                    self.assertAlmostEqual(sum(each) / all_of_it, 1, 9, (parts, stage, count, each))
                    if count in ("leaves", "models", "merges"):
                        self.assertLessEqual(max(each) - min(each), 1, (parts, stage, count, each))
            for k, plan in enumerate(plans):
                self.assertEqual((plan["part"]["part"], plan["part"]["parts"], len(plan["part"]["hours_of_parts"])), (k + 1, parts, parts))
                self.assertEqual(plan["part"]["hours"], plan["part"]["hours_of_parts"][k])
                self.assertAlmostEqual(sum(plan["part"]["hours_of_parts"]) + plan["pack"]["hours"], plan["hours"], 9)
        said = self.good("plan", "-c", config, "--part", "2/3").stdout
        self.assertRegex(said, r"part +2 of 3: .+ (s|min|h), and the memory")
        self.assertRegex(said, r"the longest is part [123] with .+ (s|min|h), the shortest part [123] with .+ (s|min|h); before, the part that begins first packs")
        self.assertNotIn("part ", self.good("plan", "-c", config).stdout)
        self.refused("plan", "-c", config, "--part", "4/3", code=2, says="is not I/N")

    def test_same_bits(self):
        whole = self.config("whole")
        # before there are shards, so that all parts come upon their absence at once
        turns = self.array(self.config("p3"), 3, (0, 2, 0))
        self.assertLessEqual(turns, 2)
        self.good("run", "-c", whole, ranks=2)
        reference = result_bits(self.path("whole.h5"))
        self.assertEqual(self.array(self.config("p1"), 1, (0,)), 1)
        self.array(self.config("p2"), 2, (2, 0))
        for parts, ranks in ((1, 0), (2, 2), (3, 0)):
            with self.subTest(parts=parts):
                result = self.path(f"p{parts}.h5")
                self.good("gather", "-c", self.path(f"p{parts}.yaml"), ranks=ranks)
                self.same_bits(result, reference)
                self.assertEqual(self.left(f"p{parts}.h5"), [f"p{parts}.h5.lock", f"p{parts}.h5.state"])
                self.assertEqual(self.state(result), "done")
                with h5py.File(result) as file:
                    rows = file["provenance/parts"][()]
                self.assertEqual(list(rows["part"]), list(range(1, parts + 1)))
                self.assertEqual(set(rows["state"]), {b"done"})
                self.assertTrue(all(rows["attempt"] > 0) and all(rows["host"]) and all(rows["started_utc"]))
                self.good("verify", result)
        with h5py.File(self.path("whole.h5")) as file:
            self.assertNotIn("parts", file["provenance"])
        for again in (("gather", "-c", self.path("p3.yaml")), ("run", "-c", self.path("p3.yaml"), "--part", "2/3")):
            self.assertIn("nothing to do", self.good(*again).stderr)

    def test_stage_by_stage_and_larger(self):
        """A grid that grows, in another number of parts; stages one after another."""
        small = {**SWEEP, "locale": ["sw-KE"], "method": ["similarity", "soft"]}
        grid = {"similarity": {"URIEL": f"{EMOJI}/uriel_similarity.csv", "REAL": "nxn"}, "fixed": {"num_languages": 3}}
        stages = ["compatibility", "nxn", "grid"]
        config = self.config("a", stages=stages, grid={**grid, "sweep": small})
        for part in ("1/2", "2/2"):
            self.good("run", "-c", config, "--part", part, "--stages", "compatibility", "--stages", "nxn")
        self.good("gather", "-c", config, "--stages", "compatibility", "--stages", "nxn")
        with h5py.File(self.path("a.h5")) as file:
            self.assertNotIn("grid", file)
        config = self.config("a", stages=stages, grid={**grid, "sweep": SWEEP})
        self.assertEqual(self.array(config, 3, (0, 0, 0)), 1)  # what they build on is in the result
        self.good("gather", "-c", config)
        self.good("run", "-c", self.config("whole", stages=stages, grid={**grid, "sweep": SWEEP}), ranks=2)
        self.same_bits(self.path("a.h5"), result_bits(self.path("whole.h5")))

    def test_what_is_missing_is_named(self):
        config = self.config("a", stages=["compatibility", "nxn", "grid"])
        self.refused("run", "-c", config, "--part", "1/2", code=75,
                     says=("part 1 of 2 has done its share", "part 2 of 2 (never begun) lacks task_vector_cosine, cka, nxn"))
        self.assertEqual(self.state(self.path("a.h5.part-1-of-2")), "stopped")
        done = self.good("show", self.path("a.h5"))
        self.assertIn("part 1 of 2: stopped", done.stdout)
        self.assertIn("part 2 of 2: never begun", done.stdout)
        self.refused("gather", "-c", config, code=75, says="part 2 of 2 (never begun) lacks task_vector_cosine, cka, nxn")
        self.good("run", "-c", config, "--part", "2/2", ranks=2)
        done = self.refused("gather", "-c", config, code=75, says=("part 1 of 2 (stopped", "lacks grid"))
        self.assertNotIn("part 2 of 2", done.stderr)
        self.assertEqual(self.state(self.path("a.h5")), "stopped")
        self.good("gather", "-c", config, "--compute-missing", ranks=2)
        self.good("run", "-c", self.config("whole", stages=["compatibility", "nxn", "grid"]))
        self.same_bits(self.path("a.h5"), result_bits(self.path("whole.h5")))
        self.assertEqual(self.left("a.h5"), ["a.h5.lock", "a.h5.state"])

    def test_parts_of_something_else(self):
        config = self.config("a", stages=["compatibility", "nxn", "grid"])
        other = ("--set", "nxn.logits=false")
        self.refused("run", "-c", config, "--part", "1/2", code=75)
        for wrong in (("run", "--part", "2/2"), ("gather",)):  # when it comes to build on the other's, and when it is gathered
            self.refused(wrong[0], "-c", config, *wrong[1:], *other, says=("a.h5.part-1-of-2 was begun from something else", "nxn.logits was 'true', is 'false'"))
        self.refused("gather", "-c", config, says=("a.h5.part-2-of-2 was begun from something else", "nxn.logits was 'false', is 'true'"))
        self.refused("run", "-c", config, "--part", "2/2", says="nxn.logits was 'false', is 'true'")
        self.good("run", "-c", config, "--part", "2/2", "--fresh")
        self.good("gather", "-c", config, "--compute-missing")


class Interrupted(Parts):
    def setUp(self):
        super().setUp()
        base, sources = self.make_family("f", "-n", 24, "--parameters", "6M", "--random")
        # the portable kernel is slow enough to be met in the middle of its work
        self.env = {"MERGEGRID_KERNEL": "portable"}
        sections = {"base": base, "sources": sources, "shards": {"dir": "shards"}}
        self.config = write_yaml(self.path("r.yaml"), result="r.h5", **sections)
        reference = write_yaml(self.path("reference.yaml"), result="reference.h5", **sections)
        self.good("run", "-c", reference, ranks=2)
        self.reference = result_bits(self.path("reference.h5"))

    def test_killed_and_continued(self):
        for sign, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGUSR1, 75)):
            before = self.journaled("r.h5.part-1-of-2")
            job = self.begin(self.config, "--part", "1/2", env=self.env)
            self.wait_for_journal(job, "r.h5.part-1-of-2", before + 20000)
            if sign == signal.SIGKILL:  # at work, and not over before all have seen it
                job.send_signal(signal.SIGSTOP)
                self.refused("run", "-c", self.config, "--part", "1/2", says="another run owns it")
                self.refused("gather", "-c", self.config, code=75, says=("part 1 of 2 is at work", "gather when it has ended"))
            job.send_signal(sign)
            job.communicate(timeout=60)
            self.assertEqual(job.returncode, code)
        self.assertEqual(self.state(self.path("r.h5.part-1-of-2")), "stopped")
        self.refused("gather", "-c", self.config, code=75, says=("part 1 of 2 (stopped", "part 2 of 2 (never begun) lacks task_vector_cosine"))
        self.good("run", "-c", self.config, "--part", "2/2", "--quiet")
        self.assertIn("continuing", self.good("run", "-c", self.config, "--part", "1/2", "--resume", ranks=3).stderr)
        self.assertEqual(self.state(self.path("r.h5.part-1-of-2")), "done")
        self.good("gather", "-c", self.config)
        self.same_bits(self.path("r.h5"), self.reference)

    def test_more_parts_than_work(self):
        for part in range(1, 41, 13):
            self.good("run", "-c", self.config, "--part", f"{part}/40", "--quiet")
        self.good("gather", "-c", self.config, "--compute-missing")
        self.same_bits(self.path("r.h5"), self.reference)

    def test_refused(self):
        self.good("run", "-c", self.config, "--part", "1/2", "--set", "result=w.h5")
        self.assertIn("there are parts of it, which this run does not look at", self.good("run", "-c", self.config, "--set", "result=w.h5").stderr)
        self.assertIn("nothing to do", self.good("gather", "-c", self.config, "--set", "result=w.h5").stderr)
        self.assertEqual(self.left("w.h5"), ["w.h5.lock", "w.h5.state"])
        for wrong in ("0/3", "4/3", "3", "1/3/5", "a/b", "-1/2", "1/"):
            self.refused("run", "-c", self.config, f"--part={wrong}", code=2, says=f"'{wrong}' is not I/N")
        self.refused("gather", code=2, says="-c FILE is missing")
        self.refused("gather", "-c", self.config, "--parts", "0", code=2, says="--parts: '0' is not a whole number")
        self.refused("pack", "-c", self.config, "--part", "1/2", code=2, says="no option --part")
        self.refused("gather", "-c", self.config, says=("there are no parts of it to gather", "--part 1/N"))
        self.refused("run", "-c", self.config, "--part", "1/2", "--resume", says="nothing was begun")
        for part in ("1/2", "1/3", "2/2"):
            self.good("run", "-c", self.config, "--part", part)
        self.refused("gather", "-c", self.config, says=("there are parts of 2, 3", "--parts says which"))
        self.refused("gather", "-c", self.config, "--parts", "3", code=75, says="part 2 of 3 (never begun)")
        self.good("gather", "-c", self.config, "--parts", "2")
        self.same_bits(self.path("r.h5"), self.reference)
        self.refused("run", "-c", self.config, "--part", "1/2", "--fresh", says="--fresh starts a part over, not the result")


class Soak(Stages):
    """Parts killed and stopped at random moments, all at once and again and again."""

    def soak(self, seconds):
        rng, rounds, kills, stops, end = random.Random(), 0, 0, 0, time.time() + seconds
        self.good("run", "-c", self.config("whole"), ranks=2)
        reference = result_bits(self.path("whole.h5"))
        while time.time() < end:
            config, parts = self.config("a"), rng.randint(1, 4)
            if rng.random() < 0.3:
                shutil.rmtree(self.path("shards"))
            for _ in range(rng.randint(1, 4)):
                jobs = [self.begin(config, "--part", f"{part}/{parts}", ranks=rng.choice([0, 0, 2])) for part in range(1, parts + 1)]
                time.sleep(rng.random() * 4)
                for job in rng.sample(jobs, rng.randint(1, parts)):
                    sign = rng.choice([signal.SIGKILL, signal.SIGUSR1])
                    kills += sign == signal.SIGKILL
                    stops += sign == signal.SIGUSR1
                    job.send_signal(sign)
                for job in jobs:
                    job.communicate(timeout=300)
                gathered = run("gather", "-c", config)
                if gathered.returncode not in (0, 75):  # all of them were ended before they had begun
                    self.assertIn("there are no parts of it to gather", gathered.stderr)
            if not os.path.exists(self.path("a.h5")):
                self.array(config, parts, [rng.choice([0, 2]) for _ in range(parts)])
            self.good("gather", "-c", config, ranks=rng.choice([0, 2]))
            self.same_bits(self.path("a.h5"), reference)
            self.assertEqual(self.left("a.h5"), ["a.h5.lock", "a.h5.state"])
            os.remove(self.path("a.h5"))
            rounds += 1
        print(f"{rounds} rounds of parts, {kills} kills and {stops} stops, all to the same bits")


if __name__ == "__main__":
    tests_or_soak(Soak)
