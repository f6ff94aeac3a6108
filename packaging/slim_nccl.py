#!/usr/bin/env python3
"""Makes a libnccl.so.2 small: device code for other GPUs than the one named is left out.

slim_nccl.py INPUT OUTPUT [--arch 90]

INPUT is a libnccl.so.2, or a wheel of NVIDIA that holds one (pip download --no-deps
nvidia-nccl-cu13). OUTPUT is a copy in which the payloads of all other architectures, and device code
that only a linker needs, are zeros that take no space on disk; a name that ends in .xz is compressed.
The host code and the order of everything stay as they are, so the library serves one kind of GPU and
fails on others. For machines to which 300 MB cannot be brought.

SPDX-License-Identifier: MIT
"""
import argparse
import lzma
import struct
import sys
import zipfile

FATBIN_MAGIC = 0xBA55ED50
KIND_ELF = 2
PAGE = 4096


def fail(message):
    sys.exit(f"slim_nccl.py: error: {message}")


def library(path):
    """The bytes of libnccl.so.2 in `path`, which is the library itself or a wheel."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as wheel:
                names = [n for n in wheel.namelist() if n.endswith("/libnccl.so.2")]
                if len(names) != 1:
                    fail(f"{path} holds no libnccl.so.2")
                return bytearray(wheel.read(names[0]))
        with open(path, "rb") as file:
            return bytearray(file.read())
    except OSError as error:
        fail(f"{path}: {error.strerror}")


def sections(data):
    """Name -> (offset, size) of the sections of a 64-bit little-endian ELF file."""
    if data[:6] != b"\x7fELF\x02\x01":
        fail("not a 64-bit ELF library")
    table, = struct.unpack_from("<Q", data, 0x28)
    entry, count, names = struct.unpack_from("<HHH", data, 0x3A)

    def fields(index):
        name, _, _, _, offset, size = struct.unpack_from("<IIQQQQ", data, table + index * entry)
        return name, offset, size

    _, strings, _ = fields(names)
    found = {}
    for index in range(count):
        name, offset, size = fields(index)
        end = data.index(b"\0", strings + name)
        found[data[strings + name:end].decode()] = (offset, size)
    return found


def entries(data, offset, size):
    """(kind, architecture, begin, end) of each payload in a section of fat binaries."""
    at, end = offset, offset + size
    while at < end:
        if struct.unpack_from("<I", data, at)[0] != FATBIN_MAGIC:
            at += 8  # padding between binaries
            continue
        _, header, length = struct.unpack_from("<HHQ", data, at + 4)
        at += header
        stop = at + length
        if stop > end:
            fail(f"the fat binary at byte {at - header} runs past its section")
        while at < stop:
            kind, _, header, length = struct.unpack_from("<HHIQ", data, at)
            architecture, = struct.unpack_from("<I", data, at + 28)
            if header < 32 or at + header + length > stop:
                fail(f"the entry at byte {at} runs past its fat binary")
            yield kind, architecture, at + header, at + header + length
            at += header + length


def slim(data, architecture):
    """Zeroes what `architecture` does not need, in place; returns the bytes kept."""
    found = sections(data)
    if ".nv_fatbin" not in found:
        fail("the library has no device code (.nv_fatbin)")
    kept, present = 0, set()
    for section in (".nv_fatbin", "__nv_relfatbin"):  # the second: input of nvlink, not loaded
        for kind, arch, begin, end in entries(data, *found.get(section, (0, 0))):
            present.add(arch)
            if section == ".nv_fatbin" and kind == KIND_ELF and arch == architecture:
                kept += end - begin
            else:
                data[begin:end] = bytes(end - begin)
    if kept == 0:
        fail(f"no code for sm_{architecture}; it has " + ", ".join(f"sm_{a}" for a in sorted(present)))
    return kept


def write(data, path):
    """Writes `data`; pages of zeros become holes."""
    try:
        if path.endswith(".xz"):
            with lzma.open(path, "wb", preset=6) as file:
                file.write(data)
            return
        with open(path, "wb") as file:
            zeros = bytes(PAGE)
            for begin in range(0, len(data), PAGE):
                page = data[begin:begin + PAGE]
                if page == zeros[:len(page)]:
                    file.seek(len(page), 1)
                else:
                    file.write(page)
            file.truncate(len(data))
    except OSError as error:
        fail(f"{path}: {error.strerror}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--arch", type=int, default=90, help="compute capability, 90 for H100, H200")
    options = parser.parse_args()
    data = library(options.input)
    try:
        kept = slim(data, options.arch)
    except (struct.error, ValueError, IndexError):
        fail(f"{options.input}: not a whole library")
    write(data, options.output)
    print(f"{options.output}: {kept / 1e6:.1f} MB of device code for sm_{options.arch}")


if __name__ == "__main__":
    main()
