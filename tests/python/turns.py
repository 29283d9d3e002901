"""Says as the how manyth request it was run; one waits until a file is there."""

import os
import time

import unetserve.litserve as ls


class Turns(ls.LitAPI):
    def setup(self, device):
        self.count = 0

    def decode_request(self, request):
        return request.get("until")

    def predict(self, until):
        while until and not os.path.exists(until):
            time.sleep(0.01)
        self.count += 1
        return self.count

    def encode_response(self, output):
        return {"output": output}


if __name__ == "__main__":
    ls.LitServer(Turns(), timeout=120, run_timeout=120).run(port=8000)
