"""docs/writing-a-model.md, followed: its programs compiled by its line, served, asked as it asks; and unetctl new-model."""

import os
import re
import shlex
import subprocess
import tempfile

import pytest

import pages
from conftest import BUILD, CHECKOUT, SLOW, WAIT_S

TEXT = (CHECKOUT / "docs" / "writing-a-model.md").read_text()
PROGRAMS = {name: text for text, name in re.findall(r"^```c\n(/\* (\w+)\.c \*/\n.*?)^```", TEXT, re.M | re.S)}
COMPILE = re.search(r"^cc .*$", TEXT, re.M).group(0)


def compile_and_serve(name, directory, start_server):
    (directory / f"{name}.c").write_text(PROGRAMS[name])
    words = shlex.split(COMPILE.replace("celsius", name)) + ["-Wall", "-Wextra", "-Werror", f"-I{CHECKOUT}/include"]
    subprocess.run(words, cwd=directory, check=True, timeout=WAIT_S)
    return start_server(directory / f"{name}.so")


def calls_of(name):
    """The curl lines after a program, each with the answer that stands below it."""
    after = TEXT.partition(f"/* {name}.c */")[2]
    return pages.steps(next(block for block in pages.blocks(after, "sh") if "curl" in block))


@pytest.mark.parametrize("name", ["celsius", "countdown"])
def test_programs_of_the_page(name, tmp_path, start_server):
    assert set(PROGRAMS) == {"celsius", "countdown"}
    server = compile_and_serve(name, tmp_path, start_server)
    calls = list(calls_of(name))
    assert len(calls) >= 2
    for call, answer in calls:
        done = subprocess.run(shlex.split(call.replace("http://127.0.0.1:8000", server.url)), capture_output=True,
                              text=True, check=True, timeout=WAIT_S)
        assert pages.is_told(answer, done.stdout), call
    if name == "countdown":
        shown = subprocess.run(["curl", "-s", server.url + "/metrics"], capture_output=True, text=True, check=True,
                               timeout=WAIT_S).stdout
        assert 'unetserve_model_steps_total{model="countdown"} 6\n' in shown
    server.stop()


def new_model(*words, **options):
    return subprocess.run([BUILD / "unetctl", "new-model", *words], capture_output=True, text=True, check=False,
                          timeout=WAIT_S, **options)


@pytest.mark.skipif(SLOW, reason="the skeleton's own server is started without this suite's patience")
def test_new_model_builds_and_passes_its_test(tmp_path):
    done = new_model("my_model", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "my_model").iterdir()) == ["Makefile", "my_model.c", "test.py"]
    command = re.search(r"^    (make .*)$", done.stdout, re.M).group(1)
    # Not this make's own flags, if it runs in one; and a short path, since sockets want that.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    with tempfile.TemporaryDirectory(prefix="us-", dir="/tmp") as directory:
        made = subprocess.run(shlex.split(command), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=WAIT_S,
                              env={**environment, "XDG_RUNTIME_DIR": directory, "CFLAGS": "-Wall -Wextra -Werror"})
    assert made.returncode == 0, made.stderr
    assert "my_model: all well" in made.stdout


def test_new_model_overwrites_nothing_and_takes_no_odd_names(tmp_path):
    (tmp_path / "there.c").write_text("mine")
    done = new_model("there", "-o", ".", cwd=tmp_path)
    assert done.returncode == 73 and "there.c" in done.stderr
    assert (tmp_path / "there.c").read_text() == "mine"
    for name in ("", "1st", "a b", "../x", "x" * 32):
        done = new_model(name, cwd=tmp_path)
        assert done.returncode == 64 and done.stdout == "", name
    assert new_model(cwd=tmp_path).returncode == 64
    assert new_model("a", "--no-such-thing", cwd=tmp_path).returncode == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.c"]
