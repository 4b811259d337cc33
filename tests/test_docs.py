"""What the pages claim exists: commands, flags, files, anchors, Python names; and the made files are as made."""

import ast
import importlib.util
import inspect
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

import automl
from automl.cli.main import app
from automl.spec import StudySpec

ROOT = Path(__file__).parents[1]
GUIDES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDES, "CONTRIBUTING.md", "CHANGELOG.md", "studies/benchmarks/README.md"]
CURRENT = [page for page in PAGES if page != "CHANGELOG.md"]
"""The pages that describe the program as it is; a changelog names what is gone, too."""
COMMAND = typer.main.get_command(app)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_blocks(page: str) -> str:
    return re.sub(r"^```.*?^```", "", text(page), flags=re.S | re.M)


def commands(page: str) -> list[str]:
    """Every `automl …` of a page's code blocks and inline code, without what a shell does around it."""
    # Written on the machine, not by hand: it may be cut short and hold anything.
    plain = re.sub(r"<!-- result:begin -->.*?<!-- result:end -->", "", text(page), flags=re.S)
    blocks = re.findall(r"^```sh\n(.*?)^```", plain, flags=re.S | re.M)
    blocks += re.findall(r"(?:^ {4}.+\n)+", plain, flags=re.M)
    rest = re.sub(r"^```.*?^```", "", plain, flags=re.S | re.M)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", rest)
    parts = [part.strip() for line in lines for part in re.split(r"&&|\||>|(?:^|\s)#", line)]
    return [part for part in parts if re.match(r"automl (?!x$)[a-z-]", part)]  # `automl x` is any command


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


def options(command) -> set[str]:
    own = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(options(inner) for inner in getattr(command, "commands", {}).values()))


def anchors(page: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", without_blocks(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def made_by(script: str):
    spec = importlib.util.spec_from_file_location(Path(script).stem, ROOT / script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("line", list(dict.fromkeys(line for page in CURRENT for line in commands(page))))
def test_a_command_in_the_pages_parses(line: str) -> None:
    parse(line)


@pytest.mark.parametrize(
    "line", ["automl search --gpu-memory 16GB", "automl find", "automl best a b", "automl space sow"]
)
def test_a_wrong_command_would_be_found(line: str) -> None:
    with pytest.raises(Exception, match=r"[Nn]o such|no command|unexpected"):
        parse(line)


def test_the_readme_has_many_commands_and_few_lines() -> None:
    assert len(commands("README.md")) > 12
    assert len(text("README.md").splitlines()) <= 200


@pytest.mark.parametrize("page", [*GUIDES, "CONTRIBUTING.md"])
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
    broken = []
    for target in re.findall(r"\]\(([^)]+)\)", text(page)):
        if not target.startswith(("https://", "http://")):
            name, _, anchor = target.partition("#")
            file = ((ROOT / page).parent / name).resolve() if name else ROOT / page
            if not file.exists() or (anchor and anchor not in anchors(str(file.relative_to(ROOT)))):
                broken.append(target)
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)", text("docs/index.md")))
    assert linked == {Path(page).name for page in GUIDES[1:]} - {"index.md"}


@pytest.mark.parametrize("page", CURRENT)
def test_files_that_are_named_exist(page: str) -> None:
    named = re.findall(r"`((?:automl|docs|tests|studies|search_spaces)/[\w./-]*|\w+\.toml)`", text(page))
    named += re.findall(r"python ((?:studies|tests)/[\w./-]+)", text(page))
    named = [name for name in named if Path(name).stem not in ("x", "name")]  # whatever a new one is called
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [page for page in GUIDES if "```python" in text(page)])
def test_python_in_the_pages_calls_what_is_public(page: str) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", text(page), flags=re.S | re.M):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "automl":
                assert node.attr in automl.__all__
            if isinstance(node, ast.Call) and re.fullmatch(r"automl\.\w+", ast.unparse(node.func)):
                known = inspect.signature(getattr(automl, node.func.attr)).parameters
                extra = set(StudySpec.model_fields) if "overrides" in known else set()
                assert {word.arg for word in node.keywords} <= set(known) | extra


def test_the_reference_is_as_its_script_makes_it() -> None:
    assert made_by("studies/reference.py").render_reference() == text("docs/reference.md")


def test_the_objects_are_as_their_script_writes_them() -> None:
    assert made_by("studies/agents.py").render_page() == text("docs/agents.md")


def test_the_picture_is_as_its_script_draws_it() -> None:
    picture = made_by("studies/benchmarks/search_picture.py")
    assert picture.draw(picture.read_curves(text("docs/figures.md"))) == text("docs/search.svg")


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("README.md", "result"),
        ("README.md", "figures"),
        ("docs/figures.md", "figures"),
        ("studies/benchmarks/README.md", "figures"),
    ],
)
def test_the_blocks_that_measurements_fill_are_marked(page: str, name: str) -> None:
    assert re.search(rf"<!-- {name}:begin -->\n.*<!-- {name}:end -->", text(page), flags=re.S)


@pytest.mark.parametrize("page", GUIDES)
def test_files_to_paste_have_no_mistakes_of_syntax(page: str) -> None:
    for script in re.findall(r"^```bash\n(.*?)^```", text(page), flags=re.S | re.M):
        assert script.startswith("#!/bin/bash\n")
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    for document in re.findall(r"^```yaml\n(.*?)^```", text(page), flags=re.S | re.M):
        assert isinstance(yaml.safe_load(document), dict)


@pytest.mark.parametrize("page", ["docs/slurm.md", "docs/kubernetes.md"])
def test_commands_of_clusters_parse(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOML_STORAGE", "postgresql://host/db")
    scripts = re.findall(r"^```bash\n(.*?)^```", text(page), flags=re.S | re.M)
    lines = [re.search(r"exec (automl .*)", script.replace("\\\n", ""))[1] for script in scripts]
    documents = [yaml.safe_load(one) for one in re.findall(r"^```yaml\n(.*?)^```", text(page), flags=re.S | re.M)]
    for job in (document for document in documents if document["kind"] == "Job"):
        (container,) = job["spec"]["template"]["spec"]["containers"]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
        lines.append(shlex.join(["automl", *container["args"]]))
    assert len(lines) == 2
    for line in lines:
        parse(line)


def test_ci_can_be_run() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)
