"""Addresses of storage: ``s3://…``, ``gs://…``, ``az://…``, ``file:///…`` and folders."""

from __future__ import annotations

import re

from bsmamba2_cluster.local_storage import LocalStorage
from bsmamba2_cluster.object_storage import ObjectStorage
from bsmamba2_cluster.storage import Storage, StorageError, require_safe

SCHEMES = ("s3", "gs", "az")

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL | re.IGNORECASE)


def open_storage(address: str) -> Storage:
    """Opens ``s3://bucket/prefix``, ``gs://…``, ``az://container/…``, ``file:///…`` or a folder.

    Raises:
        StorageError: the address has an unknown scheme, no bucket, or credentials in it.
    """
    match = _ADDRESS.fullmatch(address)
    scheme = match[1].lower() if match else "file"
    if match is None or scheme == "file":
        return LocalStorage(address)
    if scheme not in SCHEMES:
        raise StorageError(
            f"address must begin with s3://, gs://, az:// or file://, or be a folder; got "
            f"{scheme}://"
        )
    bucket, _, prefix = match[2].partition("/")
    if any(mark in bucket for mark in "@:") or "?" in match[2]:
        raise StorageError(
            f"an address must have no credentials and no options (@, : or ?); got one that begins "
            f"with {scheme}://: put credentials into the environment, e.g. AWS_ACCESS_KEY_ID"
        )
    if not bucket:
        raise StorageError(f"address must name a bucket, e.g. {scheme}://music; got {address!r}")
    prefix = prefix.strip("/")
    if prefix:
        require_safe(prefix)
    return ObjectStorage(scheme, bucket, prefix)
