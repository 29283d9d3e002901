"""A form as LitServe gives it to decode_request: a dict of its fields, with files as UploadFile."""

import hashlib

import unetserve.litserve as ls


class Upload(ls.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request

    def predict(self, request):
        told = {}
        for name, value in request.items():
            if isinstance(value, ls.UploadFile):
                content = value.file.read()
                told[name] = {"filename": value.filename, "content_type": value.content_type, "size": value.size,
                              "digest": hashlib.sha256(content).hexdigest()}
            else:
                told[name] = value
        return told

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    ls.LitServer(Upload()).run(host="127.0.0.1", port=0)
