from .atomic import (
    DISK_FULL_ERRNOS as DISK_FULL_ERRNOS,
)
from .atomic import (
    FAILPOINTS as FAILPOINTS,
)
from .atomic import (
    NO_ACCESS_ERRNOS as NO_ACCESS_ERRNOS,
)
from .atomic import (
    TEMPORARY_PREFIX as TEMPORARY_PREFIX,
)
from .atomic import (
    atomic_replacement as atomic_replacement,
)
from .atomic import (
    disk_error_context as disk_error_context,
)
from .atomic import (
    failpoint as failpoint,
)
from .atomic import (
    move_into_place as move_into_place,
)
from .atomic import (
    remove_path as remove_path,
)
from .atomic import (
    report_disk_errors as report_disk_errors,
)
from .atomic import (
    sweep_leftovers as sweep_leftovers,
)
from .atomic import (
    sweep_removed as sweep_removed,
)
from .atomic import (
    write_atomic as write_atomic,
)
from .draft import (
    Draft as Draft,
)
from .hashing import (
    cached_file_hashes as cached_file_hashes,
)
from .hashing import (
    canonical_json as canonical_json,
)
from .hashing import (
    hash_file as hash_file,
)
from .hashing import (
    hash_folder as hash_folder,
)
from .locks import (
    LockHeldError as LockHeldError,
)
from .locks import (
    temporary_lock as temporary_lock,
)
from .parquet import (
    parquet_file as parquet_file,
)
from .parquet import (
    parquet_writer as parquet_writer,
)
from .parquet import (
    read_parquet as read_parquet,
)
from .parquet import (
    write_parquet as write_parquet,
)
from .provenance import (
    PROVENANCE as PROVENANCE,
)
from .provenance import (
    check_recorded_file as check_recorded_file,
)
from .provenance import (
    file_records as file_records,
)
from .provenance import (
    record_files as record_files,
)
from .store import (
    DONE as DONE,
)
from .store import (
    IN_PROGRESS as IN_PROGRESS,
)
from .store import (
    INTERRUPTED as INTERRUPTED,
)
from .store import (
    MISSING as MISSING,
)
from .store import (
    Artifact as Artifact,
)
from .store import (
    Inputs as Inputs,
)
from .store import (
    Store as Store,
)
from .store import (
    artifact_state as artifact_state,
)
from .store import (
    repair_hint as repair_hint,
)
from .user_cache import (
    user_cache as user_cache,
)
from .user_cache import (
    writable_user_cache as writable_user_cache,
)
