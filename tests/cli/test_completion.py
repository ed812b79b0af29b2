"""`captioner completion`, installed as its examples say, in the shells themselves."""

import argparse
import os
import shlex
import shutil
import subprocess

import pytest

from captioner import __main__ as commands

DOGS = ["dog 1.png", "dogs"]
OFFERED = {  # by what was typed before the tab
    "captioner ": list(commands.COMMANDS),
    "captioner cap": ["caption"],
    "captioner --v": ["--version"],
    "captioner caption --heat": ["--heatmap", "--heatmap-format"],
    "captioner caption --method ": ["greedy", "sample", "beam"],
    "captioner data --format kaggle3": ["kaggle30k"],
    "captioner info --js": ["--json"],
    "captioner caption dog": DOGS,
    "captioner caption 'dog 1.png' dog": DOGS,
    "captioner caption --beam-size 3 dog": DOGS,
    "captioner caption dogs --checkpoint dog": DOGS,
    "captioner report dog": DOGS,
    "captioner data dogs --convert jsonl dog": DOGS,
    "captioner data --convert jsonl out dog": DOGS,
    "captioner completion z": ["zsh"],
}
WITH_SIGN = {  # bash takes the sign for the end of a word
    "captioner report --method=": ["--method=greedy", "--method=sample", "--method=beam"],
    "captioner export --onnx=dog": ["--onnx=dog 1.png", "--onnx=dogs"],
}


def completion(shell, capsys):
    commands.main(["completion", shell])
    return capsys.readouterr().out


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"there is no {shell}")


@pytest.fixture
def directory(tmp_path):
    """Where something can be named."""
    (tmp_path / "here" / "dogs").mkdir(parents=True)
    (tmp_path / "here" / "dog 1.png").touch()
    return tmp_path / "here"


def run(command, directory, **environment):
    done = subprocess.run(
        command,
        cwd=directory,
        env={**os.environ, "TERM": "dumb", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def sorted_names(offered):
    """Without the sign of a directory, and in an order that all shells agree on."""
    return {
        line: sorted(each.removesuffix("/") for each in names) for line, names in offered.items()
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_and_option_is_known(shell, capsys):
    script = completion(shell, capsys)
    actions = commands.parser()._actions
    whole = next(each for each in actions if isinstance(each, argparse._SubParsersAction))
    for name, parser in whole.choices.items():
        assert name in script
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag.lstrip("-") in script or action.help == argparse.SUPPRESS


@needs("bash")
def test_bash(directory, capsys):
    asked = [completion("bash", capsys), "complete -p captioner > /dev/null"]
    for line in OFFERED:
        words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
        asked += [
            f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMPREPLY=()",
            # Where it offers nothing, readline offers files.
            '_shtab_captioner; [ ${#COMPREPLY[@]} = 0 ] && COMPREPLY=("-o bashdefault")',
            'printf "%s/" "${COMPREPLY[@]}"; echo',
        ]
    told = run(["bash", "--noprofile", "--norc", "-c", "\n".join(asked)], directory).splitlines()
    found = {line: names.split("/")[:-1] for line, names in zip(OFFERED, told, strict=True)}
    found = {k: DOGS if names == ["-o bashdefault"] else names for k, names in found.items()}
    assert sorted_names(found) == sorted_names(OFFERED)


ZSHRC = """
PS1='READY> '
fpath=($FUNCTIONS $fpath)
autoload -Uz compinit && compinit -u -D
zstyle ':completion:*' completer _all_matches _complete  # all matches go to the line
zstyle ':completion:*' insert true
tell() { zle complete-word; print -r -- "$BUFFER" >> $TOLD; BUFFER=''; zle -I; print NEXT }
zle -N tell
bindkey '^I' tell
"""
TYPIST = """
zmodload zsh/zpty
zpty shell zsh -d -i
zpty -r shell seen '*READY> *'
for line in "$@"; do
  zpty -w -n shell "$line"$'\\t'
  zpty -r shell seen '*NEXT*'
done
zpty -d shell
"""


@needs("zsh")
def test_zsh(directory, tmp_path, capsys):
    """In an interactive shell, into which each line and a tab are typed."""
    for name, content in (("_captioner", completion("zsh", capsys)), (".zshrc", ZSHRC)):
        (tmp_path / name).write_text(content)
    told = tmp_path / "told"
    typed = {**OFFERED, **WITH_SIGN}
    places = {"ZDOTDIR": str(tmp_path), "FUNCTIONS": str(tmp_path), "TOLD": str(told)}
    run(["zsh", "-f", "-c", TYPIST, "typist", *typed], directory, **places)
    found = {}
    for line, after in zip(typed, told.read_text().splitlines(), strict=True):
        before = len(shlex.split(line)) - (not line.endswith(" "))
        # A sign that waits for its value goes when a space is typed.
        found[line] = [name.removesuffix("=") for name in shlex.split(after)[before:]]
    assert sorted_names(found) == sorted_names(typed)


@needs("fish")
def test_fish(directory, tmp_path, capsys):
    place = tmp_path / "fish" / "completions" / "captioner.fish"
    place.parent.mkdir(parents=True)
    place.write_text(completion("fish", capsys))
    (tmp_path / "captioner").write_text("")  # fish completes what it finds on the path
    (tmp_path / "captioner").chmod(0o755)
    typed = {**OFFERED, **WITH_SIGN}
    told = run(
        ["fish", "-c", "for line in $argv; complete -C $line; echo NEXT; end", *typed],
        directory,
        XDG_CONFIG_HOME=str(tmp_path),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    found = [[each.split("\t")[0] for each in names.splitlines()] for names in told.split("NEXT\n")]
    assert sorted_names(dict(zip(typed, found[:-1], strict=True))) == sorted_names(typed)


def test_a_shell_that_is_not_known(capsys):
    with pytest.raises(SystemExit, match="2"):
        commands.main(["completion", "cmd"])
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
