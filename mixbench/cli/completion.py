"""``mixbench completion``: complete options and names in a shell."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

VARIABLE = "_MIXBENCH_COMPLETE"
HOW = {
    "bash": 'eval "$(mixbench completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(mixbench completion zsh)"    # in ~/.zshrc',
    "fish": "mixbench completion fish | source    # in ~/.config/fish/config.fish",
}
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


@click.command(epilog="\b\n" + "\n".join(HOW.values()))
@click.argument("shell", type=click.Choice([*HOW]))
def completion(shell: str) -> None:
    """Print a script that completes options, methods, tasks, models and suites in a shell."""
    kind = get_completion_class(shell)
    assert kind is not None
    root = click.get_current_context().find_root().command
    click.echo(kind(root, {}, "mixbench", VARIABLE).source())


def completed(known: Callable[[], Iterable[str]]) -> Complete:
    """Return a function that completes the last name of a list with commas."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, text: str
    ) -> list[CompletionItem]:
        before, comma, last = text.rpartition(",")
        return [
            CompletionItem(f"{before}{comma}{name}")
            for name in sorted(known())
            if name.startswith(last)
        ]

    return complete


def methods() -> Iterable[str]:
    """Return the names of all methods."""
    from mixbench.registry.units import available

    return available("method")


def tasks() -> Iterable[str]:
    """Return the names of all tasks."""
    from mixbench.registry.units import available

    return available("task")


def units() -> Iterable[str]:
    """Return the names of all methods and tasks."""
    return [*methods(), *tasks()]


def suites() -> Iterable[str]:
    """Return the names of all suites."""
    from mixbench.leaderboard.suite import suites as known

    return known()


def models() -> Iterable[str]:
    """Return the names of the models of the tasks, of timm and of torchvision."""
    from mixbench.registry.model_names import TORCHVISION, timm_models, torchvision_models
    from mixbench.registry.units import find

    own = {model for task in tasks() for model in find("task", task).declared.models}
    return own | timm_models() | {TORCHVISION + name for name in torchvision_models()}
