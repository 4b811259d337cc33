"""What the pages say exists."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer

from automl.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "studies/benchmarks/README.md", "CHANGELOG.md", "docs/backbones.md")
COMMAND = typer.main.get_command(app)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """Every `automl …` of a page's code blocks and inline code, without what a shell does around it."""
    # Written on the machine, not by hand: it may be cut short and hold anything.
    plain = re.sub(r"<!-- result:begin -->.*?<!-- result:end -->", "", text(page), flags=re.S)
    blocks = re.findall(r"^```sh\n(.*?)^```", plain, flags=re.S | re.M)
    blocks += re.findall(r"(?:^ {4}.+\n)+", plain, flags=re.M)
    rest = re.sub(r"^```.*?^```", "", plain, flags=re.S | re.M)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", rest)
    parts = [part.strip() for line in lines for part in re.split(r"&&|\||>|(?:^|\s)#", line)]
    return [part for part in parts if re.match(r"automl [a-z-]", part)]


def parse(line: str) -> None:
    """Parses a command line as the program would, without doing anything."""
    words = shlex.split(line)[1:]
    command, name = COMMAND, "automl"
    while words and words[0] in getattr(command, "commands", {}):
        name = words.pop(0)
        command = command.commands[name]
    assert not hasattr(command, "commands") or words in ([], ["--help"], ["--version"]), f"no command in: {line}"
    if not hasattr(command, "commands") and words:
        command.make_context(name, words)


def all_commands() -> list[str]:
    return [line for page in PAGES for line in commands(page)]


def options(command) -> set[str]:
    own = {flag for parameter in command.params for flag in parameter.opts}
    return own.union(*(options(inner) for inner in getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("line", all_commands())
def test_a_command_in_the_pages_parses(line: str) -> None:
    parse(line)


@pytest.mark.parametrize(
    "line", ["automl search --gpu-memory 16GB", "automl find", "automl best a b", "automl space sow"]
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises(Exception, match=r"[Nn]o such|no command|unexpected"):
        parse(line)


def test_the_readme_has_many_commands() -> None:
    assert len(commands("README.md")) > 12


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_flags_in_running_text_exist(page: str) -> None:
    known = options(COMMAND)
    named = {flag for code in re.findall(r"`(--[^`\n]+)`", text(page)) for flag in re.findall(r"--[a-z-]+", code)}
    assert named <= known


def test_the_readme_has_the_two_commands_on_its_first_screen() -> None:
    first = "\n".join(re.sub(r" +", " ", line) for line in text("README.md").splitlines())
    runs = first.index("pip install -e . && automl search --gpu-mem 16GB --trials 50 # runs the main job")
    tests = first.index("pip install -e '.[dev]' && pytest # passes the tests")
    assert runs < tests < first.index("\n## ")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", text(page))
    local = [target for target in targets if not target.startswith(("https://", "http://"))]
    assert [target for target in local if not ((ROOT / page).parent / target).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(page: str) -> None:
    named = re.findall(r"`((?:automl|tests|studies|search_spaces)/[\w./-]*|\w+\.(?:md|toml))`", text(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("block", re.findall(r"^```python\n(.*?)^```", text("README.md"), flags=re.S | re.M))
def test_python_in_the_readme_compiles(block: str) -> None:
    compile(block, "README.md", "exec")


def test_the_blocks_that_measurements_fill_are_marked() -> None:
    for page, name in (("README.md", "result"), ("README.md", "figures"), ("studies/benchmarks/README.md", "figures")):
        assert re.search(rf"<!-- {name}:begin -->\n.*<!-- {name}:end -->", text(page), flags=re.S)


def test_the_changelog_has_a_place_for_what_is_new() -> None:
    assert re.search(r"^## \[Unreleased\]$", text("CHANGELOG.md"), flags=re.M)


def test_ci_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "set -euo pipefail" in script.read_text(encoding="utf-8")


def test_hooks_need_no_other_host() -> None:
    import yaml

    repositories = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = {hook["entry"].split(" --")[0] for repository in repositories for hook in repository["hooks"]}
    ci = text(".ci/run")
    assert hooks == {"ruff format", "ruff check", "mypy", "lint-imports"}
    assert all(hook in ci for hook in hooks)
