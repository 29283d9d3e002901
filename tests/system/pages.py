"""Pages of docs/ as programs.

In a block of shell, lines that begin with `#` are what the lines before them print; `...` in them stands for anything.
"""

import os
import re
import signal
import subprocess
import tempfile

from conftest import WAIT_S

FENCED = r"^```{}\n(.*?)^```"


def blocks(text, language):
    return re.findall(FENCED.format(re.escape(language)), text, re.M | re.S)


def steps(block):
    """(commands, what they print or None) of a block of shell."""
    for commands, answer in re.findall(r"((?:^(?!#).*\n)+)((?:^#.*\n)*)", block, re.M):
        told = "".join(line.removeprefix("#").removeprefix(" ") + "\n" for line in answer.splitlines())
        yield commands, told or None


def is_told(answer, shown):
    """Is it what was printed? A last line `...` stands for any number of lines."""
    pattern = ".*".join(map(re.escape, answer.rstrip("\n").split("...")))
    return re.fullmatch(pattern, shown.rstrip("\n"), re.S if answer.endswith("\n...\n") else 0) is not None


def run(text, directory, environment, seconds=WAIT_S):
    """Everything that a page says, in one shell, as its reader would type it. Returns how many answers were compared."""
    all_steps = [step for block in blocks(text, "sh") for step in steps(block)]
    script = "set -eu\n" + "".join(f"{commands}echo '@@ {i}'\n" for i, (commands, _) in enumerate(all_steps))
    # Files, not pipes: what a page leaves running must not keep us waiting.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with subprocess.Popen(["bash", "-c", script], cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                              stderr=err, start_new_session=True) as shell:
            try:
                status = shell.wait(seconds)
            except subprocess.TimeoutExpired:
                status = "no end"
            finally:
                # In order, so that what it started takes its children along.
                signal_group(shell.pid)
        out.seek(0)
        err.seek(0)
        shown, errors = out.read(), err.read()
    assert status == 0, (status, shown[-3000:], errors[-3000:])
    compared = 0
    for i, (commands, answer) in enumerate(all_steps):
        printed, _, shown = shown.partition(f"@@ {i}\n")
        if answer is not None:
            assert is_told(answer, printed), (commands, answer, printed)
            compared += 1
    return compared


def signal_group(group):
    try:
        os.killpg(group, signal.SIGTERM)
    except ProcessLookupError:
        pass
