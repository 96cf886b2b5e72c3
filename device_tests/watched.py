"""Commands in an empty network namespace under strace: which sockets they open, and which files they change."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .lab.host import LabUnavailableError

_TOOLS = {"strace": "strace", "unshare": "util-linux", "ip": "iproute2"}
_UP = "ip link set lo up"
#: What reads or asks for names of hosts.
_RESOLVING = re.compile(r'"/etc/(resolv\.conf|hosts|gai\.conf)"|sin6?_port=htons\(53\)|io\.systemd\.Resolve')
_FAMILIES = re.compile(r"sa_family=(AF_[A-Z0-9]+)(.*)")
_CALL = re.compile(r"^(\d+) +([a-z0-9_]+)\((.*)$")
_STANDS = re.compile(r"AT_FDCWD<([^>]*)>")
_CHANGING = re.compile(
    r"^(creat|mkdir(at)?|rmdir|rename(at2?)?|unlink(at)?|link(at)?|symlink(at)?|mknod(at)?|chmod|fchmodat2?|truncate)$"
)
_PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_NOWHERE = ("/dev/null", "/dev/tty", "/proc/self/", "/dev/shm/")


@dataclass(frozen=True)
class Watch:
    """What a command and its children did.

    Attributes:
        status: it ended with.
        output: standard output and error.
        sockets: addresses that were connected to, bound, or sent to; a look-up of a name is among them.
        changed: absolute paths that were written, made, moved or removed, as far as the call succeeded.
    """

    status: int
    output: str
    sockets: tuple[str, ...]
    changed: tuple[str, ...]

    def outside(self, *folders: Path) -> list[str]:
        """Changed paths that lie below none of some folders; a folder above one of them may be made for it."""
        allowed = [str(folder) for folder in folders]
        above = {str(parent) for folder in folders for parent in folder.parents}
        return sorted({
            path
            for path in self.changed
            if path not in above and not any(path == each or path.startswith(f"{each}/") for each in allowed)
        })  # fmt: skip


def watched(command: Sequence[str | Path], folder: Path, *, beside: str = "", **environment: str) -> Watch:
    """Run a command with no network but an empty loopback, and CI unset, which hides what libraries send.

    Args:
        command: what is run.
        folder: for the trace; made if need be.
        beside: a shell script that runs in the same namespace meanwhile, and ends the command by ``kill $server``.
        environment: variables besides this process's own.

    Raises:
        LabUnavailableError: no strace or no namespaces here.
    """
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        raise LabUnavailableError(f"missing: {', '.join(missing)}", hint=f"apt-get install {' '.join(missing)}")
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "trace.txt"
    traced = shlex.join([*tracing(str(trace)), *map(str, command)])
    script = f"{_UP}; {traced} & server=$!; {beside}\nwait $server" if beside else f"{_UP}; exec {traced}"
    quiet = ("CI", "GITHUB_ACTIONS", "BUILD_ID", "TF_BUILD", "ORT_DISABLE_TELEMETRY")
    variables = {name: value for name, value in os.environ.items() if name not in quiet} | environment
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        capture_output=True, text=True, errors="replace", env=variables, timeout=300, check=False,
    )  # fmt: skip
    if not trace.exists():
        raise LabUnavailableError(f"no namespace or no tracing here: {done.stderr.strip()[-200:]}", hint="run as root")
    lines = trace.read_text(encoding="utf-8", errors="replace").splitlines()
    return Watch(done.returncode, done.stdout + done.stderr, tuple(sockets(lines)), tuple(changed(lines)))


def tracing(file: str) -> list[str]:
    """The beginning of a command line that writes a trace of the rest to a file."""
    return ["strace", "-f", "-y", "-qq", "-o", file, "-e", "trace=network,%file,fchdir"]


def sockets(lines: Sequence[str]) -> Iterator[str]:
    """Addresses in a trace, and look-ups of names; see :class:`Watch`."""
    for line in lines:
        if _RESOLVING.search(line):
            yield f"look-up: {line[:200]}"
        found = _CALL.match(line)
        if found is None or found[2] not in ("connect", "bind", "sendto", "sendmsg", "sendmmsg"):
            continue
        family = _FAMILIES.search(found[3])
        if family is None or family[1] == "AF_NETLINK" or "nscd/socket" in family[2]:
            continue  # the kernel's own tables, and the cache of this machine's users
        port = re.search(r"port=htons\((\d+)\)", family[2])
        host = re.search(r'inet_addr\("([^"]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', family[2])
        name = re.search(r'sun_path=@?"([^"]*)"', family[2])
        place = (host[1] or host[2]) if host else name[1] if name else "?"
        yield f"{found[2]} {family[1]} {place}:{port[1] if port else ''}"


def changed(lines: Sequence[str]) -> Iterator[str]:
    """Paths that a trace changes; see :class:`Watch`."""
    folders: dict[str, str] = {}  # where each process stands: any call relative to it says so
    for line in lines:
        found = _CALL.match(line)
        if found is None:
            continue
        pid, call, rest = found.groups()
        if stands := _STANDS.search(rest):
            folders[pid] = stands[1]
        here = folders.get(pid, "/")
        if "= -1 " in line:
            continue
        if call == "chdir":
            folders[pid] = _whole(here, *_PATH.findall(rest)[0])
        elif call == "fchdir":
            folders[pid] = rest.partition("<")[2].partition(">")[0]
        elif call in ("open", "openat", "openat2"):
            if re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", rest):
                yield from _places(here, rest)
        elif _CHANGING.match(call):
            yield from _places(here, rest)


def _places(here: str, rest: str) -> Iterator[str]:
    for base, path in _PATH.findall(rest):
        whole = _whole(here, base, path)
        if not whole.startswith(_NOWHERE):
            yield whole


def _whole(here: str, base: str, path: str) -> str:
    return os.path.normpath(Path(base or here) / path)
