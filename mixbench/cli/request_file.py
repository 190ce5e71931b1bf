"""A request in a file, which ``--save-config`` writes and ``--config`` reads."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.decorators import FC

from mixbench.errors import UnknownName, UsageError, one_line
from mixbench.storage.files import write_bytes

NOT_SAVED = frozenset({"config", "save-config", "help", "dry-run", "fresh", "json", "detach"})


def read_request(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take the options of a command that are not given from a file, as its defaults.

    Raises
    ------
    UnknownName
        If the command has no such option.
    UsageError
        If the file cannot be read, or a value is not one of its option.
    """
    if path is None:
        return
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"--config {path} cannot be read: {one_line(str(error))}.") from error
    known = _options(context)
    found: dict[str, Any] = {}
    for name, value in content.items():
        if name not in known:
            raise UnknownName(f"option in {path}", name, known)
        option = known[name]
        many = value if option.multiple and isinstance(value, list) else [value]
        flag = option.is_flag and not option.multiple
        if not all(_fits(one, flag=flag) for one in many):
            must = "true or false" if flag else "a text or a number"
            listed = ", or a list of these" if option.multiple else ""
            raise UsageError(
                f"--config {path}: {name} must be {must}{listed} (got {one_line(str(value), 200)})."
            )
        assert option.name is not None
        # As text, which the option converts as it does on the command line.
        texts = [one if flag else str(one) for one in many]
        found[option.name] = texts if option.multiple else texts[0]
    context.default_map = found


def _fits(value: object, *, flag: bool) -> bool:
    """Return whether a value of a file is one of an option."""
    if flag or isinstance(value, bool):
        return flag and isinstance(value, bool)
    return isinstance(value, str | int | float)


def save_request(context: click.Context, path: Path) -> None:
    """Write the options of a command that the user gave, by option or by file, to a file."""
    lines = []
    for name, option in _options(context).items():
        assert option.name is not None
        source = context.get_parameter_source(option.name)
        if source in {ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP}:
            lines.append(f"{name} = {_toml(context.params[option.name])}\n")
    write_bytes(path, "".join(lines).encode())


def written_out(arguments: Sequence[str], context: click.Context) -> list[str]:
    """Return the arguments of a command with the options that a file gives instead of its name."""
    places = {i for i, word in enumerate(arguments) if word in {"--config", "--save-config"}}
    places |= {i + 1 for i in places}
    kept = [word for i, word in enumerate(arguments) if i not in places]
    kept = [word for word in kept if not word.startswith(("--config=", "--save-config="))]
    for name, option in _options(context).items():
        assert option.name is not None
        if context.get_parameter_source(option.name) is ParameterSource.DEFAULT_MAP:
            value = context.params[option.name]
            many = value if isinstance(value, tuple | list) else [value]
            kept += [f"--{name}" if one is True else f"--{name}={one}" for one in many]
    return kept


def _options(context: click.Context) -> Mapping[str, click.Option]:
    """Return the options of a command that a file may have, by name without dashes."""
    options = (one for one in context.command.params if isinstance(one, click.Option))
    named = {max(option.opts, key=len).lstrip("-"): option for option in options}
    return {name: option for name, option in named.items() if name not in NOT_SAVED}


def _toml(value: Any) -> str:
    """Return a value in TOML; JSON has the same texts, numbers and lists."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def config_options(command: FC) -> FC:
    """Add the options ``--config`` and ``--save-config``."""
    path = click.Path(dir_okay=False, path_type=Path)
    given = click.option(
        "--config", type=path, metavar="FILE", is_eager=True, expose_value=False,
        callback=read_request, help="Take options from a TOML file that --save-config wrote.",
    )  # fmt: skip
    kept = click.option(
        "--save-config", type=path, metavar="FILE", expose_value=False,
        callback=lambda context, _, value: context.meta.update(save_config=value),
        help="Write the options of this command to a TOML file, and run it.",
    )  # fmt: skip
    return given(kept(command))
