"""What each stage made, under the hash of what it was made from.  Knows files and hashes, not what they mean."""

from undersong.store.atomic import (
    DISK_FULL_ERRNOS,
    NO_ACCESS_ERRNOS,
    TEMPORARY_PREFIX,
    atomic_replacement,
    disk_error_context,
    write_atomic,
)
from undersong.store.draft import PROVENANCE, Draft
from undersong.store.failpoints import FAILPOINTS, failpoint
from undersong.store.hashes import canonical_json, hash_file, hash_folder
from undersong.store.hashing import cached_file_hashes
from undersong.store.progress import DONE, IN_PROGRESS, INTERRUPTED, MISSING, artifact_state
from undersong.store.store import Artifact, Inputs, Store, repair_hint

__all__ = [
    "NO_ACCESS_ERRNOS",
    "DONE",
    "FAILPOINTS",
    "DISK_FULL_ERRNOS",
    "INTERRUPTED",
    "IN_PROGRESS",
    "MISSING",
    "PROVENANCE",
    "TEMPORARY_PREFIX",
    "Artifact",
    "Draft",
    "Inputs",
    "Store",
    "canonical_json",
    "disk_error_context",
    "failpoint",
    "hash_file",
    "cached_file_hashes",
    "hash_folder",
    "artifact_state",
    "repair_hint",
    "atomic_replacement",
    "write_atomic",
]
