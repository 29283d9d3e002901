"""The bugs that `make test-gpu-planted` plants (tests/gpu/planted_bugs.py) each have their place in the sources: who changed a passage that one stands on
changes it there, too. Nothing is built or run here."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_planted_bug_has_its_place():
    done = subprocess.run([sys.executable, ROOT / "tests" / "gpu" / "planted.py", "--check"], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
