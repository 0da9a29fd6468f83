"""Walks the operator's guide: runs every code block from top to bottom against the stack, as it is written, or as
blocks.toml says instead and why. Ends with a table, and with 1 when anything failed.

    walk.py CLONE BINARY [FIRST-LAST]   walks
    walk.py --page                      prints docs/guide-walk.md: what is not run as it is written, and why
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/docs-walk.d"))

from pages import blocks  # noqa: E402

GUIDE = ROOT / "docs/operations-guide.md"
TABLE = pathlib.Path(__file__).with_name("blocks.toml")
PATIENCE = 600

SETTING = re.compile(r"^[A-Z][A-Z0-9_]*=")


def is_settings(block):
    """Whether a block is nothing but lines for .env."""
    said = [line for line in block.lines if line and not line.startswith("#")]
    return block.language == "bash" and bool(said) and all(SETTING.match(line) for line in said)


def script_name(block):
    """The name in the second line of a script that is to be saved."""
    if block.lines and block.lines[0].startswith("#!"):
        return block.lines[1].lstrip("# ")
    return None


def without_comment(line):
    """The setting of a line, as whoever types it into .env has it."""
    return re.sub(r"\s+#.*$", "", line)


def guide():
    """The blocks of the guide with their rules."""
    table = tomllib.loads(TABLE.read_text())
    rules = {rule["line"]: rule for rule in table["block"]}
    found = blocks(GUIDE.read_text())
    lines = {block.line: block for block in found}
    for line, rule in rules.items():
        first = lines[line].first if line in lines else None
        if first is None or not first.startswith(rule["starts"]):
            sys.exit(f"blocks.toml: line {line} of the guide is {first!r}, not {rule['starts']!r}")
    return [(block, rules.get(block.line, {})) for block in found]


def why(rule):
    """Why a block is not run as it is written; nothing when it is."""
    return rule.get("because") or rule.get("refused") or rule.get("shown") or ""


def page():
    """docs/guide-walk.md."""
    every = guide()
    apart = [(block, rule) for block, rule in every if why(rule)]
    shown = [(block, rule) for block, rule in apart if "shown" in rule]
    refused = [(block, rule) for block, rule in apart if "refused" in rule]
    replaced = [(block, rule) for block, rule in apart if "run" in rule]
    counts = f"{len(every)} blocks: {len(every) - len(apart)} are run as they are written, {len(replaced)} as is said below"
    text = [
        "# What of the operator's guide is not run as it is written",
        "",
        "`make guide-walk` walks [the operator's guide](operations-guide.md) from top to bottom against the compose stack. Of its",
        f"{counts},",
        f"{len(shown)} are pictures that are held against what is there, and {len(refused)} are not run at all. This page is printed by",
        "`scripts/guide-walk.d/walk.py --page`, from the rules by which the walk goes.",
    ]
    for title, rows in [("Run in other words", replaced), ("Not run", refused), ("Pictures", shown)]:
        text += ["", f"## {title}", ""]
        for block, rule in rows:
            text += [f"- **Line {block.line}**, `{block.first[:90]}`: {why(rule)}."]
            if "run" in rule:
                text += ["", "  ```bash", *(f"  {line}".rstrip() for line in rule["run"].strip().splitlines()), "  ```", ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(text)).rstrip()


class Walk:
    def __init__(self, clone, binary, only):
        self.clone, self.binary, self.only = clone, binary, only
        self.rows, self.outputs = [], {}
        self.environment = dict(os.environ)
        here = pathlib.Path(__file__).parent
        self.environment |= {
            "WALK_DOCKER": self.which("docker"),
            "WALK_COMPOSE": self.which("docker-compose"),
            "WALK_ROOT": str(ROOT),
            "WALK_BINARY": str(binary),
            "PATH": f"{here / 'bin'}:{os.environ['PATH']}",
            "COMPOSE_ANSI": "never",
            "NO_COLOR": "1",
        }

    @staticmethod
    def which(program):
        return subprocess.run(["bash", "-c", f"command -v {program}"], capture_output=True, text=True, check=True).stdout.strip()

    def shell(self, script, types="", answers="", patience=PATIENCE):
        """Runs a script in the clone; its exit code, and all that it said."""
        self.environment["WALK_TYPES"] = types
        folder = self.clone if self.clone.is_dir() else self.clone.parent
        started = subprocess.Popen(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = started.communicate(answers, timeout=patience)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, 9)
            output, _ = started.communicate()
            return 124, output + f"\n(not done after {patience} s)"
        return started.returncode, output

    def settings(self, block, into):
        """The lines of a block, put into an .env; what the program says of it."""
        kept = into.read_text() if into.exists() else ""
        for line in filter(SETTING.match, block.lines):
            name, line = line.split("=")[0], without_comment(line)
            if re.search(rf"(?m)^#?{name}=.*$", kept):
                kept = re.sub(rf"(?m)^#?{name}=.*$", lambda _: line, kept)
            else:
                kept += line + "\n"
        into.write_text(kept)

    def read_settings(self, folder):
        """Whether the program takes the .env of a folder."""
        environment = {"PATH": os.environ["PATH"], "CONFIG_DIR": str(self.clone / "config")}
        done = subprocess.run([self.binary, "validate"], cwd=folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def walk(self, block, rule):
        """Performs a block; how (ran, replaced, shown, refused), and what failed."""
        if "refused" in rule:
            return "refused", []
        failed, output = [], ""

        def run(script, what, **more):
            nonlocal output
            code, said = self.shell(script, **more)
            output += said
            if code not in rule.get("exit", [0]):
                failed.append(f"{what} ended with {code}")

        if "before" in rule:
            run(rule["before"], "what comes before")
        if "run" in rule:
            how = "replaced"
            run(rule["run"], "the replacement", types=rule.get("types", ""), answers=rule.get("answers", ""))
        elif "shown" in rule:
            how = "shown"
        elif is_settings(block):
            how = "ran"
            with tempfile.TemporaryDirectory() as folder:
                self.settings(block, pathlib.Path(folder, ".env"))
                code, said = self.read_settings(folder)
                output += said
                if code == 2:
                    failed.append("the program does not take these settings")
            if rule.get("applied"):
                self.settings(block, self.clone / ".env")
        elif script_name(block):
            how = "ran"
            path = self.clone / script_name(block)
            path.write_text(block.text)
            path.chmod(0o755)
        elif block.language == "bash":
            how = "ran"
            run(block.text, "the block", types=rule.get("types", ""), answers=rule.get("answers", ""))
        else:
            how = "ran"
            failed.append("there is no rule for it")
        if "after" in rule:
            run(rule["after"], "the check after it")
        for expected in rule.get("expect", []):
            if not re.search(expected, output, re.M):
                failed.append(f"nothing like {expected!r} was said")
        self.outputs[block.line] = output
        return how, failed

    def all(self):
        for block, rule in guide():
            if self.only and not self.only[0] <= block.line <= self.only[1]:
                continue
            began = time.monotonic()
            how, failed = self.walk(block, rule)
            took = time.monotonic() - began
            self.rows.append((block, how, failed, why(rule), took))
            mark = "FAILED" if failed else "ok"
            print(f"{block.line:5} {how:9} {mark:6} {took:5.1f} s  {block.first[:80]}", flush=True)
            if failed:
                said = self.outputs.get(block.line, "").strip().splitlines()[-25:]
                print("\n".join(f"        {line}" for line in [*failed, *said]), flush=True)

    def report(self):
        print("\n| block | line | how | what | why |\n| --- | --- | --- | --- | --- |")
        for block, how, failed, why, _ in self.rows:
            how = f"{how}, FAILED" if failed else how
            first = block.first[:60].replace("|", "\\|")
            print(f"| {block.number} | {block.line} | {how} | `{first}` | {why} |")
        counts = {}
        for _, how, failed, _, _ in self.rows:
            counts[how] = counts.get(how, 0) + 1
        failures = sum(bool(failed) for _, _, failed, _, _ in self.rows)
        said = ", ".join(f"{count} {how}" for how, count in sorted(counts.items()))
        print(f"\nguide: {len(self.rows)} blocks: {said}; {failures} failed")
        return failures


def main():
    if sys.argv[1:] == ["--page"]:
        print(page())
        return
    clone, binary = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    only = tuple(map(int, sys.argv[3].split("-"))) if len(sys.argv) > 3 else None
    walk = Walk(clone, binary, only)
    walk.all()
    sys.exit(1 if walk.report() else 0)


if __name__ == "__main__":
    main()
