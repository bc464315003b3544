"""Where the target's files are not the source's: it is write-once, so this is told in the overflow file.

A file deleted at the source stays there, and one that was overwritten keeps its first content at its path, if the
service lets nobody overwrite it; the newer one lies below `runmirror/revisions/` then.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from runmirror.mirror.overflow import Kind, Overflowing
from runmirror.mirror.queries import SourceFile

WRITE_ONCE, DELETED = "write_once", "deleted"


@dataclass(frozen=True, slots=True)
class Changes:
    """To the run's list of what stands in its overflow file."""

    added: tuple[Overflowing, ...]
    removed: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)


def changes(
    told: Mapping[tuple[str, str], int],
    *,
    copied: Sequence[SourceFile],
    revised: Collection[str],
    deleted: Sequence[SourceFile],
    there: Collection[str],
) -> Changes:
    """After a page: `copied` files arrived, at their place or `revised`; of the `deleted` some are still `there`."""
    wanted: dict[tuple[Kind, str], Overflowing | None] = {}
    for file in copied:
        revision = Overflowing("revision", file.place, file.seq, WRITE_ONCE) if file.place in revised else None
        wanted["revision", file.place], wanted["deleted_artifact", file.place] = revision, None
    for file in deleted:
        leftover = Overflowing("deleted_artifact", file.place, file.seq, DELETED) if file.place in there else None
        wanted["revision", file.place], wanted["deleted_artifact", file.place] = None, leftover
    return Changes(
        added=tuple(entry for at, entry in wanted.items() if entry is not None and told.get(at) != entry.from_seq),
        removed=tuple(
            at for at, entry in wanted.items() if at in told and (entry is None or told[at] != entry.from_seq)
        ),
    )
