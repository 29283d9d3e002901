"""Does what models do when things go wrong."""

import os
import signal
import sys
import time

import unetserve.litserve as ls


class Trouble(ls.LitAPI):
    def setup(self, device):
        print("setting up on", device)
        self.jobs = 0

    def decode_request(self, request):
        return request

    def predict(self, request):
        what = request["do"]
        self.jobs += 1
        if what == "sleep":
            time.sleep(request["seconds"])
        elif what == "wait":
            while not os.path.exists(request["until"]):
                time.sleep(0.01)
        elif what == "spin":
            while True:
                pass
        elif what == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "exit":
            sys.exit(3)
        elif what == "fork":
            return {"child": self.fork()}
        elif what == "nan":
            return {"output": float("nan")}
        elif what == "bytes":
            return b"no JSON"
        elif what == "raise":
            raise RuntimeError("a secret that clients must not read")
        elif what == "log":
            self.log("python_answer", 42.5)
        elif what == "long":
            return "x" * request["count"]
        return {"pid": os.getpid(), "jobs": self.jobs, "arguments": sys.argv[1:]}

    @staticmethod
    def fork():
        """As a loader of data does: a child that ends at SIGTERM, and not by taking the worker with it."""
        child = os.fork()
        if child == 0:
            time.sleep(3600)
            os._exit(0)
        os.kill(child, signal.SIGTERM)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    print("the file runs")
    ls.LitServer(Trouble(), run_timeout=float(os.environ.get("TEST_RUN_TIMEOUT", "60"))).run(host="127.0.0.1", port=0)
