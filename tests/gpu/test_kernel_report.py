"""Our kernels as ptxas saw them at the build: none spills, none leaves too much of a processor idle, and the report would tell."""
import pathlib
import re
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
LOG = HERE.parents[1] / "build" / "gpu" / "kernels.log"


def report(log, *more):
    return subprocess.run([sys.executable, HERE / "kernel_report.py", log, *more], capture_output=True, text=True, timeout=600)


def test_every_kernel_on_every_architecture_is_within_bounds():
    done = report(LOG)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| `") >= 9 and "sm_75" in done.stdout and "sm_120" in done.stdout


@pytest.mark.parametrize("was, becomes, told", [
    (r"(?s)(gpu_pool_bf16' for 'sm_90'.*?bytes stack frame, )0( bytes spill stores)", r"\g<1>8\2", "('pool', 'bf16', 90): 8 bytes spilled"),
    (r"(?s)(gpu_add_f32' for 'sm_75'.*?Used )\d+( registers)", r"\g<1>130\2", "('add', 'f32', 75): 130 registers"),
    (r"'gpu_load_f16' for 'sm_80'", "'gpu_load_f16' for 'sm_81'", "('load', 'f16', 80): not in the log"),
])
def test_what_is_out_of_bounds_is_told(tmp_path, was, becomes, told):
    text, count = re.subn(was, becomes, LOG.read_text(), count=1)
    assert count == 1
    (tmp_path / "log").write_text(text)
    done = report(tmp_path / "log")
    assert done.returncode == 1 and told in done.stderr, done.stderr


def test_a_log_of_nothing_is_no_success(tmp_path):
    (tmp_path / "log").write_text("")
    assert report(tmp_path / "log").returncode == 1
