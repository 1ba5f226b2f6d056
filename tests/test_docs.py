"""The documentation tells the truth: examples run, reference pages say what the code says, links lead somewhere.

Examples are fenced blocks of `python` and `sh` in README and docs. They are executed page by page, in order, in a
folder with what the pages speak of; all pages share one store of results. A comment before a block says otherwise:

- `<!-- not executed: REASON -->`: it cannot run here; the summary of the tests lists it as skipped.
- `<!-- file: PATH -->`: it is what a file holds; it is written there.
- `<!-- part of: PATH -->`: it is a passage of a file of the repository, which has tests of its own.
- `<!-- beginning of: PATH -->`: a file that an example before it wrote begins like that.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any
from urllib.parse import unquote

import pytest
import typer
from typer.testing import CliRunner

from emopipe.errors import REASONS, error_types
from emopipe.pipeline.cli.app import app
from emopipe.pipeline.report.codes import anchor
from tests.conftest import ROOT, SAMPLES

DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(ROOT)) for path in [ROOT / "README.md", *DOCS.rglob("*.md")])
#: Languages of fenced blocks that are not examples: output, and what Sphinx reads.
OTHER = ("text", "{toctree}", "{eval-rst}", "{include}")
#: What is needed beside the default extractors.
WEIGHTS = {
    "docs/studies.md": ("smollm2-135m",),
    "docs/extractors.md": ("whisper-tiny.en", "faster-whisper-base", "multilingual-e5-small"),
}
DEFAULT_WEIGHTS = ("face-landmarker", "whisper-base", "minilm-l6-emotion", "silero-vad", "speaker-encoder")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        place: page and line.
        language: what the fence says.
        text: what is in it.
        marker, detail: of the comment before it; "" without one.
    """

    place: str
    language: str
    text: str
    marker: str = ""
    detail: str = ""

    @property
    def runs(self) -> bool:
        return self.language in ("python", "sh") and not self.marker


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = (ROOT / page).read_text("utf-8").split("\n")
    start, fence, before = 0, "", ""
    for number, line in enumerate(lines, start=1):
        opened = re.match(r"(```+)(\S*)", line)
        if not fence and opened:
            start, fence, language = number, opened[1], opened[2]
        elif fence and line == fence:
            comment = re.fullmatch(r"<!-- (not executed|file|part of|beginning of): (.+) -->", before)
            marker, detail = (comment[1], comment[2]) if comment else ("", "")
            yield Block(f"{page}:{start}", language, "\n".join(lines[start : number - 1]) + "\n", marker, detail)
            fence = before = ""
        elif not fence and line.strip():
            before = line.strip()
            assert not before.startswith(("```", "~~~")), f"{page}:{number}: write fences of backticks at the margin"
    assert not fence, f"{page}:{start} is not closed"


ALL = [block for page in PAGES for block in blocks(page)]


def test_every_example_is_executed_or_says_why_not() -> None:
    for block in ALL:
        if block.language in ("python", "sh"):
            assert not block.marker or block.detail, f"{block.place}: no reason is given"
        elif block.language == "toml":
            assert block.marker in ("file", "part of"), f"{block.place}: which file is that?"
        else:
            assert block.language in OTHER, f"{block.place}: is {block.language!r} an example? Call it sh or python"
    assert sum(block.runs for block in ALL) > 30


@pytest.mark.parametrize(
    "block", [block for block in ALL if block.marker == "not executed"], ids=lambda block: block.place
)
def test_not_executed(block: Block) -> None:
    """Lists what is not executed, and why."""
    pytest.skip(block.detail)


@pytest.mark.parametrize("block", [block for block in ALL if block.marker == "part of"], ids=lambda block: block.place)
def test_passages_are_those_of_the_file(block: Block) -> None:
    text = (ROOT / block.detail).read_text("utf-8")
    assert block.text in text or indent(block.text, "    ") in text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where examples run: samples, a folder of interviews, a labelled data set, and the sample plugin installed."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SAMPLES, "samples", ignore=shutil.ignore_patterns("make"))
    Path("interviews").mkdir()
    for name in ("interview.mp4", "conversation.mp4", "silent.mp4"):
        shutil.copy(SAMPLES / name, "interviews")
    make_dataset = next(block for block in blocks("docs/training.md") if block.language == "python")
    exec(compile(make_dataset.text, make_dataset.place, "exec"), {})
    install_sample_plugin(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def install_sample_plugin(site: Path) -> None:
    plugin = ROOT / "tests" / "plugin"
    project = tomllib.loads((plugin / "pyproject.toml").read_text("utf-8"))["project"]
    shutil.copytree(plugin / "emopipe_sample", site / "emopipe_sample")
    info = site / f"emopipe_sample-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n" + "\n".join(f"{k} = {v}" for k, v in points.items()) for group, points in groups)
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if any(block.runs for block in blocks(page))])
def test_examples_run(page: str, folder: Path, weight: Callable[[str], Path]) -> None:
    for name in (*DEFAULT_WEIGHTS, *WEIGHTS.get(page, ())):
        weight(name)
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks(page):
        if block.marker == "file":
            Path(block.detail).write_text(block.text)
        elif block.marker == "beginning of":
            assert Path(block.detail).read_text().startswith(block.text), block.place
        elif block.runs and block.language == "python":
            exec(compile(block.text, block.place, "exec"), names)
        elif block.runs:
            for line in block.text.splitlines():
                run_line(line, block.place)


def run_line(line: str, place: str) -> None:
    """A command line: emopipe's in this process, others by the shell. All must end well."""
    words = [name for word in shlex.split(line, comments=True) for name in expanded(word)]
    if words[:1] == ["emopipe"]:
        done = CliRunner().invoke(app, words[1:])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, f"{place}: {line}\n{done.output}"
    elif words:
        subprocess.run(["bash", "-c", line], check=True)


def expanded(word: str) -> list[str]:
    """The files that a pattern means; other words stay as they are."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


@pytest.mark.slow
def test_the_notebook_runs_and_draws(weight: Callable[[str], Path]) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name in DEFAULT_WEIGHTS:
        weight(name)
    path = DOCS / "notebook.ipynb"
    assert path.stat().st_size < 150_000 and str(ROOT) not in path.read_text("utf-8")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(DOCS)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == 2 and "text/html" in kinds


# Reference pages


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """The script that writes the reference pages."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_reference_pages_are_what_the_code_says(generate: ModuleType) -> None:
    for name, page in generate.pages().items():
        assert (DOCS / name).read_text("utf-8") == page, f"docs/{name} is out of date: run python docs/generate.py"


def test_every_code_is_explained_and_no_other() -> None:
    text = (DOCS / "errors.md").read_text("utf-8")
    sources = [
        path for folder in ("emopipe", "pipeline", "extractors", "models") for path in (ROOT / folder).rglob("*")
    ]
    used = {
        code
        for path in sources
        if path.suffix in (".py", ".html")
        for code in re.findall(r"EMO-\d{3}", path.read_text("utf-8"))
    }
    headings = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert {one for one in headings if one.startswith("EMO-")} == used == {kind.code for kind in error_types()}
    assert [one for one in headings if not one.startswith("EMO-")] == list(REASONS)
    assert all(slug(one) == anchor(one) for one in headings)


def test_every_command_and_option_is_on_the_page() -> None:
    text = (DOCS / "reference" / "cli.md").read_text("utf-8")

    def commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        inner = getattr(command, "commands", {})
        for word, one in inner.items():
            yield from commands(f"{name} {word}", one)
        if not inner:
            yield name, command

    for name, command in commands("emopipe", typer.main.get_command(app)):
        _, _, section = text.partition(f"\n### {name}\n")
        section = section.partition("\n### ")[0]
        for parameter in command.params:
            for flag in (*parameter.opts, *parameter.secondary_opts):
                shown = flag if flag.startswith("-") else flag.upper()
                assert re.search(rf"`{re.escape(shown)}[` ]", section), f"{name}: {shown}"


# Links


def slug(heading: str) -> str:
    """A heading's anchor where the repository is shown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "models/README.md", "samples/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if "://" in target:
            continue
        name, _, anchor = unquote(target).partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page}: {target}"
