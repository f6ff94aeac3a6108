"""slim_nccl.py on a small ELF file with device code for two architectures, and on broken ones.

SPDX-License-Identifier: MIT
"""
import lzma
import os
import struct
import subprocess
import sys
import tempfile
import unittest
import zipfile

TOOL = sys.argv.pop(1)


def entry(kind, arch, payload):
    """An entry of a fat binary: a header of 64 bytes, then the payload."""
    head = struct.pack("<HHIQ", kind, 0, 64, len(payload)) + bytes(12) + struct.pack("<I", arch)
    return head.ljust(64, b"\0") + payload


def fatbin(*entries):
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def elf(**sections):
    """A 64-bit ELF file of the named sections; dots in names are written as __."""
    names = b"\0"
    blobs = [(0, b"")]
    for name, data in sections.items():
        blobs.append((len(names), data))
        names += name.encode() + b"\0"
    blobs.append((len(names), names + b".shstrtab\0"))
    at, table, body = 64, b"", b""
    for name, data in blobs:
        table += struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, at, len(data), 0, 0, 8, 0)
        body += data
        at += len(data)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack("<HHIQQQ", 3, 62, 1, 0, 0, at)
    head += struct.pack("<IHHHHHH", 0, 64, 0, 0, 64, len(blobs), len(blobs) - 1)
    return head + body + table


CODE_80 = b"a" * 4096
CODE_90 = b"b" * 4096
PTX = b"c" * 512
LIBRARY = elf(**{
    ".text": b"host code",
    ".nv_fatbin": fatbin(entry(2, 80, CODE_80), entry(2, 90, CODE_90), entry(1, 90, PTX)) + bytes(8) +
                  fatbin(entry(2, 90, b"d" * 64)),
    "__nv_relfatbin": fatbin(entry(2, 90, b"e" * 64)),
})


class SlimNccl(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.input = os.path.join(self.folder.name, "libnccl.so.2")
        self.output = os.path.join(self.folder.name, "small.so")

    def run_tool(self, data, *options, output=None):
        with open(self.input, "wb") as file:
            file.write(data)
        return subprocess.run([sys.executable, TOOL, self.input, output or self.output, *options],
                              capture_output=True, text=True, check=False)

    def expect_small(self, data):
        self.assertEqual(len(data), len(LIBRARY))
        for kept in (b"host code", CODE_90, b"d" * 64):
            self.assertIn(kept, data)
        for dropped in (b"a", b"c" * 8, b"e" * 8):
            self.assertNotIn(dropped * 8, data)

    def test_keeps_one_architecture(self):
        done = self.run_tool(LIBRARY)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with open(self.output, "rb") as file:
            self.expect_small(file.read())

    def test_wheel_in_compressed_out(self):
        wheel = os.path.join(self.folder.name, "nccl.whl")
        with zipfile.ZipFile(wheel, "w") as file:
            file.writestr("nvidia/nccl/lib/libnccl.so.2", LIBRARY)
        with open(wheel, "rb") as file:
            done = self.run_tool(file.read(), output=self.output + ".xz")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        with lzma.open(self.output + ".xz") as file:
            self.expect_small(file.read())

    def test_names_what_is_there(self):
        done = self.run_tool(LIBRARY, "--arch", "75")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no code for sm_75; it has sm_80, sm_90", done.stderr)
        self.assertFalse(os.path.exists(self.output))

    def test_refuses_broken_libraries(self):
        """Every prefix, and bytes changed at many places, end with one line and no output."""
        for size in range(0, len(LIBRARY), 997):
            done = self.run_tool(LIBRARY[:size])
            self.assertEqual(done.returncode, 1, size)
            self.assertRegex(done.stderr, r"^slim_nccl\.py: error: [^\n]+\n$")
        at = LIBRARY.index(struct.pack("<I", 0xBA55ED50)) + 8
        long = LIBRARY[:at] + struct.pack("<Q", 1 << 60) + LIBRARY[at + 8:]
        self.assertIn("runs past its section", self.run_tool(long).stderr)


if __name__ == "__main__":
    unittest.main()
