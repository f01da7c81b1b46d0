"""The documentation says what is: links lead somewhere, commands and options exist, every code has its page."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import fedclient.cli
import fedserver.cli
import fedsim.cli
from fedspect import errors

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [*DOCS.rglob("*.md"), *(ROOT / "deploy").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
)
LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TOOLS: dict[str, click.Command] = {
    name: typer.main.get_command(app)
    for name, app in (
        ("fedserver", fedserver.cli.app),
        ("fedclient", fedclient.cli.app),
        ("fedsim", fedsim.cli.app),
    )
}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text("utf-8")))


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head)) for head in heads)
    return {head.strip().lower().replace(" ", "-") for head in plain}


def targets(page: Path) -> Iterator[tuple[str, Path, str]]:
    """Every link of a page that stays in the project: as written, the file, the heading."""
    for link in [*LINK.findall(prose(page)), *PICTURE.findall(prose(page))]:
        if "://" not in link and not link.startswith("mailto:"):
            file, _, anchor = link.partition("#")
            yield link, (page.parent / file).resolve() if file else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link, target, anchor in targets(page):
        assert target.exists(), f"{name_of(page)}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{name_of(page)}: {link}; there are {sorted(anchors(target))}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_figure_is_left_to_be_filled_in(page: Path) -> None:
    assert re.findall(r"@[A-Z]+@", page.read_text("utf-8")) == []


def test_every_page_can_be_reached_from_the_first_one() -> None:
    reached, waiting = set[Path](), [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached:
            continue
        reached.add(page)
        for _, target, _ in targets(page):
            if target.is_dir():  # a link to a folder shows its names
                waiting.extend(target.glob("*.md"))
            elif target.suffix == ".md":
                waiting.append(target)
    assert sorted(name_of(page) for page in set(DOCS.rglob("*.md")) - reached) == []


def commands(tool: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of a tool that does something, by its words."""
    waiting: list[tuple[tuple[str, ...], click.Command]] = [((), TOOLS[tool])]
    while waiting:
        words, command = waiting.pop()
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            waiting.extend(((*words, name), each) for name, each in command.commands.items())
        if words:
            yield words, command


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_every_command_has_a_page(tool: str) -> None:
    missing = []
    for words, _ in commands(tool):
        own = DOCS / "commands" / f"{'-'.join((tool, *words))}.md"
        group = DOCS / "commands" / f"{tool}-{words[0]}.md"
        named = group.exists() and f"{tool} {' '.join(words)}" in group.read_text("utf-8")
        if not (own.exists() or named):
            missing.append(" ".join((tool, *words)))
    assert missing == []


@pytest.mark.parametrize("page", sorted((DOCS / "commands").glob("*-*.md")), ids=name_of)
def test_every_page_of_a_command_is_of_one_that_exists(page: Path) -> None:
    tool, _, rest = page.stem.partition("-")
    known = {"-".join(words) for words, _ in commands(tool)}
    assert rest in known
    assert page.read_text("utf-8").startswith(f"# {tool} ")


def examples(page: Path) -> Iterator[list[str]]:
    """The command lines in a page's blocks of code."""
    for block in FENCE.findall(page.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            line = re.sub(r"^(\$ |sudo |docker compose (exec|run --rm) )+(server )?", "", line)
            line = re.split(r"\s{4,}|[|>;&]|\s#", line)[0].strip()
            if line.split(" ")[0] in TOOLS and "\N{HORIZONTAL ELLIPSIS}" not in line:
                yield shlex.split(line)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_examples_use_commands_and_options_that_exist(page: Path) -> None:
    for tool, *words in examples(page):
        command, rest = TOOLS[tool], list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            if rest[0] not in command.commands and command.invoke_without_command:
                break
            assert rest[0] in command.commands, f"{name_of(page)}: {tool} {' '.join(words)}"
            command = command.commands[rest.pop(0)]
        if command.context_settings.get("ignore_unknown_options"):
            continue
        known = {"--help", "-h", "--version", "--install-completion", "--show-completion"}
        for parameter in command.params:
            known.update([*parameter.opts, *parameter.secondary_opts])
        for word in rest:
            if word.startswith("--") or re.fullmatch(r"-[a-z]", word):
                option = word.split("=")[0]
                assert option in known, f"{name_of(page)}: {tool} {' '.join(words)}: {option}"


def test_every_exit_code_has_a_page_and_a_line_in_their_list() -> None:
    index = (DOCS / "exit-codes" / "README.md").read_text("utf-8")

    def tree(parent: type[errors.FedspectError]) -> Iterator[type[errors.FedspectError]]:
        yield parent
        for child in parent.__subclasses__():
            if child.__module__ == errors.__name__:
                yield from tree(child)

    for error in tree(errors.FedspectError):
        page = DOCS / "exit-codes" / f"{error.exit_code}.md"
        assert page.exists(), error.__name__
        assert page.read_text("utf-8").startswith(f"# {error.exit_code}: ")
        assert f"[{error.exit_code}]({error.exit_code}.md)" in index


def test_decisions_are_numbered_once() -> None:
    numbers = [path.name[:4] for path in (DOCS / "decisions").glob("[0-9]*.md")]
    assert len(set(numbers)) == len(numbers)


def test_the_page_of_the_shipped_base_says_what_its_card_says() -> None:
    card = json.loads((ROOT / "shared/fedspect/model/default_base/card.json").read_text("utf-8"))
    made, page = card["provenance"], (DOCS / "commands" / "fedsim-pretrain.md").read_text("utf-8")
    listed, drawn = (
        int(text.replace(",", "")) for text in re.findall(r"([\d,]+) (?:pictures in|drawn surfaces)", page)
    )
    assert listed + drawn == made["pictures"] + made["held_out_pictures"]
    assert f"{100 * made['held_out_accuracy']:.1f} % of {made['held_out_pictures']} held-out" in page
    command = f"--training-size {made['training_size']} --epochs {made['epochs']} --threads 1"
    assert command in page and "--synthetic 150" in page and "synthetic (150 a class)" in made["sources"]
    assert len(card["classes"]) == 13 and "thirteen classes" in page


@pytest.mark.parametrize("module", ["aggregator", "network", "augmentation", "encoding", "engine"])
def test_a_page_on_extending_shows_the_example_that_the_tests_install(module: str) -> None:
    package = ROOT / "tests" / "plugin_package"
    page = (DOCS / "extend" / f"{module}.md").read_text("utf-8")
    assert f"```python\n{(package / 'fedspect_examples' / f'{module}.py').read_text('utf-8')}```" in page
    entry = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert entry is not None and entry.group(1).strip() in (package / "pyproject.toml").read_text("utf-8")
