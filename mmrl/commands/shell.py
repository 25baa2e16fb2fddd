"""`mmrl completion`: what a shell completes, read from the parser and the configuration."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mmrl.commands.output import Commands, command, show

if TYPE_CHECKING:
    from pydantic import BaseModel

SCRIPT = """\
{zsh}_mmrl() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" known=""
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  if [ "$COMP_CWORD" -eq 1 ]; then known="{commands}"; fi
  COMPREPLY=($(compgen -W "$known" -- "$word"))
  case "${{COMPREPLY[0]}}" in *=) compopt -o nospace 2>/dev/null ;; esac
}}
complete -o default -F _mmrl mmrl
"""
ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def add(commands: Commands) -> None:
    """Add the command of this file."""
    parser = command(
        commands,
        "completion",
        "print what makes a shell complete commands, names and configuration keys",
        epilog='In ~/.bashrc: eval "$(mmrl completion bash)"; in ~/.zshrc: the same with zsh.',
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    parser.set_defaults(command=lambda arguments: _completion(arguments, commands.choices))


def _completion(
    arguments: argparse.Namespace, parsers: Mapping[str, argparse.ArgumentParser]
) -> None:
    words = {name: sorted(words_of(name, parser)) for name, parser in parsers.items()}
    cases = "\n".join(f'    {name}) known="{" ".join(known)}" ;;' for name, known in words.items())
    zsh = ZSH if arguments.shell == "zsh" else ""
    script = SCRIPT.format(zsh=zsh, cases=cases, commands=" ".join(words))
    show(arguments, script.splitlines(), words)


def words_of(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """What may follow a command: its flags, the names it knows, and keys of a configuration."""
    from mmrl import plugins
    from mmrl.config import RunConfig

    for action in parser._actions:
        yield from action.option_strings
        yield from action.choices or ()
    named: dict[str, plugins.PluginKind] = {
        "tasks": "task",
        "score": "task",
        "data": "recipe",
        "algorithms": "algorithm",
    }
    if name in named:
        yield from plugins.available(named[name])
    if name in ("train", "serve", "doctor"):
        yield from keys_of(RunConfig)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a configuration as an override names it, up to the `=`."""
    from mmrl.validation import Section

    for name, field in model.model_fields.items():
        inner = [
            part
            for part in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(part, type) and issubclass(part, Section)
        ]
        if name == "phases":
            continue
        if inner:
            yield from keys_of(inner[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}="
