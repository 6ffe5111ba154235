"""The embedded worker: speaks PROTOCOL.md on two descriptors and drives vLLM.

Nothing of vLLM or torch is imported before `boot`, so that `hello` and `probe`
answer at once and claim no device.
"""

import json
import os
import queue
import sys
import threading
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
PROTOCOL_VERSION = 1
BATCH_SHOTS = 32


def open_descriptors():
    """Takes the protocol's descriptors and points standard output at standard error."""
    reading, writing = (int(x) for x in os.environ.get("LAYERPROF_FDS", "3,4").split(","))
    os.set_inheritable(reading, False)
    os.set_inheritable(writing, False)
    os.dup2(2, 1)
    return os.fdopen(reading, "rb"), writing


class Failure(Exception):
    """An error as the protocol has it."""

    def __init__(self, code, message, fatal=False):
        super().__init__(message)
        self.code, self.fatal = code, fatal


class Worker:
    def __init__(self, reading, writing):
        self.reading, self.writing = reading, writing
        self.requests = queue.Queue()
        self.engine = self.serving = None

    def read(self):
        """Runs in a thread: ends the process at the end of the requests."""
        try:
            for line in self.reading:
                self.requests.put(line)
        except OSError:
            pass
        os._exit(0)

    def send(self, reply):
        data = json.dumps(reply, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        while data:
            data = data[os.write(self.writing, data):]

    def serve(self):
        threading.Thread(target=self.read, daemon=True).start()
        while True:
            line = self.requests.get()
            number = None
            try:
                try:
                    request = json.loads(line)
                    number = request["id"]
                except (ValueError, TypeError, KeyError) as e:
                    raise Failure("bad_request", f"not a request: {e}") from None
                op = request.get("op")
                answer = getattr(self, "op_" + str(op), None)
                if answer is None:
                    raise Failure("unknown_op", f"no op {op!r}")
                self.send({"id": number, "result": answer(number, request)})
                if op == "shutdown":
                    return self.leave(0)
            except Failure as e:
                self.fail(number, e.code, str(e), e.fatal)
            except BaseException as e:  # engines raise SystemExit, too
                traceback.print_exc()
                # What broke in an unforeseen place leaves the engine in an unknown state.
                self.fail(number, "engine", f"{type(e).__name__}: {e}", True)

    def fail(self, number, code, message, fatal):
        self.send({"id": number, "error": {"code": code, "message": message[:4000], "fatal": fatal}})
        if fatal:
            self.leave(1)

    def leave(self, status):
        sys.stderr.flush()
        # No interpreter shutdown: vLLM's exit handlers may hang on a lost device.
        os._exit(status)

    def op_hello(self, number, request):
        import provenance

        version = provenance.vllm_version()
        if version is None:
            raise Failure("missing", f"the package vllm is not installed for {sys.executable}")
        return {
            "protocol": PROTOCOL_VERSION, "name": "vllm", "version": version, "origin": "measured",
            "capabilities": ["histogram", "flush_l2", "kernels", "serve", "tp_real"], "batch_shots": BATCH_SHOTS,
            "pace_shots_per_second": 30,
        }

    def op_probe(self, number, request):
        import provenance

        return provenance.probe()

    def op_boot(self, number, request):
        if self.engine is not None:
            raise Failure("boot", "one engine a process", fatal=True)
        import engine

        try:
            self.engine, result = engine.boot(request)
        except engine.BootError as e:
            raise Failure(e.code, str(e), fatal=e.fatal) from None
        return result

    def op_boot_serving(self, number, request):
        if self.engine is not None or self.serving is not None:
            raise Failure("boot", "one engine a process", fatal=True)
        import engine
        import serving

        try:
            self.serving, result = serving.boot(request)
        except engine.BootError as e:
            raise Failure(e.code, str(e), fatal=e.fatal) from None
        return result

    def op_serve(self, number, request):
        if self.serving is None:
            raise Failure("not_booted", "serve before boot_serving")
        import engine

        try:
            return self.serving.serve(request, lambda line: self.send({"id": number, **line}))
        except engine.RequestError as e:
            raise Failure("bad_request", str(e)) from None

    def op_measure(self, number, request):
        if self.engine is None:
            raise Failure("not_booted", "measure before boot")
        import engine

        try:
            return self.engine.measure(request, lambda shot: self.send({"id": number, **shot}))
        except engine.RequestError as e:
            raise Failure("bad_request", str(e)) from None
        except engine.DeviceLost as e:
            raise Failure("device", str(e), fatal=True) from None

    def op_shutdown(self, number, request):
        return {}


def main():
    reading, writing = open_descriptors()
    if HERE not in sys.path:
        sys.path.insert(0, HERE)
    Worker(reading, writing).serve()


if __name__ == "__main__":
    main()
