"""docs/strategies: every command of the four pages, run as it stands there, against real processes."""

import os
import pathlib
import shutil
import tempfile

import pytest

import pages
from conftest import BUILD, CHECKOUT, SLOW, listening, reserved_port, wait_until

DIRECTORY = CHECKOUT / "docs" / "strategies"
ANSWERS = {"online": 5, "batch": 5, "streaming": 4, "edge": 4}

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="the pages use curl")


@pytest.fixture
def place():
    """A directory like a checkout after make, of a short name since sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="us-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        path = pathlib.Path(directory)
        (path / "build").symlink_to(BUILD)
        for name in ("packaging", "tests"):
            (path / name).symlink_to(CHECKOUT / name)
        yield path


def test_these_are_the_pages():
    assert {path.stem for path in DIRECTORY.glob("*.md")} == set(ANSWERS)


@pytest.mark.skipif(SLOW, reason="the pages state what programs without sanitizers need")
@pytest.mark.parametrize("name", ANSWERS)
def test_commands_of_the_page(name, place):
    text = (DIRECTORY / f"{name}.md").read_text()
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY")}
    environment["XDG_RUNTIME_DIR"] = str(place)
    with reserved_port() as port:
        assert pages.run(text.replace("127.0.0.1:8000", f"127.0.0.1:{port}"), place, environment) == ANSWERS[name]
        # Each page ends what it started.
        assert "unetserve: ready on " in (place / "server.log").read_text()
        wait_until(lambda: not listening(port), what="the end of the page's server")
