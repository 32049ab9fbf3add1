"""The lake on an S3 endpoint: the probe at its start, storage classes, archived objects.

Belongs here: what the object store's own API is needed for. Does not: rows and commits, which go
through the Delta library, on the same credentials from the same AWS_* variables.

boto3 is imported where it is needed: a lake on a disk never pays for it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from forecast_core.cost.price_card import Rates
from forecast_core.storage.lifecycle import RESTORE_HOURS, LifecyclePolicy
from forecast_core.storage.tiers import Tier
from resources.commits import DataFile
from resources.table_files import MissingFile

_CHUNK = 1 << 20
_NOT_FOUND = ("404", "NoSuchKey", "NotFound")


class UnsafeStore(RuntimeError):
    """A store on which two writers could overwrite each other's commits."""


class Archived(RuntimeError):
    """Objects that must be restored before they can be read; carries the quote."""


@dataclass(frozen=True)
class RestoreQuote:
    """What it takes to read archived objects: how many, how much, for how long, for what money."""

    objects: int
    bytes: int
    hours: int
    money: float
    currency: str


def is_s3(uri: str) -> bool:
    """Whether a table lies in a bucket."""
    return uri.startswith(("s3://", "s3a://"))


def split(uri: str) -> tuple[str, str]:
    """Bucket and prefix of a location."""
    bucket, _, prefix = uri.split("://", 1)[1].partition("/")
    return bucket, prefix.rstrip("/")


@lru_cache(maxsize=1)
def client() -> Any:
    """One client for a process; credentials, region and endpoint from the environment.

    Raises:
        ModuleNotFoundError: boto3 is not installed, with what to install.
    """
    try:
        import boto3
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "a lake on S3 needs boto3: pip install 'governed-forecasts[s3]'"
        ) from None
    return boto3.client("s3")


def probe(root: str) -> None:
    """Refuse a store that does not honour If-None-Match: commits there could be lost.

    Raises:
        UnsafeStore: it overwrote an object that exists, or refused to write at all.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split(root)
    key = f"{prefix}/.probe/{uuid.uuid4().hex}".lstrip("/")
    try:
        client().put_object(Bucket=bucket, Key=key, Body=b"1", IfNoneMatch="*")
    except (ClientError, BotoCoreError) as error:
        raise UnsafeStore(
            f"{root} cannot be written ({error}); check the AWS_* variables and the bucket's policy"
        ) from error
    try:
        client().put_object(Bucket=bucket, Key=key, Body=b"2", IfNoneMatch="*")
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
            return
        raise UnsafeStore(
            f"{root}: a conditional put failed with {error}; use a store that supports it"
        ) from error
    finally:
        client().delete_object(Bucket=bucket, Key=key)
    raise UnsafeStore(
        f"{root}: the store overwrote an object although it was told If-None-Match: two writers "
        "could each believe that their commit is in. Use a store with conditional puts, or a local "
        "disk"
    )


class S3Files:
    """The files of one table in a bucket (`resources.table_files.TableFiles`)."""

    def __init__(self, uri: str) -> None:
        self._bucket, self._prefix = split(uri)

    def chunks(self, path: str) -> Iterator[bytes]:
        """The bytes of an object.

        Raises:
            MissingFile: it is not there.
        """
        from botocore.exceptions import ClientError

        try:
            body = client().get_object(Bucket=self._bucket, Key=f"{self._prefix}/{path}")["Body"]
        except ClientError as error:
            if error.response["Error"]["Code"] in _NOT_FOUND:
                raise MissingFile(f"s3://{self._bucket}/{self._prefix}/{path} is missing") from None
            raise
        yield from body.iter_chunks(_CHUNK)

    def sizes(self) -> dict[str, int]:
        """Every object below the table."""
        found = {}
        pages = client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}/"):
            for entry in page.get("Contents", ()):
                found[entry["Key"].removeprefix(f"{self._prefix}/")] = entry["Size"]
        return found


@dataclass(frozen=True)
class ObjectClasses:
    """Storage classes by tier, for the tables below one root."""

    policy: LifecyclePolicy

    def set(self, uri: str, added: Sequence[DataFile]) -> int:
        """Give objects the class of their tier by copying them in place; how many were.

        After the commit, so that a crash leaves objects that read as well and cost more: the next
        call puts them right.
        """
        bucket, prefix = split(uri)
        changed = 0
        for file in added:
            wanted = self.policy.storage_class.get(Tier(file.partition.get("tier") or "hot"))
            key = f"{prefix}/{unquote(file.path)}"
            if wanted is None or self._class(bucket, key) == wanted:
                continue
            client().copy_object(
                Bucket=bucket,
                Key=key,
                CopySource={"Bucket": bucket, "Key": key},
                StorageClass=wanted,
                MetadataDirective="COPY",
            )
            changed += 1
        return changed

    def check_readable(self, uri: str, files: Mapping[str, tuple[str, int]], rates: Rates) -> None:
        """Refuse early what would fail in the middle of a read.

        `files`: path -> (tier, bytes). Only tiers with an archived class are asked for.

        Raises:
            Archived: objects have to be restored first; says how many, how long, for what money.
        """
        quote = self.quote(uri, files, rates)
        if quote is None:
            return
        table = uri.rsplit("/", 1)[-1]
        raise Archived(
            f"{table}: {quote.objects} objects ({quote.bytes:,} bytes) of this read are archived; "
            f"restoring them takes about {quote.hours} hours and {quote.money:.6f} "
            f"{quote.currency}. Ask for it with `forecast lake rehydrate {table}`, then read again"
        )

    def quote(
        self, uri: str, files: Mapping[str, tuple[str, int]], rates: Rates
    ) -> RestoreQuote | None:
        """What restoring the archived ones among the files takes; None when all can be read."""
        locked = self.locked(uri, files)
        if not locked:
            return None
        hours = max(RESTORE_HOURS[name] for name, _ in locked.values())
        money = 0.0
        for path in locked:
            tier, size = files[path]
            money += size / 2**30 * float(rates.of(f"retrieval_gib/{tier}"))
            money += float(rates.of(f"read_request/{tier}"))
        total = sum(files[path][1] for path in locked)
        return RestoreQuote(len(locked), total, hours, money, rates.currency)

    def locked(self, uri: str, files: Mapping[str, tuple[str, int]]) -> dict[str, tuple[str, bool]]:
        """Files that cannot be read now: (storage class, whether a restore is under way)."""
        bucket, prefix = split(uri)
        found = {}
        for path, (tier, _) in files.items():
            if not self.policy.archived(Tier(tier)):
                continue
            head = client().head_object(Bucket=bucket, Key=f"{prefix}/{path}")
            named, restore = head.get("StorageClass", "STANDARD"), head.get("Restore", "")
            if named in RESTORE_HOURS and 'ongoing-request="false"' not in restore:
                found[path] = (named, bool(restore))
        return found

    def restore(self, uri: str, files: Mapping[str, tuple[str, int]], days: int) -> int:
        """Ask the store to make archived files readable for some days; how many were asked for.

        Once for all of them: whoever reads them next finds them restored.
        """
        bucket, prefix = split(uri)
        asked = 0
        for path, (_, under_way) in self.locked(uri, files).items():
            if under_way:
                continue
            request = {"Days": days, "GlacierJobParameters": {"Tier": "Standard"}}
            key = f"{prefix}/{path}"
            client().restore_object(Bucket=bucket, Key=key, RestoreRequest=request)
            asked += 1
        return asked

    @staticmethod
    def _class(bucket: str, key: str) -> str:
        head = client().head_object(Bucket=bucket, Key=key)
        return str(head.get("StorageClass", "STANDARD"))
