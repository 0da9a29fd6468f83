"""A reader's shell and second terminal: blocks are run in it as they are typed, with what earlier ones set."""

import os
import pty
import re
import signal
import socket
import subprocess
import threading
import time

PORTS = {
    8001: "STATE_MANAGER_PORT",
    8002: "CONFIG_SERVICE_PORT",
    8003: "ORCHESTRATOR_PORT",
    8004: "SCHEDULER_SERVICE_PORT",
    8005: "SLACK_GATEWAY_PORT",
    8006: "AGENT_POOL_PORT",
}
PORT = re.compile(r"(?<=:)(?:%s)\b" % "|".join(map(str, PORTS)))
# What a terminal writes over (a spinner), and colours.
OVERWRITTEN = re.compile(r"[^\n]*\r\x1b\[2?K|\x1b\[[0-9;?]*[A-Za-z]|\r")

# Variables and folder of one block are those of the next.
RECALL = """
[[ -f $WALK/state ]] && . $WALK/state 2>/dev/null
cd "$(cat $WALK/folder)"
[[ -f $WALK/world.sh ]] && . $WALK/world.sh
set -eo pipefail
"""
REMEMBER = """
trap 'code=$?; declare -p | grep -v "^declare -[A-Za-z-]*r" >$WALK/state; pwd >$WALK/folder; exit $code' EXIT
"""


def free_ports():
    sockets = [socket.socket() for _ in PORTS]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = dict(zip(PORTS, (each.getsockname()[1] for each in sockets)))
    for each in sockets:
        each.close()
    return ports


class Terminal:
    """A process on a terminal of its own, with all that it wrote so far."""

    def __init__(self, arguments, folder, environment):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.written = b""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        """Reads all the time: a process whose terminal nobody reads stands still at some line."""
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # nobody is left on the other side
                return
            self.written += data

    def wait(self, patience, until=None):
        """Waits for its end, or for a text; its exit code, or None."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if until and until in self.written:
                return None
            if self.process.poll() is not None:
                self.reader.join(0.2)  # longer only when something is left in the background
                return self.process.returncode
            time.sleep(0.01)
        return None

    def signal(self, number):
        """Signals it and all that it started, as long as somebody is there: its number may be another's afterwards."""
        if self.process.poll() is not None and not self.reader.is_alive():
            return
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def close(self):
        """Ends whatever is left of it."""
        self.signal(signal.SIGKILL)
        self.process.wait()
        self.reader.join(5)
        os.close(self.master)


class Shell:
    """What a reader has: a folder, a shell, and a terminal more for the server."""

    def __init__(self, folder, binary, node, environment):
        self.folder, self.ports, self.server, self.terminals = folder, free_ports(), None, []
        home, walk = folder / "home", folder / ".walk"
        for each in (home, walk, folder / "bin"):
            each.mkdir(parents=True)
        (folder / "bin/agentrunner").symlink_to(binary)
        if node:  # what npx finds here it does not fetch
            (home / "node_modules").symlink_to(node)
        (home / ".curlrc").write_text("fail-with-body\nmax-time = 30\n")  # what is refused, failed
        (walk / "folder").write_text(f"{home}\n")
        self.home, self.walk = home, walk
        self.environment = {
            "HOME": str(home),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "WALK": str(walk),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "NO_COLOR": "1",
            "AGENT_SHUTDOWN_TIMEOUT": "1",
            "OLLAMA_BASE_URL": "http://127.0.0.1:1",  # whatever runs on this machine, what is shown stays the same
            **{name: str(self.ports[port]) for port, name in PORTS.items()},
            **environment,
        }

    def typed(self, text):
        """A text with this shell's ports in the place of those that the pages name."""
        return PORT.sub(lambda port: str(self.ports[int(port[0])]), text)

    def shown(self, written):
        """What a terminal shows in the end, with the ports that the pages name."""
        text = OVERWRITTEN.sub("", written.decode(errors="replace"))
        for usual, own in self.ports.items():
            text = re.sub(rf"(?<=:){own}\b", str(usual), text)
        return text

    def _start(self, name, script):
        path = self.walk / name
        path.write_text(RECALL + self.typed(script))
        terminal = Terminal(["bash", str(path)], self.home, self.environment)
        self.terminals.append(terminal)
        return terminal

    def run(self, script, patience=180):
        """Runs a script to its end; its exit code (124: it was ended), and what it showed."""
        terminal = self._start("block.sh", REMEMBER + script)
        code = terminal.wait(patience)
        if code is None:
            terminal.signal(signal.SIGKILL)
            return 124, self.shown(terminal.written) + f"\n(not done after {patience} s)"
        return code, self.shown(terminal.written)

    def serve(self, script, patience=180):
        """Starts a server in the other terminal, in the place of the one there; exit code and output as above."""
        said = self.stop()
        terminal = self._start("server.sh", script)
        code = terminal.wait(patience, until=b"ready in")
        output = said + self.shown(terminal.written)
        if code is not None or b"ready in" not in terminal.written:
            terminal.signal(signal.SIGKILL)
            return code or 124, output
        self.server = terminal
        return 0, output

    def stop(self):
        """Ends the server by Ctrl-C; what is wrong with how it ended."""
        if not self.server:
            return ""
        server, self.server = self.server, None
        server.signal(signal.SIGINT)
        code = server.wait(60)
        return "" if code in (0, 130) else f"(the server ended with {code})\n"

    def close(self):
        """Ends all that was started, also what blocks left in the background."""
        self.stop()
        while self.terminals:
            self.terminals.pop().close()
