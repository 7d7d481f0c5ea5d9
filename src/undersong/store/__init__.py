"""What each stage made, under the hash of what it was made from.  Knows files and hashes, not what they mean."""

from undersong.store.artefacts import Artefact, Inputs, Store, remedy
from undersong.store.drafts import PROVENANCE, Draft
from undersong.store.failpoints import FAILPOINTS, failpoint
from undersong.store.files import CLOSED, FULL, WRITING, disk_errors, replacing, write_atomic
from undersong.store.hashes import canonical, hash_file, hash_folder
from undersong.store.known import hash_files
from undersong.store.progress import DONE, LEFT, MAKING, MISSING, progress

__all__ = [
    "CLOSED",
    "DONE",
    "FAILPOINTS",
    "FULL",
    "LEFT",
    "MAKING",
    "MISSING",
    "PROVENANCE",
    "WRITING",
    "Artefact",
    "Draft",
    "Inputs",
    "Store",
    "canonical",
    "disk_errors",
    "failpoint",
    "hash_file",
    "hash_files",
    "hash_folder",
    "progress",
    "remedy",
    "replacing",
    "write_atomic",
]
