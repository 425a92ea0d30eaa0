"""Planted machines: incompatible packages, unusable GPUs, unknown environment variables."""

import importlib.metadata
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from looked import problem, problems

import tlopt
from tlopt.doctor import machine
from tlopt.doctor.finding import Finding

SOURCE = Path(tlopt.__file__).parent
GIB = 2**30

Plant = Callable[..., None]


@pytest.fixture
def plant_packages(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """`plant_packages({"optuna": "4.0.0"}, torchvision=["torch==2.9.0"])`: other versions, other needs."""

    def plant(versions: dict[str, str | None], **needs: list[str]) -> None:
        version, requires = importlib.metadata.version, importlib.metadata.requires

        def planted_version(name: str) -> str:
            found = versions.get(name, "") or (None if name in versions else version(name))
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(importlib.metadata, "version", planted_version)
        monkeypatch.setattr(
            importlib.metadata, "requires", lambda name: needs[name] if name in needs else requires(name)
        )

    return plant


# Packages


def test_this_environment_meets_the_requirements_of_tlopt() -> None:
    assert problems(machine.python()) == []


@pytest.mark.parametrize(
    ("installed", "told"),
    [("4.0.0", "installed is 4.0.0"), ("6.0.0", "installed is 6.0.0"), (None, "installed is none")],
)
def test_an_incompatible_package_is_named_with_the_command_to_repair_it(
    installed: str | None, told: str, plant_packages: Plant
) -> None:
    plant_packages({"optuna": installed}, tlopt=["optuna>=5.0,<6", "numpy>=1.26"])

    found = problem(machine.python())

    assert told in found.detail
    assert found.cure == "pip install 'optuna<6,>=5.0'"


def test_packages_of_extras_and_of_other_systems_may_be_absent(plant_packages: Plant) -> None:
    needs = ['absent-one>=1; extra == "onnx"', "absent-two; sys_platform == 'planted'", "numpy"]
    plant_packages({}, tlopt=needs)

    assert problems(machine.python()) == []


@pytest.mark.parametrize("version", ["5.1.0.dev0", "5.1.0rc1", "5.0.0+local"])
def test_development_versions_are_compared_as_such(version: str, plant_packages: Plant) -> None:
    plant_packages({"optuna": version}, tlopt=["optuna>=5.0,<6"])

    assert problems(machine.python()) == []


# torch


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_without_torch_or_torchvision_devices_are_not_checked(package: str, plant_packages: Plant) -> None:
    plant_packages({package: None})

    (found,) = machine.torch_and_devices()

    assert found == Finding("problem", "torch", "torch or torchvision is not installed", "pip install tlopt")


def test_a_torchvision_for_another_torch_is_reported_before_any_import(
    plant_packages: Plant,
) -> None:
    plant_packages({"torch": "2.10.0+cpu", "torchvision": "0.24.0"}, torchvision=["numpy", "torch==2.9.0"])

    (found,) = machine.torch_and_devices()

    assert found.detail == "torch 2.10.0+cpu, torchvision 0.24.0, which requires torch==2.9.0"
    assert found.cure.endswith("pip install --upgrade torch torchvision==0.24.0")


def test_a_local_version_of_the_required_torch_is_accepted(plant_packages: Plant) -> None:
    plant_packages({"torch": "2.9.0+cu128"}, torchvision=["torch==2.9.0"])

    assert next(machine.torch_and_devices()).level == "ok"


def test_torch_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)

    found = problem(machine.torch_and_devices())

    assert "cannot be imported" in found.detail
    assert "install both together" in found.cure


# Devices


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(machine, "nvidia_smi", list)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def device() -> Finding:
    (found,) = [finding for finding in machine.torch_and_devices() if finding.title == "device"]
    return found


@pytest.mark.usefixtures("_no_gpu")
def test_a_missing_gpu_is_a_note_that_says_how_to_use_one() -> None:
    found = device()

    assert found.level == "note"
    assert "CUDA 12.8" in found.detail
    assert "--gpus all" in found.cure


@pytest.mark.usefixtures("_no_gpu")
def test_a_torch_for_the_cpu_on_a_machine_without_gpu_is_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)

    assert device() == Finding("ok", "device", "no GPU: trials run on the CPU")


@pytest.mark.usefixtures("_no_gpu")
def test_a_gpu_with_a_torch_for_the_cpu_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvidia_smi", lambda: ["Planted 9000, 24576 MiB, 570.1"] * 2)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)

    found = device()

    assert found.level == "problem"
    assert "2 GPU (Planted 9000, 24576 MiB, 570.1), but this torch is built for the CPU only" in found.detail
    assert "pytorch.org" in found.cure


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("value", ["", "-1"])
def test_a_hidden_gpu_is_distinguished_from_a_broken_one(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "nvidia_smi", lambda: ["Planted 9000"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)

    found = device()

    assert (found.level, found.cure) == ("note", "unset CUDA_VISIBLE_DEVICES")


@pytest.mark.usefixtures("_no_gpu")
def test_the_warning_of_torch_on_an_unusable_gpu_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old (found version 11040).", stacklevel=1)
        return False

    monkeypatch.setattr(machine, "nvidia_smi", lambda: ["Planted 9000"])
    monkeypatch.setattr(torch.cuda, "is_available", is_available)

    found = device()

    assert found.level == "problem"
    assert found.detail.endswith("too old (found version 11040).")
    assert "driver to one for CUDA 12.8" in found.cure


@pytest.fixture
def plant_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`plant_gpu(free_bytes)`: torch has one GPU of 16 GiB, which computes."""

    def plant(free_bytes: int) -> None:
        properties = SimpleNamespace(name="Planted 9000", major=7, minor=5)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_bytes, 16 * GIB))
        ones = torch.ones
        monkeypatch.setattr(torch, "ones", lambda *size, device: ones(*size))

    return plant


@pytest.mark.parametrize(("free_gib", "level"), [(16.0, "ok"), (2.5, "ok"), (1.5, "note")])
def test_a_gpu_is_ok_if_it_computes_and_has_free_memory(
    free_gib: float, level: str, plant_gpu: Callable[[int], None]
) -> None:
    plant_gpu(int(free_gib * GIB))

    found = device()

    assert found.level == level
    assert f"cuda:0 Planted 9000, {free_gib} of 16.0 GiB free" in found.detail


def test_a_gpu_without_kernels_in_torch_is_a_problem(
    plant_gpu: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_gpu(16 * GIB)

    def ones(*size: int, device: torch.device) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution\nmore lines")

    monkeypatch.setattr(torch, "ones", ones)

    found = device()

    assert found.level == "problem"
    assert found.detail.endswith("cannot compute: CUDA error: no kernel image is available for execution")
    assert found.cure.endswith("compute capability 7.5")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_real_gpu_computes() -> None:
    assert "GiB free" in device().detail


def plant_program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_every_gpu_that_the_driver_lists_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_program(tmp_path, "echo 'A, 1 MiB, 5'; echo 'B, 2 MiB, 5'", monkeypatch)

    assert machine.nvidia_smi() == ["A, 1 MiB, 5", "B, 2 MiB, 5"]


def test_a_driver_that_fails_lists_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_program(tmp_path, "echo 'NVIDIA-SMI has failed'; exit 9", monkeypatch)

    assert machine.nvidia_smi() == []


def test_without_the_driver_there_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert machine.nvidia_smi() == []


@pytest.mark.parametrize(
    ("n", "text"),
    [(8, "8 cores"), (1, "1 core of 8, limited by a container's quota or by CPU affinity")],
)
def test_fewer_cores_than_the_machine_has_are_explained(
    n: int, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(machine, "n_cores", lambda: n)

    assert list(machine.cores()) == [Finding("ok", "cpu", text)]


# Environment


def test_an_environment_without_variables_is_ok() -> None:
    # one is set for every test
    assert list(machine.environment()) == [Finding("ok", "environment", "TLOPT_CACHE")]


def test_values_of_variables_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOPT_STORAGE", "postgresql://me:topsecret@host/x")

    assert list(machine.environment()) == [Finding("ok", "environment", "TLOPT_CACHE, TLOPT_STORAGE")]


@pytest.mark.parametrize("name", ["TLOPT_STORAG", "TLOPT_STORAGE_URL", "TLOPT_CHECKPOINT", "TLOPT_CACHE_"])
def test_a_misspelt_variable_is_a_problem_that_names_the_right_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")

    found = problem(machine.environment())

    assert name in found.detail
    assert re.fullmatch(r"did you mean TLOPT_(STORAGE|CHECKPOINTS|CACHE)\?", found.cure)


def test_the_note_on_an_unknown_variable_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLOPT_WORKERS_PER_GPU", "x")

    (found,) = machine.environment()

    assert found.level == "note"
    assert all(name in found.cure for name in machine.KNOWN_VARIABLES)


def test_every_variable_that_the_package_reads_is_known() -> None:
    files = [file for file in SOURCE.rglob("*.py") if "doctor" not in file.parts]
    named = {name for file in files for name in re.findall(r"\bTLOPT_[A-Z_]+\b", file.read_text())}

    assert "TLOPT_STORAGE" in named
    assert named - set(machine.KNOWN_VARIABLES) == set()
