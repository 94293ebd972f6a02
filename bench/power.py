"""What a disk may hold after the power went: a log of system calls, replayed with unsynced writes dropped or torn.

The model is stricter than a journaling file system. A file's bytes are safe once it was synced; until then it may be
empty, cut anywhere, full of zeros, or whole. A folder's entries are safe once it was synced; until then a prefix of
its changes is there, whatever other folders hold. A rename alone is all or nothing. `Disk.play` follows the log of
``strace`` call by call, and `Disk.image` writes out one state that the disk may be in.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHANGES = (
    "write,pwrite64,writev,ftruncate,fallocate,fsync,fdatasync,rename,renameat,renameat2,link,mkdir,mkdirat,"
    "unlink,unlinkat,rmdir"
)
"""Calls that change what a disk holds or say that it must hold it."""
TRACE = ["-f", "-y", "-xx", "-s", "100000000", "-e", f"trace=openat,close,lseek,dup,fcntl,{CHANGES}"]
"""Options of strace for a log that can be replayed."""
_CALL = re.compile(r"^\d+ +(\w+)\((.*)\) += (-?\d+)(?:<(.*?)>)?")
_FD = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(eq=False, slots=True)
class Node:
    """A file or a folder."""

    folder: bool
    data: bytes = b""
    synced: bytes = b""
    """Of a file: its bytes at the last sync."""
    entries: dict[str, Node] = field(default_factory=dict)
    safe: dict[str, Node] = field(default_factory=dict)
    """Of a folder: its entries at the last sync."""
    changes: list[tuple[str, Node | None, int]] = field(default_factory=list)
    """Since then: name, what it names now, and the number of the rename that the change is half of, or -1."""

    def name(self, name: str, node: Node | None, rename: int = -1) -> None:
        if node is None:
            self.entries.pop(name, None)
        else:
            self.entries[name] = node
        self.changes.append((name, node, rename))

    def sync(self) -> None:
        self.synced, self.safe = self.data, dict(self.entries)
        self.changes.clear()


@dataclass(eq=False, slots=True)
class Description:
    """An open file; descriptors that were duplicated share one."""

    node: Node
    append: bool
    at: int = 0


class Disk:
    """What programs see of a folder, and what is safe of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tree = self._stored(root)
        self.opened: dict[int, Description] = {}
        self.renames = 0

    def _stored(self, path: Path) -> Node:
        node = Node(path.is_dir())
        if node.folder:
            node.entries = {entry.name: self._stored(entry) for entry in path.iterdir()}
        else:
            node.data = path.read_bytes()
        node.sync()
        return node

    def play(self, log: str) -> Iterator[str]:
        """Follow the log; the name of each call that changed something, after it."""
        for line in log.splitlines():
            match = _CALL.match(line)
            if match is None or int(match[3]) < 0:
                continue
            call, arguments, result = match[1], match[2], int(match[3])
            if self._play(call, arguments, result, _text(match[4] or "")) and call in CHANGES.split(","):
                yield call

    def _play(self, call: str, arguments: str, result: int, opened: str) -> bool:
        """Whether the call concerned this folder."""
        strings = [bytes.fromhex(text.replace("\\x", "")) for text in _STRING.findall(arguments)]
        descriptor = int(arguments.split("<", 1)[0]) if arguments[:1].isdigit() else -1
        if call == "openat":
            return self._open(result, opened, arguments)
        if call == "close":
            return self.opened.pop(descriptor, None) is not None
        if call in ("dup", "fcntl"):
            if descriptor in self.opened and (call == "dup" or "F_DUPFD" in arguments):
                self.opened[result] = self.opened[descriptor]
            return False
        if call in ("lseek", "write", "pwrite64", "writev", "ftruncate", "fallocate"):
            return descriptor in self.opened and self._write(call, descriptor, strings, arguments, result)
        if call in ("fsync", "fdatasync"):
            if descriptor in self.opened:
                self.opened[descriptor].node.sync()
            return descriptor in self.opened
        bases = [_text(base) for base in _FD.findall(arguments)]
        paths = [Path(bases[n] if n < len(bases) else "/") / text.decode() for n, text in enumerate(strings)]
        return self._rename(call, paths)

    def _open(self, descriptor: int, path: str, flags: str) -> bool:
        place = self._place(Path(path))
        if place is None:
            return False
        folder, name = place
        node = folder.entries.get(name) if name else self.tree
        if node is None:
            node = Node(False)
            folder.name(name, node)
        if "O_TRUNC" in flags:
            node.data = b""
        self.opened[descriptor] = Description(node, "O_APPEND" in flags)
        return True

    def _write(self, call: str, descriptor: int, strings: list[bytes], arguments: str, result: int) -> bool:
        file = self.opened[descriptor]
        node = file.node
        if call == "lseek":
            file.at = result
            return True
        numbers = [int(part) for part in re.findall(r"(?:^|, )(\d+)(?=,|$)", arguments)]
        if call in ("ftruncate", "fallocate"):
            size = numbers[-1] + (numbers[-2] if call == "fallocate" else 0)
            node.data = node.data.ljust(size, b"\0") if call == "fallocate" else node.data[:size].ljust(size, b"\0")
            return True
        piece = b"".join(strings)[:result]
        where = numbers[-1] if call == "pwrite64" else len(node.data) if file.append else file.at
        node.data = node.data[:where].ljust(where, b"\0") + piece + node.data[where + len(piece) :]
        if call != "pwrite64":
            file.at = where + len(piece)
        return True

    def _rename(self, call: str, paths: list[Path]) -> bool:
        places = [place for path in paths if (place := self._place(path)) is not None]
        if not places:
            return False
        (folder, name), *to = places
        if call.startswith("rename"):
            node, (target, new) = folder.entries[name], to[0]
            number = -1
            if target is not folder:
                self.renames += 1
                number = self.renames
            target.name(new, node, number)
            folder.name(name, None, number)
        elif call.startswith("mkdir"):
            folder.name(name, Node(True))
        elif call == "link":
            raise ValueError("hard links are not followed")
        else:
            folder.name(name, None)
        return True

    def _place(self, path: Path) -> tuple[Node, str] | None:
        """The folder that holds an address below the root, and its name there; None for one elsewhere."""
        if not path.is_relative_to(self.root):
            return None
        *above, name = path.relative_to(self.root).parts or ("",)
        node = self.tree
        for part in above:
            node = node.entries[part]
        return node, name

    def compare(self, folder: Path) -> None:
        """Raises `AssertionError` where ``folder`` is not what programs see by now."""
        _compare(self.tree, folder)

    def image(self, out: Path, chooser: random.Random) -> None:
        """Write one state that the disk may be in to the new folder ``out``."""
        kept: dict[Node, int] = {}
        renamed: set[int] = set()
        for folder in self._folders(self.tree, set()):
            count = len(folder.changes)
            kept[folder] = chooser.choice((0, count, chooser.randint(0, count)))
            # where the new name is there, the old one is not, and the other way round
            renamed |= {n for _, node, n in folder.changes[: kept[folder]] if n >= 0 and node is not None}
        self._write_out(self.tree, out, chooser, kept, renamed)

    def _folders(self, node: Node, met: set[Node]) -> Iterator[Node]:
        if node.folder and node not in met:
            met.add(node)
            yield node
            for below in (*node.entries.values(), *node.safe.values(), *(n for _, n, _ in node.changes if n)):
                yield from self._folders(below, met)

    def _write_out(
        self, folder: Node, out: Path, chooser: random.Random, kept: dict[Node, int], renamed: set[int]
    ) -> None:
        out.mkdir()
        entries = dict(folder.safe)
        for n, (name, node, rename) in enumerate(folder.changes):
            if rename in renamed if rename >= 0 else n < kept[folder]:
                if node is None:
                    entries.pop(name, None)
                else:
                    entries[name] = node
        for name, node in entries.items():
            if node.folder:
                self._write_out(node, out / name, chooser, kept, renamed)
            else:
                (out / name).write_bytes(_surviving(node, chooser))


def _compare(node: Node, path: Path) -> None:
    if node.folder:
        if (found := {entry.name for entry in path.iterdir()}) != node.entries.keys():
            raise AssertionError(f"{path}: the log gives {sorted(node.entries)}, found {sorted(found)}")
        for name, below in node.entries.items():
            _compare(below, path / name)
    elif node.data != (found_bytes := path.read_bytes()):
        raise AssertionError(f"{path}: the log gives {len(node.data)} bytes, found {len(found_bytes)} or others")


def _surviving(node: Node, chooser: random.Random) -> bytes:
    if node.data == node.synced:
        return node.data
    cut = chooser.randint(0, len(node.data))
    return chooser.choice((node.synced, node.data[:cut], b"\0" * len(node.data), node.data))


def _text(escaped: str) -> str:
    return bytes.fromhex(escaped.replace("\\x", "")).decode() if escaped.startswith("\\x") else escaped
