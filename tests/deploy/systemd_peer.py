"""systemd's side of what it speaks with a service, for tests: NOTIFY_SOCKET and LISTEN_FDS.

    with NotifySocket() as systemd:
        process = start_activated([SLUICE, "run", "-c", config], [("web", listening)],
                                  environment=systemd.environment())
        systemd.follow(process.pid)
        systemd.wait_for("readiness", lambda heard: heard.get("READY") == "1")

Nothing here ends a process: who starts one ends it.
"""

import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import time

FIRST_ACTIVATED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
SECONDS_TO_HEAR = 20
CREDENTIALS = struct.Struct("iII")  # struct ucred, unix(7): pid, uid, gid


class Heard(dict):
    """One message: the assignments in it as a dict, and the pid of the process that sent it."""

    def __init__(self, pid, text):
        lines = [line for line in text.split("\n") if line]
        super().__init__(line.split("=", 1) for line in lines if "=" in line)
        self.pid = pid
        self.text = text

    def __repr__(self):
        return f"{self.pid}: {self.text!r}"


class NotifySocket:
    """The datagram socket of NotifyAccess=main, as sd_notify(3) and systemd.service(5) have it.

    Before follow() everybody is heard. After it only the main process is, and a MAINPID= of it makes
    another one the main process; what others say is kept in `ignored`.
    """

    def __init__(self, abstract=False):
        self._directory = tempfile.TemporaryDirectory(prefix="sluice-systemd-")
        path = os.path.join(self._directory.name, "notify")
        self.address = "@" + path if abstract else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind("\0" + path if abstract else path)
        self._socket.setblocking(False)
        self._unheard = []  # of what was received, what no wait_for() has looked at
        self.main_pid = None
        self.heard = []  # every message that counted, in order
        self.ignored = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._socket.close()
        self._directory.cleanup()

    def environment(self, watchdog_seconds=None, base=None):
        """The variables of a service: those of `base` (by default our own) and systemd's."""
        variables = dict(os.environ if base is None else base)
        variables["NOTIFY_SOCKET"] = self.address
        if watchdog_seconds is not None:
            variables["WATCHDOG_USEC"] = str(int(watchdog_seconds * 1_000_000))
        return variables

    def follow(self, pid):
        """From now on only process `pid` and who it names is heard; also of what is here already."""
        self.main_pid = pid
        earlier, self.heard, self._unheard = self.heard, [], []
        for message in earlier:
            self._take(message)

    def _take(self, message):
        if self.main_pid is not None and message.pid != self.main_pid:
            self.ignored.append(message)
            return
        self.heard.append(message)
        self._unheard.append(message)
        if self.main_pid is not None and message.get("MAINPID", "").isdigit():
            self.main_pid = int(message["MAINPID"])

    def receive(self):
        """Takes all messages that have come, without waiting."""
        space = socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(64 * 4)
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(65536, space)
            except BlockingIOError:
                return
            pid = 0
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                    pid = CREDENTIALS.unpack(payload[:CREDENTIALS.size])[0]
                elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    # BARRIER=1 waits until its descriptor is closed here.
                    count = len(payload) // 4
                    for fd in struct.unpack(f"{count}i", payload[:count * 4]):
                        os.close(fd)
            self._take(Heard(pid, data.decode()))

    def wait_for(self, what, condition, seconds=SECONDS_TO_HEAR):
        """The next message for which condition(message) is true; those before it are passed over.

        Raises TimeoutError, with everything that was heard, when none comes in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.receive()
            while self._unheard:
                message = self._unheard.pop(0)
                if condition(message):
                    return message
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"{what} was not heard in {seconds} s; heard: {self.heard}, "
                                   f"ignored: {self.ignored}")
            select.select([self._socket], [], [], left)


def start_activated(command, sockets, environment=None, **options):
    """Starts `command` with listening sockets as systemd passes them; returns the Popen.

    `sockets` is a list of (name, socket); they stay open here too. `options` are Popen's. The pid is
    that of the command: what sets LISTEN_PID becomes it.
    """
    numbers = [listening.fileno() for _, listening in sockets]
    names = ":".join(name for name, _ in sockets)
    become = [sys.executable, "-I", os.path.abspath(__file__), names, ",".join(map(str, numbers))]
    return subprocess.Popen(become + [str(part) for part in command], env=environment,
                            pass_fds=numbers, **options)


def _become_activated(names, numbers, command):
    """Puts the descriptors where systemd would, and becomes `command`."""
    # Out of the way first: a place may be taken by what has to go to another.
    above = max(numbers, default=0) + FIRST_ACTIVATED + len(numbers) + 1
    moved = []
    for number in numbers:
        os.dup2(number, above + len(moved), inheritable=False)
        moved.append(above + len(moved))
    for number in numbers:
        os.close(number)
    for place, number in enumerate(moved, FIRST_ACTIVATED):
        os.dup2(number, place, inheritable=True)
    os.environ.update(LISTEN_FDS=str(len(numbers)), LISTEN_PID=str(os.getpid()),
                      LISTEN_FDNAMES=names)
    os.execvp(command[0], command)


if __name__ == "__main__":
    _become_activated(sys.argv[1], [int(n) for n in sys.argv[2].split(",") if n], sys.argv[3:])
