"""/docs in a headless browser that can reach nothing but the server (skipped where there is none)."""

import base64
import io
import json
import os
import re
import shutil
import socket
import struct
import subprocess

import pytest
import requests

from conftest import BUILD, WAIT_S, wait_until

numpy = pytest.importorskip("numpy")
KEY = "open-sesame"
SCREENSHOTS = os.environ.get("UNETSERVE_SCREENSHOTS")


class Browser:
    """As much of the WebDriver protocol as is needed here."""

    def __init__(self, base, directory, dark=False):
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1100,1500",
                     "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--no-first-run",
                     f"--user-data-dir={directory}", *(["--force-dark-mode"] if dark else [])]
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {
            "args": arguments, "binary": shutil.which("chromium")}}}}
        self.base = base
        self.session = self.call("post", "/session", wanted)["sessionId"]

    def call(self, verb, path, body=None):
        answer = requests.request(verb, self.base + path, json=body, timeout=WAIT_S)
        assert answer.status_code == 200, answer.text[:2000]
        return answer.json()["value"]

    def do(self, path, **body):
        return self.call("post", f"/session/{self.session}/{path}", body)

    def run(self, script, *arguments):
        return self.do("execute/sync", script=script, args=list(arguments))

    def until(self, script, what):
        return wait_until(lambda: self.run(script), WAIT_S, what)

    def element(self, selector):
        return next(iter(self.do("element", using="css selector", value=selector).values()))

    def click(self, selector):
        self.do(f"element/{self.element(selector)}/click")

    def write(self, selector, text):
        self.do(f"element/{self.element(selector)}/value", text=text)

    def picture(self, name):
        if SCREENSHOTS:
            data = self.call("get", f"/session/{self.session}/screenshot")
            with open(os.path.join(SCREENSHOTS, name + ".png"), "wb") as file:
                file.write(base64.b64decode(data))

    def close(self):
        self.call("delete", f"/session/{self.session}")


@pytest.fixture
def open_browser(tmp_path, other_port):
    program = shutil.which("chromedriver")
    if not program or not shutil.which("chromium"):
        pytest.skip("no chromium and chromium-driver: packaging/install-deps.sh browser")
    port = other_port
    driver = subprocess.Popen([program, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    browsers = []

    def listens():
        with socket.socket() as attempt:
            return attempt.connect_ex(("127.0.0.1", port)) == 0

    def start(url, dark=False):
        browsers.append(Browser(base, tmp_path / f"profile{len(browsers)}", dark))
        browsers[-1].do("url", url=url)
        browsers[-1].until("return !document.getElementById('notice')", "the page")
        return browsers[-1]

    try:
        wait_until(listens, WAIT_S, "chromedriver")
        yield start
    finally:
        for browser in browsers:
            browser.close()
        driver.terminate()
        driver.wait(WAIT_S)


def write_tiff(path, image):
    """Little-endian, one strip, pixel by pixel."""
    bands, height, width = image.shape
    pixels = numpy.ascontiguousarray(image.transpose(1, 2, 0)).astype("<u2").tobytes()
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, bands, 0), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
            (277, 3, 1, bands), (278, 3, 1, height), (279, 4, 1, len(pixels)), (284, 3, 1, 1), (338, 3, bands - 1, 0),
            (339, 3, bands, 0)]
    begin = 8 + len(pixels)
    after = begin + 2 + 12 * len(tags) + 4
    lists = {258: [16] * bands, 338: [0] * (bands - 1), 339: [1] * bands}
    entries, tail = b"", b""
    for tag, kind, count, value in tags:
        if tag in lists:
            value = after + len(tail)
            tail += struct.pack(f"<{count}H", *lists[tag])
        entries += struct.pack("<HHII", tag, kind, count, value)
    path.write_bytes(b"II*\0" + struct.pack("<I", begin) + pixels + struct.pack("<H", len(tags)) + entries + bytes(4) + tail)


def shares(url, image):
    """The legend that there must be, as the page words it."""
    body = io.BytesIO()
    numpy.save(body, image)
    mask = numpy.load(io.BytesIO(requests.post(url + "/predict", data=body.getvalue(), timeout=WAIT_S, headers={
        "Content-Type": "application/x-npy", "Accept": "application/x-npy"}).content))
    names = [one["name"] for one in requests.get(url + "/info", timeout=WAIT_S).json()["model"]["classes"]]
    counts = numpy.bincount(mask.ravel(), minlength=len(names))
    return {name: count / mask.size for name, count in zip(names, counts) if count}


def shown(browser):
    rows = browser.run("return [...document.querySelectorAll('.legend tbody tr')].map(row =>"
                       " [row.cells[1].textContent, row.cells[2].textContent])")
    return {name: float(share.rstrip(" %")) / 100 for name, share in rows}


def test_the_page_is_alone(start_server, simple_model):
    server = start_server(simple_model)
    answer = requests.get(server.url + "/docs", timeout=WAIT_S)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    nonce = re.search(r"script-src 'nonce-([0-9a-f]{32})'", answer.headers["Content-Security-Policy"]).group(1)
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.text.count(f'nonce="{nonce}"') == 2 and "@" not in re.sub(r"@(media|tile)", "", answer.text)
    assert not re.search(r"""(src|href)=["']?(https?:)?//|url\(|@import""", answer.text)
    assert nonce not in requests.get(server.url + "/docs", timeout=WAIT_S).text


def test_a_document_is_sent_and_its_answer_shown(start_server, open_browser):
    server = start_server(BUILD / "models" / "typed.so", env={"UNETSERVE_API_KEY": KEY})
    browser = open_browser(server.url + "/docs")
    form = "details[data-path='/predict']"
    assert "\"input\":4" in browser.run(f"return document.querySelector(\"{form} .curl\").textContent")
    browser.click(form + " .send")
    status = f"return (document.querySelector(\"{form} .status\") || {{}}).textContent"
    assert browser.until(status, "an answer").startswith("401")
    browser.write("#key", KEY)
    browser.click(form + " .send")
    wait_until(lambda: (browser.run(status) or "").startswith("200"), WAIT_S, "an answer to the key")
    assert json.loads(browser.run(f"return document.querySelector(\"{form} .result pre\").textContent")) == {"output": 80.0}
    assert "queue" in browser.run(f"return document.querySelector(\"{form} .timing\").textContent")
    browser.picture("document")
    loaded = browser.run("return performance.getEntriesByType('resource').map(one => one.name)")
    assert loaded and all(one.startswith(server.url + "/") for one in loaded)


def test_tiffs_and_npys_become_masks(start_server, open_browser, demo_model, scene, tmp_path):
    server = start_server(demo_model)
    image = scene.astype("uint16")
    numpy.save(tmp_path / "tile.npy", image)
    write_tiff(tmp_path / "plain.tif", image)
    files = [tmp_path / "tile.npy", tmp_path / "plain.tif"]
    if shutil.which("gdal_translate"):
        for name, options in (("tiled", ["TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=64", "COMPRESS=DEFLATE", "PREDICTOR=2"]),
                              ("planes", ["INTERLEAVE=BAND", "COMPRESS=DEFLATE"]), ("big", ["ENDIANNESS=BIG"])):
            files.append(tmp_path / (name + ".tif"))
            subprocess.run(["gdal_translate", "-q", *[word for one in options for word in ("-co", one)],
                            tmp_path / "plain.tif", files[-1]], check=True, timeout=WAIT_S)
    wanted = shares(server.url, image)
    browser = open_browser(server.url + "/docs")
    form = "details[data-path='/predict']"
    for file in files:
        browser.write(form + " .file", str(file))
        wait_until(lambda name=file.name: browser.run("return document.querySelector('.told').textContent").startswith(name),
                   60, "the file's shape")
        told = browser.run("return document.querySelector('.told').textContent")
        assert told == f"{file.name}: uint16, 12 × 96 × 112"
        assert not browser.run("return document.querySelector('canvas.mask')")
        browser.click(form + " .send")
        browser.until("return Boolean(document.querySelector('canvas.mask'))", "the mask of " + file.name)
        got = shown(browser)
        assert got.keys() == wanted.keys()
        assert all(abs(got[name] - wanted[name]) < 0.001 for name in wanted), file.name
    assert browser.run("return [...document.querySelectorAll('canvas')].map(one => [one.width, one.height])") == [[112, 96]] * 2
    browser.picture("mask")
    (tmp_path / "bad.tif").write_bytes(b"II*\0" + bytes(20))
    browser.write(form + " .file", str(tmp_path / "bad.tif"))
    browser.until("return document.querySelector('.told').classList.contains('bad')", "the complaint")


def test_a_made_up_tile(start_server, open_browser, demo_model):
    server = start_server(demo_model)
    browser = open_browser(server.url + "/docs", dark=True)
    browser.click(".sample")
    browser.click("details[data-path='/predict'] .send")
    browser.until("return Boolean(document.querySelector('canvas.mask'))", "the mask")
    assert abs(sum(shown(browser).values()) - 1) < 0.01
    browser.picture("made-up")
