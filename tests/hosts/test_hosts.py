"""Several hosts (tests/hosts/hosts), each with a network, a name and a scratch directory of its own, and one directory that all share: the
same bits as on one, what is wrong named by all ranks together, a host that is lost, and one that comes back when nobody waits for it."""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "cli"))
from common import BINARY, SOURCE, environment, h5py, result_bits, run, write_yaml

HOSTS = ["h1", "h2", "h3"]
ODD = os.path.join(os.path.dirname(BINARY), "libmg_odd.so")
LIMIT = 60  # seconds that a run may take before the test says that it hangs
SLOW = {"MERGEGRID_KERNEL": "portable"}  # slow enough to be met in the middle of its work, and to the same bits
# A host that is cut off is noticed after 2 + 2 × 1 seconds (slurm/common.sh: 15 + 3 × 5), and mpirun does not wait for ranks that end by
# themselves before it sends signals.
LAUNCH = ["--mca", "plm", "rsh", "--mca", "plm_rsh_no_tree_spawn", "1", "--mca", "oob_tcp_if_include", "eth0", "--mca", "btl_tcp_if_include", "eth0",
          "--mca", "pml", "ob1", "--mca", "btl", "self,vader,tcp", "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "oob_tcp_keepalive_time", "2",
          "--mca", "oob_tcp_keepalive_intvl", "1", "--mca", "oob_tcp_keepalive_probes", "2", "--mca", "odls_base_sigkill_timeout", "0"]


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)  # CTest's code for a skipped test


def name(pid):
    """Of the program that a process runs, "" of one that is gone."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def hosts(verb, *more, check=True):
    return subprocess.run([f"{HERE}/hosts", verb, *more], check=check, timeout=LIMIT, capture_output=True, text=True)


class Hosts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """A family in the shared directory, its shards in every host's scratch, and what one process makes of it."""
        cls.dir = DIR
        cls.shared = f"{cls.dir}/shared"
        subprocess.run([sys.executable, f"{SOURCE}/scripts/make-family", f"{cls.shared}/f", "-n", "20", "--parameters", "3M", "--random"], check=True,
                       capture_output=True)
        cls.family = {"base": f"{cls.shared}/f/base", "sources": f"{cls.shared}/f/source_{{locale}}"}
        cls.config = write_yaml(f"{cls.shared}/run.yaml", **cls.family, shards={"dir": f"{cls.dir}/scratch/shards"}, compute={"threads": 1}, result="r.h5")
        pack = hosts("on", cls.dir, "h1", BINARY, "pack", "-c", cls.config)
        assert pack.returncode == 0, pack.stderr
        for host in HOSTS[1:]:
            shutil.copytree(f"{cls.dir}/local/h1/shards", f"{cls.dir}/local/{host}/shards")
        whole = write_yaml(f"{cls.shared}/whole.yaml", **cls.family, shards={"dir": f"{cls.dir}/local/h1/shards"}, result="whole.h5")
        done = run("run", "-c", whole)
        assert done.returncode == 0, done.stderr
        cls.bits = result_bits(f"{cls.shared}/whole.h5")

    def setUp(self):
        self.results = tempfile.mkdtemp(dir=self.shared)
        self.result = f"{self.results}/r.h5"
        self.started = []

    def tearDown(self):
        for process in self.started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for host in HOSTS:
            hosts("link", self.dir, host, "up")
            for pid in self.pids(host):
                os.kill(pid, signal.SIGKILL)

    # ---- running ----

    def start(self, on, *words, ranks=1, env=None, other=None, config=None, result=None):
        """mpirun on the first of the hosts, `ranks` on each; other: {host: binary}, what it runs there instead."""
        words = ["run", "-c", config or self.config, "--set", f"result={result or self.result}", *words]
        groups = []
        for host in on:
            groups += [":"] * bool(groups) + ["-np", str(ranks), "--host", f"{host}:{ranks}"] + [x for name in env or {} for x in ("-x", name)]
            groups += [(other or {}).get(host, BINARY), *words]
        process = subprocess.Popen([f"{HERE}/hosts", "on", self.dir, on[0], "mpirun", "--mca", "plm_rsh_agent", f"{self.dir}/rsh", *LAUNCH, *groups],
                                   env=environment(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
        self.started.append(process)
        return process

    def ended(self, process):
        """Its exit code and what it said; a run that goes on for ever is a failure."""
        try:
            said, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            left = {host: [f"{pid} {name(pid)}" for pid in self.pids(host)] for host in HOSTS}
            os.killpg(process.pid, signal.SIGKILL)
            self.fail(f"hangs; there are {left}:\n{process.communicate()[0]}")
        return process.returncode, said

    def good(self, on, *words, **more):
        code, said = self.ended(self.start(on, *words, **more))
        self.assertEqual(code, 0, said)
        return said

    def refused(self, on, *words, says=(), **more):
        code, said = self.ended(self.start(on, *words, **more))
        self.assertEqual(code, 1, said)
        for text in [says] if isinstance(says, str) else says:
            self.assertRegex(said, text)
        self.assertEqual(said.count("mergegrid: error:"), 1, said)
        return said

    def pids(self, host, program=None):
        """What runs there, or what of that program."""
        pids = map(int, hosts("pids", self.dir, host, check=False).stdout.split())
        return [pid for pid in pids if program is None or name(pid) == program]

    def until(self, condition, what, limit=LIMIT):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.02)
        self.fail(f"no {what} after {limit} s")

    def state(self):
        try:
            with open(f"{self.result}.state") as file:
                return file.read()
        except OSError:
            return ""

    def journaled(self, attempt="*"):
        return sum(map(os.path.getsize, glob.glob(f"{self.result}.journal/{attempt}/journal")))

    def under_way(self, process):
        def met():
            self.assertIsNone(process.poll(), "ended too early")
            return self.state().startswith("running") and self.journaled() > 20000
        self.until(met, "run in the middle of its work")

    def same_bits(self):
        self.assertEqual(result_bits(self.result), self.bits)

    # ---- as on one ----

    def test_same_bits(self):
        for on, ranks in ((HOSTS[:2], 2), (HOSTS, 1)):
            self.good(on, "--fresh", ranks=ranks)
            self.same_bits()
            with h5py.File(self.result) as file:
                text = str({k: v[()] for k, v in file["provenance"].items() if isinstance(v, h5py.Dataset)}) + str(dict(file["provenance"].attrs))
            for host in on:
                self.assertIn(host, text)

    # ---- hosts that differ ----

    def test_an_older_shard(self):
        """One host's copy of a shard was made from another training; its size and names are the same."""
        name = sorted(os.path.basename(p) for p in glob.glob(f"{self.shared}/f/source_*"))[4]
        old = f"{self.results}/old"
        os.mkdir(old)
        for path in glob.glob(f"{self.shared}/f/*"):
            if os.path.basename(path) != name:
                os.symlink(path, f"{old}/{os.path.basename(path)}")
        shutil.copytree(f"{self.shared}/f/{name}", f"{old}/{name}")
        with open(f"{old}/{name}/model.safetensors", "r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(b"\0\0\0\x3f")
        locale = name.removeprefix("source_")
        config = write_yaml(f"{self.results}/old.yaml", base=f"{old}/base", sources=f"{old}/source_{{locale}}", shards={"dir": f"{self.dir}/scratch/old"})
        hosts("on", self.dir, "h3", BINARY, "pack", "-c", config)
        for host in HOSTS:
            local = f"{self.dir}/local/{host}"
            shutil.copytree(f"{local}/shards", f"{local}/mixed", copy_function=os.link)
        os.replace(f"{self.dir}/local/h3/old/{locale}.h5", f"{self.dir}/local/h3/mixed/{locale}.h5")
        mixed = write_yaml(f"{self.results}/mixed.yaml", **self.family, shards={"dir": f"{self.dir}/scratch/mixed"})
        self.refused(HOSTS, config=mixed, says=f"rank 2 on h3: the shard of {locale} in .* is another one than rank 0's")
        self.assertFalse(os.path.exists(self.result))

    def test_checkpoints_of_their_own(self):
        """Copies on every host's own disk have other stamps and are the same; a changed header is not, nor a directory that is not there."""
        for host in HOSTS:
            shutil.copytree(f"{self.shared}/f", f"{self.dir}/local/{host}/f")
        self.addCleanup(lambda: [shutil.rmtree(f"{self.dir}/local/{host}/f") for host in HOSTS])
        own = {"base": f"{self.dir}/scratch/f/base", "sources": f"{self.dir}/scratch/f/source_{{locale}}"}
        config = write_yaml(f"{self.results}/own.yaml", **own, shards={"dir": "none"}, compute={"threads": 1})
        self.good(HOSTS, config=config)
        here = result_bits(self.result)
        self.assertEqual(here.keys(), self.bits.keys())
        self.assertEqual({key.split("@")[0] for key in here if here[key] != self.bits[key]}, {"sources/path"})
        name = sorted(os.path.basename(p) for p in glob.glob(f"{self.shared}/f/source_*"))[3]
        with open(f"{self.dir}/local/h2/f/{name}/model.safetensors", "r+b") as file:
            header = file.read(4096)
            file.seek(header.index(b'"F32"'))
            file.write(b'"I32"')
        other = f"{self.results}/other.h5"
        self.refused(HOSTS, config=config, result=other, says=f"rank 1 on h2: .*/{name}: is another checkpoint than rank 0's")
        self.refused(["h1", "h3", "h2"], config=config, result=other, says=f"rank 2 on h2: .*/{name}: is another checkpoint than rank 0's")
        shutil.rmtree(f"{self.dir}/local/h3/f/{name}")
        self.refused(["h1", "h3"], config=config, result=other, says=f"rank 1 on h3: .*/{name}: no such directory")
        self.assertFalse(os.path.exists(other))

    def test_another_build(self):
        version = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
        with open(BINARY, "rb") as file:
            program = file.read()
        words = f"\0{version}\0".encode()
        self.assertIn(words, program)
        other = f"{self.results}/mergegrid"
        with open(other, "wb") as file:
            file.write(program.replace(words, b"\0" + b"9" * len(version) + b"\0"))
        os.chmod(other, 0o755)
        self.refused(HOSTS, other={"h2": other}, says=f"rank 1 on h2: mergegrid's version is '9+ .*', of rank 0 '{re.escape(version)} ")
        self.assertFalse(os.path.exists(f"{self.result}.journal"))

    def test_clocks_that_disagree(self):
        """A run that dies on a host that is a day ahead is continued where it is, and on one that is a day behind: shards are up to date, and
        nobody waits for tomorrow."""
        first = self.start(["h2", "h1"], env={"LD_PRELOAD": ODD, "MG_CLOCK": "h2:86400", **SLOW})
        self.under_way(first)
        began, = re.findall("(?m)^started (.*)$", self.state())
        ahead = time.mktime(time.strptime(began, "%Y-%m-%dT%H:%M:%SZ")) - time.mktime(time.gmtime())
        self.assertGreater(ahead, 80000)
        for pid in self.pids("h2"):
            os.kill(pid, signal.SIGKILL)
        code, said = self.ended(first)
        self.assertNotEqual(code, 0, said)
        said = self.good(["h1", "h2"], env={"LD_PRELOAD": ODD, "MG_CLOCK": "h2:-86400"})
        self.assertIn("0 written", said)
        self.assertIn("did not end as it should", said)
        self.assertIn("attempt 2\n", self.state())
        self.same_bits()

    # ---- places ----

    def test_a_result_that_is_not_shared(self):
        result = f"{self.dir}/scratch/r.h5"
        self.refused(HOSTS[:2], result=result, says="r.h5: host h2 does not see there what rank 0's host does")
        self.refused(["h3"], "--resume", result=result, says="nothing was begun, so there is nothing to resume")
        self.assertEqual(glob.glob(f"{self.dir}/local/*/r.h5"), [])

    def test_no_permission(self):
        shutil.copy(BINARY, f"{self.dir}/mergegrid")
        os.chmod(f"{self.dir}/local/h1", 0o777)
        os.chmod(self.results, 0o755)
        done = hosts("on", self.dir, "h1", "env", *(f"{k}={v}" for k, v in environment().items() if k.startswith("OMPI")), "setpriv", "--reuid=65534",
                     "--regid=65534", "--clear-groups", "mpirun", "--mca", "pml", "ob1", "--mca", "btl", "self,vader", "-np", "2", f"{self.dir}/mergegrid",
                     "run", "-c", self.config, "--set", f"result={self.result}", check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(f"{self.result}.lock: Permission denied", done.stderr)
        self.assertEqual(done.stderr.count("mergegrid: error:"), 1, done.stderr)

    # ---- hosts that are lost ----

    def lost(self, lose):
        """A run that loses h2 ends soon, by itself, and leaves nothing there; the others continue it."""
        process = self.start(HOSTS, env=SLOW)
        self.under_way(process)
        lose()
        began = time.monotonic()
        code, said = self.ended(process)
        self.assertLess(time.monotonic() - began, 20, said)
        self.assertNotEqual(code, 0, said)
        self.assertIn("h2", said)
        self.assertTrue(self.state().startswith("running"), self.state())  # nobody was left to say more
        for host in HOSTS:
            self.until(lambda host=host: not self.pids(host), f"end of what runs on {host}")
        before = self.journaled()
        said = self.good(["h3", "h1"])
        self.assertIn("continuing", said)
        self.assertGreater(before, 20000)
        self.same_bits()

    def test_a_host_dies(self):
        self.lost(lambda: [os.kill(pid, signal.SIGKILL) for pid in self.pids("h2")])

    def test_a_host_is_cut_off(self):
        self.lost(lambda: hosts("link", self.dir, "h2", "down"))

    # ---- and come back ----

    def stop_rank_0(self):
        old = self.start(HOSTS[:2], env=SLOW)
        self.under_way(old)
        master, = self.pids("h1", "mergegrid")
        os.kill(master, signal.SIGSTOP)
        return old, master

    def test_one_that_comes_back_while_another_is_at_work(self):
        old, master = self.stop_rank_0()
        code, said = self.ended(self.start(["h3"]))
        self.assertEqual(code, 1, said)
        self.assertRegex(said, "r.h5: another run owns it .host h1, pid .*remove the file .lock beside the result")
        os.unlink(f"{self.result}.lock")
        new = self.start(["h3"], env=SLOW)
        self.until(lambda: "attempt 2\n" in self.state() and self.journaled("0002") > 0, "new attempt at work")
        os.kill(master, signal.SIGCONT)
        code, said = self.ended(old)
        self.assertEqual(code, 1, said)
        self.assertRegex(said, "r.h5: attempt 2 owns it now, this is attempt 1: it ends here")
        code, said = self.ended(new)
        self.assertEqual(code, 0, said)
        self.assertRegex(self.state(), "done\nattempt 2\n")
        self.same_bits()

    def test_one_that_comes_back_when_the_result_is_there(self):
        old, master = self.stop_rank_0()
        os.unlink(f"{self.result}.lock")
        self.good(["h3"])
        before, state = os.stat(self.result), self.state()
        os.kill(master, signal.SIGCONT)
        code, said = self.ended(old)
        self.assertEqual(code, 1, said)
        self.assertRegex(said, "r.h5: attempt 2 owns it now, this is attempt 1: it ends here")
        after = os.stat(self.result)
        self.assertEqual((before.st_ino, before.st_mtime_ns), (after.st_ino, after.st_mtime_ns))
        self.assertEqual(self.state(), state)
        self.assertEqual(sorted(map(os.path.basename, glob.glob(f"{self.result}*"))), ["r.h5", "r.h5.lock", "r.h5.state"])

    def test_files_that_cannot_be_locked(self):
        """Then it is looked whether the other run moves; and should both be at work, the newer one goes on."""
        odd = {"LD_PRELOAD": ODD, "MG_NO_LOCKS": "1"}
        first = self.start(["h1"], env={**odd, **SLOW})
        self.under_way(first)
        code, said = self.ended(self.start(["h2"], env=odd))
        self.assertEqual(code, 1, said)
        self.assertRegex(said, "another run owns it .host h1, .*its lock does not reach this host")
        code, said = self.ended(first)
        self.assertEqual(code, 0, said)
        self.assertIn("files can't be locked there", said)
        self.same_bits()


if __name__ == "__main__":
    if os.geteuid() != 0:
        skip("only root makes network namespaces")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in ("ip", "nsenter", "unshare", "setpriv") if shutil.which(name) is None]
    if missing:
        skip(f"no {', '.join(missing)} here: scripts/install-packages hosts")
    DIR = tempfile.mkdtemp(prefix="mergegrid-hosts-", dir="/tmp")
    os.chmod(DIR, 0o755)
    try:
        began = hosts("start", DIR, str(len(HOSTS)), check=False)
        if began.returncode == 77:
            skip(f"{began.stderr.strip()}")
        assert began.returncode == 0, began.stderr
        unittest.main(verbosity=2)
    finally:
        hosts("stop", DIR, check=False)
        shutil.rmtree(DIR, ignore_errors=True)
