"""Source networks by their relation to a target, and the grid of each.

    python -m benchmarks.relation.sources DATA OUT

`DATA` has the sets fashion10 and signdigits, each with the folders train and test. The target is five classes
of clothes from fashion10/train. Each source has 500 images of five classes, from test folders, which the
grids never read. `OUT` receives the images, the export of each source network (studies/source.toml) and a
grid NAME.toml for each (studies/relation.toml); what is there is kept. Then:

    for file in OUT/*.toml; do tlopt run "$file"; done
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tlopt
from benchmarks.relation.images import copy_images

TARGET = ("coat", "dress", "pullover", "shirt", "tshirt")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The images of a source network."""

    data: str = "fashion10"
    classes: tuple[str, ...] = TARGET
    noise: float = 0.0


SOURCES = {
    "same": Source(),
    "shares-3": Source(classes=(*TARGET[:3], "bag", "sneaker")),
    "shares-0": Source(classes=("ankleboot", "bag", "sandal", "sneaker", "trouser")),
    "noise-0.3": Source(noise=0.3),
    "noise-1": Source(noise=1.0),
    "signs": Source(data="signdigits", classes=("0", "1", "2", "3", "4")),
}


def with_values(study: Path, values: Mapping[str, str]) -> str:
    """The text of a study file with other strings for these keys, each of which it has once."""
    text = study.read_text(encoding="utf-8")
    for key, value in values.items():
        text, n = re.subn(rf'^{key} = ".*?"', f'{key} = "{value}"', text, flags=re.MULTILINE)
        assert n == 1, f"{study} has {key} once"
    return text


def make(name: str, source: Source, data: Path, out: Path) -> None:
    """Train a source network and write the grid that starts from it; skipped if it is there."""
    weights, target = out / name / "weights.safetensors", out / "images" / "target"
    if not weights.exists():
        images = copy_images(
            data / source.data / "test", out / "images" / name, classes=source.classes, noise=source.noise
        )
        config = out / "images" / f"{name}.toml"
        config.write_text(with_values(Path("studies/source.toml"), {"name": name, "source": str(images)}))
        tlopt.train(config, out / name)
    values = {"name": name, "source": str(target), "weights": str(weights)}
    (out / f"{name}.toml").write_text(with_values(Path("studies/relation.toml"), values))


def main(arguments: Sequence[str]) -> None:
    """Make the target, and a source network and a grid for each relation."""
    data, out = map(Path, arguments)
    copy_images(data / "fashion10" / "train", out / "images" / "target", classes=TARGET)
    for name, source in SOURCES.items():
        make(name, source, data, out.absolute())
        print(out / f"{name}.toml", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
