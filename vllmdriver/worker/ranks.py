"""Makes one answer of those of an engine's ranks. Plain data in and out; of one rank's answer nothing is changed.

The slowest rank counts: in each sample, which is one step that all ranks ran together, a layer took as long as it did on
the rank where it took longest, since the next collective waits for that rank. (Not the median over ranks, which would be
the time of no step there is; nor the rank that was slowest on the whole, as the ranks may take turns.) What is left out
is only this: two ranks that are slow in turn between two collectives are counted as slow in both, so that layers'
sums can exceed the step's by their noise, never by a rank that is slower throughout.

A collective is as long on a rank as that rank was in it: the one that comes last waits for nobody, so its time, the
shortest, is the transfer, and what the others spent beyond it is waiting.
"""

import os


def bind_cores(count):
    """CPU: each rank has cores of its own; vLLM's own choice is a NUMA node each, and it refuses where there are fewer."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or os.environ.get("VLLM_CPU_OMP_THREADS_BIND"):
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= count:
        share = len(cores) // count
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(
            ",".join(str(c) for c in cores[i * share:(i + 1) * share]) for i in range(count))


def parse_cores(text):
    """The cores of lists like "0-3,8", of all ranks where | divides them; None for auto, nobind and nothing."""
    cores = set()
    for part in text.replace("|", ",").split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or last and not last.isdigit():
            return None
        cores.update(range(int(first), int(last or first) + 1))
    return cores


def keep_to_cores():
    """CPU: has VLLM_CPU_OMP_THREADS_BIND followed also where vLLM runs the model in this very process, which ignores it
    there. Threads beyond their cores wait for each other, a hundred times longer than they compute."""
    text = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "")
    cores = parse_cores(text)
    if not cores or not hasattr(os, "sched_setaffinity"):
        return
    os.sched_setaffinity(0, cores)  # of this thread, and of those that it starts
    if "|" not in text:
        os.environ.setdefault("OMP_NUM_THREADS", str(len(cores)))


class RanksError(Exception):
    """Ranks that do not agree: no measurement of one engine."""


def merge(method, answers):
    if len(answers) == 1:
        return answers[0]
    for answer in answers:
        if isinstance(answer, dict):
            for bad in ("device_lost", "error"):
                if bad in answer:
                    return answer
    if method == "lsp_measure":
        return merge_measure(answers)
    if method == "lsp_prepare":
        return merge_prepare(answers)
    return answers[0]


def merge_prepare(answers):
    first = answers[0]
    for rank, other in enumerate(answers[1:], 1):
        for field in ("limits", "catalog"):
            if other[field] != first[field]:
                raise RanksError(f"{field}: rank {rank} has {other[field]}, rank 0 {first[field]}")
    merged = dict(first)
    merged["unmatched_modules"] = sorted({m for a in answers for m in a["unmatched_modules"]})
    merged["facts"] = dict(first["facts"], ranks=[
        {k: a["facts"].get(k) for k in ("rank", "gpu", "device", "affinity", "threads", "state_at_boot")} for a in answers])
    return merged


def merge_measure(answers):
    seconds = {}
    for a in answers:
        for name, value in a["seconds"].items():
            seconds[name] = max(seconds.get(name, 0), value)
    counts = {len(a["shots"]) for a in answers}
    if len(counts) > 1:
        raise RanksError(f"the ranks answered {sorted(counts)} shots")
    return {"shots": [merge_shot(list(shots)) for shots in zip(*(a["shots"] for a in answers))], "seconds": seconds}


def merge_shot(shots):
    for rank, shot in enumerate(shots):
        if shot["status"] != "ok":
            return dict(shot, message=f"rank {rank}: {shot.get('message', '')}")
    try:
        return merge_good(shots)
    except RanksError as e:
        return {"status": "failed", "message": str(e)}


def merge_good(shots):
    first = shots[0]
    merged = dict(first)
    merged["layers"] = {name: merge_layer(name, [s["layers"].get(name) for s in shots]) for name in first["layers"]}
    merged["step_us"] = [max(us) for us in zip(*(s["step_us"] for s in shots))]
    merged["unaccounted"] = max(s["unaccounted"] for s in shots)
    merged["collectives"] = merge_collectives([s.get("collectives") or [] for s in shots])
    for field in ("executed",):
        if any(s.get(field) != first.get(field) for s in shots):
            raise RanksError("the ranks ran the batch in different orders")
    reasons = {r for s in shots for r in (s.get("telemetry") or {}).get("throttle_reasons", ())}
    if reasons:
        merged["telemetry"] = dict(first.get("telemetry") or {}, throttle_reasons=sorted(reasons))
    return merged


def merge_layer(name, entries):
    if any(e is None or e["calls"] != entries[0]["calls"] or len(e["us"]) != len(entries[0]["us"]) for e in entries):
        raise RanksError(f"layer {name}: the ranks differ in its calls: {[e and e['calls'] for e in entries]}")
    slowest = [max(range(len(entries)), key=lambda r: entries[r]["us"][i]) for i in range(len(entries[0]["us"]))]
    merged = dict(entries[0], us=[entries[r]["us"][i] for i, r in enumerate(slowest)], launches=max(e["launches"] for e in entries))
    kernels = sorted({k for e in entries for k in e.get("kernels") or ()})
    if kernels:  # of the same rank as the time that they add up to
        merged["kernels"] = {k: [(entries[r].get("kernels") or {}).get(k, [0.0] * len(slowest))[i] for i, r in enumerate(slowest)]
                             for k in kernels}
    merged["ranks_us"] = [round(median(e["us"]), 4) for e in entries]
    return merged


def merge_collectives(lists):
    """One entry for each layer, kind and size; times are of one collective, the mean over the step's; calls of one call of the layer."""
    described = [[(c["layer"], c["kind"], c["rows"], c["bytes"]) for c in calls] for calls in lists]
    if any(d != described[0] for d in described):
        raise RanksError(f"the ranks differ in their collectives: {described}")
    groups = {}
    for calls in zip(*lists):
        c = calls[0]
        entry = groups.setdefault((c["layer"], c["kind"], c["rows"], c["bytes"]), 
                                  {"calls": 0, "layer_calls": c["layer_calls"], "by": c.get("by", ""), "us": [], "wait_us": []})
        entry["calls"] += 1
        entry["us"].append([min(us) for us in zip(*(c["us"] for c in calls))])
        entry["wait_us"].append([max(us) - min(us) for us in zip(*(c["us"] for c in calls))])
    out = []
    for (layer, kind, rows, size), e in groups.items():
        if e["calls"] % e["layer_calls"]:
            raise RanksError(f"layer {layer}: {e['calls']} collectives {kind} in {e['layer_calls']} calls")
        out.append({"layer": layer, "kind": kind, "rows": rows, "bytes": size, "ranks": len(lists), "calls": e["calls"] // e["layer_calls"], "by": e["by"],
                    "us": means(e["us"]), "wait_us": means(e["wait_us"])})
    return out


def means(lists):
    return [round(sum(values) / len(values), 4) for values in zip(*lists)]


def median(values):
    ordered = sorted(values)
    n = len(ordered)
    return (ordered[n // 2] + ordered[(n - 1) // 2]) / 2
