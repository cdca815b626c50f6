"""Checkpoints on the Hugging Face Hub: the only code that touches the network. The endpoint is HF_ENDPOINT's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import (
    DryRunError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from audiolm.checkpoints.format import load_checkpoint
from audiolm.checkpoints.info import CARD_FILE, CONFIG_FILE
from audiolm.checkpoints.pictures import SUFFIXES, read_pictures
from audiolm.errors import CheckpointError

PATTERNS = ["*.json", "*.safetensors", CARD_FILE, *(f"*{suffix}" for suffix in SUFFIXES)]
MAX_DOWNLOAD_BYTES = 8 * 2**30
MAX_FILES = 1024
# Versions 1 and 2 of huggingface_hub stand on different HTTP libraries; either way this is the root of its errors.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__bases__[0]


def fetch(
    repo_id: str,
    revision: str | None = None,
    *,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
) -> Path:
    """The local folder of a Hub repository "owner/name" at a branch, tag or commit (None: main).

    Downloads config, weights, card and pictures of the repository's top folder and nothing else; what is cached is not
    loaded again, and is used as it is when the Hub cannot be reached. Nothing is verified here: `load_checkpoint` does
    that.
    Raises CheckpointError: unknown repository or revision, no access, too large, unreachable and not cached.
    """
    options = {
        "repo_id": repo_id,
        "revision": revision,
        "cache_dir": cache_dir,
        "endpoint": endpoint,
        "allow_patterns": PATTERNS,
        "ignore_patterns": ["*/*"],
    }
    with _typed_errors(repo_id, revision):
        try:
            planned = snapshot_download(**options, dry_run=True)
        except DryRunError as error:
            if isinstance(error.__cause__, RepositoryNotFoundError):
                raise error.__cause__ from error
            return Path(snapshot_download(**options, local_files_only=True))
        size = sum(file.file_size or 0 for file in planned)
        if size > max_bytes or len(planned) > MAX_FILES:
            found = f"{len(planned)} files, {size} bytes"
            raise CheckpointError(f"{repo_id}: {found}; the limits are {MAX_FILES} files and {max_bytes} bytes")
        if CONFIG_FILE not in {file.filename for file in planned}:
            raise CheckpointError(f"{repo_id}: no {CONFIG_FILE} in it: not an AudioLM checkpoint")
        return Path(snapshot_download(**options))


def push(
    folder: Path, repo_id: str, *, private: bool = False, endpoint: str | None = None, token: str | None = None
) -> str:
    """Uploads a checkpoint folder as one commit on main and returns the commit's URL; creates the repository if needed.

    The checkpoint is loaded and verified first; only its own files go up, and weights of an older upload that it no
    longer has are deleted by the same commit, so that no reader sees a half. The token is the one saved by
    `hf auth login`, or HF_TOKEN, unless given. Raises CheckpointError.
    """
    info = load_checkpoint(folder).info
    weights = [name for entry in info.components.values() for name in entry.files]
    files = [CONFIG_FILE, CARD_FILE, *read_pictures(info.folder, info.card), *weights]
    api = HfApi(endpoint=endpoint, token=token)
    with _typed_errors(repo_id, None):
        api.create_repo(repo_id, private=private, exist_ok=True)
        stale = [
            name
            for name in api.list_repo_files(repo_id)
            if re.fullmatch(r"[^/]+\.safetensors", name) and name not in files
        ]
        commit = api.create_commit(
            repo_id,
            operations=[
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=info.folder / name) for name in files),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ],
            commit_message=f"{info.name} ({info.sha256[:12]})",
        )
    return commit.commit_url


@contextmanager
def _typed_errors(repo_id: str, revision: str | None) -> Iterator[None]:
    """Turns what huggingface_hub raises into CheckpointError."""
    place = repo_id if revision is None else f"{repo_id} at {revision}"
    try:
        yield
    except CheckpointError:
        raise
    except HFValidationError as error:
        raise CheckpointError(f"{place}: not a Hub id ({error})") from error
    except GatedRepoError as error:
        raise CheckpointError(f"{place}: access must be asked for on the Hub first") from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(f"{place}: no such repository on the Hub, or no access without logging in") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{place}: the repository has no such revision") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(f"{place}: the Hub cannot be reached, and no complete copy is cached") from error
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise CheckpointError(f"{place}: the Hub refuses this token; log in with `hf auth login`") from error
        raise CheckpointError(f"{place}: {_one_line(error)}") from error
    except (_HTTP_ERROR, OSError, ValueError) as error:
        raise CheckpointError(f"{place}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
