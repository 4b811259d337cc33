#!/usr/bin/env bash
# ipykernel and Rich: a command that a notebook starts with subprocess draws its live table into the pipe, line over line.
#
# Seen with ipykernel 7.4.0 and Rich 15.0.0: ipykernel puts FORCE_COLOR=1 into the environment of its kernel, which every
# process inherits that a cell starts. Rich takes FORCE_COLOR as "this is a terminal": Console().is_terminal is True
# though stdout is a pipe, a Live display redraws with cursor movements, and each of its frames stays in the captured
# text. The same script started from the same Python without a kernel prints its last frame once, without an escape.
#
# Why a good guess is wrong: FORCE_COLOR is about colours, and a program that asks is_terminal before it animates
# has done what Rich's documentation says. Run from a shell with a pipe, or from cron, it does behave.
#
# What it means: the log of a training started from a Kaggle or Colab cell with subprocess.run or Popen is full of control
# codes, once per refresh, and grows with the time. Make the console with force_terminal=sys.stdout.isatty(), or take
# FORCE_COLOR out of the environment before a process is started. (`!command` has a pseudo-terminal and is not concerned.)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    "ipykernel==7.4.0" "nbclient==0.11.0" "nbformat==5.11.1" "rich==15.0.0"

cat > table.py <<'PY'
import rich.console
from rich.live import Live
from rich.table import Table

console = rich.console.Console()
with Live(console=console, auto_refresh=False) as live:
    for epoch in range(20):
        table = Table("epoch", "auc")
        table.add_row(str(epoch), f"{0.5 + epoch / 50:.2f}")
        live.update(table, refresh=True)
PY

cat > look.py <<'PY'
import os
import subprocess
import sys
from importlib.metadata import version

import nbformat
from nbclient import NotebookClient

os.environ.pop("FORCE_COLOR", None)
print("ipykernel", version("ipykernel"), "rich", version("rich"))
START = "import os, subprocess, sys\n{}r = subprocess.run([sys.executable, 'table.py'], capture_output=True, text=True)\n"
LOOK = "print(os.environ.get('FORCE_COLOR'), r.stdout.count('epoch'), r.stdout.count(chr(27)))"


def in_notebook(before=""):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(START.format(before) + LOOK)])
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    return notebook.cells[0].outputs[0].text.split()


def in_script(before=""):
    line = [sys.executable, "-c", START.format(before) + LOOK]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()


drop = "os.environ.pop('FORCE_COLOR', None)\n"
for name, (forced, tables, escapes) in {
    "script": in_script(), "notebook": in_notebook(), "notebook, FORCE_COLOR dropped": in_notebook(drop)
}.items():
    print(f"{name:30} FORCE_COLOR={forced:4}  tables in the pipe: {tables:2}  escape characters: {escapes}")
    if name == "notebook":
        assert forced == "1" and int(tables) >= 20 and int(escapes) > 20
    else:
        assert forced == "None" and tables == "1" and escapes == "0"
PY
venv/bin/python -m ipykernel install --sys-prefix --name python3 > /dev/null 2>&1
venv/bin/python look.py
