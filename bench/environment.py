"""The peers' virtual environment, build/bench/venv, kept between runs: environment.py [--clean]

It is made anew when bench/requirements.txt or this file changes. What cannot be installed is named in build/bench/missing.json, and
the tables name it; the rest is measured all the same.
"""
import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
OUT = pathlib.Path(os.environ.get("BENCH_OUT", TOP / "build/bench"))  # not BUILD: all kinds of builds share it
VENV = OUT / "venv"
REQUIREMENTS = TOP / "bench/requirements.txt"
# PyPI has torch for CUDA only, and that needs 2.5 GB of libraries that a CPU never calls: of these the three that it asks for their
# opinion are installed, the others are replaced by empty ones.
TORCH = ["torch==2.15.0", "nvidia-cuda-runtime==13.5.37", "nvidia-cuda-cupti==13.5.25", "nvidia-cufile==1.20.0.107"]
TORCH_NEEDS = ["sympy==1.14.0", "networkx==3.6.1", "jinja2==3.1.6", "filelock==4.3.1", "fsspec==2026.9.0", "typing_extensions==4.16.0",
               "setuptools>=77"]


def pip(*words):
    """True when it worked; its last lines are printed when not."""
    done = subprocess.run([VENV / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print("\n".join(done.stderr.splitlines()[-3:]), flush=True)
    return done.returncode == 0


def wishes():
    lines = REQUIREMENTS.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def install_torch():
    if not pip("--no-deps", *TORCH) or not pip(*TORCH_NEEDS):
        return False
    site = next((VENV / "lib").glob("python3*")) / "site-packages"
    subprocess.run([sys.executable, TOP / "bench/peers/cuda_stubs.py", site], check=True)
    return subprocess.run([VENV / "bin/python", "-c", "import torch"], check=False).returncode == 0


def make():
    """Names of what could not be installed."""
    shutil.rmtree(VENV, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    missing = []
    if not pip("-r", str(REQUIREMENTS)):
        missing = [wish for wish in wishes() if not pip(wish)]
    if not install_torch():
        missing.append(TORCH[0])
    return missing


def stamp():
    digest = hashlib.sha256()
    for path in (REQUIREMENTS, pathlib.Path(__file__), TOP / "bench/peers/cuda_stubs.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def ensure():
    """Make the environment where it is not there; returns what is missing of it."""
    OUT.mkdir(parents=True, exist_ok=True)
    record = OUT / "missing.json"
    if record.exists():
        known = json.loads(record.read_text())
        if known["stamp"] == stamp():
            return known["missing"]
    print("peers: making build/bench/venv (0.6 GB to fetch, some minutes, once)", flush=True)
    missing = make()
    record.write_text(json.dumps({"stamp": stamp(), "missing": missing}))
    return missing


def python():
    """The environment's interpreter, None where there is none."""
    path = VENV / "bin/python"
    return path if path.exists() else None


def variables():
    """For peers' processes: what they compile is kept, and nothing of theirs asks the network."""
    return dict(os.environ, TORCHINDUCTOR_CACHE_DIR=str(OUT / "inductor"), PYTHONDONTWRITEBYTECODE="1",
                OPENVINO_TELEMETRY_OPT_OUT="1", PYTHONPATH=str(TOP / "bench/peers"), CUDA_VISIBLE_DEVICES="")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clean", action="store_true")
    if parser.parse_args().clean:
        (OUT / "missing.json").unlink(missing_ok=True)
    missing = ensure()
    print("peers: " + (f"could not be installed: {', '.join(missing)}" if missing else "all there"))


if __name__ == "__main__":
    main()
