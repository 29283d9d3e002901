"""unetctl dockerize: what it writes, and (make test-container) the image that is built from it and run as its own user.

No Docker is needed: buildah builds from the very Dockerfile with chroot isolation, on a base image that debootstrap makes.
That isolation has no control groups and no limits, and it ignores --read-only: those are not shown here."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import numpy
import pytest
import requests

from conftest import BUILD, CHECKOUT, SLOW, WAIT_S, process_alive, wait_until

SERVER = """import powers
import unetserve.litserve as ls


class SquareAPI(ls.LitAPI):
    def setup(self, device):
        self.model = powers.square

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        return self.model(x)

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    ls.LitServer(SquareAPI(), accelerator="auto").run(port=PORT)
"""
UNETCTL = BUILD / "unetctl"
MODEL = CHECKOUT / "packaging" / "models" / "s2-worldcover"
CHECKERS = pathlib.Path(os.environ.get("UNETSERVE_CHECKERS", CHECKOUT / "build" / "checkers"))


def dockerize(directory, *arguments):
    return subprocess.run([UNETCTL, "dockerize", *arguments], cwd=directory, capture_output=True, text=True, timeout=WAIT_S,
                          check=False)


@pytest.fixture
def project(tmp_path):
    shutil.copytree(MODEL, tmp_path / "land-cover")
    return tmp_path


@pytest.fixture
def program(tmp_path):
    """The tutorial's kind of server.py, a module beside it, and its requirements."""
    (tmp_path / "server.py").write_text(SERVER)
    (tmp_path / "powers.py").write_text("def square(x):\n    return x**2\n")
    (tmp_path / "requirements.txt").write_text("# nothing that is not here\n")
    return tmp_path


def test_it_writes_what_the_builder_needs_and_says_what_to_run(project):
    done = dockerize(project, "land-cover", "--port", "9000", "--source", CHECKOUT)
    assert done.returncode == 0, done.stderr
    text = (project / "Dockerfile").read_text()
    assert re.findall(r"^(?:EXPOSE|USER) .*", text, re.M) == ["USER 10001:10001", "EXPOSE 9000"]
    assert '"--listen", "0.0.0.0:9000"' in text and "HEALTHCHECK" in text
    assert (project / ".dockerignore").read_text() == "*\n!land-cover\n"
    for word in ("docker build", "docker run", "docker tag", "docker push", "-p 9000:9000", str(CHECKOUT)):
        assert word in done.stdout


def test_it_overwrites_only_when_told_to(project):
    (project / "Dockerfile").write_text("mine\n")
    done = dockerize(project, "land-cover", "--source", CHECKOUT)
    assert done.returncode == 73 and "--force" in done.stderr
    assert (project / "Dockerfile").read_text() == "mine\n"
    assert dockerize(project, "land-cover", "--source", CHECKOUT, "--force").returncode == 0
    assert "FROM debian" in (project / "Dockerfile").read_text()


@pytest.mark.parametrize("arguments, status, words", [
    ([], 64, "takes one model"),
    (["land-cover", "--port", "70000"], 64, "1 to 65535"),
    (["land-cover", "--name", "Land Cover"], 64, "small letters"),
    (["nothing"], 66, "No such file"),
    ([str(MODEL)], 64, "does not lie in"),
    (["land-cover", "--source", "/usr"], 66, "source tree"),
    (["land-cover", "--wrong"], 64, "--wrong: no such option"),
])
def test_what_it_cannot_do_it_says(project, arguments, status, words):
    done = dockerize(project, *arguments)
    assert done.returncode == status and words in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (project / "Dockerfile").exists()


def test_a_name_that_a_dockerfile_would_read_otherwise_is_refused(project):
    (project / "land-cover").rename(project / 'land"cover')
    done = dockerize(project, 'land"cover', "--source", CHECKOUT)
    assert done.returncode == 64 and "rename" in done.stderr


@pytest.mark.parametrize("requirements", [True, False])
def test_of_a_python_file_all_that_lies_around_it_goes_along(program, requirements):
    if not requirements:
        (program / "requirements.txt").unlink()
    done = dockerize(program, "server.py", "--port", "9000", "--source", CHECKOUT)
    assert done.returncode == 0, done.stderr
    text = (program / "Dockerfile").read_text()
    assert re.findall(r"^(?:EXPOSE|USER|CMD|COPY [.r]).*", text, re.M) == [
        *(["COPY requirements.txt /tmp/requirements.txt"] if requirements else []), "COPY . /app", "USER 10001:10001",
        "EXPOSE 9000", 'CMD ["python", "/app/server.py"]']
    assert ("-r /tmp/requirements.txt" in text) == requirements
    assert "**/.*\n" in (program / ".dockerignore").read_text()
    assert "run() in server.py listens on 0.0.0.0, port 9000" in done.stdout
    assert ("there is no requirements.txt" in done.stdout) != requirements


@pytest.mark.parametrize("flags", [[], ["--gpu"]])
def test_the_linter_has_nothing_to_say_of_a_python_file_s(program, flags):
    lint(program, "server.py", *flags)


@pytest.mark.parametrize("flags", [[], ["--gpu"]])
def test_the_linter_has_nothing_to_say(project, flags):
    lint(project, "land-cover", *flags)


def lint(project, model, *flags):
    linter = CHECKERS / "bin" / "hadolint"
    if not linter.exists():
        pytest.skip("no hadolint: make checkers")
    assert dockerize(project, model, "--source", CHECKOUT, *flags).returncode == 0
    done = subprocess.run([linter, project / "Dockerfile"], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout


def packages_of(project):
    text = (project / "Dockerfile").read_text()
    return set(re.search(r"--no-install-recommends \\\n +(.*?) \\\n", text).group(1).split())


@pytest.mark.parametrize("flags", [[], ["--gpu"]])
def test_the_image_installs_just_what_the_programs_are_linked_to(project, flags):
    if not shutil.which("dpkg-query") or SLOW:
        pytest.skip("the packages of libraries are asked of dpkg, of an ordinary build")
    assert dockerize(project, "land-cover", "--source", CHECKOUT, *flags).returncode == 0
    needed = set()
    programs = [BUILD / name for name in ("unetserve", "unetserve-gateway", "unetserve-broker", "unetserve-auth", "unetserve-gpu", "unetserve-worker")]
    for program in [*programs, BUILD / "unetserve-images.so", BUILD / "models" / "unet.so"]:
        direct = set(re.findall(r"NEEDED\s+(\S+)", subprocess.run(
            ["objdump", "-p", program], capture_output=True, text=True, check=True).stdout))
        for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
            name, _, path = line.strip().partition(" => ")
            if name in direct and path:
                # dpkg knows a file by the name that it was installed under: with /usr in front, or without.
                real = os.path.realpath(path.split()[0])
                owner = subprocess.run(["dpkg-query", "-S", real, real.removeprefix("/usr")], capture_output=True, text=True,
                                       check=False).stdout
                assert owner, real
                needed.add(owner.partition(":")[0])
    # Every image of Debian has these.
    assert packages_of(project) - {"ca-certificates"} == needed - {"libc6", "libgcc-s1", "libgomp1", "libstdc++6"}


# ---- the image ----

@pytest.fixture(scope="module")
def buildah(tmp_path_factory):
    """Runs buildah on a storage of its own, with a base image in it."""
    if os.environ.get("UNETSERVE_TEST_CONTAINER") != "1":
        pytest.skip("takes minutes: make test-container")
    root = tmp_path_factory.mktemp("containers")
    environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "XDG_RUNTIME_DIR": str(root)}
    command = ["buildah", "--storage-driver", "vfs", "--root", root / "root", "--runroot", root / "run"]

    def run(*words, **options):
        done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=900, check=False,
                              **options)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()

    run.command, run.environment = command, environment
    base = root / "base"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", base], check=True, capture_output=True, timeout=900)
    container = run("from", "scratch")
    run("add", "-q", container, f"{base}/", "/")
    run("commit", "-q", container, "docker.io/library/debian:bookworm-slim")
    run("rm", container)
    shutil.rmtree(base)
    yield run
    run("rm", "--all")
    shutil.rmtree(root, ignore_errors=True)


def find_server(pid):
    """The pid of the unetserve among that process's descendants, or None."""
    parents = {}
    for one in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents[int(one)] = int(pathlib.Path("/proc", one, "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    for one in found:
        try:
            if pathlib.Path("/proc", str(one), "cmdline").read_bytes().split(b"\0")[0].endswith(b"unetserve"):
                return one
        except OSError:
            continue
    return None


def image_of(buildah, context, name):
    """Built from the Dockerfile there; what it says of itself."""
    buildah("bud", "--format", "docker", "--network", "host", "--pull-never", "--build-context", f"unetserve={CHECKOUT}",
            "-t", name, str(context))
    image = json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
    assert image["User"] == "10001:10001" and image["Healthcheck"]["Test"][0] == "CMD"
    return image


@contextlib.contextmanager
def running(buildah, image, name, port):
    """The URL of its server, which ends in order afterwards."""
    container = buildah("from", "--pull-never", name)
    server = subprocess.Popen(
        [*buildah.command, "run", "--network", "host", container, "--", *(image.get("Entrypoint") or []), *image["Cmd"]],
        env=buildah.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    pid = None

    def healthy():
        assert server.poll() is None, server.stdout.read()
        done = subprocess.run([*buildah.command, "run", container, "--", *image["Healthcheck"]["Test"][1:]],
                              env=buildah.environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
        return done.returncode == 0 and done.stdout == "ok\n"

    try:
        wait_until(healthy, WAIT_S, "health")
        pid = find_server(server.pid)
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert len(children) >= 3
        assert {os.stat(f"/proc/{one}").st_uid for one in [pid, *children]} == {10001}
        yield f"http://127.0.0.1:{port}"
    finally:
        pid = pid or find_server(server.pid)
        if pid:
            os.kill(pid, signal.SIGTERM)
        assert server.wait(WAIT_S) == 0
    assert not process_alive(pid)


def test_the_image_serves_as_its_own_user(buildah, project, other_port):
    assert dockerize(project, "land-cover", "--port", str(other_port), "--source", CHECKOUT).returncode == 0
    with running(buildah, image_of(buildah, project, "land-cover"), "land-cover", other_port) as url:
        tile = numpy.full((12, 64, 64), 1200, numpy.uint16)
        answer = requests.post(url + "/predict", json={"image": tile.tolist()}, timeout=WAIT_S)
        assert answer.status_code == 200 and numpy.array(answer.json()["output"]).shape == (64, 64)


def test_the_image_of_a_python_file_serves_it(buildah, program, other_port):
    (program / "server.py").write_text(SERVER.replace("PORT", str(other_port)))
    assert dockerize(program, "server.py", "--port", str(other_port), "--source", CHECKOUT).returncode == 0
    with running(buildah, image_of(buildah, program, "server"), "server", other_port) as url:
        answer = requests.post(url + "/predict", json={"input": 4.0}, timeout=WAIT_S)
        assert answer.status_code == 200 and answer.json() == {"output": 16.0}
