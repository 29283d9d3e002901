"""What the documents say against what is there: names of files and functions, the slot table, options, keys, targets."""

import re
import subprocess
import urllib.request

import pytest

from conftest import BUILD, CHECKOUT, WAIT_S

DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"]
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
UNIT_PATHS = ("/usr/share/unetserve/models/s2-worldcover", "/run/unetserve")


def read(path):
    return (CHECKOUT / path).read_text()


def plain_manual(name):
    """A manual page's text without its macros' escapes."""
    return read(f"docs/man/{name}").replace("\\-", "-")


# ---- names ---------------------------------------------------------------------------------------------------------


def named_files(text):
    """Words in backticks and in blocks of code that name a file of the tree or of the build, and targets of links."""
    rooms = {path.name for path in CHECKOUT.iterdir()} | {"build"}
    words = re.findall(r"`([^`\s]+)`", FENCE.sub("", text)) + " ".join(FENCE.findall(text)).split()
    for word in words + re.findall(r"\]\(([^)#:]+)\)", text):
        path = re.sub(r":\w+$", "", word)
        if "NAME" in path:
            continue
        if path.split("/")[0] in rooms or re.fullmatch(r"[a-z_]+\.[ch]", path):
            yield path


def exists(path):
    if path.startswith("build/"):
        # What `make demo` writes is not there before it has run.
        return path in ("build/demo/mask.png", "build/demo/tile.npy") or (BUILD / path[len("build/"):]).exists()
    if "/" not in path and path.endswith((".c", ".h")):
        return any(found for room in ("include", "lib", "workers") for found in (CHECKOUT / room).rglob(path))
    return (CHECKOUT / path).exists()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_are_named_exist(document):
    names = list(named_files(read(document)))
    assert len(names) >= 10
    assert [name for name in names if not exists(name)] == []


def anchors_of(path):
    """What a heading is called in a link to it."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    rooms = ("docs", "packaging", "bench", "tests")
    pages = [*CHECKOUT.glob("*.md"), *(page for room in rooms for page in (CHECKOUT / room).rglob("*.md"))]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text())) if "://" not in link]
    assert len(links) > 50
    dead = []
    for page, link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append((str(page.relative_to(CHECKOUT)), link))
    assert dead == []


def test_functions_that_are_named_exist():
    named = re.findall(r"`([\w/]+\.[ch]):(\w+)`", read("ARCHITECTURE.md"))
    assert len(named) >= 10
    missing = [f"{path}:{function}" for path, function in named
               if not re.search(rf"^[a-z][^;=\n]*\b{function}\(", read(path), re.M)]
    assert missing == []


def test_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    for document in DOCUMENTS:
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", read(document), re.M):
            assert target in targets, (document, target)
    shown = subprocess.run(["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make ([a-z-]+)", shown, re.M)) <= targets


# The tutorial's own list.
FEATURES = ["simple", "typed", "async", "streaming", "batching", "API keys", "devices", "workers", "API servers", "Dockerfile",
            "`/docs`", "`client.py`", "middlewares", "online", "batch", "edge", "Kubernetes"]


def test_each_of_the_tutorial_s_features_has_a_row_that_says_how():
    table = "".join(read("docs/litserve.md").partition("| | LitServe |")[1:]).partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
    assert len(rows) > 15 and {len(row) for row in rows} == {3}
    for feature in FEATURES:
        told = [ours for name, _, ours in rows if feature in name]
        assert any("](" in ours or "`" in ours for ours in told), feature


# ---- the slot table ------------------------------------------------------------------------------------------------


def test_slot_table_in_architecture_is_the_code_s():
    code = {(start, end, role) for start, end, role in
            re.findall(r"X\((\w+), (\w+), (\w+)\)", read("include/unetserve/queue_states.h").partition("QUEUE_EDGES(X)")[2])}
    table = read("ARCHITECTURE.md").partition("| from -> to |")[2].partition("\n\n")[0]
    document = []
    for moves, roles in re.findall(r"^\| ([A-Z][A-Z ,;>-]*) \| ([^|]*) \|", table, re.M):
        for move in moves.split(";"):
            starts, _, ends = move.partition("->")
            document += [(start.strip(), end.strip(), role.split()[-1].upper()) for start in starts.split(",")
                         for end in ends.split(",") for role in roles.split(",")]
    assert len(document) == len(set(document))
    assert set(document) == code


# ---- options and keys ------------------------------------------------------------------------------------------------


def options_in(text):
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text))


def test_options_are_in_the_manual():
    shown = subprocess.run([BUILD / "unetserve", "--help"], capture_output=True, text=True, check=True).stdout
    manual = plain_manual("unetserve.8")
    documented = {"-" + name for name in re.findall(r"Fl (-?[a-z][a-z-]*)", manual)}
    options = {option for option in options_in(shown) if option != "--config"}
    assert len(options) > 10
    assert options <= documented
    assert documented - options <= {"--config"}


def test_choices_are_the_configuration_s():
    """--help, both manual pages and the sample name the values that the configuration takes, and no others."""
    shown = subprocess.run([BUILD / "unetserve", "--help"], capture_output=True, text=True, check=True).stdout
    section, keys, sample = (read(path) for path in ("docs/man/unetserve.8", "docs/man/unetserve.conf.5", "packaging/systemd/unetserve.conf"))
    for name in ("precision", "backend"):
        known = set(re.search(rf'^    {{"{name}", CONFIG_CHOICE,.*"([a-z0-9|]+)"}},$', read("lib/config_keys.c"), re.M).group(1).split("|"))
        told = [set(re.findall(r"\w+", re.search(rf"^  --{name} \w+ +(.*)$", shown, re.M).group(1))) - {"or"},
                set(re.findall(r"\w+", re.search(rf"^; {name} = (.*)$", sample, re.M).group(1)))]
        for text, start in ((section, f".It Fl -{name} "), (keys, f".It Cm {name}\n")):
            lines = text.partition(start)[2].split("\n")
            first = next(i for i, line in enumerate(lines) if line.startswith(".Cm "))
            told.append({words[1] for words in (line.split() for line in lines[first:first + len(known) + 1]) if words[0] == ".Cm"})
        assert told == [known] * 4, name


@pytest.mark.parametrize("program", ["unetserve", "unetserve-gateway", "unetserve-broker", "unetserve-auth", "unetserve-gpu", "unetserve-worker", "unetctl"])
def test_programs_explain_themselves(program):
    version = re.search(r"^VERSION +:= (\S+)", read("Makefile"), re.M).group(1)
    for option, expected in (("--version", f"{program} {version}\n"), ("--help", f"usage: {program} ")):
        done = subprocess.run([BUILD / program, option], capture_output=True, text=True, check=False, timeout=WAIT_S)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(expected)
    done = subprocess.run([BUILD / program, "--no-such-thing"], capture_output=True, text=True, check=False, timeout=WAIT_S)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr


def test_options_of_a_worker_are_in_its_manual():
    options = set(re.findall(r'\{"([a-z-]+)", (?:no|required)_argument', read("workers/worker_options.c")))
    documented = set(re.findall(r"Fl -([a-z-]+)", plain_manual("unetserve-worker.8")))
    assert len(options) > 5
    assert documented == options | {"seat", "index"}


def test_options_of_unetctl_are_in_its_manual():
    shown = set()
    for command in ("predict", "batch", "watch", "stream", "status", "bench", "inspect", "plan", "devices", "check", "calibrate",
                    "new-model", "client", "dockerize", "key"):
        done = subprocess.run([BUILD / "unetctl", command, "--help"], capture_output=True, text=True, check=True)
        shown |= options_in(re.sub(r"\(.*?\)", "", done.stdout))
    documented = {"-" + name for name in re.findall(r"Fl (-?[a-z][a-z-]*)", plain_manual("unetctl.1"))}
    assert len(shown) > 10
    assert shown - {"--output"} == documented - {"--help", "--version"}


@pytest.mark.parametrize("command, value", [("predict", "-o"), ("batch", "--jobs"), ("watch", "--count"), ("stream", "--url"), ("status", "--interval"),
                                            ("bench", "--rate"), ("inspect", None), ("plan", "--size"), ("devices", None), ("check", None),
                                            ("calibrate", "--keep"), ("new-model", "-o"), ("client", "--url"), ("dockerize", "--port"),
                                            ("key", "--rate")])
def test_unetctl_names_the_option_that_is_wrong(command, value):
    cases = [("--no-such-thing", "no such option"), ("--help=1", "takes no value")] + ([(value, "a value is missing")] if value else [])
    for option, words in cases:
        done = subprocess.run([BUILD / "unetctl", command, option], capture_output=True, text=True, check=False, timeout=WAIT_S)
        assert (done.returncode, done.stdout) == (64, "")
        assert done.stderr.startswith(f"unetctl: {option}: ") and words in done.stderr and f"unetctl {command} --help" in done.stderr, done.stderr


def test_metrics_are_in_the_manual(start_server, simple_model):
    """Names, and the reasons for refusals."""
    server = start_server(simple_model)
    with urllib.request.urlopen(server.url + "/metrics", timeout=WAIT_S) as answer:
        text = answer.read().decode()
    page = plain_manual("unetserve.8").partition(".Sh METRICS")[2].partition("\n.Sh ")[0]
    # A paragraph's head may name several, and some without its unit's or its labels' part.
    told = set(re.findall(r"[a-z][a-z_]+", re.sub(r"\{[^}]*\}", "", " ".join(re.findall(r"^\.(?:It )?Li (.*)$", page, re.M)))))
    names = set(re.findall(r"^# HELP unetserve_(\w+)", text, re.M))
    assert len(names) > 25 and names <= told, names - told
    reasons = set(re.findall(r'^unetserve_refused_total\{reason="(\w+)"\}', text, re.M))
    passage = page.partition(".It Li refused_total{reason}")[2].partition("\n.It ")[0]
    assert reasons == set(re.findall(r"^\.Cm (\w+)", passage, re.M))
    server.stop()


def keys_of(text):
    return re.findall(r"^[; ]*([a-z_]+) =", text, re.M)


def test_keys_are_in_the_manual_and_in_the_sample():
    source = read("lib/config_keys.c")
    known = [set(re.findall(r'^    \{"(\w+)", CONFIG_', source.partition(f"{table}_keys[] = {{")[2].partition("\n};")[0], re.M))
             for table in ("server", "model")]
    assert len(known[0]) > 10 and len(known[1]) > 10
    server, model = read("packaging/systemd/unetserve.conf").split("[model land-cover]")
    assert [set(keys_of(server)), set(keys_of(model))] == known
    page = plain_manual("unetserve.conf.5").partition(".Sh EXAMPLES")[0]
    server, model = page.split(".Ss Model sections")
    model = model.partition("\n.Ss ")[0]
    told = [set(re.findall(r"\w+", " ".join(re.findall(r"^\.It Cm (\w+(?: , \w+)*)$", part, re.M)))) for part in (server, model)]
    assert told == known


def test_sample_s_comments_are_defaults(tmp_path, run_unetserve):
    """Everything that is commented out is allowed, and changes nothing."""
    text = read("packaging/systemd/unetserve.conf")
    text = text.replace(UNIT_PATHS[0], str(CHECKOUT / "packaging/models/s2-worldcover")).replace(UNIT_PATHS[1], str(tmp_path))
    told = []
    for name, content in (("plain", text), ("whole", re.sub(r"^; (?=[a-z_]+ = [^;\s])", "", text, flags=re.M))):
        path = tmp_path / f"{name}.conf"
        path.write_text(content)
        done = run_unetserve("-c", path, "--check")
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert told[0] == told[1]
    assert "land-cover" in told[0]
