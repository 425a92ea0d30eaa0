"""Check whether pretrained weights are on this machine, without downloading them."""

from pathlib import Path

from tlopt.spec.model_names import TIMM, split_width


def unfetched(backbone: str, weights: str) -> str:
    """The file or repository of named weights that would have to be downloaded, or "".

    Raises:
        SpecError, WeightsError, MissingExtra: as `sources.find_named`.
    """
    from tlopt.model import sources
    from tlopt.model.families.table import LITE0, check_name

    check_name(backbone)
    if weights == "none" or backbone == LITE0 or split_width(backbone)[1] != 1:
        return ""
    label = sources.find_named(backbone, weights).label
    return (
        _unfetched_timm(backbone, label) if backbone.startswith(TIMM) else _unfetched_torch(backbone, label)
    )


def megabytes(backbone: str) -> int:
    """The approximate size of a backbone's weights in MB."""
    from tlopt.model.families.table import skeleton

    net = skeleton(backbone).net
    return round(sum(tensor.numel() * tensor.element_size() for tensor in net.parameters()) / 1e6)


def _unfetched_torch(backbone: str, label: str) -> str:
    import torchvision

    return _unfetched_url(torchvision.models.get_model_weights(backbone)[label].url)


def _unfetched_url(url: str) -> str:
    import torch

    name = url.rpartition("/")[2]
    return "" if (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file() else name


def _unfetched_timm(backbone: str, label: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    from tlopt.model.families.table import import_timm

    name = backbone.removeprefix(TIMM) + (f".{label}" if label else "")
    config = import_timm(backbone).get_pretrained_cfg(name)
    if not config.hf_hub_id:
        return _unfetched_url(config.url)
    repository, _, revision = config.hf_hub_id.partition("@")
    usual = ("model.safetensors", "pytorch_model.bin")
    names = (config.hf_hub_filename,) if config.hf_hub_filename else usual
    found = [try_to_load_from_cache(repository, name, revision=revision or None) for name in names]
    return "" if any(isinstance(path, str) for path in found) else repository
