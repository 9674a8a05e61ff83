"""shards.stage_to: copies on a node's own disk, made once, replaced when they are no longer right, done without when the disk refuses; the
same bits always."""
import glob
import os
import shutil
import unittest

from common import BINARY, Case, h5py, result_bits, write_yaml

LIBRARY = os.path.join(os.path.dirname(BINARY), "libmg_fault.so")


class StageTo(Case):
    def setUp(self):
        super().setUp()
        self.base, self.pattern = self.make_family("f", "-n", 3, "--shape", "tiny")
        self.config = self.write("shards")
        plain = write_yaml(self.path("plain.yaml"), self.base, self.pattern, shards={"dir": "shards"}, result="plain.h5")
        self.good("run", "-c", plain)
        self.reference = result_bits(self.path("plain.h5"))

    def write(self, shards, stage_to="$MG_SCRATCH/x"):
        return write_yaml(self.path("run.yaml"), self.base, self.pattern, shards={"dir": shards, "stage_to": stage_to}, result="r.h5")

    def scratch(self, **more):
        return {"MG_SCRATCH": self.path("scratch"), **more}

    def stage(self, ranks=2, same=True, **more):
        done = self.good("run", "-c", self.config, "--fresh", ranks=ranks, env=self.scratch(**more))
        if same:
            self.same_bits(self.path("r.h5"), self.reference)
        return done.stderr

    def fault(self, text):
        return {"LD_PRELOAD": LIBRARY, "MG_FAULT": text}

    def copies(self, pattern="*"):
        return sorted(glob.glob(self.path("scratch/x/mergegrid-shards-*", pattern)))

    def test_copied_once(self):
        self.assertRegex(self.stage(ranks=3), r"stage_to: 4 copied \(.*\) and 0 there already on 1 node, here in .*scratch/x/mergegrid-shards-")
        names = ["_base.h5", "s0000.h5", "s0001.h5", "s0002.h5"]
        self.assertEqual([os.path.basename(path) for path in self.copies()], names)
        for path in self.copies():
            with open(path, "rb") as copy, open(self.path("shards", os.path.basename(path)), "rb") as original:
                self.assertEqual(copy.read(), original.read())
        times = [os.stat(path).st_mtime_ns for path in self.copies()]
        self.assertNotIn("stage_to", self.good("run", "-c", self.config, env=self.scratch()).stderr)  # nothing left to compute
        for ranks in (0, 2):
            self.assertIn("0 copied", self.stage(ranks=ranks))
        self.assertEqual([os.stat(path).st_mtime_ns for path in self.copies()], times)

    def test_copies_are_what_is_read(self):
        self.stage()
        done = self.refused("run", "-c", self.config, "--fresh", ranks=2,
                            env=self.scratch(**self.fault("read */mergegrid-shards-*/s0001.h5 0 EIO")), says="Input/output error")
        self.assertRegex(done.stderr, r"mergegrid-shards-\w+/s0001.h5: reading .*: Input/output error")

    def test_copies_that_are_no_longer_right(self):
        self.stage()
        with open(self.copies("s0000.h5")[0], "r+b") as file:
            file.truncate(5000)
        with open(self.copies("s0001.h5")[0], "wb") as file:
            file.write(b"no shard")
        left = os.path.dirname(self.copies()[0]) + "/s0002.h5.tmp." + os.uname().nodename + ".999999999"
        with open(left, "wb") as file:
            file.write(b"of a writer that was killed")
        self.assertIn("2 copied", self.stage())
        self.assertFalse(os.path.exists(left))
        # another training of a source: its shard is packed anew, and its copy is an old one
        shutil.copy(self.path("f/source_s0001/model.safetensors"), self.path("f/source_s0002/model.safetensors"))
        self.assertIn("1 copied", self.stage(same=False))
        self.good("run", "-c", self.path("plain.yaml"), "--fresh")
        self.same_bits(self.path("r.h5"), result_bits(self.path("plain.h5")))

    def falls_back(self, said, why):
        self.assertRegex(said, f"warning: shards.stage_to: host .* reads the shards where they are: .*{why}")
        self.assertEqual(self.copies("*.tmp.*"), [])

    def test_a_disk_that_refuses(self):
        self.falls_back(self.stage(**self.fault("space */scratch/x/* 0 ENOSPC")), "copies of 4 shards take .*, and .* are free")
        self.assertEqual(self.copies(), [])
        for call, what, why in (("open", "EACCES", "Permission denied"), ("write", "ENOSPC", "No space left"), ("sync", "EIO", "Input/output"),
                                ("rename", "EACCES", "Permission denied")):
            with self.subTest(call=call):
                pattern = "*/mergegrid-shards-*/s0001.h5" + ("" if call == "rename" else ".tmp.*")
                self.falls_back(self.stage(**self.fault(f"{call} {pattern} 0 {what}")), why)
                self.assertEqual(self.copies("s0001.h5"), [])
        self.assertIn("stage_to: 1 copied", self.stage())

    def test_a_write_that_is_cut_short(self):
        self.assertIn("4 copied", self.stage(**self.fault("write */mergegrid-shards-*/*.tmp.* 1 short")))

    def test_a_file_where_the_directory_belongs(self):
        os.mkdir(self.path("scratch"))
        with open(self.path("scratch/x"), "w", encoding="utf-8"):
            pass
        self.falls_back(self.stage(), "")

    def test_a_damaged_shard(self):
        victim = self.path("shards/s0001.h5")
        with h5py.File(victim) as file:
            at = file["values"].id.get_offset()
        stamp = os.stat(victim)
        with open(victim, "r+b") as file:
            file.seek(at + 400)
            file.write(b"\xff")
        os.utime(victim, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        self.refused("run", "-c", self.config, "--fresh", ranks=3, env=self.scratch(), says=["s0001.h5: tensor ", "does not match its checksum"])
        self.assertEqual(self.copies("s0001*"), [])

    def test_where(self):
        self.config = self.write("shards", "near/$MG_NAME/$$y")
        self.assertIn("4 copied", self.stage(MG_NAME="n1"))
        self.assertTrue(glob.glob(self.path("near/n1/$y/mergegrid-shards-*/_base.h5")))
        for value, says in (("", "run.yaml: shards.stage_to is '{}', and the environment has no MG_SCRATCH"),
                            ("here", "run.yaml: shards.stage_to is '{}', which comes to 'here/x': an absolute path was expected")):
            path = self.write("elsewhere")
            self.refused("run", "-c", path, "--fresh", ranks=2, env={"MG_SCRATCH": value}, says=says.format("$MG_SCRATCH/x"))
            self.assertFalse(os.path.exists(self.path("elsewhere")), "packed before it was refused")

    def test_without_shards(self):
        self.refused("run", "-c", self.config, "--set", "shards={dir: none, stage_to: /tmp}", says=["shards.stage_to is '/tmp'", "shards.dir: none"])

    def test_two_directories_of_shards(self):
        self.stage()
        self.config = self.write("others")
        self.assertIn("4 copied", self.stage())
        self.assertEqual(len(self.copies("_base.h5")), 2)

    def test_of_16_bits(self):
        for dtype in ("bf16", "f16"):
            with self.subTest(dtype=dtype):
                sections = {"shards": {"dir": dtype, "dtype": dtype}, "result": f"{dtype}.h5"}
                self.good("run", "-c", write_yaml(self.path("plain.yaml"), self.base, self.pattern, **sections))
                reference = result_bits(self.path(f"{dtype}.h5"))
                sections["shards"]["stage_to"] = "scratch"
                self.good("run", "-c", write_yaml(self.path("staged.yaml"), self.base, self.pattern, **sections), "--fresh", ranks=3)
                self.same_bits(self.path(f"{dtype}.h5"), reference)


if __name__ == "__main__":
    unittest.main()
