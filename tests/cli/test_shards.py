"""Shards that are there already: left alone while they are known to be good, checked when they are not, written anew when bad."""
import glob
import os
import shutil
import unittest

from common import Case, h5py, np, write_yaml


class Shards(Case):
    def setUp(self):
        super().setUp()
        base, self.pattern = self.make_family("f", "-n", 3, "--shape", "tiny")
        self.config = write_yaml(self.path("run.yaml"), base, self.pattern, shards={"dir": "shards"}, result="r.h5")
        self.good("pack", "-c", self.config)

    def files(self, ending):
        return sorted(glob.glob(self.path("shards", f"*{ending}")))

    def times(self):
        return {path: os.stat(path).st_mtime_ns for path in self.files("")}

    def test_known_ones_are_left_alone(self):
        before = self.times()
        done = self.good("pack", "-c", self.config, "-v")
        self.assertIn("0 written, 3 up to date", done.stderr)
        self.assertEqual(self.times(), before, "a shard or its note was written again")

    def forget(self):
        """As after a reboot: what is known of the shards is from before it."""
        for path in self.files(".seen"):
            with open(path) as file:
                text = file.read()
            self.assertIn("durable 0", text)
            with open(path, "w") as file:
                file.write("\n".join("boot long-ago" if line.startswith("boot ") else line for line in text.split("\n")))

    def test_unknown_ones_are_checked_once(self):
        before = {path: os.stat(path).st_mtime_ns for path in self.files(".h5")}
        self.forget()
        self.assertIn("0 written, 3 up to date", self.good("pack", "-c", self.config).stderr)
        for path in self.files(".seen"):
            with open(path) as file:
                self.assertIn("durable 1", file.read())
        again = self.times()
        self.good("pack", "-c", self.config)
        self.assertEqual(self.times(), again)
        self.assertEqual({path: os.stat(path).st_mtime_ns for path in self.files(".h5")}, before)

    def test_damaged_ones_are_written_anew(self):
        victim = self.path("shards", "s0001.h5")
        with h5py.File(victim) as file:
            good = file["values"][()]
            at = file["values"].id.get_offset()
        stamp = os.stat(victim)
        with open(victim, "r+b") as file:
            file.seek(at + 400)
            file.write(b"\xff")
        os.utime(victim, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a bad disk would leave it
        self.forget()
        done = self.good("pack", "-c", self.config)
        self.assertIn("s0001.h5", done.stderr)
        self.assertIn("1 written, 2 up to date", done.stderr)
        with h5py.File(victim) as file:
            np.testing.assert_array_equal(file["values"][()], good)

    def test_damaged_metadata_is_written_anew(self):
        """Whatever a note says: it vouches for values, not for what costs nothing to check."""
        for dtype in ("f32", "f16"):
            config = write_yaml(self.path(f"{dtype}.yaml"), self.path("f", "base"), self.pattern, shards={"dir": dtype, "dtype": dtype}, result="r.h5")
            self.good("pack", "-c", config)
            for name in ("_base.h5", "s0001.h5"):
                victim = self.path(dtype, name)
                stamp = os.stat(victim)
                with open(victim, "r+b") as file:
                    file.seek(200)
                    file.write(b"\xff")
                os.utime(victim, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
                done = self.good("run", "-c", config, "--fresh")
                self.assertIn(f"{name}: its metadata is damaged (checksum); it is written anew", done.stderr)

    def test_contents_count_more_than_times(self):
        checkpoint = self.path("f", "source_s0002", "model.safetensors")
        os.utime(checkpoint)
        self.assertIn("0 written, 3 up to date", self.good("pack", "-c", self.config).stderr)
        with open(checkpoint, "r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\x80\x3f")  # the last element's upper half: 1.0
        self.assertIn("1 written, 2 up to date", self.good("pack", "-c", self.config).stderr)

    def test_rehash_finds_what_times_hide(self):
        checkpoint = self.path("f", "source_s0002", "model.safetensors")
        stamp = os.stat(checkpoint)
        with open(checkpoint, "r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\x80\x3f")
        os.utime(checkpoint, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        self.assertIn("0 written, 3 up to date", self.good("pack", "-c", self.config).stderr)
        self.assertIn("1 written, 2 up to date", self.good("pack", "-c", self.config, "--rehash").stderr)

    def test_a_note_is_of_the_shard_that_it_describes(self):
        victim, checkpoint = self.path("shards", "s0002.h5"), self.path("f", "source_s0002", "model.safetensors")
        shutil.copy2(victim, self.path("kept.h5"))
        with open(checkpoint, "r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"\x80\x3f")
        self.assertIn("1 written, 2 up to date", self.good("pack", "-c", self.config).stderr)
        with h5py.File(victim) as file:
            good = file["values"][()]
        shutil.copy2(self.path("kept.h5"), victim)  # the note stays that of the newer one
        self.assertIn("1 written, 2 up to date", self.good("pack", "-c", self.config).stderr)
        with h5py.File(victim) as file:
            np.testing.assert_array_equal(file["values"][()], good)

    def test_a_copy_with_its_notes_is_checked_and_kept(self):
        os.utime(self.path("f", "source_s0002", "model.safetensors"))
        self.good("pack", "-c", self.config)  # from here on only the note knows the checkpoint's new time
        os.rename(self.path("shards"), self.path("moved"))
        shutil.copytree(self.path("moved"), self.path("shards"))
        done = self.good("pack", "-c", self.config, "-v")
        self.assertIn("0 written, 3 up to date", done.stderr)
        known = self.times()
        self.good("pack", "-c", self.config)
        self.assertEqual(self.times(), known)

    def test_a_lost_note_costs_one_check(self):
        notes = self.files(".seen")
        for path in notes:
            os.remove(path)
        self.assertIn("0 written, 3 up to date", self.good("pack", "-c", self.config).stderr)
        self.assertEqual(self.files(".seen"), notes)

    def test_shards_suffice(self):
        self.good("run", "-c", self.config)
        with h5py.File(self.path("r.h5")) as file:
            before = file["compatibility/gram/source_dot"][()]
        for path in glob.glob(self.path("f", "*")):
            shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        self.good("run", "-c", self.config, "--fresh", ranks=2)
        with h5py.File(self.path("r.h5")) as file:
            np.testing.assert_array_equal(file["compatibility/gram/source_dot"][()], before)


if __name__ == "__main__":
    unittest.main()
