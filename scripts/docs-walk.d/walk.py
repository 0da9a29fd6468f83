#!/usr/bin/env python3
"""Walks pages of the documentation: runs every block of commands as it is written, and compares what it shows.

    walk.py --binary PATH [--node FOLDER] [--keep] PAGE…

Each page is read by somebody of his own: an empty home, a shell whose variables and folder last from block to block, free
ports in the place of 8001 to 8006. Where the page does not say otherwise, the world is there (world/): a project with the
agents that the pages speak of, and its server.

`sh`, `bash` and `console` blocks are commands. One that ends with `agentrunner up` or `serve` is the other terminal's. A
block whose first line is a comment with a path is that file. A `text` or `json` block right after commands is what they
show: its lines in their order, `…` for anything, times, ids and durations for others; of JSON the fields and their types.

Comments right above a block:

    <!-- not run: why -->     it is not run, and why
    <!-- stopped: why -->     the server in the other terminal is stopped first
    <!-- before: script -->   what the page takes for granted (functions of world.sh)
    <!-- each: script -->     each command is a case of its own, before which this runs; $LINE is the command
    <!-- after: script -->    what must be true then
    <!-- exit: 1 -->          it ends with this
    <!-- again: why -->       it is looked at until it shows what is told, for two minutes
    <!-- not compared: why --> above an output: it is no more than an example

A name that `before` or `each` sets stands for its value in the block, also without a dollar. A page with
`<!-- walk: from nothing -->` anywhere on it has no world.
"""

import argparse
import json
import pathlib
import re
import shlex
import shutil
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

from pages import blocks
from shell import Shell

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
GUIDE = "operations-guide.md"
COMMANDS = ("sh", "bash", "console")
MARKS = {"walk", "not run", "stopped", "before", "each", "after", "exit", "again"}
SERVES = re.compile(r"^(\w+=\S* )*agentrunner (up|serve [a-z-]+)( [^&|]*)?$")
PATH = re.compile(r"^# ([\w.-]+/)*[\w-]+\.\w+$")
ASSIGNS = re.compile(r"(?:^|[\s;])([A-Z][A-Z_]*)=")

# What differs from one time to the next.
VARIES = [
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "<id>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<trace>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:\d\d)?"), "<time>"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|MiB|GiB)\b"), "<amount>"),
    (re.compile(r"\b\d+ (steps|tokens|in|out)\b"), r"<number> \1"),
    (re.compile(r"(?<=  )\d+(?=  )"), "<number>"),
    (re.compile(r"\s+"), " "),
]


def same(text):
    """A line without what differs from one time to the next."""
    for pattern, stands in VARIES:
        text = pattern.sub(stands, text)
    return text.strip()


def missing(expected, output):
    """The first line that is told and not shown, or None."""
    shown = iter([same(line) for line in output.splitlines()])
    for line in filter(str.strip, expected.splitlines()):
        parts = [re.escape(part) for part in same(line).split("…")]
        pattern = re.compile(".*".join(parts))
        if not any(pattern.fullmatch(candidate) for candidate in shown):
            return line.strip()
    return None


def differs(expected, actual, path=""):
    """Where JSON has not the shape that is told, or None."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, value in expected.items():
            if key == "…":
                continue
            if key not in actual:
                return f"{path}.{key} is missing"
            found = differs(value, actual[key], f"{path}.{key}")
            if found:
                return found
        return None
    if isinstance(expected, list) and isinstance(actual, list):
        if expected and not actual:
            return f"{path or 'it'} is empty"
        return differs(expected[0], actual[0], f"{path}[0]") if expected else None
    number = (int, float)
    if type(expected) is type(actual) or isinstance(expected, number) and isinstance(actual, number):
        return None
    return f"{path or 'it'} is {json.dumps(actual)[:80]}"


def last_json(output):
    """The last JSON that begins a line, whatever else was said; None without one."""
    found, index = None, 0
    while begins := re.compile(r"^[\[{]", re.M).search(output, index):
        try:
            found, length = json.JSONDecoder().raw_decode(output[begins.start() :])
            index = begins.start() + length
        except ValueError:
            index = begins.end()
    return found


def unlike(told, output):
    """What a block of output tells that was not shown, or None."""
    if told.language == "json":
        actual = last_json(output)
        return "no JSON was shown" if actual is None else differs(json.loads(told.text), actual)
    line = missing(told.text, output)
    return None if line is None else f"nothing like {line!r} was shown"


def is_whole(command):
    """Whether a shell would not wait for another line."""
    checked = subprocess.run(["bash", "-n", "-c", command], stderr=subprocess.DEVNULL)
    return checked.returncode == 0 and not command.endswith("\\")


def commands(text):
    """The commands of a block, each with its continuation."""
    found = [""]
    for line in text.splitlines():
        found[-1] += line
        if found[-1].strip() and is_whole(found[-1]):
            found.append("")
        elif found[-1].strip():
            found[-1] += "\n"
    return [command for command in found if command.strip() and not command.startswith("#")]


class HangsUp(socketserver.StreamRequestHandler):
    """A shop and a bank that take a request and never answer: nobody knows what came of it."""

    def handle(self):
        self.rfile.readline()


class Reader:
    """Goes through one page, and does what it says."""

    def __init__(self, page, binary, node, folder):
        self.page, self.rows = page, []
        self.text = page.read_text()
        self.hangs_up = socketserver.ThreadingTCPServer(("127.0.0.1", 0), HangsUp)
        threading.Thread(target=self.hangs_up.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self.hangs_up.server_address[1]}"
        self.shell = Shell(folder, binary, node, {"ROOT": str(ROOT), "HANGS_UP": address})
        self.there = "<!-- walk: from nothing -->" in self.text

    def world(self):
        """Makes, once, a project with the agents that pages speak of, and starts its server."""
        if self.there:
            return
        self.there = True
        shutil.copy(HERE / "world.sh", self.shell.walk / "world.sh")
        code, output = self.shell.run("agentrunner init project && cd project && cp -r $ROOT/scripts/docs-walk.d/world/. .")
        if code == 0:
            code, output = self.shell.serve("agentrunner up")
        if code:
            sys.exit(f"{self.page}: the world was not made ({code}):\n{output}")

    def standing(self, script, text):
        """A text with the values of what a script set in the place of their names."""
        names = set(ASSIGNS.findall(script))
        if not names:
            return text
        code, output = self.shell.run("".join(f'echo "{name}=${name}"\n' for name in names))
        values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
        return re.sub(r"(?<![$\w{-])(%s)\b(?!=)" % "|".join(names), lambda m: values.get(m[1]) or m[1], text)

    def perform(self, text):
        """Runs commands; a server, if it is the last of them, in the other terminal."""
        lines = text.rstrip().splitlines()
        *before, last = lines
        if not SERVES.match(re.sub(r"\s+#.*$", "", last)):
            return self.shell.run(text)
        code, output = self.shell.run("\n".join(before)) if before else (0, "")
        if code:
            return code, output
        code, more = self.shell.serve(last)
        return code, output + more

    def cases(self, block):
        """Runs each command of a block by itself."""
        script, said = block.marks["each"], []
        allowed = {int(code) for code in block.marks.get("exit", "0").split()}
        for command in commands(block.text):
            code, output = self.shell.run(f"LINE={shlex.quote(command)}\n{script}")
            if code == 0:
                code, output = self.perform(self.standing(script, command))
            said.append(f"$ {command}\n{output}")
            if code not in allowed:
                return f"{command!r} ended with {code}", "\n".join(said)
        return None, "\n".join(said)

    def attempt(self, block, told):
        """Does what a block says; what is wrong, and what was shown."""
        marks, allowed = block.marks, {int(code) for code in block.marks.get("exit", "0").split()}
        unknown = set(marks) - MARKS
        if unknown:
            return f"unknown marks {unknown}", ""
        if "stopped" in marks:
            self.shell.stop()
        if "before" in marks:
            code, output = self.perform(marks["before"])
            if code:
                return f"what comes before ended with {code}", output
        if "each" in marks:
            wrong, output = self.cases(block)
        else:
            code, output = self.perform(self.standing(marks.get("before", ""), block.text))
            wrong = None if code in allowed else f"it ended with {code}"
        if not wrong and told:
            wrong = unlike(told, output)
        if not wrong and "after" in marks:
            code, more = self.shell.run(marks["after"])
            output += more
            wrong = f"the check after it ended with {code}" if code else None
        return wrong, output

    @staticmethod
    def is_file(block):
        """Whether a block is a file that its first line names."""
        return block.language not in COMMANDS and bool(block.lines) and bool(PATH.match(block.lines[0]))

    def walk(self, block, told):
        """Deals with a block; how, what is wrong, and what was shown."""
        if "not run" in block.marks:
            why = block.marks["not run"]
            return "not run", None if why else "it says not why", ""
        if block.language in COMMANDS or self.is_file(block):
            self.world()
        if self.is_file(block):
            name = block.lines[0].removeprefix("# ")
            script = f"mkdir -p $(dirname {name})\ncat >{name} <<'END OF FILE'\n{block.text}END OF FILE\n"
            code, output = self.shell.run(script)
            return "written", f"it can't be written: {code}" if code else None, output
        if block.language not in COMMANDS:
            return "shown", None, ""
        deadline = time.monotonic() + 120
        while True:
            wrong, output = self.attempt(block, told)
            if not wrong or "again" not in block.marks or time.monotonic() > deadline:
                return "ran", wrong, output
            time.sleep(0.2)

    def all(self):
        found = blocks(self.text)
        for block, after in zip(found, [*found[1:], None]):
            told = after if after and after.follows and after.language in ("text", "json") else None
            if told and "not compared" in told.marks:
                told = None
            began = time.monotonic()
            how, wrong, output = self.walk(block, told)
            if how == "shown":
                continue
            self.rows.append((how, wrong))
            took = time.monotonic() - began
            print(f"{self.page.name}:{block.line:<5} {how:8} {'FAILED' if wrong else 'ok':6} {took:5.1f} s  {block.first[:80]}", flush=True)
            if wrong:
                said = output.strip().splitlines()[-40:]
                print("\n".join(f"        {line}" for line in [wrong, *said]), flush=True)
        ended = self.shell.stop()
        if ended:
            self.rows.append(("ended", ended))
            print(f"{self.page.name}: {ended}")

    def close(self):
        self.shell.close()
        self.hangs_up.shutdown()
        self.hangs_up.server_close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", type=pathlib.Path, required=True)
    parser.add_argument("--node", type=pathlib.Path, help="a node_modules with the MCP servers of the pages")
    parser.add_argument("--keep", action="store_true", help="leave what the readers made")
    parser.add_argument("pages", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()
    # It backs up to /backups, prunes images and edits /etc: in its own walk it has containers and a clone for that.
    if any(page.name == GUIDE for page in arguments.pages):
        parser.error(f"{GUIDE} is not walked here: make guide-walk")
    # Whoever ends the walk ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows = []
    for page in arguments.pages:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"walk-{page.stem}-"))
        reader = Reader(page, arguments.binary.resolve(), arguments.node and arguments.node.resolve(), folder)
        try:
            reader.all()
        finally:
            reader.close()
            if arguments.keep:
                print(f"kept: {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)
        rows += reader.rows
    counts = {how: sum(each == how for each, _ in rows) for how in sorted({how for how, _ in rows})}
    failed = sum(bool(wrong) for _, wrong in rows)
    print(f"docs: {len(rows)} blocks: {', '.join(f'{n} {how}' for how, n in counts.items())}; {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
