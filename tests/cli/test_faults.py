"""Disks that are full or fail, files that vanish or are cut off, journals torn anywhere, a rank that stands still: a run ends in the same
bits or in an error that names the file, never in a hang, and what was finished is not lost.

With --soak SECONDS: random faults for that long instead.
"""
import glob
import os
import random
import shutil
import signal
import subprocess
import time

from common import BINARY, EMOJI, Case, command, environment, h5py, result_bits, write_yaml, tests_or_soak

LIBRARY = os.path.join(os.path.dirname(BINARY), "libmg_fault.so")
LIMIT = 60  # seconds after which a run counts as hanging
WORDS = {"EIO": "Input/output error", "ENOSPC": "No space left", "EACCES": "Permission denied"}
SECTIONS = {"family": {"locales": ["af-ZA", "fr-FR", "sw-KE"]}, "shards": {"dir": "shards"}, "texts": {"files": f"{EMOJI}/texts/{{locale}}.jsonl"},
            "stages": ["compatibility", "nxn", "grid", "microscope"], "nxn": {"targets": ["sw-KE"]},
            "grid": {"similarity": {"REAL": "nxn"}, "fixed": {"num_languages": 2}, "sweep": {"locale": "sw-KE", "method": ["average", "ties"]}},
            "microscope": {"reference": {"base": True}, "setups": {"other": {"source": "fr-FR"}}}}
# call, glob, what comes of it, how many calls go well before
FAULTS = [("open", "*/shards/fr-FR.h5", "EACCES", 0), ("open", "*/shards/fr-FR.h5", "EIO", 3), ("read", "*/shards/*.h5", "EIO", 2),
          ("read", "*/shards/*.h5", "EIO", 40), ("read", "*/shards/*.h5", "short", 7), ("read", "*.safetensors", "EIO", 1),
          ("read", "*.safetensors", "short", 5), ("read", "*/texts/sw-KE.jsonl", "EIO", 0), ("write", "*/shards/*.h5*", "ENOSPC", 2),
          ("write", "*/shards/*.h5*", "short", 3), ("sync", "*/shards/*", "EIO", 0), ("rename", "*/shards/*.h5", "EIO", 1),
          ("write", "*/r.h5.journal/*/journal", "ENOSPC", 0), ("write", "*/r.h5.journal/*/journal", "EIO", 3),
          ("write", "*/r.h5.journal/*/journal", "short", 2), ("sync", "*/r.h5.journal/*", "EIO", 0), ("open", "*/r.h5.journal/*", "EACCES", 0),
          ("write", "*/r.h5.tmp.*", "ENOSPC", 0), ("write", "*/r.h5.tmp.*", "ENOSPC", 60), ("write", "*/r.h5.tmp.*", "EIO", 5),
          ("sync", "*/r.h5.tmp.*", "EIO", 0), ("rename", "*/r.h5", "EACCES", 0), ("write", "*/r.h5.state*", "ENOSPC", 0), ("open", "*/r.h5.lock", "EACCES", 0)]


class Faults(Case):
    @classmethod
    def setUpClass(cls):
        if not os.path.exists(LIBRARY):
            raise AssertionError(f"{LIBRARY} is not built")

    def setUp(self):
        super().setUp()
        self.config = write_yaml(self.path("r.yaml"), result="r.h5", **SECTIONS)
        self.good("run", "-c", write_yaml(self.path("reference.yaml"), result="reference.h5", **SECTIONS), ranks=2)
        self.reference = result_bits(self.path("reference.h5"))

    def clear(self, shards=True):
        for path in glob.glob(self.path("r.h5*")) + ([self.path("shards")] if shards else []):
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif os.path.exists(path):
                os.remove(path)

    def run_limited(self, ranks, extra=None):
        """A run that may take so long and no longer; of one that does the whole tree is killed."""
        process = subprocess.Popen(command("run", "-c", self.config, ranks=ranks), env=environment(extra), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, start_new_session=True)
        try:
            said, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            self.fail(f"hangs with {extra}")
        return process.returncode, said

    def check_whole(self):
        """What stands under the result's name is whole and right."""
        if os.path.exists(self.path("r.h5")):
            self.same_bits(self.path("r.h5"), self.reference)

    def faulty(self, call, glob_of, what, after, ranks, rank=None):
        fault = {"LD_PRELOAD": LIBRARY, "MG_FAULT": f"{call} {glob_of} {after} {what}"}
        if rank is not None:
            fault["MG_FAULT_RANK"] = str(rank)
        code, said = self.run_limited(ranks, fault)
        context = f"{fault}: {said}"
        self.check_whole()
        if code != 0:
            self.assertNotIn("Segmentation", said, context)
            self.assertIn("mergegrid: error:", said, context)
            if what != "short":
                # HDF5 says no reason of its own for what it could not write
                self.assertTrue(WORDS[what] in said or "no space, or no permission?" in said, context)
                name = {"*.safetensors": "model.safetensors"}.get(glob_of, glob_of.split("/")[-1].rstrip("*").rstrip("."))
                self.assertIn(name.replace("*", ""), said, context)
        else:
            self.assertTrue(os.path.exists(self.path("r.h5")), context)
        code, said = self.run_limited(ranks)
        self.assertEqual(code, 0, f"after {fault}: {said}")
        self.same_bits(self.path("r.h5"), self.reference)

    def test_one_process(self):
        for fault in FAULTS:
            with self.subTest(fault=fault):
                self.clear(shards=fault[1].startswith("*/shards") or "safetensors" in fault[1])
                self.faulty(*fault, ranks=0)

    def test_one_rank_of_three(self):
        """The others end with it, and say what it said."""
        for rank, fault in enumerate(FAULTS[2:7] + FAULTS[12:14]):
            with self.subTest(fault=fault):
                self.clear(shards="safetensors" in fault[1])
                self.faulty(*fault, ranks=3, rank=rank % 3)

    # ---- shards ----

    def test_a_shard_goes_while_it_is_read(self):
        """Cut off, removed or overwritten between two runs: packed again where there are checkpoints, refused where not."""
        shard = self.path("shards/fr-FR.h5")
        for harm in (lambda: os.truncate(shard, os.path.getsize(shard) // 2), lambda: os.remove(shard), lambda: os.truncate(shard, 0),
                     lambda: shutil.copy(self.path("shards/sw-KE.h5"), shard)):
            self.clear(shards=False)
            harm()
            code, said = self.run_limited(2)
            self.assertEqual(code, 0, said)
            self.same_bits(self.path("r.h5"), self.reference)

    # ---- journals ----

    def interrupted(self):
        """A journal that has everything, and no result."""
        self.clear(shards=False)
        code, said = self.run_limited(0, {"LD_PRELOAD": LIBRARY, "MG_FAULT": "write */r.h5.tmp.* 0 EIO"})
        self.assertEqual(code, 1, said)
        return glob.glob(self.path("r.h5.journal/*/journal"))[0]

    def test_journal_torn_anywhere(self):
        """From any prefix of a journal, and with any byte of it flipped, a run goes on to the same bits."""
        journal = self.interrupted()
        with open(journal, "rb") as file:
            whole = file.read()
        kept = self.path("kept")
        shutil.copytree(self.path("r.h5.journal"), kept)
        rng = random.Random(7)
        cuts = sorted({0, 1, 7, 8, 23, 24, 25, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(5))})
        flips = [rng.randrange(len(whole)) for _ in range(5)]
        for name, change in [(f"cut at {c}", whole[:c]) for c in cuts] + [(f"flipped at {f}", whole[:f] + bytes([whole[f] ^ 64]) + whole[f + 1:]) for f in flips]:
            with self.subTest(name):
                self.clear(shards=False)
                shutil.copytree(kept, self.path("r.h5.journal"))
                with open(journal, "wb") as file:
                    file.write(change)
                code, said = self.run_limited(0)
                self.assertEqual(code, 0, said)
                self.same_bits(self.path("r.h5"), self.reference)

    # ---- ranks that are not of one kind ----

    def test_ranks_of_other_machines(self):
        """Forward passes of another instruction set have other bits, so such ranks are refused together; Grams have not."""
        self.clear(shards=False)
        words = [BINARY, "run", "-c", self.config]
        mixed = ["mpirun", "-n", "2", *words, ":", "-n", "1", "-x", "MERGEGRID_KERNEL=portable", *words]
        done = subprocess.run(mixed, env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stderr.count("mergegrid: error: rank 2 on "), 1, done.stderr)
        self.assertIn("the numeric mode of forward passes is", done.stderr)
        self.assertFalse(os.path.exists(self.path("r.h5.journal")))
        other = subprocess.run([*mixed, "--stages", "compatibility"], env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual(other.returncode, 1, other.stderr)  # only the last has the option
        self.assertRegex(other.stderr, "rank 2 on .*: the command line is 'run .*--stages compatibility', of rank 0 'run ")
        words += ["--stages", "compatibility"]
        grams = subprocess.run(["mpirun", "-n", "2", *words, ":", "-n", "1", "-x", "MERGEGRID_KERNEL=portable", *words], env=environment(),
                               capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual(grams.returncode, 0, grams.stderr)
        self.assertEqual(result_bits(self.path("r.h5"))["compatibility/gram/source_dot"], self.reference["compatibility/gram/source_dot"])

    def test_a_host_with_an_older_shard(self):
        """Each host its own shards directory, as a working directory of its own gives it, and one shard from another training."""
        for locale in ("af-ZA", "fr-FR", "sw-KE"):
            shutil.copytree(f"{EMOJI}/xlm-roberta-emoji_k_{locale}", self.path("models", locale))
        sections = {"family": {"locales": []}, "sources": self.path("models/{locale}"), "shards": {"dir": "shards"}, "result": self.path("r.h5")}
        for host in ("one", "two"):
            os.mkdir(self.path(host))
            self.good("pack", "-c", write_yaml(self.path(host, "r.yaml"), **sections))
            shutil.copy(self.path("models/sw-KE/model.safetensors"), self.path("models/fr-FR/model.safetensors"))
        shutil.rmtree(self.path("models"))
        words = [BINARY, "run", "-c", "r.yaml"]
        done = subprocess.run(["mpirun", "-n", "2", "-wdir", self.path("one"), *words, ":", "-n", "1", "-wdir", self.path("two"), *words],
                              env=environment(), capture_output=True, text=True, timeout=LIMIT, check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertRegex(done.stderr, "rank 2 on .*: the shard of fr-FR in .*shards is another one than rank 0's")
        self.assertFalse(os.path.exists(self.path("r.h5")))

    # ---- a rank that stands still ----

    def test_a_rank_that_is_stopped(self):
        """SIGSTOP for a while is a slow rank, no dead one."""
        self.clear(shards=False)
        process = subprocess.Popen(command("run", "-c", self.config, ranks=3), env=environment({"MERGEGRID_KERNEL": "portable"}), stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True, start_new_session=True)
        time.sleep(0.4)
        ranks = [int(pid) for pid in subprocess.run(["pgrep", "-P", str(process.pid), "mergegrid"], capture_output=True, text=True, check=False).stdout.split()]
        for pid in ranks[-1:]:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(1.5)
            os.kill(pid, signal.SIGCONT)
        said, _ = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 0, said)
        self.assertTrue(ranks, "no rank was met")
        with h5py.File(self.path("r.h5")) as file:
            self.assertIn("microscope", file)


class Soak(Faults):
    def soak(self, seconds):
        rng, rounds, end = random.Random(), 0, time.time() + seconds
        while time.time() < end:
            call, path, what, _ = rng.choice(FAULTS)
            ranks = rng.choice([0, 2, 3, 5])
            self.clear(shards=rng.random() < 0.5)
            self.faulty(call, path, what, rng.choice([0, 1, 2, 5, 10, 30, 100, 300]), ranks, rng.randrange(ranks) if ranks else None)
            rounds += 1
        print(f"{rounds} faults, each a clear error or none, and then the same bits")


if __name__ == "__main__":
    tests_or_soak(Soak)
