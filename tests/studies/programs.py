# What the tests of records and studies share: where the programs are, how they are run, the tiny
# model. SPDX-License-Identifier: MIT
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN, DATA, TMP = (pathlib.Path(path) for path in sys.argv[1:4])
MPIEXEC = sys.argv[4]


def need_modules():
    try:
        import h5py  # noqa: F401
        import matplotlib  # noqa: F401
        import numpy  # noqa: F401
    except ImportError as error:
        print(f"skipped: {error} (packages python3-h5py, python3-numpy, python3-matplotlib)")
        sys.exit(77)


def run(command, code=0):
    """stdout and stderr of a program that has to end with `code`."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, check=False)
    if done.returncode != code:
        raise AssertionError(f"{command} ended with {done.returncode}, not {code}:\n{done.stdout}\n"
                             f"{done.stderr}")
    return done.stdout, done.stderr


def infer(ranks, *words, code=0):
    launch = [MPIEXEC, "--oversubscribe", "-np", str(ranks)] if ranks > 0 else []
    return run(launch + [BIN / "glm_infer", *words], code)


def tiny_model(dtype):
    """The tiny model in this dtype, converted once per build tree and test."""
    folder = TMP / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pathlib.Path(sys.argv[0]).stem}_{dtype}.h5"
    run([BIN / "glm_convert", DATA / "tiny", path, "--dtype", dtype])
    return path
