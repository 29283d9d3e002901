#!/usr/bin/env python3
"""Asks the models of an unetserve. Needs nothing but Python's own library. Written by unetctl client.

    python3 client.py                          # asks with an example, prints the answer
    python3 client.py '{"input": 4.0}'         # with a document of your own
    python3 client.py tile.npy -o mask.npy     # with a tile: channels x height x width; a GeoTIFF will do, too
    python3 client.py --route /predict --url http://127.0.0.1:8000

An API key comes from --key or UNETSERVE_API_KEY, a token of an identity provider from --token or UNETSERVE_TOKEN. What stands on the
command line goes first, and others on this machine can read it there.
"""

import argparse
import json
import os
import re
import sys
import urllib.error
import urllib.request

URL = json.loads(r'''@URL@''')
MODELS = json.loads(r'''@MODELS@''')


def npy(shape, code, data):
    """The bytes of an npy file."""
    head = f"{{'descr': '{code}', 'fortran_order': False, 'shape': {tuple(shape)!r}, }}"
    head += " " * (63 - (10 + len(head)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + data


def read_npy(data):
    """(shape, the elements' type, their bytes) of an npy file."""
    if data[:6] != b"\x93NUMPY":
        raise ValueError("this is no npy file")
    begin = 10 if data[6] == 1 else 12
    end = begin + int.from_bytes(data[8:begin], "little")
    head = data[begin:end].decode("latin-1")
    shape = [int(one) for one in re.search(r"'shape':\s*\(([^)]*)\)", head).group(1).split(",") if one.strip()]
    return shape, re.search(r"'descr':\s*'([^']*)'", head).group(1), data[end:]


def made_up_tile(model):
    """A tile of grey steps, to see an answer with."""
    step = model["size_multiple"] or 1
    side = -(-max(model["tile"] or 256, model["size_min"]) // step) * step
    row = bytes(x * 255 // side for x in range(side))
    code, size = ("<u2", 2) if "uint16" in model["dtypes"] else ("|u1", 1)
    if size == 2:
        row = b"".join((16 * value).to_bytes(2, "little") for value in row)
    return npy((model["channels"] or 1, side, side), code, row * side * (model["channels"] or 1))


def who(given):
    """The header that says who asks, by the command line or by the environment; None: nobody in particular."""
    key = os.environ.get("UNETSERVE_API_KEY") or os.environ.get("LIT_SERVER_API_KEY")
    for token, secret in ((given.token, given.key), (os.environ.get("UNETSERVE_TOKEN"), key)):
        if token:
            return "Authorization", f"Bearer {token}"
        if secret:
            return "X-API-Key", secret
    return None


def ask(url, model, body, kind, accept, asker):
    """(status, the answer's bytes); of a stream each line is printed as it comes."""
    request = urllib.request.Request(url.rstrip("/") + model["route"], data=body, method="POST",
                                     headers={"Content-Type": kind, "Accept": accept})
    if asker:
        request.add_header(*asker)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            if model["streams"]:
                print(f"Status: {answer.status}\nResponse:")
                for line in answer:
                    print("", line.decode().rstrip("\n"), flush=True)
                return answer.status, None
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def show_labels(model, data):
    """Each class's share of the mask."""
    shape, _, labels = read_npy(data)
    print(" mask:", " x ".join(map(str, shape)))
    counts = {label: labels.count(bytes([label])) for label in set(labels)}
    for label, count in sorted(counts.items(), key=lambda one: -one[1]):
        name = model["classes"][label]["name"] if label < len(model["classes"]) else f"class {label}"
        print(f" {100 * count / len(labels):5.1f} %  {name}")


def request_of(model, given):
    """(body, its type): what the command line says, or an example."""
    if model["request"] != "tensor":
        return (given or json.dumps(model["example"])).encode(), "application/json"
    if not given:
        return made_up_tile(model), "application/x-npy"
    with open(given, "rb") as file:
        body = file.read()
    kinds = {b"II*\0": "image/tiff", b"MM\0*": "image/tiff", b"\x89PNG": "image/png"}
    return body, kinds.get(body[:4], "application/x-npy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", nargs="?", help="a JSON document; for a model of images a file: npy, TIFF or PNG")
    parser.add_argument("-o", "--output", help="where to write the answer")
    parser.add_argument("--url", default=URL)
    parser.add_argument("--route", default=MODELS[0]["route"], choices=[model["route"] for model in MODELS])
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--key", help="an API key")
    secret.add_argument("--token", help="a bearer token")
    given = parser.parse_args()
    model = next(one for one in MODELS if one["route"] == given.route)
    labels = model["answer"] == "labels"
    try:
        body, kind = request_of(model, given.input)
    except OSError as error:
        sys.exit(str(error))
    try:
        status, answer = ask(given.url, model, body, kind, "application/x-npy" if labels else "*/*", who(given))
    except (OSError, ValueError) as error:
        sys.exit(f"{given.url}: {error}")
    if answer is not None:
        fits = labels and status == 200
        print(f"Status: {status}\nResponse:" + ("" if fits else "\n " + answer.decode(errors="replace")))
        if fits:
            show_labels(model, answer)
        if given.output and status == 200:
            try:
                with open(given.output, "wb") as file:
                    file.write(answer)
            except OSError as error:
                sys.exit(str(error))
    sys.exit(0 if status == 200 else 1)


if __name__ == "__main__":
    main()
