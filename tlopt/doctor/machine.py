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
    """Findings on Python and on the packages that tlopt requires."""
    version = importlib.metadata.version("tlopt")
    yield Finding("ok", "python", f"{platform.python_version()}, tlopt {version}, {platform.platform()}")
    for wanted, installed in unmet_requirements("tlopt"):
        yield Finding(
            "problem",
            "packages",
            f"tlopt requires {wanted}; installed is {installed or 'none'}",
            f"pip install '{wanted}'",
        )


def unmet_requirements(package: str) -> list[tuple[Requirement, str | None]]:
    """The unmet requirements of `package` without extras, each with the installed version or None."""
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
    """Findings on torch and on the devices that it can use."""
    if (yield from _torch_pair()):
        yield from _devices()


def _torch_pair() -> Generator[Finding, None, bool]:
    """Yield findings on torch and torchvision; return whether they are compatible and can be imported."""
    torch_version, vision_version = _version("torch"), _version("torchvision")
    if torch_version is None or vision_version is None:
        yield Finding("problem", "torch", "torch or torchvision is not installed", "pip install tlopt")
        return False
    versions = f"torch {torch_version}, torchvision {vision_version}"
    cure = f"install both together: pip install --upgrade torch torchvision=={vision_version}"
    wanted = next((r for r, _ in unmet_requirements("torchvision") if r.name == "torch"), None)
    if wanted is not None:
        yield Finding("problem", "torch", f"{versions}, which requires {wanted}", cure)
        return False
    try:
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    # Incompatible versions fail on import: missing symbols or operators, another CUDA.
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        yield Finding("problem", "torch", f"{versions} cannot be imported: {error}", cure)
        return False
    yield Finding("ok", "torch", f"{torch_version} with torchvision {vision_version}")
    return True


def _devices() -> Findings:
    """Findings on the GPUs that torch can use, or on why it can use none."""
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
        yield Finding("note", "device", "Apple's GPU, which is used only on request", "--device mps")
    elif torch.version.cuda:
        yield Finding(
            "note",
            "device",
            f"torch is built for CUDA {torch.version.cuda}, but no GPU was found: trials run on the CPU",
            "if there is one, nvidia-smi must list it; a container needs --gpus all, a batch job must"
            " request a GPU",
        )
    else:
        yield Finding("ok", "device", "no GPU: trials run on the CPU")


def nvidia_smi() -> list[str]:
    """Name, memory and driver of each NVIDIA GPU, from nvidia-smi; empty without GPU or driver."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return said.stdout.strip().splitlines()


def _unused(present: list[str], built_for: str | None, torch_says: list[str]) -> Finding:
    """The finding on why torch cannot use the GPUs `present`."""
    detail = f"nvidia-smi lists {len(present)} GPU ({present[0]}), but "
    if not built_for:
        return Finding(
            "problem",
            "device",
            detail + "this torch is built for the CPU only",
            "install torch and torchvision built for CUDA, both from the same index; for the command see"
            " pytorch.org, Get Started",
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
    except RuntimeError as error:  # memory used by others, or no kernels for this GPU
        return Finding(
            "problem",
            "device",
            f"{name} cannot compute: {str(error).splitlines()[0]}",
            "check in nvidia-smi what uses its memory; for 'no kernel image' install a torch with support for"
            f" compute capability {properties.major}.{properties.minor}",
        )
    detail = f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, CUDA {torch.version.cuda}"
    if free < GPU_NOTE_BYTES:
        return Finding("note", "device", detail, "check in nvidia-smi what uses its memory")
    return Finding("ok", "device", detail)


def cores() -> Findings:
    """The finding on the CPU cores that this process may use."""
    n, whole = n_cores(), os.cpu_count() or 1
    limited = f" of {whole}, limited by a container's quota or by CPU affinity" if n < whole else ""
    yield Finding("ok", "cpu", f"{n} {'core' if n == 1 else 'cores'}{limited}")


def environment() -> Findings:
    """Findings on environment variables with the prefix TLOPT_, unknown ones in particular."""
    ours = sorted(name for name in os.environ if name.startswith("TLOPT_"))
    unknown = [name for name in ours if name not in KNOWN_VARIABLES]
    yield from map(_unknown, unknown)
    if not unknown:
        yield Finding("ok", "environment", ", ".join(ours) or "no TLOPT_ variable is set")


def _unknown(name: str) -> Finding:
    similar = difflib.get_close_matches(name, KNOWN_VARIABLES, n=1, cutoff=0.8)
    if similar:
        return Finding("problem", "environment", f"unknown variable {name}", f"did you mean {similar[0]}?")
    cure = f"known variables: {', '.join(KNOWN_VARIABLES)}"
    return Finding("note", "environment", f"unknown variable {name}", cure)
