"""The files of a directory and of all directories below it, as somebody's camera fills them."""

import os
import re
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.pictures.files import has_image_name
from pipeline.store.local_files import reason_of
from pipeline.terminal import printable, say

# Directories of a NAS with thumbnails or deleted files, and one that every Linux disk has.
NO_CAMERAS = re.compile(r"\..*|@.*|#.*|lost\+found")
MAX_SAID = 20  # lines about what is left alone

Inode = tuple[int, int]  # the device and the number on it


@dataclass
class Tree:
    """What is in a directory and below it."""

    files: dict[str, os.stat_result] = field(default_factory=dict)  # with an image's name, by path
    left_alone: dict[str, str] = field(default_factory=dict)  # by kind: a line about the first
    faults: dict[str, str] = field(default_factory=dict)  # of directories that can't be listed
    is_complete: bool = True  # whether a file that isn't here has really gone
    inode: Inode = (0, 0)


def list_tree(directory: str, ours: Collection[Inode] = ()) -> Tree:
    """List a directory and all below it, but for the pipeline's own directories, which are `ours`.

    Links to directories are followed after all other directories, and no directory is listed twice:
    so a loop of links has an end, and a new link changes no picture's path. Raises `OSError` if the
    directory itself can't be listed.
    """
    status = os.stat(directory)
    tree = Tree(inode=(status.st_dev, status.st_ino))
    listed = set(ours)
    linked_files: list[str] = []
    directories, linked_directories = deque([directory]), deque[str]()
    while directories or linked_directories:
        path = (directories or linked_directories).popleft()
        try:
            status = os.stat(path)
            inode = (status.st_dev, status.st_ino)
            if inode in ours:
                tree.left_alone.setdefault("ours", f"{path}: the pipeline's own")
            if inode in listed:
                continue
            listed.add(inode)
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if _is_directory(entry):
                        if NO_CAMERAS.fullmatch(entry.name):
                            tree.left_alone.setdefault(
                                "hidden", f"{entry.path}: hidden, or the disk's own"
                            )
                        elif entry.is_symlink():
                            linked_directories.append(entry.path)
                        else:
                            directories.append(entry.path)
                    else:
                        _add_file(tree, entry, linked_files)
        except OSError as error:
            if path == directory:
                raise
            tree.faults[path] = reason_of(error)
            tree.is_complete = False
    _leave_links_inside(tree, linked_files)
    return tree


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    with suppress(OSError):
        return entry.is_dir()
    return False


def _add_file(tree: Tree, entry: "os.DirEntry[str]", linked_files: list[str]) -> None:
    if not has_image_name(entry.name):
        kind = "hidden" if entry.name.startswith(".") else os.path.splitext(entry.name)[1].lower()
        why = {"hidden": "hidden", "": "without an extension"}.get(
            kind, f"{kind} is no extension of a picture that is taken"
        )
        tree.left_alone.setdefault(kind, f"{entry.path}: {why}")
        return
    status, is_certain = _status(entry)
    tree.is_complete &= is_certain
    if status:
        tree.files[entry.path] = status
        if entry.is_symlink():
            linked_files.append(entry.path)


def _leave_links_inside(tree: Tree, linked_files: list[str]) -> None:
    """Leave out each link to a picture that is in the tree under its own name."""
    links = {path: tree.files.pop(path) for path in linked_files}
    inodes = {(status.st_dev, status.st_ino) for status in tree.files.values()}
    for path, status in links.items():
        if (status.st_dev, status.st_ino) in inodes:
            tree.left_alone.setdefault("link", f"{path}: a link to a picture that is here, too")
        else:
            tree.files[path] = status


def _status(entry: "os.DirEntry[str]") -> tuple[os.stat_result | None, bool]:
    """The status of a file, and whether it is certain.

    The status of a file that was deleted after the listing is `None`. A link whose file is not
    there has the status of the link itself, which is not certain: the file's disk may come back.
    """
    try:
        return entry.stat(), True
    except OSError as error:
        with suppress(OSError):
            return entry.stat(follow_symlinks=False), False
        return None, isinstance(error, FileNotFoundError)


def natural(path: str) -> list[tuple[str, int]]:
    """The key that sorts paths as people do: frame2 before frame10."""
    parts = re.split(r"([0-9]+)", path)
    # Each text with the number behind it; the last text has none.
    return [
        (text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], -1], strict=True)
    ]


class LeftAlone:
    """Says what is left alone: once for each kind, so that a directory full of it is no flood."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, lines: dict[str, str]) -> None:
        """Say the lines of the kinds that nothing was said of yet."""
        for kind, line in lines.items():
            if kind not in self._said and len(self._said) <= MAX_SAID:
                self._said.add(kind)
                say(
                    f"left alone  {printable(line)}; so is any other of this kind"
                    if len(self._said) <= MAX_SAID
                    else "left alone  more kinds of files, which aren't named any more"
                )
