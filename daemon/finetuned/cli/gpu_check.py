"""The doctor's look at the GPUs: by NVML if a driver is loaded, else on the bus."""

from __future__ import annotations

from pathlib import Path

from finetuned.cli.checks import DISPLAY_CLASS, NVIDIA_VENDOR, fail, ok
from finetuned.cli.shapes import Check
from finetuned.machine.devices import Nvml

PCI = Path("/sys/bus/pci/devices")


def gpus(nvml: Nvml | None, bus: Path = PCI) -> Check:
    """Whether the GPUs that are there can be used."""
    if nvml is None:
        if found := on_bus(bus):
            return fail(
                "gpu",
                f"{found} NVIDIA GPU{'s are' if found > 1 else ' is'} there, and no driver is loaded.",
                "Install NVIDIA's driver, or `modprobe nvidia`; in a container, pass the GPUs in (--gpus all).",
            )
        return ok("gpu", "There is no NVIDIA GPU: jobs run on the CPU.")
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return fail(
            "gpu", f"NVML does not start: {error}.", "After an update of the driver a reboot puts this right."
        )
    try:
        count = nvml.nvmlDeviceGetCount()
        names = [nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)]
    except nvml.NVMLError as error:
        return fail(
            "gpu", f"A GPU does not answer: {error}.", "`nvidia-smi -q` and the kernel's log say more."
        )
    finally:
        nvml.nvmlShutdown()
    return ok("gpu", ", ".join(names) or "The driver finds none.")


def on_bus(bus: Path = PCI) -> int:
    """How many NVIDIA GPUs the PCI bus shows."""
    return sum(
        _text(device / "vendor") == NVIDIA_VENDOR and _text(device / "class").startswith(DISPLAY_CLASS)
        for device in (bus.iterdir() if bus.is_dir() else ())
    )


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
