"""make install into a directory of its own; what is installed serves, and others can compile against it."""
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import tempfile
import time

import numpy
import pytest

from conftest import WAIT_S

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNETSERVE_BUILD", ROOT / "build"))
SCENE = ROOT / "tests" / "goldens" / "scene_96x112.input.npy"
LABELS = numpy.load(ROOT / "tests" / "goldens" / "scene_96x112.logits.npy").argmax(0)

PROGRAM = r"""
#include <unetserve/client.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv)
{
    static unsigned short pixels[12 * 32 * 32];
    struct unetserve_tensor tile = {{UNETSERVE_U16, 3, {12, 32, 32}}, pixels, sizeof pixels};
    struct unetserve_client *client;
    struct unetserve_answer answer;
    if (argc != 2 || unetserve_client_open(argv[1], &client))
        return 1;
    if (unetserve_client_predict(client, NULL, &tile, 30000, &answer))
        return 2;
    printf("%d %zu\n", answer.status, answer.bytes);
    unetserve_answer_free(&answer);
    unetserve_client_close(client);
    return 0;
}
"""


@pytest.fixture
def installed(tmp_path):
    destination = tmp_path / "root"
    subprocess.run(["packaging/install.sh"], cwd=ROOT, check=True, timeout=WAIT_S,
                   env={**os.environ, "BUILD": str(BUILD), "DESTDIR": str(destination), "PREFIX": "/usr",
                        "VERSION": "0.1.0"})
    return destination


def test_everything_has_its_place(installed):
    usr = installed / "usr"
    for path in ("bin/unetserve", "bin/unetctl", "lib/unetserve/unetserve-gateway", "lib/unetserve/unetserve-broker",
                 "lib/unetserve/unetserve-auth", "lib/unetserve/unetserve-gpu",
                 "lib/unetserve/unetserve-worker", "lib/unetserve/models/unet.so", "lib/libunetserve.so",
                 "lib/libunetserve.so.0", "lib/libunetserve.a", "include/unetserve/client.h",
                 "include/unetserve/model.h", "include/unetserve/tensor.h", "include/unetserve/protocol.h",
                 "lib/pkgconfig/unetserve.pc", "share/man/man1/unetctl.1", "share/man/man5/unetserve.conf.5",
                 "share/man/man8/unetserve.8", "share/doc/unetserve/docs/writing-a-model.md", "share/doc/unetserve/docs/strategies/edge.md", "share/unetserve/models/s2-worldcover/model.json"):
        assert (usr / path).is_file(), path
    assert (installed / "etc" / "unetserve" / "unetserve.conf").is_file()
    assert (usr / "lib" / "systemd" / "system" / "unetserve.service").is_file()


# What each program and library may need, all of it. A supervisor that links neither ZeroMQ nor a device's libraries
# cannot hang or crash in them; a worker meets oneDNN in its plugin only; nothing here needs CUDA.
NEEDED = {
    "bin/unetserve": "libseccomp libsystemd libinih libjansson",
    "bin/unetctl": "libgdal libcurl libgnutls libzmq libjansson libinih libpng16 libzip libxxhash libdnnl",
    "lib/unetserve/unetserve-gateway": "libmicrohttpd libgnutls libzmq libseccomp libsystemd libinih libjansson libpng16 libz libzstd",
    "lib/unetserve/unetserve-broker": "libzmq libseccomp libsystemd libinih",
    "lib/unetserve/unetserve-auth": "libcurl libcjose libcrypto libseccomp libsystemd libinih libjansson",
    "lib/unetserve/unetserve-gpu": "libseccomp libsystemd libinih libjansson",
    "lib/unetserve/python/unetserve/_worker.abi3.so": "libseccomp libsystemd libinih libjansson",
    "lib/unetserve/python/unetserve/unetserve-images.so": "libtiff libpng16",
    "lib/unetserve/unetserve-images.so": "libtiff libpng16",
    "lib/unetserve/unetserve-worker": "libseccomp libsystemd libinih libjansson",
    "lib/unetserve/models/unet.so": "libdnnl libzip libxxhash libjansson",
    "lib/unetserve/models/simple.so": "libjansson",
    "lib/unetserve/models/typed.so": "",
    "lib/unetserve/models/batched.so": "",
    "lib/unetserve/models/async.so": "",
    "lib/unetserve/models/streaming.so": "",
    "lib/libunetserve.so": "libzmq",
}
ALWAYS = {"libc", "libm", "ld-linux-x86-64", "libasan", "libubsan", "libtsan", "libgcc_s"}


def test_each_program_needs_what_its_role_needs(installed):
    found = {}
    for path in sorted((installed / "usr").rglob("*")):
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            name = re.sub(r"\.so\.\d.*$", ".so", str(path.relative_to(installed / "usr")))
            text = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
            found[name] = {re.sub(r"\.so.*$", "", needed) for needed in re.findall(r"NEEDED.*\[(.*)\]", text)}
            assert found[name], name
    assert sorted(found) == sorted(NEEDED)
    for name, needed in found.items():
        assert needed <= set(NEEDED[name].split()) | ALWAYS, name


def test_library_exports_its_five_functions(installed):
    symbols = subprocess.run(["nm", "-D", "--defined-only", installed / "usr/lib/libunetserve.so"],
                             capture_output=True, text=True, check=True).stdout
    assert sorted(re.findall(r" T (\w+)", symbols)) == [
        "unetserve_answer_free", "unetserve_client_close", "unetserve_client_open", "unetserve_client_predict",
        "unetserve_client_status"]


def test_configuration_is_kept(installed):
    configuration = installed / "etc" / "unetserve" / "unetserve.conf"
    configuration.write_text("; mine\n")
    subprocess.run(["packaging/install.sh"], cwd=ROOT, check=True, timeout=WAIT_S,
                   env={**os.environ, "BUILD": str(BUILD), "DESTDIR": str(installed), "PREFIX": "/usr"})
    assert configuration.read_text() == "; mine\n"


def test_manual_pages_are_clean():
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed")
    pages = sorted((ROOT / "docs" / "man").glob("*.[158]"))
    assert len(pages) == 8
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *pages], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def unit(installed, tmp_path):
    """The unit file, with the program where it lies now."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    text = (installed / "usr/lib/systemd/system/unetserve.service").read_text()
    path = tmp_path / "unetserve.service"
    path.write_text(text.replace("/usr/bin/unetserve", str(installed / "usr/bin/unetserve")))
    return path


def test_unit_file_is_right(unit):
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stderr) == (0, "")


def test_unit_is_hardened(unit):
    # In tenths: exposure of at most 1.6.
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=16", "--no-pager", unit],
                          capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stdout
    assert "Overall exposure level" in done.stdout


def read_ready_line(process, seconds):
    deadline = time.monotonic() + seconds
    text = b""
    while b"\n" not in text and time.monotonic() < deadline and process.poll() is None:
        if select.select([process.stdout], [], [], 0.2)[0]:
            text += os.read(process.stdout.fileno(), 4096)
    found = re.search(rb"ready on (http://\S+)", text)
    assert found, text
    return found.group(1).decode()


def test_installed_server_serves(installed, tmp_path):
    usr = installed / "usr"
    # Short, since socket paths are.
    run_root = pathlib.Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(run_root), "LD_LIBRARY_PATH": str(usr / "lib")}
    environment.pop("UNETSERVE_ENDPOINT", None)
    log = open(tmp_path / "log", "w")
    server = subprocess.Popen([usr / "bin/unetserve", "--model", usr / "share/unetserve/models/s2-worldcover",
                               "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=log, env=environment)
    try:
        url = read_ready_line(server, WAIT_S)
        subprocess.run([usr / "bin/unetctl", "predict", SCENE, "-o", tmp_path / "m.npy", "--url", url], check=True,
                       timeout=WAIT_S, env=environment)
        assert (numpy.load(tmp_path / "m.npy") == LABELS).mean() > 0.99
        # Nobody named an endpoint: it is the only one of this user here.
        subprocess.run([usr / "bin/unetctl", "status"], check=True, timeout=WAIT_S, env=environment)
        (tmp_path / "program.c").write_text(PROGRAM)
        flags = ["-lunetserve"]
        if shutil.which("pkg-config"):
            flags = subprocess.run(["pkg-config", "--cflags", "--libs", "unetserve"], capture_output=True, text=True,
                                   check=True, env={**environment, "PKG_CONFIG_PATH": str(usr / "lib/pkgconfig"),
                                                    "PKG_CONFIG_SYSROOT_DIR": str(installed)}).stdout.split()
            assert "-lunetserve" in flags
        flags += [f"-I{usr}/include", f"-L{usr}/lib"]
        if b"__asan_init" in (usr / "lib/libunetserve.so").read_bytes():
            flags += ["-fsanitize=address,undefined"]
        subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", "-Wextra", "-o", tmp_path / "program",
                        tmp_path / "program.c", *flags], check=True)
        endpoints = list(run_root.rglob("client.ipc"))
        assert len(endpoints) == 1
        done = subprocess.run([tmp_path / "program", f"ipc://{endpoints[0]}"], capture_output=True, text=True,
                              timeout=WAIT_S, env=environment)
        assert done.stdout == "200 1024\n", (done.returncode, done.stdout)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(WAIT_S) == 0, (tmp_path / "log").read_text()
        log.close()
        shutil.rmtree(run_root, ignore_errors=True)
