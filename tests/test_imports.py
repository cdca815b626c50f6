"""The table "who may import whom", read off the sources: every import, wherever in a file it stands."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

BASE = {"errors", "config", "streams", "audio", "intervals", "device"}
MODELS = {"codec", "semantic", "lm", "detector", "watermark"}
PIPELINE = {"pipeline", "request", "receipt", "events", "stages", "growing", "slots", "streaming", "outputs"}
VERSION = {"__init__"}  # audiolm/__init__.py holds a docstring, the version and lazy names

MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    **{part: BASE for part in BASE},
    "nn": BASE,
    **{part: BASE | {"nn"} for part in MODELS},
    "checkpoints": BASE | {"nn"} | MODELS,
    **{part: BASE | MODELS | {"checkpoints"} | PIPELINE | VERSION for part in PIPELINE},
    "data": BASE,
    "training": BASE | {"nn"} | MODELS | {"checkpoints", "data", "stages", "receipt"},
    "inspection": BASE | MODELS | {"checkpoints"} | PIPELINE,
    "evaluation": BASE | {"checkpoints", "data", "inspection"} | PIPELINE,
    "benchmark": BASE | {"nn"} | MODELS | {"checkpoints"} | PIPELINE,
    "cli": BASE | MODELS | {"checkpoints", "evaluation", "inspection"} | PIPELINE | VERSION,
    "__main__": {"cli"},
    "app": BASE | {"checkpoints", "evaluation", "inspection"} | PIPELINE | VERSION,
}
# Values that cross the application boundary may be named where they are defined.
APP_MAY_NAME = {
    "audiolm.detector.Verdict",
    "audiolm.watermark.MarkResult",
    "audiolm.watermark.NAME",  # a study marks recordings too, which no run of the pipeline does
    "audiolm.watermark.mark",
}
HOMES = {
    "gradio": ("app/ui/", "app.py"),
    "sqlite3": ("app/study/",),
    "fastapi": ("app/study/routes.py",),
    "statsmodels": ("app/study/",),
    "huggingface_hub": ("audiolm/checkpoints/hub.py",),
    "soundfile": ("audiolm/audio/decoding.py", "audiolm/data/", "audiolm/evaluation/degradations.py"),
    "perth": (),  # its package needs what is not installed: audiolm/watermark/network.py finds its network
    "numba": ("audiolm/lm/kernels.py",),
    "llvmlite": ("audiolm/lm/kernels.py",),
    "librosa": ("audiolm/inspection/", "audiolm/evaluation/", "app/"),
}
NOWHERE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
TENSORS_ALONE = "audiolm/watermark/network.py"  # reads another project's pickle: of a known hash, with weights_only
LIGHT = ("audiolm/__init__.py", "audiolm/audio/__init__.py", "audiolm/data/__init__.py")


@dataclass(frozen=True)
class Import:
    """`names` are what a from-import takes out of `module`; `level` > 0 is a relative import."""

    path: str
    line: int
    module: str
    names: tuple[str, ...]
    level: int

    def targets(self) -> Iterator[str]:
        """Every module or value this may refer to, in full."""
        if not self.names:
            yield self.module
        for name in self.names:
            yield f"{self.module}.{name}"

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {', '.join(self.targets())}"


def sources(*folders: str) -> list[str]:
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def imports_of(path: str) -> list[Import]:
    found = []
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"), path)):
        if isinstance(node, ast.Import):
            found += [Import(path, node.lineno, alias.name, (), 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append(Import(path, node.lineno, node.module or "", names, node.level))
    return found


SOURCES = [*sources("audiolm", "app"), *(["app.py"] if (ROOT / "app.py").exists() else [])]
IMPORTS = [found for path in SOURCES for found in imports_of(path)]


def part_of(path: str) -> str:
    """audiolm/lm/decode.py -> lm; audiolm/pipeline.py -> pipeline; anything of the application -> app."""
    pieces = path.removesuffix(".py").split("/")
    return pieces[1] if pieces[0] == "audiolm" else "app"


def imported_parts(found: Import) -> set[str]:
    """The parts of audiolm an import reaches into; `from audiolm import x` names a part, or the root."""
    parts = set()
    for target in found.targets():
        pieces = target.split(".")
        if pieces[0] == "audiolm":
            exists = len(pieces) > 1 and any(
                (ROOT / "audiolm" / name).exists() for name in (pieces[1], f"{pieces[1]}.py")
            )
            parts.add(pieces[1] if exists else "__init__")
    return parts


def test_the_sources_are_found():
    assert len(SOURCES) > 20
    assert len(IMPORTS) > 100


@pytest.mark.parametrize("path", SOURCES)
def test_parts_import_only_what_the_table_allows(path):
    part = part_of(path)
    assert part in MAY_IMPORT, f"{path}: the table says nothing of {part}"
    allowed = MAY_IMPORT[part] | {part}
    for found in imports_of(path):
        if part == "app" and set(found.targets()) <= APP_MAY_NAME:
            continue
        assert imported_parts(found) <= allowed, f"{found}; {part} may import {sorted(allowed)}"


def test_audiolm_never_imports_the_application():
    for found in IMPORTS:
        if found.path.startswith("audiolm/"):
            assert found.module.split(".")[0] not in ("app", "tests"), str(found)


def test_imports_are_absolute():
    assert [str(found) for found in IMPORTS if found.level] == []


@pytest.mark.parametrize("package", HOMES)
def test_packages_are_imported_only_at_home(package):
    strays = [
        str(found)
        for found in IMPORTS
        if found.module.split(".")[0] == package and not found.path.startswith(HOMES[package])
    ]
    assert strays == []


def test_nothing_is_pickled():
    assert [str(found) for found in IMPORTS if found.module.split(".")[0] in NOWHERE] == []
    for path in SOURCES:
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                allowed = ("load",) if path == TENSORS_ALONE else ()
                assert node.attr not in {"load", "save"} - set(allowed), f"{path}:{node.lineno} calls torch.{node.attr}"
            if path == TENSORS_ALONE and isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                assert "weights_only=True" in ast.unparse(node), f"{path}:{node.lineno} may unpickle anything"
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), f"{path}:{node.value.lineno} may allow pickle"
                assert node.value.value is False, f"{path}:{node.value.lineno} allows pickle"


@pytest.mark.parametrize("path", LIGHT)
def test_package_roots_are_light(path):
    standard = set(sys.stdlib_module_names)
    assert [str(found) for found in imports_of(path) if found.module.split(".")[0] not in standard] == []


def test_packages_that_shadow_have_their_init():
    assert (ROOT / "app/__init__.py").exists()
    assert (ROOT / "tests/__init__.py").exists()


BLOCKED = ("gradio", "librosa", "soundfile", "huggingface_hub", "matplotlib", "perth", "numba", "llvmlite")
PROBE = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("not needed here: " + name)

sys.meta_path.insert(0, Refuse())
for name in {modules!r}:
    importlib.import_module(name)
"""


def module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def test_core_and_training_import_without_the_application_packages():
    needs_files = {found.path for found in IMPORTS if found.module.split(".")[0] in BLOCKED}
    needs_files |= {"audiolm/audio/files.py"}  # which decodes by audiolm/audio/decoding.py
    core = ("nn", "codec", "semantic", "lm", "detector", "watermark", "checkpoints", "training", "audio")
    modules = [
        module_name(path)
        for path in SOURCES
        if path.startswith("audiolm/")
        and (part_of(path) in core or path in ("audiolm/pipeline.py", "audiolm/stages.py"))
        if path not in needs_files and not path.endswith("__main__.py")
    ]
    assert "audiolm.pipeline" in modules
    assert "audiolm.training.loop" in modules
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(blocked=set(BLOCKED), modules=["audiolm", *modules])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_audiolm_imports_no_torch():
    code = "import sys, audiolm; print('torch' in sys.modules, audiolm.__version__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", __import__("audiolm").__version__]


def test_the_public_names_exist():
    import audiolm

    for name in audiolm.__all__:
        assert getattr(audiolm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = audiolm.nothing
