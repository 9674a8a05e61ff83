"""Killed, stopped, started twice: a run goes on to the same bits, or says why not.

With --soak SECONDS: kills at random moments for that long instead.
"""
import os
import random
import shutil
import signal
import subprocess
import time

from common import Case, command, environment, result_bits, write_yaml, tests_or_soak


def children(pid):
    """All descendants of a process that run mergegrid."""
    found, level = [], [pid]
    while level:
        below = []
        for parent in level:
            try:
                with open(f"/proc/{parent}/task/{parent}/children") as file:
                    below += [int(p) for p in file.read().split()]
            except OSError:
                pass
        found += below
        level = below
    return [pid for pid in found if name_of(pid) == "mergegrid"]


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


class Crash(Case):
    parameters = "6M"

    def setUp(self):
        super().setUp()
        base, sources = self.make_family("f", "-n", 24, "--parameters", self.parameters, "--random")
        # the portable kernel is slow enough to be met in the middle of its work
        self.env = {"MERGEGRID_KERNEL": "portable"}
        self.sections = {"base": base, "sources": sources, "shards": {"dir": "shards"}}
        self.config = write_yaml(self.path("r.yaml"), result="r.h5", **self.sections)
        reference = write_yaml(self.path("reference.yaml"), result="reference.h5", **self.sections)
        self.good("run", "-c", reference, ranks=2)
        self.reference = result_bits(self.path("reference.h5"))

    def begin(self, ranks, *args):
        return subprocess.Popen(command("run", "-c", self.config, *args, ranks=ranks), env=environment(self.env),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def begin_and_wait(self, ranks, part=0.2):
        """Starts a run and comes back when about this part of it is journaled."""
        process = self.begin(ranks)
        enough = part * 24 * 25 / 2 * 8 * 90  # doubles of the nodes
        deadline = time.time() + 60
        while time.time() < deadline and process.poll() is None and self.journaled() < enough:
            time.sleep(0.005)
        self.assertIsNone(process.poll(), "the run was over before it could be met")
        return process

    def journaled(self):
        total = 0
        for top, _, names in os.walk(self.path("r.h5.journal")):
            for name in names:
                try:
                    total += os.path.getsize(os.path.join(top, name))
                except OSError:
                    pass
        return total

    def finish(self, ranks):
        done = self.good("run", "-c", self.config, ranks=ranks, env=self.env)
        self.same_bits(self.path("r.h5"), self.reference)
        self.assertEqual(self.state(self.path("r.h5")), "done")
        self.assertFalse(os.path.exists(self.path("r.h5.journal")))
        return done

    def clear(self):
        for name in os.listdir(self.dir):
            if name.startswith("r.h5"):
                path = self.path(name)
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

    def test_kill_a_rank(self):
        for part, victim, again in ((0.1, 0, 3), (0.5, 1, 1)):
            with self.subTest(victim=victim):
                self.clear()
                process = self.begin_and_wait(2, part)
                os.kill(sorted(children(process.pid))[victim], signal.SIGKILL)
                process.communicate(timeout=30)
                self.assertNotEqual(process.returncode, 0)
                self.assertFalse(os.path.exists(self.path("r.h5")))
                self.assertIn("continuing", self.finish(again).stderr)

    def test_kill_mpirun(self):
        process = self.begin_and_wait(3, 0.3)
        process.kill()
        process.communicate(timeout=30)
        self.finish(2)  # at once: the old ranks may still be dying

    def test_kill_everything(self):
        process = self.begin_and_wait(2, 0.3)
        victims = children(process.pid)
        process.kill()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
        self.assertIn("continuing", self.finish(5).stderr)

    def test_torn_journal(self):
        process = self.begin_and_wait(2, 0.5)
        victims = children(process.pid)
        process.kill()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
        for top, _, names in os.walk(self.path("r.h5.journal")):
            for name in names:
                if name == "journal":
                    path = os.path.join(top, name)
                    os.truncate(path, os.path.getsize(path) - 777)
        self.finish(2)

    def test_stop_signals(self):
        for name, to_ranks in ((signal.SIGUSR1, False), (signal.SIGTERM, True), (signal.SIGUSR1, True)):
            with self.subTest(signal=name, to_ranks=to_ranks):
                self.clear()
                process = self.begin_and_wait(2, 0.15)
                began = time.time()
                for pid in children(process.pid) if to_ranks else [process.pid]:
                    os.kill(pid, name)
                while self.state(self.path("r.h5")) != "stopped" and time.time() - began < 10:
                    time.sleep(0.01)
                self.assertLess(time.time() - began, 1)
                _, err = process.communicate(timeout=30)
                self.assertEqual(process.returncode, 75, err)
                # mpirun itself waits two seconds before it passes on an exit code other than 0
                self.assertLess(time.time() - began, 4)
                self.finish(3)

    def test_stop_without_mpirun_and_max_hours(self):
        process = self.begin_and_wait(0, 0.1)
        process.terminate()
        self.assertIn("SIGTERM", process.communicate(timeout=30)[1])
        self.assertEqual(process.returncode, 75)
        self.refused("run", "-c", self.config, "--max-hours", "0.00003", code=75, env=self.env)
        self.finish(0)

    def test_second_run_is_refused(self):
        process = self.begin_and_wait(2, 0.05)
        os.kill(process.pid, signal.SIGSTOP)
        victims = children(process.pid)
        for pid in victims:
            os.kill(pid, signal.SIGSTOP)
        second = self.refused("run", "-c", self.config, env=self.env)
        self.assertRegex(second.stderr, r"pid \d+|process \d+")
        self.assertEqual(self.state(self.path("r.h5")), "running")
        show = self.good("show", self.path("r.h5"))
        self.assertIn("running", show.stdout)
        for pid in [*victims, process.pid]:
            os.kill(pid, signal.SIGCONT)
        _, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, err)
        self.same_bits(self.path("r.h5"), self.reference)

    def test_changed_inputs_are_refused_by_name(self):
        process = self.begin_and_wait(2, 0.2)
        os.kill(process.pid, signal.SIGUSR1)
        process.communicate(timeout=30)
        path = self.path("f/source_s0003/model.safetensors")
        with open(path, "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\x3f")
        self.refused("run", "-c", self.config, env=self.env, says=("source s0003", "--fresh"))
        self.refused("run", "-c", self.config, "--set", "compatibility.gram=layer", env=self.env, says="compatibility.gram")
        self.good("run", "-c", self.config, "--fresh", ranks=2)
        self.assertNotEqual(result_bits(self.path("r.h5")), self.reference)
        with open(path, "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\x3e")
        self.refused("run", "-c", self.config, says=("source s0003", "--fresh"))
        self.assertTrue(os.path.exists(self.path("r.h5")))

    def test_resume_and_done(self):
        self.refused("run", "-c", self.config, "--resume", says="r.h5")
        self.finish(2)
        again = self.good("run", "-c", self.config, ranks=2)
        self.assertIn("nothing to do", again.stderr)
        self.good("run", "-c", self.config, "--resume")
        self.assertEqual(self.state(self.path("r.h5")), "done")

    def test_kill_while_packing(self):
        shutil.rmtree(self.path("shards"))
        process = self.begin(2)
        deadline = time.time() + 30
        while time.time() < deadline and not (os.path.isdir(self.path("shards")) and len(os.listdir(self.path("shards"))) > 4):
            time.sleep(0.002)
        victims = children(process.pid)
        process.kill()
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=30)
        self.finish(3)
        self.assertEqual([name for name in os.listdir(self.path("shards")) if ".tmp" in name], [])
        self.good("verify", self.path("shards"), self.path("r.h5"))


class Soak(Crash):
    """Random kills until the time is over."""

    def soak(self, seconds):
        rng, rounds, kills, stops, stuck, end = random.Random(), 0, 0, 0, 0, time.time() + seconds
        while time.time() < end:
            self.clear()
            if rng.random() < 0.3:
                shutil.rmtree(self.path("shards"), ignore_errors=True)
            for _ in range(rng.randint(1, 4)):
                process = self.begin(rng.choice([1, 2, 3, 5]))
                time.sleep(rng.random() * 2.5)
                victims = children(process.pid)
                target = rng.choice(["rank", "mpirun", "all", "stop"])
                if target == "rank" and victims:
                    victims = [rng.choice(victims)]
                elif target in ("mpirun", "stop"):
                    victims = []
                if target in ("mpirun", "all"):
                    process.kill()
                stops += target == "stop"
                kills += target != "stop"
                if target == "stop":
                    process.send_signal(signal.SIGUSR1)
                for pid in victims:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                try:
                    process.communicate(timeout=60)
                except subprocess.TimeoutExpired:
                    if children(process.pid):
                        raise
                    process.kill()  # its ranks are gone, and mpirun waits for itself (Open MPI 4.1, PMIx_server_finalize)
                    process.communicate(timeout=30)
                    stuck += 1
            self.finish(rng.choice([1, 2, 3, 5]))
            rounds += 1
        print(f"{rounds} rounds, {kills} kills and {stops} stops, all to the same bits; {stuck} times mpirun did not end after its ranks")


if __name__ == "__main__":
    tests_or_soak(Soak)
