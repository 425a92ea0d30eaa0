"""The form of the scripts in findings/. None is run, because that installs packages and takes minutes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FINDINGS = Path(__file__).resolve().parents[1] / "findings"
SCRIPTS = sorted(FINDINGS.glob("*.sh"))
README = (FINDINGS / "README.md").read_text(encoding="utf-8")
UPSTREAM = re.compile(r"https://github\.com/[\w-]+/[\w-]+/(issues|pull)/\d+")

each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def header(script: Path) -> dict[str, str]:
    """The comment at a script's top by its words; "" is the sentence that it opens with."""
    lines = script.read_text(encoding="utf-8").splitlines()
    comment = lines[1 : lines.index("set -euo pipefail")]
    fields = {"": comment[0].removeprefix("# ")}
    word = ""
    for line in comment[1:]:
        if found := re.fullmatch(r"# (\w[\w ]*): +(.*)", line):
            word, text = found.groups()
            fields[word] = text
        else:
            fields[word] += " " + line.removeprefix("#").strip()
    return {word: text.strip() for word, text in fields.items()}


def test_the_readme_lists_every_script_and_no_other() -> None:
    listed = re.findall(r"^\| \[`([\w-]+)`\]\(([\w-]+\.sh)\) \|", README, re.MULTILINE)

    assert SCRIPTS
    assert all(f"{name}.sh" == file for name, file in listed)
    assert sorted(file for _, file in listed) == [script.name for script in SCRIPTS]


def test_findings_holds_scripts_and_their_list_alone() -> None:
    assert {path.name for path in FINDINGS.iterdir()} == {"README.md", *(script.name for script in SCRIPTS)}


@each_script
def test_a_script_is_executable_and_bash_can_read_it(script: Path) -> None:
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n# ")
    subprocess.run(["bash", "-n", str(script)], check=True, timeout=60)


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = shutil.which(
        "shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if shellcheck is None:
        pytest.skip("shellcheck comes with tlopt[dev]")
    found = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True, check=False, timeout=120)

    assert (found.returncode, found.stdout) == (0, "")


@each_script
def test_a_header_says_what_with_which_version_was_seen_why_and_what_to_do(script: Path) -> None:
    fields = header(script)

    assert fields[""].endswith(".")
    assert set(fields) - {"Upstream"} == {"", "Version", "Seen", "Why it surprises", "What to do"}
    assert fields["Seen"].startswith("observed: ")


@each_script
def test_every_package_has_one_version(script: Path) -> None:
    installs = re.findall(
        r"pip\" install --quiet((?: +\\\n +| +'[^'\n]+')+)\n", script.read_text(encoding="utf-8")
    )
    packages = [package for install in installs for package in re.findall(r"'([^']+)'", install)]

    assert packages
    assert len(installs) == len(re.findall(r"\bpip3?\b.* install", script.read_text(encoding="utf-8")))
    assert [package for package in packages if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*", package)] == []
    assert "tlopt" not in script.read_text(encoding="utf-8")


@each_script
def test_a_script_leaves_nothing_behind_and_has_an_environment_of_its_own(script: Path) -> None:
    text = script.read_text(encoding="utf-8")

    assert "work=$(mktemp -d)\ntrap 'rm -rf \"$work\"' EXIT\n" in text
    assert re.findall(r"^\s*(?:python|pip).*", text, re.MULTILINE) == ['python3 -m venv "$work/venv"']


@each_script
def test_a_script_names_no_host_but_that_of_an_upstream_thread(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    threads = header(script).get("Upstream", "")

    assert threads == "" or UPSTREAM.match(threads)
    assert [
        url for url in re.findall(r"\w+://[a-z][^\s)\"']+\.[a-z]\S*", text) if not UPSTREAM.match(url)
    ] == []
    assert re.findall(r"--(?:extra-)?index-url|--find-links|--trusted-host", text) == []


@each_script
def test_a_script_fails_with_a_sentence_where_the_behaviour_has_changed(script: Path) -> None:
    text = script.read_text(encoding="utf-8")

    assert re.search(r"""sys\.exit\(f?["']changed: [^"'\n].*\.["']\)""", text)
    assert "expected: " in text
    assert "observed: " in text


def test_ci_runs_none_of_them() -> None:
    root = FINDINGS.parent
    rules = [root / "Makefile", *(root / ".ci").rglob("*"), *(root / ".github" / "workflows").rglob("*")]
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in rules
        if path.is_file() and path.suffix != ".pyc"
    }

    assert "ci.yml" in texts
    assert [name for name, text in texts.items() if "findings/" in text] == []
