"""The files that the command line names, and those in the directories that it names."""

import os
from collections.abc import Collection, Sequence

from pipeline.errors import InvalidInput
from pipeline.pictures.files import has_image_name
from pipeline.pictures.source_names import MAX_SOURCES, SourcePattern, Sources, sources_of, spelling
from pipeline.pictures.tree import Inode, list_tree, natural
from pipeline.store.local_files import reason_of
from pipeline.terminal import printable


def files_of(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files among the paths, and the pictures in the directories, in the order of their names.

    The second list has a line for people about whatever else is in the directories. Raises
    `InvalidInput` if there is no picture at all.
    """
    files: list[str] = []
    left_alone: list[str] = []
    for path in paths:
        if not os.path.isdir(path):
            if not os.path.lexists(path):
                raise InvalidInput(f"{path!r} is no file or directory")
            files.append(path)
            continue
        try:
            names = sorted(os.listdir(path), key=natural)
        except OSError as error:
            raise InvalidInput(f"{path!r} can't be listed: {reason_of(error)}") from error
        inside = [os.path.join(path, name) for name in names]
        directories = {entry for entry in inside if os.path.isdir(entry)}
        pictures = [entry for entry in inside if has_image_name(entry) and entry not in directories]
        left_alone += [
            f"{printable(entry)}: a directory; name it to take its pictures, too"
            for entry in sorted(directories)
        ]
        others = len(inside) - len(directories) - len(pictures)
        if others:
            left_alone.append(f"{printable(path)}: {others} hidden or without an image's extension")
        files += pictures
    if not files:
        raise InvalidInput(f"there is no picture in {', '.join(map(repr, paths))}")
    return files, [f"left alone  {line}" for line in left_alone]


def files_by_source(
    paths: Sequence[str], pattern: SourcePattern, ours: Collection[Inode]
) -> tuple[dict[str, list[str]], list[str]]:
    """The files among the paths, and the pictures in and below the directories, by their source.

    Those of a directory are sorted by name. The second list has a line for people about whatever
    else is there. Raises `InvalidInput` if there is no picture, or if there are too many sources.
    """
    files: dict[str, list[str]] = {}
    left_alone: dict[str, str] = {}
    spelled: dict[str, str] = {}
    for path in paths:
        if not os.path.lexists(path):
            raise InvalidInput(f"{path!r} is no file or directory")
        if os.path.isdir(path):
            found = _sources_in(path, pattern, ours)
        else:
            found = sources_of([path], "", pattern)
        for file, source in found.of_files.items():
            files.setdefault(source, []).append(file)
        left_alone = found.left_alone | left_alone
        spelled |= found.spelled
    if not files:
        raise InvalidInput(
            f"there is no picture in {', '.join(map(repr, paths))} whose name fits {pattern.text!r}"
        )
    if len(files) > MAX_SOURCES:
        raise InvalidInput(
            f"{pattern.text!r} finds {len(files)} sources, and there may be {MAX_SOURCES}; it may "
            "find a source in each file"
        )
    lines = [
        f"left alone  {printable(line)}; so is any other of this kind"
        for line in left_alone.values()
    ]
    return files, [*lines, *(spelling(name, source) for name, source in spelled.items())]


def _sources_in(directory: str, pattern: SourcePattern, ours: Collection[Inode]) -> Sources:
    try:
        tree = list_tree(directory, ours)
    except OSError as error:
        raise InvalidInput(f"{directory!r} can't be listed: {reason_of(error)}") from error
    found = sources_of(sorted(tree.files, key=natural), directory, pattern)
    faults = {path: f"{path}: can't be listed: {tree.faults[path]}" for path in tree.faults}
    found.left_alone = {**tree.left_alone, **faults, **found.left_alone}
    return found
