#!/usr/bin/env python3
"""A worker for `profile --driver exec:...` that needs nothing but Python.

It speaks the whole of vllmdriver/PROTOCOL.md and answers from a simple model of
a device, so its numbers are synthetic. Put an engine behind boot() and
measure_shot(), and the rest can stay as it is.
"""
import json
import math
import os
import platform
import random
import sys

FLOPS, BYTES, LAUNCH_US = 200e12, 2e12, 3.0  # a device: rates a second, and what a kernel costs


class Refused(Exception):
    """An error reply: a code of the protocol and a message."""


class Worker:
    operations = ("hello", "probe", "boot", "measure", "shutdown")

    def __init__(self):
        self.engine = None

    def hello(self, request, send):
        return {"protocol": 1, "name": "example", "version": "1", "origin": "synthetic", "capabilities": ["histogram"],
                "batch_shots": 16, "pace_shots_per_second": 0}

    def probe(self, request, send):
        return {"python": platform.python_version(), "packages": {}, "devices": ["example device"]}

    def shutdown(self, request, send):
        return {}

    def boot(self, request, send):
        config, catalog = request.get("config"), request.get("catalog")
        if not isinstance(config, dict) or not isinstance(catalog, list) or not catalog:
            raise Refused("bad_request", "boot: config and catalog are needed")
        for entry in catalog:
            if not entry.get("vllm"):
                raise Refused("catalog", f"{entry.get('layer')}: no class name, so no module")
        experts = config.get("num_experts") or config.get("num_local_experts") or 0
        self.limits = {
            "max_num_batched_tokens": request["max_num_batched_tokens"], "max_num_seqs": request["max_num_seqs"],
            "max_model_len": request.get("max_model_len") or 4096, "cache_tokens": 1 << 22, "block_size": 16,
            "num_experts": experts, "top_k": config.get("num_experts_per_tok", 0) if experts else 0,
        }
        self.engine = {"config": config, "catalog": {e["layer"]: e["category"] for e in catalog}}
        random.seed(request.get("seed", 0))
        return {"limits": self.limits, "gpu": "example device", "sm_count": 0, "engine_version": "1", "attention_backend": "example",
                "fingerprint": {"device": "example"}, "provenance": {"flops": FLOPS, "bytes_per_second": BYTES},
                "catalog": [{"layer": e["layer"], "modules": ["model." + e["layer"]]} for e in catalog], "unmatched_modules": []}

    def measure(self, request, send):
        if self.engine is None:
            raise Refused("not_booted", "boot comes first")
        if not isinstance(request.get("shots"), list) or request.get("iterations", 0) < 1:
            raise Refused("bad_request", "measure: shots, and at least 1 iteration, are needed")
        for index, shot in enumerate(request["shots"]):
            send({"started": index})
            problem = self.infeasible(shot)
            answer = {"status": "infeasible", "message": problem} if problem else self.measure_shot(shot, request)
            send({"shot": index, **answer})
        return {}

    def infeasible(self, shot):
        limits, requests = self.limits, shot["requests"]
        blocks = sum(math.ceil((new + history) / limits["block_size"]) for new, history in requests)
        experts = len([n for n in shot.get("histogram") or [] if n]) or shot.get("experts", 0)
        if not requests or any(new < 1 or history < 0 for new, history in requests):
            return "a request needs at least one new token, and no negative history"
        if sum(new for new, _ in requests) > limits["max_num_batched_tokens"]:
            return "more tokens than max_num_batched_tokens"
        if len(requests) > limits["max_num_seqs"]:
            return "more requests than max_num_seqs"
        if max(new + history for new, history in requests) + 1 > limits["max_model_len"]:
            return "a sequence longer than max_model_len"
        if blocks * limits["block_size"] > limits["cache_tokens"]:
            return "more tokens than the cache holds"
        return "more experts than there are" if experts > limits["num_experts"] else None

    def layer_us(self, category, requests, experts=0, padded=0):
        """What one call of a layer takes on the device."""
        hidden = self.engine["config"].get("hidden_size", 1024)
        flops, size = 2.0 * (padded or sum(new for new, _ in requests)) * hidden * hidden, 2.0 * hidden * hidden
        if category == "attention":
            flops = sum(4.0 * new * (history + new / 2) * hidden for new, history in requests)
            size = sum(4.0 * (new + history) * hidden for new, history in requests)
        elif category == "per_sequence":
            flops, size = 2.0 * len(requests) * hidden * hidden, 20.0 * hidden * hidden
        elif category == "moe":
            size *= max(1, experts)
        return LAUNCH_US + 1e6 * max(flops / FLOPS, size / BYTES)

    def measure_shot(self, shot, request):
        requests, layers = shot["requests"], {}
        experts = len([n for n in shot.get("histogram") or [] if n]) or shot.get("experts", 0)
        for layer, category in self.engine["catalog"].items():
            us = self.layer_us(category, requests, experts)
            layers[layer] = {"us": [us * random.uniform(0.999, 1.001) for _ in range(request["iterations"])], "calls": 1, "launches": 1}
        steps = [sum(values) for values in zip(*(entry["us"] for entry in layers.values()))]
        if request.get("layers") is not None:
            layers = {name: entry for name, entry in layers.items() if name in request["layers"]}
        return {"status": "ok", "layers": layers, "step_us": steps, "unaccounted": 0.0,
                "telemetry": {"sm_clock_mhz": 1500, "temperature_c": 40, "power_mw": 300000, "throttle_reasons": []}}


def main(worker):
    reading, writing = (int(text) for text in os.environ["LAYERPROF_FDS"].split(","))
    requests, replies = os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0)
    for line in requests:  # ends when whoever started the worker does
        number = None
        try:
            request = json.loads(line)
            number, op = request["id"], request["op"]
            if op not in worker.operations:
                raise Refused("unknown_op", f"no op {op!r}")
            answer = {"result": getattr(worker, op)(request, lambda reply, n=number: replies.write(json.dumps({"id": n, **reply}).encode() + b"\n"))}
        except Refused as e:
            answer = {"error": {"code": e.args[0], "message": e.args[1], "fatal": False}}
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            answer = {"error": {"code": "bad_request", "message": f"{type(e).__name__}: {e}", "fatal": False}}
        replies.write(json.dumps({"id": number, **answer}).encode() + b"\n")
        if answer.get("result") is not None and op == "shutdown":
            return


if __name__ == "__main__":
    sys.exit(main(Worker()))
