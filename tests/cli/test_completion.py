"""Completion scripts, installed as in their examples, in real shells."""

import argparse
import os
import shlex
import shutil
import subprocess

import pytest

from captioner import __main__ as commands

DOGS = ["dog 1.png", "dogs"]
COMPLETIONS = {  # in every shell, by the line before the tab
    "captioner ": list(commands.COMMANDS),
    "captioner cap": ["caption"],
    "captioner --v": ["--verbose", "--version"],
    "captioner caption --heat": ["--heatmap", "--heatmap-format"],
    "captioner caption --method ": ["greedy", "sample", "beam"],
    "captioner data --format kaggle3": ["kaggle30k"],
    "captioner info --js": ["--json"],
    "captioner caption dog": DOGS,
    "captioner caption --beam-size 3 dog": DOGS,
    "captioner caption dogs --checkpoint dog": DOGS,
    "captioner report dog": DOGS,
    "captioner completion z": ["zsh"],
    "captioner caption 'dog 1.png' dog": DOGS,
    "captioner report dogs dogs --bootstrap 5 dog": DOGS,
    "captioner data dogs --convert jsonl dog": DOGS,
    "captioner index dogs --output dog": DOGS,
    "captioner search dog": DOGS,
    "captioner data --convert jsonl out dog": DOGS,
}
WITH_EQUALS_SIGN = {  # in zsh and fish
    "captioner report --method=": ["--method=greedy", "--method=sample", "--method=beam"],
    "captioner report --method=b": ["--method=beam"],
    "captioner export --onnx=dog": ["--onnx=dog 1.png", "--onnx=dogs"],
}


def completion(shell, capsys):
    commands.main(["completion", shell])
    return capsys.readouterr().out


def needs(shell):
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


@pytest.fixture
def directory(tmp_path):
    """A directory with a file and a directory to complete."""
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


def sorted_names(completions):
    """Without the slash of directories, in an order common to all shells."""
    return {
        line: sorted(each.removesuffix("/") for each in names)
        for line, names in completions.items()
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_have_every_command_and_option(shell, capsys):
    script = completion(shell, capsys)
    actions = commands.parser()._actions
    whole = next(each for each in actions if isinstance(each, argparse._SubParsersAction))
    for name, parser in whole.choices.items():
        assert name in script
        for action in parser._actions:
            for flag in action.option_strings:
                assert flag.lstrip("-") in script or action.help == argparse.SUPPRESS


def test_zsh_script_has_values_after_an_equals_sign_and_many_paths(capsys):
    """Also where zsh is not installed."""
    script = completion("zsh", capsys)
    assert '"--onnx=[' in script
    assert "_shtab_captioner_caption_options+=('*:IMAGE:_files')" in script
    assert "_shtab_captioner_data_options+=('*:PATH:_files')" in script


@needs("bash")
def test_bash(directory, capsys):
    script = [completion("bash", capsys), "complete -p captioner > /dev/null"]
    for line in COMPLETIONS:
        words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
        script += [
            f"COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMPREPLY=()",
            # Without completions, readline completes files.
            '_shtab_captioner; [ ${#COMPREPLY[@]} = 0 ] && COMPREPLY=("-o bashdefault")',
            'printf "%s/" "${COMPREPLY[@]}"; echo',
        ]
    printed = run(["bash", "--noprofile", "--norc", "-c", "\n".join(script)], directory)
    found = {}
    for line, names in zip(COMPLETIONS, printed.splitlines(), strict=True):
        words = names.split("/")[:-1]
        found[line] = DOGS if words == ["-o bashdefault"] else words
    assert sorted_names(found) == sorted_names(COMPLETIONS)


ZSHRC = """
PS1='READY> '
fpath=($FUNCTIONS $fpath)
autoload -Uz compinit && compinit -u -D
zstyle ':completion:*' completer _all_matches _complete  # all matches go to the line
zstyle ':completion:*' insert true
record() { zle complete-word; print -r -- "$BUFFER" >> $LINES_FILE; BUFFER=''; zle -I; print NEXT }
zle -N record
bindkey '^I' record
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
    """Each line and a tab are typed into an interactive shell."""
    for name, content in (("_captioner", completion("zsh", capsys)), (".zshrc", ZSHRC)):
        (tmp_path / name).write_text(content)
    lines = tmp_path / "lines"
    places = {"ZDOTDIR": str(tmp_path), "FUNCTIONS": str(tmp_path), "LINES_FILE": str(lines)}
    expected = COMPLETIONS | WITH_EQUALS_SIGN
    run(["zsh", "-f", "-c", TYPIST, "typist", *expected], directory, **places)
    found = {}
    for line, after in zip(expected, lines.read_text().splitlines(), strict=True):
        before = len(shlex.split(line)) - (not line.endswith(" "))
        # The sign that zsh adds to an option disappears when a space is typed.
        found[line] = [word.removesuffix("=") for word in shlex.split(after)[before:]]
    assert sorted_names(found) == sorted_names(expected)


@needs("fish")
def test_fish(directory, tmp_path, capsys):
    place = tmp_path / "fish" / "completions" / "captioner.fish"
    place.parent.mkdir(parents=True)
    place.write_text(completion("fish", capsys))
    (tmp_path / "captioner").write_text("")  # fish completes commands on the path only
    (tmp_path / "captioner").chmod(0o755)
    expected = COMPLETIONS | WITH_EQUALS_SIGN
    printed = run(
        ["fish", "-c", "for line in $argv; complete -C $line; echo NEXT; end", *expected],
        directory,
        XDG_CONFIG_HOME=str(tmp_path),
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    blocks = printed.split("NEXT\n")[:-1]
    found = [[line.split("\t")[0] for line in block.splitlines()] for block in blocks]
    assert sorted_names(dict(zip(expected, found, strict=True))) == sorted_names(expected)


def test_unknown_shell(capsys):
    with pytest.raises(SystemExit, match="2"):
        commands.main(["completion", "cmd"])
    assert "invalid choice: 'cmd'" in capsys.readouterr().err
