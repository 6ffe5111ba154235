"""The GPU's state, through NVML's Python binding where one can be imported."""

REASONS = {
    0x1: "gpu_idle", 0x2: "applications_clocks_setting", 0x4: "sw_power_cap", 0x8: "hw_slowdown", 0x10: "sync_boost",
    0x20: "sw_thermal_slowdown", 0x40: "hw_thermal_slowdown", 0x80: "hw_power_brake_slowdown", 0x100: "display_clocks_setting",
}


class Telemetry:
    def __init__(self, on_gpu):
        self.nvml = self.handle = None
        self.why = "no GPU"
        if not on_gpu:
            return
        try:
            try:
                import pynvml
            except ImportError:
                from vllm.third_party import pynvml
            pynvml.nvmlInit()
            self.handle = self.find(pynvml)
            self.nvml, self.why = pynvml, "nvml"
        except Exception as e:
            self.why = f"{type(e).__name__}: {e}"

    @staticmethod
    def find(pynvml):
        import torch

        uuid = getattr(torch.cuda.get_device_properties(torch.cuda.current_device()), "uuid", None)
        if uuid is not None:
            text = str(uuid)
            try:
                return pynvml.nvmlDeviceGetHandleByUUID(text if text.startswith("GPU-") else "GPU-" + text)
            except Exception:
                pass
        if pynvml.nvmlDeviceGetCount() == 1:
            return pynvml.nvmlDeviceGetHandleByIndex(0)
        raise RuntimeError("which of the GPUs this is cannot be told")

    def read(self):
        """None without NVML; a value that cannot be read is left out."""
        if self.nvml is None:
            return None
        n, h, out = self.nvml, self.handle, {}

        def put(name, f):
            try:
                out[name] = f()
            except Exception:
                pass

        put("sm_clock_mhz", lambda: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM))
        put("memory_clock_mhz", lambda: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_MEM))
        put("temperature_c", lambda: n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU))
        put("power_mw", lambda: n.nvmlDeviceGetPowerUsage(h))
        put("throttle_reasons", self.reasons)
        put("memory_used_mib", lambda: n.nvmlDeviceGetMemoryInfo(h).used >> 20)
        return out

    def reasons(self):
        n = self.nvml
        read = getattr(n, "nvmlDeviceGetCurrentClocksEventReasons", None) or n.nvmlDeviceGetCurrentClocksThrottleReasons
        mask = read(self.handle)
        return [name for bit, name in REASONS.items() if mask & bit]

    def limits(self):
        if self.nvml is None:
            return {}
        n, h, out = self.nvml, self.handle, {}
        for name, f in (("power_limit_mw", lambda: n.nvmlDeviceGetEnforcedPowerLimit(h)),
                        ("max_sm_clock_mhz", lambda: n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM)),
                        ("driver", lambda: text(n.nvmlSystemGetDriverVersion())),
                        ("uuid", lambda: text(n.nvmlDeviceGetUUID(h)))):
            try:
                out[name] = f()
            except Exception:
                pass
        return out


def text(x):
    return x.decode() if isinstance(x, bytes) else str(x)
