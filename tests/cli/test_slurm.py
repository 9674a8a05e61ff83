"""What the batch scripts decide, with stand-ins for Slurm's commands and the launchers: state -> exit code, requeue, successor."""
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import unittest

SOURCE = os.environ.get("MERGEGRID_SOURCE") or os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))

# Notes its arguments, then does what the file `plan` says: `state NAME`, `sleep`, `await` (USR1), `exit CODE`, `kill`.
LAUNCHER = r"""#!/usr/bin/env bash
printf '%s\n' "$(basename "$0")" "$@" >>"$FAKE/launched"
attempt=$(($(cat "$FAKE/attempt" 2>/dev/null || echo 0) + 1))
echo "$attempt" >"$FAKE/attempt"
asked=
trap 'asked=1' USR1
while read -r word value; do
  case $word in
    state) printf '%s\nattempt %s\n' "$value" "$attempt" >"$MG_RESULT${PART:-}.state" ;;
    await) touch "$FAKE/waiting"; for _ in {1..400}; do [ -z "$asked" ] || break; sleep 0.02; done; [ -n "$asked" ] || exit 99 ;;
    kill) trap - USR1; kill -"$value" $$ ;;
    exit) exit "$value" ;;
  esac
done <"$FAKE/plan"
"""
NOTER = """#!/usr/bin/env bash
{ echo "$(basename "$0")"; printf '%s\\n' "$@"; } >>"$FAKE/$(basename "$0").calls"
echo 4242
"""


class BatchScripts(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="mergegrid test's ")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        os.mkdir(self.path("bin"))
        for name, text in (("mpirun", LAUNCHER), ("srun", LAUNCHER), ("sbatch", NOTER), ("scontrol", NOTER), ("program", "#!/bin/sh\necho \"$@\"\n[ ! -e \"$FAKE/broken\" ]\n")):
            self.write(f"bin/{name}", text)
            os.chmod(self.path("bin", name), os.stat(self.path("bin", name)).st_mode | stat.S_IXUSR)
        self.write("run.yaml", "family: {}\n")
        self.result = self.path("out", "result.h5")

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)

    def read(self, name):
        if not os.path.exists(self.path(name)):
            return []
        with open(self.path(name)) as file:
            return file.read().splitlines()

    def environment(self, **extra):
        known = {key: value for key, value in os.environ.items() if not key.startswith(("MG_", "SLURM_", "SBATCH_"))}
        return {**known, "PATH": f"{self.path('bin')}:{os.environ['PATH']}", "FAKE": self.dir, "MG_HOME": SOURCE,
                "MG_CONFIG": self.path("run.yaml"), "MG_RESULT": self.result, "MG_BINARY": self.path("bin/program"),
                "SLURM_JOB_ID": "77", "SLURM_NTASKS": "3", **extra}

    def script(self, kind, plan, **extra):
        self.write("plan", plan)
        return subprocess.run(["bash", f"{SOURCE}/slurm/{kind}.sbatch"], env=self.environment(**extra), cwd=self.dir, timeout=60,
                              capture_output=True, text=True)

    def ends(self, kind, plan, code, requeued=False, job="77", **extra):
        if os.path.exists(self.path("scontrol.calls")):
            os.remove(self.path("scontrol.calls"))
        done = self.script(kind, plan, **extra)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertEqual(self.read("scontrol.calls"), ["scontrol", "requeue", job] if requeued else [], done.stdout)
        return done

    def test_the_state_decides(self):
        for plan, code in (("state done\nexit 0\n", 0), ("state done\nexit 134\n", 0), ("state done\nexit 3\n", 3),
                           ("state stopped\nexit 1\n", 75), ("state stopped\nexit 75\n", 75), ("state failed\nexit 1\n", 1),
                           ("state failed\nexit 137\n", 1), ("state running\nexit 137\n", 1), ("state running\nkill KILL\n", 1)):
            for kind in ("one-node", "multi-node"):
                with self.subTest(kind=kind, plan=plan):
                    self.ends(kind, plan, code)

    def test_requeue(self):
        self.ends("requeue", "state stopped\nexit 75\n", 75, requeued=True)
        self.ends("requeue", "state done\nexit 0\n", 0)
        self.ends("requeue", "state failed\nexit 1\n", 1)
        self.ends("requeue", "state stopped\nexit 75\n", 75, SLURM_RESTART_COUNT="5", MG_MAX_RESTARTS="5")

    def test_crashes_in_a_row(self):
        crash = "state running\nexit 137\n"
        for _ in range(3):
            self.ends("requeue", crash, 1, requeued=True)
        self.ends("requeue", crash, 1)
        self.ends("requeue", crash, 1, requeued=True)
        self.ends("requeue", "state stopped\nexit 75\n", 75, requeued=True)
        self.ends("requeue", crash, 1, requeued=True, MG_MAX_CRASHES="1")
        self.ends("requeue", crash, 1, MG_MAX_CRASHES="1")
        self.assertFalse(os.path.exists(f"{self.result}.crashes"))

    def test_a_state_of_another_attempt_does_not_count(self):
        self.ends("requeue", "state done\nexit 0\n", 0)
        self.ends("requeue", "exit 1\n", 1)
        self.ends("requeue", "exit 2\n", 2)
        self.ends("requeue", "exit 75\n", 75, requeued=True)
        self.ends("requeue", "exit 139\n", 1, requeued=True)
        self.ends("requeue", "exit 0\n", 0)  # nothing to do
        os.remove(f"{self.result}.state")
        self.ends("requeue", "exit 0\n", 1)  # it says done, but no state does

    def warned(self, kind, plan, **extra):
        self.write("plan", plan)
        with subprocess.Popen(["bash", f"{SOURCE}/slurm/{kind}.sbatch"], env=self.environment(**extra), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True) as job:
            for _ in range(500):
                if os.path.exists(self.path("waiting")):
                    break
                time.sleep(0.02)
            # as Slurm does: CONT goes along
            job.send_signal(signal.SIGCONT)
            job.send_signal(signal.SIGUSR1)
            text = job.communicate(timeout=30)[0]
        os.remove(self.path("waiting"))
        return job.returncode, text

    def test_the_warning_reaches_the_run(self):
        for _ in range(5):
            code, text = self.warned("one-node", "state running\nawait\nstate stopped\nexit 75\n")
            self.assertEqual(code, 75, text)
        code, text = self.warned("one-node", "await\nstate done\nexit 0\n")
        self.assertEqual(code, 0, text)
        # killed before it had stopped: no crash, since it was asked to
        code, text = self.warned("requeue", "state running\nawait\nkill KILL\n")
        self.assertEqual(code, 75, text)
        self.assertEqual(self.read("scontrol.calls"), ["scontrol", "requeue", "77"])
        self.assertFalse(os.path.exists(f"{self.result}.crashes"))

    def test_launchers(self):
        self.ends("one-node", "state done\nexit 0\n", 0)
        quoted = self.result.replace("'", "''")
        call = [self.path("bin/program"), "run", "-c", self.path("run.yaml"), "--set", f"result='{quoted}'"]
        self.assertEqual(self.read("launched"), ["mpirun", "-n", "3", *call])
        os.remove(self.path("launched"))
        self.ends("one-node", "state done\nexit 0\n", 0, MG_LAUNCHER="srun", SLURM_CPUS_PER_TASK="4")
        self.assertEqual(self.read("launched"), ["srun", "--mpi=pmix", "-n", "3", "--cpus-per-task=4", "--kill-on-bad-exit=1", *call])
        os.remove(self.path("launched"))
        self.ends("one-node", "state done\nexit 0\n", 0, SLURM_CPUS_PER_TASK="4")
        self.assertEqual(self.read("launched"), ["mpirun", "-n", "3", "--map-by", "slot:PE=4", "--bind-to", "core", *call])
        done = self.ends("one-node", "", 1, MG_LAUNCHER="prun")
        self.assertIn("prun", done.stdout + done.stderr)

    def test_what_is_missing_is_named(self):
        for name in ("MG_CONFIG", "MG_RESULT", "MG_BINARY"):
            done = self.ends("requeue", "", 1, **{name: "/nowhere/x" if name != "MG_RESULT" else ""})
            self.assertIn(name, done.stderr)
        self.write("prologue", "export PROLOGUE_RAN=1\nfalse\necho $UNSET_THING\n")
        self.ends("one-node", "state done\nexit 0\n", 0, MG_PROLOGUE=self.path("prologue"))

    def submit(self, *args, **extra):
        if os.path.exists(self.path("sbatch.calls")):
            os.remove(self.path("sbatch.calls"))
        done = subprocess.run([f"{SOURCE}/slurm/submit", *args], env=self.environment(**extra), cwd=self.dir, capture_output=True,
                              text=True, timeout=60)
        return done, self.read("sbatch.calls")

    def test_submit(self):
        done, call = self.submit("requeue", "run.yaml", "out/r.h5", "--begin=now+1hour", MG_PARTITION="p q", MG_ACCOUNT="a", MG_TIME="10",
                                 MG_WARN_SECONDS="60", MG_TASKS_PER_NODE="8")
        self.assertEqual((done.returncode, done.stdout), (0, "4242\n"), done.stderr)
        self.assertEqual(call, ["sbatch", "--parsable", "--export=ALL", "--partition=p q", "--account=a", "--time=10",
                                "--signal=B:USR1@60", "--ntasks=8", "--begin=now+1hour", f"{SOURCE}/slurm/requeue.sbatch"])
        _, call = self.submit("multi-node", "run.yaml", "out/r.h5", MG_NODES="4", MG_TASKS_PER_NODE="8")
        self.assertEqual(call[3:], ["--nodes=4", "--ntasks-per-node=8", f"{SOURCE}/slurm/multi-node.sbatch"])
        for wrong in (("requeue", "run.yaml"), ("weekly", "run.yaml", "r"), ("requeue", "absent.yaml", "r")):
            done, call = self.submit(*wrong)
            self.assertNotEqual(done.returncode, 0)
            self.assertTrue(done.stderr)
            self.assertEqual(call, [])

    def test_parts(self):
        one = {"MG_PARTS": "3", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "70", "PART": ".part-2-of-3"}
        self.ends("array", "state done\nexit 0\n", 0, **one)
        self.assertEqual(self.read("launched")[-2:], ["--part", "2/3"])
        self.ends("array", "state failed\nexit 1\n", 1, **one)
        # it waits for other parts: in the queue it would only come back to wait again
        self.ends("array", "state stopped\nexit 75\n", 75, **one)
        self.ends("array", "state running\nexit 137\n", 1, requeued=True, job="70_2", **one)
        self.assertTrue(os.path.exists(f"{self.result}.part-2-of-3.crashes"))
        os.remove(self.path("scontrol.calls"))
        code, text = self.warned("array", "state running\nawait\nstate stopped\nexit 75\n", **one)
        self.assertEqual((code, self.read("scontrol.calls")), (75, ["scontrol", "requeue", "70_2"]), text)
        self.assertFalse(os.path.exists(f"{self.result}.part-2-of-3.crashes"))
        os.remove(self.path("launched"))
        self.ends("gather", "state done\nexit 3\n", 3, MG_PARTS="3")
        launched = self.read("launched")
        self.assertIn("gather", launched)
        self.assertEqual(launched[-2:], ["--parts", "3"])
        self.ends("gather", "state stopped\nexit 75\n", 75)
        for wrong in ({**one, "MG_PARTS": "many"}, {**one, "SLURM_ARRAY_TASK_ID": ""}):
            done = self.ends("array", "", 1, **wrong)
            self.assertRegex(done.stderr, "MG_PARTS: 'many'|SLURM_ARRAY_TASK_ID is not set")

    def test_parts_are_submitted(self):
        done, call = self.submit("array", "run.yaml", "out/r.h5", "--gres=gpu:1", MG_PARTS="8", MG_PARTS_AT_ONCE="4", MG_TASKS_PER_NODE="1")
        self.assertEqual((done.returncode, done.stdout), (0, "4242\n4242\n4242\n"), done.stderr)
        common = ["sbatch", "--parsable", "--export=ALL", "--ntasks=1", "--gres=gpu:1"]
        self.assertEqual(call, [*common, "--array=1-8%4", f"{SOURCE}/slurm/array.sbatch",
                                *common, "--array=1-8%4", "--dependency=afterany:4242", f"{SOURCE}/slurm/array.sbatch",
                                *common, "--dependency=afterany:4242", f"{SOURCE}/slurm/gather.sbatch"])
        for parts in ("", "0", "x"):
            done, call = self.submit("array", "run.yaml", "out/r.h5", MG_PARTS=parts)
            self.assertEqual((done.returncode, call), (1, []))
            self.assertIn("MG_PARTS", done.stderr)

    def test_nights(self):
        # MG_RESULT is the script's own here; the stand-in finds it where the night's result goes
        nights = self.path("nights")
        tonight = f"{nights}/result-{time.strftime('%Y-%m-%d')}.h5"
        night = {"MG_RESULT_DIR": nights, "MG_RESULT": tonight, "MG_NIGHTLY_AT": "03:30"}
        self.ends("nightly", "state stopped\nexit 75\n", 75, requeued=True, **night)
        call = self.read("sbatch.calls")
        self.assertEqual(call[0], "sbatch")
        self.assertRegex(call[-2], r"^--begin=\d{4}-\d\d-\d\dT03:30:00$")
        self.assertEqual(call[-1], f"{SOURCE}/slurm/nightly.sbatch")
        self.assertFalse(os.path.lexists(f"{nights}/latest.h5"))
        # back from the queue: the same night, no second successor
        self.ends("nightly", "state done\nexit 0\n", 0, SLURM_RESTART_COUNT="1", **night)
        self.assertEqual(self.read("sbatch.calls"), call)
        self.assertEqual(os.readlink(f"{nights}/latest.h5"), os.path.basename(tonight))
        self.assertEqual(sorted(os.listdir(nights)), ["latest.h5", os.path.basename(tonight) + ".state"])

    def test_nights_are_compared(self):
        nights = self.path("nights")
        tonight = f"{nights}/result-{time.strftime('%Y-%m-%d')}.h5"
        night = {"MG_RESULT_DIR": nights, "MG_RESULT": tonight}
        for broken in (True, False):
            shutil.rmtree(nights, ignore_errors=True)
            os.mkdir(nights)
            os.symlink("result-2000-01-01.h5", f"{nights}/latest.h5")
            if broken:
                self.write("broken", "")
            else:
                os.unlink(self.path("broken"))
            self.ends("nightly", "state done\nexit 0\n", 0, **night)
            self.assertEqual(os.readlink(f"{nights}/latest.h5"), os.path.basename(tonight))
            changes = tonight[:-3] + ".diff.txt"
            self.assertEqual(os.path.exists(changes), not broken)
        with open(changes, encoding="utf-8") as file:
            self.assertEqual(file.read(), f"diff {nights}/result-2000-01-01.h5 {tonight}\n")
        self.assertFalse(os.path.exists(changes + ".new"))


if __name__ == "__main__":
    unittest.main()
