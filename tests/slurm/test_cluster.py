"""The batch scripts on a real Slurm (tests/slurm/cluster): several nodes, warnings, preemption, a lost node, the nightly chain."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cli"))
from common import BINARY, SOURCE, environment, h5py, result_bits, run, write_yaml

EMULATED = os.environ.get("MERGEGRID_EMULATED") or f"{os.path.dirname(BINARY)}/mergegrid-emulated"
NODES = 2
WAIT = 120  # seconds that anything may take before the test says that it hangs


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)  # CTest's code for a skipped test


class Cluster(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """One cluster and one family for all tests, and what an undisturbed run makes of it."""
        cls.dir = tempfile.mkdtemp(prefix="mergegrid-slurm-", dir="/tmp")
        os.chmod(cls.dir, 0o755)
        cls.addClassCleanup(shutil.rmtree, cls.dir, ignore_errors=True)
        cls.cluster("start", str(NODES))
        cls.addClassCleanup(cls.cluster, "stop")
        cls.env = {**environment(), "SLURM_CONF": f"{cls.dir}/slurm/slurm.conf", "MG_TASKS_PER_NODE": "2"}
        # the portable kernel is slow enough to be met in the middle of its work
        cls.env["MERGEGRID_KERNEL"] = "portable"
        subprocess.run([sys.executable, f"{SOURCE}/scripts/make-family", f"{cls.dir}/f", "-n", "24", "--parameters", "5M", "--random"], check=True,
                       capture_output=True)
        cls.config = write_yaml(f"{cls.dir}/run.yaml", base=f"{cls.dir}/f/base", sources=f"{cls.dir}/f/source_{{locale}}",
                                shards={"dir": "shards"}, compute={"threads": 1}, result="undisturbed.h5")
        done = run("run", "-c", cls.config, env={"MERGEGRID_KERNEL": "portable"})
        assert done.returncode == 0, done.stderr
        cls.bits = result_bits(f"{cls.dir}/undisturbed.h5")

    @classmethod
    def cluster(cls, verb, *more):
        subprocess.run([f"{HERE}/cluster", verb, f"{cls.dir}/slurm", *more], check=True, timeout=60)

    def setUp(self):
        self.results = tempfile.mkdtemp(dir=self.dir)

    def tearDown(self):
        self.command("scancel", "--user=root")
        self.until(lambda: not self.command("squeue", "-h").split(), "an empty queue")
        for node in range(1, NODES + 1):
            subprocess.run(["scontrol", "update", f"NodeName=n{node}", "State=RESUME"], env=self.env, capture_output=True, timeout=30, check=False)

    # ---- the cluster's commands ----

    def command(self, *words, **more):
        done = subprocess.run(words, env={**self.env, **more}, capture_output=True, text=True, timeout=60, cwd=self.results, check=False)
        self.assertEqual(done.returncode, 0, f"{words}: {done.stderr}")
        return done.stdout.strip()

    def submit(self, kind, where, *options, config=None, **more):
        log = f"{self.results}/log"
        return self.command(f"{SOURCE}/slurm/submit", kind, config or self.config, where, f"--output={log}", *options, **more).split(";")[0]

    def field(self, job, name):
        words = dict(word.split("=", 1) for word in self.command("scontrol", "show", "job", job).split() if "=" in word)
        return words[name]

    def until(self, condition, what, limit=WAIT):
        end = time.time() + limit
        while time.time() < end:
            if condition():
                return
            time.sleep(0.1)
        self.fail(f"no {what} after {limit} s:\n{self.log()}")

    def log(self):
        if not os.path.exists(f"{self.results}/log"):
            return ""
        with open(f"{self.results}/log", errors="replace") as file:
            return file.read()

    def ended(self, job, state="COMPLETED"):
        self.until(lambda: self.field(job, "JobState") in ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT", "PREEMPTED"), f"end of job {job}")
        self.assertEqual(self.field(job, "JobState"), state, self.log())

    def under_way(self, job, result):
        """The job is in the middle of its work: something is journaled, and not all."""
        def met():
            if not os.path.exists(f"{result}.state") or self.field(job, "JobState") != "RUNNING":
                return False
            with open(f"{result}.state") as file:
                text = file.read()
            return text.startswith("running") and sum(map(os.path.getsize, glob.glob(f"{result}.journal/*/*"))) > 20000
        self.until(met, "job in the middle of its work")

    def same_bits(self, result):
        self.assertEqual(result_bits(result), self.bits)

    # ---- whole jobs ----

    def test_one_node(self):
        job = self.submit("one-node", f"{self.results}/r.h5")
        self.ended(job)
        self.assertIn("done: launcher's exit code 0, state 'done'", self.log())
        self.same_bits(f"{self.results}/r.h5")

    def test_several_nodes(self):
        for launcher in ("mpirun", "srun"):
            result = f"{self.results}/{launcher}.h5"
            job = self.submit("multi-node", result, MG_NODES=str(NODES), MG_LAUNCHER=launcher)
            self.ended(job)
            self.assertEqual(self.field(job, "NumNodes"), str(NODES))
            self.same_bits(result)

    def test_gpus(self):
        """Every rank computes on an (emulated) GPU of those that Slurm has given its job."""
        emulated = {"MG_BINARY": EMULATED, "MG_EMU_DEVICES": "2"}
        few = write_yaml(f"{self.results}/few.yaml", base=f"{self.dir}/f/base", sources=f"{self.dir}/f/source_{{locale}}",
                         family={"locales": sorted(name[len("source_"):] for name in os.listdir(f"{self.dir}/f") if name.startswith("source_"))[:3]},
                         shards={"dir": "../shards"}, compute={"threads": 1}, result="few.h5")
        done = run("run", "-c", few)
        self.assertEqual(done.returncode, 0, done.stderr)
        bits = result_bits(f"{self.results}/few.h5")
        for option, nodes, devices in (("gpu:2", 1, 2), ("gpu:1", 1, 1), ("gpu:2", NODES, 2)):
            result = f"{self.results}/{nodes}-{devices}.h5"
            job = self.submit("multi-node" if nodes > 1 else "one-node", result, f"--gres={option}", config=few, MG_NODES=str(nodes), **emulated)
            self.ended(job)
            with h5py.File(result) as file:
                given = file["provenance/devices"].asstr()[()].tolist()
            self.assertEqual(len(given), 2 * nodes)
            self.assertEqual(len(set(given)), devices, self.log())
            self.assertEqual(result_bits(result), bits)

    def test_an_input_that_is_wrong(self):
        """Repeating it won't mend it: the job fails, and is not put back into the queue."""
        job = self.submit("requeue", f"{self.results}/r.h5", MG_BINARY="/bin/false")
        self.ended(job, "FAILED")
        self.assertEqual(self.field(job, "Restarts"), "0")

    def test_parts(self):
        """An array of parts, then the job that gathers them: one result, to the bits of one job."""
        result = f"{self.results}/r.h5"
        first, second, last = self.command(f"{SOURCE}/slurm/submit", "array", self.config, result, f"--output={self.results}/log",
                                           MG_PARTS="3", MG_TASKS_PER_NODE="1").split()
        self.assertEqual(len({first, second, last}), 3)
        self.ended(last)
        self.assertIn("part 3 of 3 is done", self.log())
        self.same_bits(result)
        self.assertEqual(glob.glob(f"{result}.part-*"), [])

    # ---- interrupted ----

    def continued(self, job, result):
        """It came back by itself, went on with what was journaled, and ended in the same bits."""
        self.ended(job)
        self.assertGreaterEqual(int(self.field(job, "Restarts")), 1, self.log())
        self.same_bits(result)

    def test_the_warning_before_the_limit(self):
        result = f"{self.results}/r.h5"
        job = self.submit("requeue", result)
        self.under_way(job, result)
        self.command("scancel", "--batch", "--signal=USR1", job)  # what --signal=B:USR1 sends
        self.until(lambda: "back into the queue" in self.log(), "requeue")
        with open(f"{result}.state") as file:
            self.assertEqual(file.readline().strip(), "stopped")
        self.continued(job, result)
        self.assertIn("continuing", self.log())

    def test_a_part_is_warned(self):
        """One task of the array goes back into the queue, the others do not, and gathering waits for it."""
        result = f"{self.results}/r.h5"
        first, _, last = self.command(f"{SOURCE}/slurm/submit", "array", self.config, result, f"--output={self.results}/log",
                                      MG_PARTS="2", MG_TASKS_PER_NODE="1").split()
        self.under_way(f"{first}_2", f"{result}.part-2-of-2")
        self.command("scancel", "--batch", "--signal=USR1", f"{first}_2")
        self.until(lambda: "back into the queue" in self.log(), "requeue")
        self.ended(last)
        self.assertEqual([self.field(f"{first}_{task}", "Restarts") for task in (1, 2)], ["0", "1"], self.log())
        self.same_bits(result)

    def test_preemption(self):
        result = f"{self.results}/r.h5"
        job = self.submit("requeue", result)
        self.under_way(job, result)
        other = self.command("sbatch", "--parsable", "--partition=high", f"--nodes={NODES}", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
        self.until(lambda: self.field(job, "Restarts") != "0", "preemption")
        self.ended(other)
        self.continued(job, result)

    def test_a_node_is_lost(self):
        result = f"{self.results}/r.h5"
        job = self.submit("requeue", result)
        self.under_way(job, result)
        node = self.field(job, "NodeList")
        self.command("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        self.until(lambda: self.field(job, "Restarts") != "0", "requeue after the node was lost")
        self.continued(job, result)

    # ---- nights ----

    def test_nightly_chain(self):
        """The successor is queued before the work; one result a night; latest.h5 is the last good one, and changes are beside the new."""
        nights = f"{self.results}/nights"
        job = self.submit("nightly", nights)
        self.ended(job)
        today, = glob.glob(f"{nights}/result-*.h5")
        self.same_bits(today)
        self.assertEqual(os.readlink(f"{nights}/latest.h5"), os.path.basename(today))
        successor, = [line.split() for line in self.command("squeue", "-h", "-o", "%i %j %T").splitlines()]
        self.assertEqual(successor[1:], ["mergegrid-nightly", "PENDING"])
        # the night before had another name
        os.rename(today, f"{nights}/result-2000-01-01.h5")
        os.unlink(f"{nights}/latest.h5")
        os.symlink("result-2000-01-01.h5", f"{nights}/latest.h5")
        self.command("scontrol", "update", f"JobId={successor[0]}", "StartTime=now")
        self.ended(successor[0])
        self.assertEqual(os.readlink(f"{nights}/latest.h5"), os.path.basename(today))
        with open(today.replace(".h5", ".diff.txt")) as file:
            self.assertIn("result-2000-01-01.h5", file.read())


if __name__ == "__main__":
    if os.geteuid() != 0:
        skip("only root starts a cluster")
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        skip(f"no {', '.join(missing)} here: scripts/install-packages slurm")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    unittest.main(verbosity=1)
