"""`fedserver import-weights` and `fedserver pretrain`: a base model for the federation.

Both need torch, which is imported where the work begins.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, List, Optional

import typer

from fedserver.commands.options import HERE, WorkspaceOption, open_workspace
from fedspect.console import JsonOption, note, print_json, progress_bar

if TYPE_CHECKING:
    from fedserver.workspace import Workspace

Name = Annotated[
    Optional[str],
    typer.Option(help="The base model's name in the workspace.", show_default="after the source"),
]
Use = Annotated[bool, typer.Option("--use", help="Let the federation begin from it: set base in the file.")]
Size = Annotated[int, typer.Option(min=16, max=4096, help="Side in pixels at which plants use it.")]


def add_to(app: typer.Typer) -> None:
    """Make them commands of ``app``."""
    app.command("import-weights")(import_weights_command)
    app.command("pretrain")(pretrain_command)


def import_weights_command(
    file: Annotated[
        Path, typer.Argument(help="The authors' checkpoint, .pth.tar or .pth.", show_default=False)
    ],
    name: Name = None,
    size: Size = 224,
    channels: Annotated[int, typer.Option(min=1, max=3, help="1 for grey pictures, 3 for colour.")] = 3,
    use: Use = False,
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Make a base model of a CondenseNetV2 checkpoint of its authors, as trained or as converted."""
    from fedserver.registry.base_models import making, name_from, new_place, torch_needed

    opened = open_workspace(workspace)
    place = new_place(opened, name or name_from(file))
    try:
        from fedspect.model.import_weights import import_weights
    except ImportError as error:
        raise torch_needed(error, "importing weights") from error
    with making(place) as folder:
        base = import_weights(file, folder, made_by="fedserver import-weights", size=size, channels=channels)
    facts = {"architecture": base.card.architecture, "base_hash": base.content_hash}
    _tell(opened, place, use, json, facts)


def pretrain_command(
    sources: Annotated[
        List[Path],
        typer.Argument(help="Folders of pictures, or lists, to learn from.", show_default=False),
    ],
    name: Name = None,
    model: Annotated[str, typer.Option(help="cdnv2-a, -b, -c or another network.")] = "cdnv2-a",
    size: Size = 224,
    training_size: Annotated[
        Optional[int], typer.Option(min=16, max=4096, help="Side to learn at.", show_default="as --size")
    ] = None,
    channels: Annotated[int, typer.Option(min=1, max=3, help="1 for grey pictures, 3 for colour.")] = 1,
    epochs: Annotated[
        Optional[int], typer.Option(help="Passes over the pictures.", show_default="120")
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same result.")] = 1,
    set_: Annotated[
        Optional[List[str]],
        typer.Option("--set", help="Any setting of training.", metavar="KEY=VALUE"),
    ] = None,
    use: Use = False,
    workspace: WorkspaceOption = HERE,
    json: JsonOption = False,
) -> None:
    """Make a base model: learn from pictures of any surface, condense, and say what it reaches."""
    # Before torch is loaded: threads that spin while they wait made a step 17 times slower on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from fedserver.registry.base_models import making, name_from, new_place, torch_needed
    from fedspect.settings import assigned, load_settings

    opened = open_workspace(workspace)
    place = new_place(opened, name or name_from(sources[0]))
    try:
        from fedspect.training.base_recipe import BaseRecipe, make_base, named_sources
        from fedspect.training.pretraining import PretrainingSettings
    except ImportError as error:
        raise torch_needed(error, "pre-training") from error
    plan = BaseRecipe(
        sources=named_sources(sources),
        architecture=model,
        size=size,
        training_size=training_size or size,
        channels=channels,
        settings=load_settings(None, PretrainingSettings, {"epochs": epochs, **assigned(set_ or ())}),
        seed=seed,
    )
    with making(place) as folder:
        made = make_base(
            plan,
            folder,
            made_by="fedserver pretrain",
            stage=lambda stage: progress_bar(stage, shown=not json),
        )
    reached = made.made.evaluation
    _tell(
        opened,
        place,
        use,
        json,
        {
            "architecture": model,
            "base_hash": made.base.content_hash,
            "pictures": made.pictures,
            "classes": len(made.classes),
            "held_out_accuracy": reached.accuracy if reached else None,
            "held_out_pictures": reached.num_examples if reached else 0,
            "seconds": round(made.seconds, 1),
        },
    )


def _tell(workspace: Workspace, place: Path, used: bool, json: bool, facts: dict[str, Any]) -> None:
    """Say what came out, and let the settings name it if that was asked for."""
    from fedserver.registry.base_models import use

    setting = place.relative_to(workspace.folder).as_posix()
    if used:
        use(workspace, place)
    if json:
        print_json({"base": str(place), "setting": setting, "used": used, **facts})
        return
    reached = facts.get("held_out_accuracy")
    share = f", {100 * reached:.1f} % of {facts['held_out_pictures']} pictures held back" if reached else ""
    note(f"{place}: {facts['architecture']}{share}, hash {facts['base_hash'][:12]}")
    if used:
        note(f'fedserver.toml says base = "{setting}"; the next new run begins from it')
    else:
        note(f'to begin a run from it: base = "{setting}" under [model] in fedserver.toml (--use sets it)')
