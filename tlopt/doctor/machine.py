"""Check this machine: Python, packages, torch, devices, cores and environment."""

import difflib
import importlib.metadata
import os
import platform
import subprocess
import warnings
from collections.abc import Generator
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

from tlopt.doctor.finding import Finding, Findings
from tlopt.system.cpus import n_cores

if TYPE_CHECKING:
    import torch

KNOWN_VARIABLES = (
    "TLOPT_CACHE",
    "TLOPT_CACHE_GB_MAX",
    "TLOPT_CHECKPOINTS",
    "TLOPT_DASHBOARD_LOGIN_FILE",
    "TLOPT_DETERMINISTIC",
    "TLOPT_HEARTBEAT_FILE",
    "TLOPT_STORAGE",
    "TLOPT_STORAGE_FILE",
)
GIB = 2**30
GPU_NOTE_BYTES = 2 * GIB  # a ResNet-50 at batch 32 and 224 pixels takes about 3 GiB


def python() -> Findings:
    """Findings on the interpreter and on the packages that tlopt needs."""
    version = importlib.metadata.version("tlopt")
    yield Finding("ok", "python", f"{platform.python_version()}, tlopt {version}, {platform.platform()}")
    for wanted, installed in unmet("tlopt"):
        yield Finding(
            "problem",
            "packages",
            f"tlopt needs {wanted}, here is {installed or 'none'}",
            f"pip install '{wanted}'",
        )


def unmet(package: str) -> list[tuple[Requirement, str | None]]:
    """The unmet requirements of `package`, extras aside, each with the installed version or None."""
    wanted = map(Requirement, importlib.metadata.requires(package) or ())
    needed = [r for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    there = [(r, _version(r.name)) for r in needed]
    return [(r, v) for r, v in there if v is None or not r.specifier.contains(v, prereleases=True)]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def torch_and_devices() -> Findings:
    """Findings on torch, and on the devices it can use."""
    if (yield from _torch_pair()):
        yield from _devices()


def _torch_pair() -> Generator[Finding, None, bool]:
    """Findings on torch and torchvision; returns whether they fit together and can be imported."""
    torch_version, vision_version = _version("torch"), _version("torchvision")
    if torch_version is None or vision_version is None:
        yield Finding("problem", "torch", "torch or torchvision is not installed", "pip install tlopt")
        return False
    shown = f"torch {torch_version}, torchvision {vision_version}"
    cure = f"install the two together: pip install --upgrade torch torchvision=={vision_version}"
    wanted = next((r for r, _ in unmet("torchvision") if r.name == "torch"), None)
    if wanted is not None:
        yield Finding("problem", "torch", f"{shown}, which wants {wanted}", cure)
        return False
    try:
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    # A pair that does not fit fails at its import: missing symbols, operators or another CUDA.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        yield Finding("problem", "torch", f"{shown} cannot be imported: {error}", cure)
        return False
    yield Finding("ok", "torch", f"{torch_version} with torchvision {vision_version}")
    return True


def _devices() -> Findings:
    """Findings on the GPUs: those that torch can use, or why it cannot."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        for index in range(torch.cuda.device_count()):
            yield _gpu(torch.device("cuda", index))
        return
    present = nvidia_smi()
    if present:
        yield _unused(present, torch.version.cuda or torch.version.hip, [str(w.message) for w in caught])
    elif torch.backends.mps.is_available():
        yield Finding("note", "device", "Apple's GPU; it is used only when asked for", "--device mps")
    elif torch.version.cuda:
        yield Finding(
            "note",
            "device",
            f"no GPU is seen, though torch is built for CUDA {torch.version.cuda}: trials run on the CPU",
            "where there is one, nvidia-smi has to list it; a container needs --gpus all, a batch job has"
            " to ask for a GPU",
        )
    else:
        yield Finding("ok", "device", "no GPU here: trials run on the CPU")


def nvidia_smi() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU as the driver sees it; empty without GPU or driver."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return said.stdout.strip().splitlines()


def _unused(present: list[str], built_for: str | None, torch_says: list[str]) -> Finding:
    """The finding that torch cannot use the GPUs `present`, and why."""
    detail = f"nvidia-smi lists {len(present)} GPU ({present[0]}), but "
    if not built_for:
        return Finding(
            "problem",
            "device",
            detail + "this torch is built for the CPU alone",
            "install torch and torchvision built for CUDA, both from the same place; pytorch.org, Get"
            " Started, has the command",
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return Finding(
            "note", "device", f"{detail}CUDA_VISIBLE_DEVICES={hidden} hides it", "unset CUDA_VISIBLE_DEVICES"
        )
    reason = f": {torch_says[0]}" if torch_says else ""
    return Finding(
        "problem",
        "device",
        f"{detail}torch, built for CUDA {built_for}, cannot use it{reason}",
        f"update the driver to one for CUDA {built_for}, or install a torch for an older CUDA",
    )


def _gpu(device: "torch.device") -> Finding:
    """The finding on one GPU, after a small computation on it."""
    import torch

    properties = torch.cuda.get_device_properties(device)
    name = f"{device} {properties.name}"
    try:
        free, total = torch.cuda.mem_get_info(device)
        torch.ones(64, 64, device=device).square().sum().item()
    except RuntimeError as error:  # memory taken by others, or no code for this generation in this torch
        return Finding(
            "problem",
            "device",
            f"{name} does not compute: {str(error).splitlines()[0]}",
            "see in nvidia-smi who has its memory; for 'no kernel image' install a torch that has code for"
            f" compute capability {properties.major}.{properties.minor}",
        )
    detail = f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, CUDA {torch.version.cuda}"
    if free < GPU_NOTE_BYTES:
        return Finding("note", "device", detail, "see in nvidia-smi who has its memory")
    return Finding("ok", "device", detail)


def cores() -> Findings:
    """The finding on the cores that this process may use."""
    n, whole = n_cores(), os.cpu_count() or 1
    limited = f" of the machine's {whole}: a container's quota or an affinity" if n < whole else ""
    yield Finding("ok", "cpu", f"{n} {'core' if n == 1 else 'cores'}{limited}")


def environment() -> Findings:
    """Findings on environment variables with tlopt's prefix; those that nothing reads are named."""
    ours = sorted(name for name in os.environ if name.startswith("TLOPT_"))
    unknown = [name for name in ours if name not in KNOWN_VARIABLES]
    yield from map(_unknown, unknown)
    if not unknown:
        yield Finding("ok", "environment", ", ".join(ours) or "no TLOPT_ variable is set")


def _unknown(name: str) -> Finding:
    close = difflib.get_close_matches(name, KNOWN_VARIABLES, n=1, cutoff=0.8)
    if close:
        return Finding("problem", "environment", f"nothing reads {name}", f"did you mean {close[0]}?")
    cure = f"the variables are {', '.join(KNOWN_VARIABLES)}"
    return Finding("note", "environment", f"nothing reads {name}", cure)
