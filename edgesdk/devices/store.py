"""Bundles on a device: content-addressed, resumable, and switched in one step.

A file travels under its hash and gets its place only when the device itself has hashed it; a bundle gets its name only
when all of its files are there; the record of what is in use is one small file that is renamed. A cable pulled at any
moment leaves the bundle in use as it was, and the next push sends only what is missing.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..bundle import Bundle
from ..bundle.manifest import FILE, SIGNATURE
from ..documents import whole
from ..errors import BundleError
from ..files import FileEntry, file_entry
from ..progress import SILENT, Progress
from ..signing.pins import check_going_back, check_pinned, note_sent
from .base import Advance, Completed, DeviceError, DeviceGoneError
from .facts import PROBE, PROGRAMS, Facts, parsed, sections, tailed
from .shell import ShellDevice, hint_for

_SCRIPT = PROBE + Path(__file__).with_name("store.sh").read_text(encoding="utf-8")
_ATTEMPTS = 3  # at a file that arrives with other content
_MARGIN = 1 << 20  # bytes for folders and records
_HASHING = 1800.0  # seconds without a word, while a slow device hashes
_SMALL = 1 << 24  # bytes of a manifest or a signature that are read


@dataclass(frozen=True)
class Parcel:
    """A folder that a store can hold.

    Attributes:
        name: of its folder there; the same content has the same name.
        folder: where its files lie here.
        files: what belongs to it.
        bundle: the bundle that it is; None for a program of edgesdk's own.
    """

    name: str
    folder: Path
    files: tuple[FileEntry, ...]
    bundle: Bundle | None = None

    @classmethod
    def of_bundle(cls, bundle: Bundle) -> Parcel:
        """A bundle with its manifest, and its signature where it has one.

        Raises:
            BundleError: a file has a name that no device shall have.
        """
        odd = next((entry.path for entry in bundle.manifest.files if not entry.path.isprintable()), None)
        if odd is not None:
            raise BundleError(f"{bundle.folder}: the file name {odd!r} cannot go to a device")
        beside = [FILE, *([SIGNATURE] if (bundle.folder / SIGNATURE).is_file() else [])]
        files = (*bundle.manifest.files, *(file_entry(bundle.folder / name, name) for name in beside))
        return cls(bundle.manifest.digest[:16], bundle.folder, files, bundle)


@dataclass(frozen=True)
class Stored:
    """One folder of a store, as the device lists it: path to (hash, size), of files that are as they were recorded."""

    files: dict[str, tuple[str, int]]
    whole: bool


@dataclass(frozen=True)
class Survey:
    """What a store holds.

    Attributes:
        root: its folder.
        free: bytes free there; None where the device does not say.
        active: folder in use.
        previous: folder in use before it.
        incoming: bytes that have come, by file name: a hash, with ``.part`` until it was verified.
        bundles: folders by name.
        facts: of the device.
    """

    root: str
    free: int | None
    active: str | None
    previous: str | None
    incoming: dict[str, int]
    bundles: dict[str, Stored]
    facts: Facts


@dataclass
class Pushed:
    """What a push did.

    Attributes:
        name: the folder's name there.
        path: the folder there.
        sent: paths of the files that went over, wholly or in part.
        sent_bytes: bytes that went over.
        kept_bytes: bytes that were there.
        was_active: whether it was in use before.
    """

    name: str
    path: str
    sent: list[str] = field(default_factory=list)
    sent_bytes: int = 0
    kept_bytes: int = 0
    was_active: bool = False


class Store:
    """The store of one device."""

    def __init__(self, device: ShellDevice) -> None:
        """Raises DeviceError: the device cannot hold files."""
        device.need("files")
        self.device = device

    def survey(self) -> Survey:
        """What is there, in one round trip.

        Raises:
            DeviceError: the store's folder cannot be made or read.
        """
        done = self._call("survey")
        return _surveyed(done.text, self.device.name)

    def push(
        self, parcel: Parcel, *, activate: bool = True, progress: Progress = SILENT, survey: Survey | None = None
    ) -> Pushed:
        """Bring a folder to the device, whatever of it is missing there.

        Args:
            parcel: what to bring; a bundle is checked before.
            activate: whether it is in use from then on.
            progress: told of the bytes.
            survey: what was there just now, to save a round trip.

        Raises:
            SignatureError: a key is pinned for the device, and the bundle is not signed with it or is an older one.
            DeviceError: not enough space, the folder cannot be written, or a file arrives with other content each time.
            DeviceGoneError: the connection broke; the next push goes on where this one stopped.
        """
        signature = None if parcel.bundle is None else check_pinned(self.device, parcel.bundle)
        pushed = self._put(parcel, survey or self.survey(), progress, activate=activate)
        note_sent(self.device, signature)
        return pushed

    def _put(self, parcel: Parcel, found: Survey, progress: Progress, *, activate: bool) -> Pushed:
        name, complete = _name_for(parcel, found)
        pushed = Pushed(name, f"{found.root}/bundles/{name}", was_active=found.active == name)
        if complete:
            pushed.kept_bytes = sum(entry.size for entry in parcel.files)
        else:
            self._bring(parcel, found, pushed, progress, activate=activate)
            return pushed
        if activate and not pushed.was_active:
            self._call(f"activate {shlex.quote(name)}", expect="@active")
        return pushed

    def verify(self, name: str | None = None) -> list[str]:
        """Paths whose content is not what was pushed; all files are hashed on the device.

        Args:
            name: the folder; None takes the one in use.

        Raises:
            DeviceError: there is no such folder.
        """
        found = self.survey()
        name = self._known(name or found.active, found)
        done = self._call(f"verify {shlex.quote(name)}", expect="@verified", timeout=_HASHING)
        return [line.removeprefix("@wrong ") for line in done.text.splitlines() if line.startswith("@wrong ")]

    def rollback(self) -> str:
        """Put the folder that was in use before in use again; returns its name.

        Raises:
            DeviceError: there is none, or it is damaged.
            SignatureError: a key is pinned for the device, and the bundle is not signed with it.
        """
        found = self.survey()
        if not found.previous:
            raise DeviceError(f"{self.device.name} has no bundle to go back to")
        name = self._known(found.previous, found)
        if wrong := self.verify(name):
            raise DeviceError(f"{self.device.name}: the bundle before is damaged: {wrong[0]}", hint="push it again")
        folder = f"{found.root}/bundles/{name}"
        check_going_back(
            self.device,
            (self._bytes(f"{folder}/{FILE}") or b"").decode("utf-8", "replace"),
            self._bytes(f"{folder}/{SIGNATURE}"),
        )
        self._call(f"activate {shlex.quote(name)}", expect="@active")
        return name

    def _bytes(self, path: str) -> bytes | None:
        """A small file of the device; None where it cannot be read."""
        quoted = shlex.quote(path)
        read = f"if has head; then head -c {_SMALL} {quoted}; else cat {quoted}; fi"
        done = self.device.run(f"{PROGRAMS}\n{read}")
        return None if done.status else done.stdout

    def clean(self, *, everything: bool = False) -> int:
        """Remove what is neither in use nor what a rollback needs; returns the bytes freed, as the device's disk says.

        Args:
            everything: remove those two as well.

        Raises:
            DeviceError: something cannot be removed.
        """
        found = self.survey()
        kept = set() if everything else {found.active, found.previous}
        names = [shlex.quote(name) for name in found.bundles if name not in kept]
        active = "rm -f active && " if everything else ""
        self._call(
            f"{active}rm -rf incoming && mkdir incoming && forget {' '.join(names)} && sync && echo @cleaned",
            "@cleaned",
        )
        after = self.survey()
        return max(0, (after.free or 0) - (found.free or 0))

    def _bring(self, parcel: Parcel, found: Survey, pushed: Pushed, progress: Progress, *, activate: bool) -> None:
        """Send every file that is missing there, and have the device verify, settle and switch to the whole."""
        sources = _sources(parcel, found)
        missing = {entry.sha256: entry for entry in parcel.files if sources[entry.sha256].startswith("incoming/")}
        came = {sha: size for sha, size in found.incoming.items() if not sha.endswith(".part")}
        missing = {sha: entry for sha, entry in missing.items() if came.get(sha) != entry.size}
        pushed.kept_bytes = sum({e.sha256: e.size for e in parcel.files if e.sha256 not in missing}.values())
        offsets = {sha: _offset(entry, found) for sha, entry in missing.items()}
        self._refuse_space(sum(entry.size - offsets[sha] for sha, entry in missing.items()), found)
        seen: dict[str, str | None] = {}  # what the device hashed while it came
        for _ in range(_ATTEMPTS):
            with progress.stage("Sending", sum(e.size - offsets[sha] for sha, e in missing.items())) as stage:
                for sha, entry in missing.items():
                    target = f"{found.root}/incoming/{sha}.part"
                    seen[sha] = self._send(parcel.folder / entry.path, target, offsets[sha], stage.advance)
                    pushed.sent_bytes += entry.size - offsets[sha]
                    pushed.sent.append(entry.path)
            with progress.stage("Verifying on the device"):
                wrong = self._settle(parcel, pushed.name, sources, seen, activate=activate)
            if not wrong:
                return
            missing = {entry.sha256: entry for entry in parcel.files if entry.sha256 in wrong}
            offsets = dict.fromkeys(missing, 0)
        names = ", ".join(entry.path for entry in missing.values())
        raise DeviceError(
            f"{self.device.name}: {names} arrived with other content {_ATTEMPTS} times",
            hint="a bad cable, hub or memory: try another, and edgesdk verify the bundle here",
        )

    def _send(self, source: Path, target: str, offset: int, advance: Advance) -> str | None:
        """Bring one file, from an offset on; the hash that the device found on the way, of a whole one."""
        try:
            if offset == 0:
                return self.device.push_hashed(source, target, advance=advance)
            self.device.push(source, target, offset=offset, advance=advance)
            return None
        except DeviceGoneError:
            raise
        except DeviceError as failure:
            if "no space left" in failure.message.lower():
                self.device.run(f"rm -f {shlex.quote(target)}")
            raise

    def _settle(
        self, parcel: Parcel, name: str, sources: dict[str, str], seen: dict[str, str | None], *, activate: bool
    ) -> set[str]:
        """Give the bundle its place; returns hashes of what came wrong, and then nothing was done."""
        last = {source: e.path for e in parcel.files if (source := sources[e.sha256]).startswith("incoming/")}
        rows = [
            "\t".join(
                (
                    e.sha256,
                    str(e.size),
                    "take" if last.get(source) == e.path else "keep",
                    seen.get(e.sha256) or "-",
                    source,
                    e.path,
                )
            )
            for e in parcel.files
            if (source := sources[e.sha256])
        ]
        quoted = shlex.quote(name)
        after = f'[ -n "$wrong" ] || activate {quoted}' if activate else ":"
        done = self._call(f"settle {quoted}", expect="@", lines=rows, after=after, timeout=_HASHING)
        lines = done.text.splitlines()
        wrong = {line.partition(" ")[2].strip() for line in lines if line.startswith("@wrong ")}
        if not wrong and not any(line.startswith("@active" if activate else "@settled") for line in lines):
            raise DeviceError(f"{self.device.name}: the store of bundles did not come to its end")
        return wrong

    def _refuse_space(self, needed: int, found: Survey) -> None:
        if found.free is not None and needed and needed + _MARGIN > found.free:
            raise DeviceError(
                f"{self.device.name}: {needed / 1e6:.1f} MB must go to {found.root}, "
                f"and {found.free / 1e6:.1f} MB are free",
                hint="edgesdk device clean frees what no bundle needs there; store = '...' in devices.toml moves it",
            )

    def _known(self, name: str | None, found: Survey) -> str:
        if name is None or name not in found.bundles:
            there = ", ".join(sorted(found.bundles)) or "none"
            what = f"no bundle '{name}'" if name else "no bundle in use"
            raise DeviceError(f"{self.device.name} has {what}; there are: {there}", hint="edgesdk push BUNDLE")
        return name

    def _call(
        self, call: str, expect: str = "@end", *, lines: Iterable[str] = (), after: str = ":", timeout: float = 120
    ) -> Completed:
        """Run a function of the script, and what comes ``after`` it; a last word shows that it came to its end."""
        root = shlex.quote(self.device.settings.folder)
        data = "".join(f"{line}\n" for line in lines)
        here = f" << 'EDGESDK_END'\n{data}EDGESDK_END\n" if data else "\n"
        # In braces: a shell that got only a part of it does nothing, and never takes a cut word for a whole one.
        script = f"{_SCRIPT}\n{{\nenter {root}\n{call}{here}{after}\n}}\n"
        done = self.device.run("exec sh -s", stdin=script.encode(), timeout=timeout)
        if done.status or not any(line.startswith(expect) for line in done.text.splitlines()):
            reason = Completed(done.status, b"", done.stderr).reason
            raise DeviceError(f"{self.device.name}: the store of bundles: {reason}", hint=hint_for(reason))
        return done


def refuse_misfit(bundle: Bundle, facts: Facts, name: str) -> str | None:
    """Stop before a bundle goes to a device that cannot run it; a note where that is doubtful.

    Raises:
        BundleError: it was made for another architecture or operating system.
    """
    target = bundle.manifest.target
    way = f"export it for this device: edgesdk targets lists targets with architecture {facts.architecture}"
    if facts.architecture and facts.architecture != target.architecture:
        raise BundleError(f"the bundle is for {target.architecture}, but {name} is {facts.architecture}", hint=way)
    if facts.os and facts.os != target.os:
        if {facts.os, target.os} != {"linux", "android"}:
            raise BundleError(f"the bundle is for {target.os}, but {name} has {facts.os}", hint=way)
        return f"the bundle is for {target.os}, and {name} has {facts.os}: the same kernel, maybe another C library"
    return None


def _name_for(parcel: Parcel, found: Survey) -> tuple[str, bool]:
    """The folder that holds all of it already, or a name for a new one: what is there is never written to."""
    wanted = {entry.path: (entry.sha256, entry.size) for entry in parcel.files}
    names = [name for name in found.bundles if name.partition("-")[0] == parcel.name]
    for name in sorted(names, key=lambda each: each != found.active):
        if found.bundles[name].whole and found.bundles[name].files == wanted:
            return name, True
    taken = {found.active, found.previous, *names}
    return next(name for name in (parcel.name, *_numbered(parcel.name)) if name not in taken), False


def _numbered(name: str) -> Sequence[str]:
    return [f"{name}-{number}" for number in range(2, 1000)]


def _sources(parcel: Parcel, found: Survey) -> dict[str, str]:
    """Where the device takes each hash from: a file that another bundle has, or what comes in."""
    known = {
        sha: f"bundles/{name}/{path}"
        for name, stored in found.bundles.items()
        for path, (sha, _) in stored.files.items()
        if not {"\t", "\n"} & set(path)
    }
    return {entry.sha256: known.get(entry.sha256, f"incoming/{entry.sha256}") for entry in parcel.files}


def _offset(entry: FileEntry, found: Survey) -> int:
    came = found.incoming.get(f"{entry.sha256}.part", 0)
    return came if came <= entry.size else 0


def _surveyed(text: str, name: str) -> Survey:
    """What the script's ``survey`` printed; what is not understood is passed over."""
    said = sections(text)
    cut = next((key for key in ("@root", "@incoming", "@records", "@present") if key not in said), None)
    if cut is not None or not said["@root"]:
        raise DeviceError(f"{name}: the store of bundles cannot be read (no {cut or '@root'})", hint="try again")
    facts, active = parsed(text), [*said.get("@active", []), "", ""]
    present: dict[str, dict[str, tuple[int, int]]] = {}
    for size, changed, path in _counted(said["@present"]):
        _, folder, file = [*path.split("/", 2), "", ""][:3]
        if file and changed is not None:
            present.setdefault(folder, {})[file] = (size, changed)
    bundles = {}
    for path, content in tailed("\n".join(said["@records"])).items():
        folder = path.removeprefix("bundles/").removesuffix(".files")
        if path != "/dev/null" and folder in present:
            bundles[folder] = _stored(_recorded(content), present[folder])
    incoming = {path.removeprefix("incoming/"): size for size, _, path in _counted(said["@incoming"])}
    return Survey(said["@root"][0], facts.free, active[0] or None, active[1] or None, incoming, bundles, facts)


def _counted(lines: Iterable[str]) -> Iterator[tuple[int, int | None, str]]:
    """Size, what changes when it is written, and path of the files that ``looked`` printed."""
    for line in lines:
        size, changed, path = [*line.split(" ", 2), "", ""][:3]
        count = whole(size)
        if count is not None and path:
            yield count, whole(changed), path


def _recorded(content: str) -> dict[str, tuple[str, int, int]]:
    found = {}
    for line in content.splitlines():
        sha, size, changed, path = [*line.split("\t", 3), "", "", ""][:4]
        count, moment = whole(size), whole(changed)
        if count is not None and moment is not None:  # a record that lost its content describes nothing
            found[path] = (sha, count, moment)
    return found


def _stored(recorded: dict[str, tuple[str, int, int]], present: dict[str, tuple[int, int]]) -> Stored:
    same = {
        path: (sha, size) for path, (sha, size, changed) in recorded.items() if present.get(path) == (size, changed)
    }
    return Stored(same, whole=len(same) == len(recorded) == len(present))
