"""The way in for changes of files: part of :mod:`finetuned.commands.door`."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from finetuned.commands.appending import Appending
from finetuned.domain import dataset_decisions, facts, files, registers
from finetuned.domain.errors import InvalidRequestError
from finetuned.domain.idempotency import Once
from finetuned.domain.job import Job
from finetuned.domain.registers import File, Shelf
from finetuned.files import uploads
from finetuned.files.store import Content, Digest, FileStore
from finetuned.files.uploads import About, Part, Upload, Uploads
from finetuned.patience import FATAL
from finetuned.results import artifacts
from finetuned.storage.intake import DIRECTORY_MODE, Received
from finetuned_events import Event

log = logging.getLogger(__name__)

ACTOR = "retention"  # who deletes what has expired


@dataclass(slots=True)
class FileCommands:
    """What can be done with files. Each method returns after its events are on disk, content before events.

    ``jobs_dir`` is where jobs have the files that they made, ``new_id`` makes ids by their prefix.
    """

    appending: Appending
    store: FileStore
    jobs_dir: Path
    new_id: Callable[[str], str]
    _uploads: Uploads = field(default_factory=Uploads)

    async def upload(
        self,
        chunks: AsyncIterator[bytes],
        about: Callable[[], Awaitable[About]],
        *,
        actor: str,
        foreseen: int = 0,
        once: Once | None = None,
    ) -> File:
        """Take a file in. ``about`` is asked once its content is whole: what comes behind it may say what it is.

        ``foreseen`` is about how many bytes there will be. Raises ``InvalidRequestError``, ``TooLargeError``,
        ``StorageFullError`` or ``UploadStalledError``, and what ``about`` raises.
        """
        async with self.store.intake.receive(chunks, Digest(), foreseen=foreseen) as received:
            return await self._keep(received, await about(), actor, once)

    async def delete(self, file_id: str, *, actor: str) -> None:
        """Free a file's name; its content goes when no live job reads it. Raises ``NotFoundError``."""
        await self.appending.log.execute(
            lambda world: files.delete(world, file_id, actor=actor), necessary=True
        )

    async def expire(self) -> None:
        """Free the names of all files whose time is over, and drop the parts of uploads whose is."""
        now = self.appending.now()
        for upload in self._uploads.expired(now=now):
            await self._drop_parts(upload)
        world = await self.appending.board.world()
        if any(files.has_expired(each, now=now) for each in world.files.values()):
            await self.appending.log.execute(
                lambda world: files.expire(world, now=now, actor=ACTOR), necessary=True
            )

    async def sweep(self) -> None:
        """Remove content that no file and no live job names: what a daemon that was killed did not finish."""
        async with self.store.changing:
            world = await self.appending.board.world()
            # What nobody names now nobody can begin to name: a file is made under the lock, and a job takes files.
            named = {part for path in dataset_decisions.paths_in_use(world) for part in path.split("/")}
            for file_id in await anyio.to_thread.run_sync(self.store.listed):
                if file_id not in named:
                    await self._remove(file_id)

    async def remove_unused(self, file_id: str, job: Job | None) -> None:
        """Remove a file's content if nobody names or reads it. ``job`` is the one that made it, if one did."""
        async with self.store.changing:
            if job is None:
                await self._remove_unused(file_id)
            else:
                await self._remove_made(file_id, job)

    def maker(self, path: str) -> str | None:
        """The id of the job in whose directory a path lies."""
        relative = Path(path)
        return (
            relative.relative_to(self.jobs_dir).parts[0] if relative.is_relative_to(self.jobs_dir) else None
        )

    # ---- uploads in parts ----------------------------------------------------------------------------------

    async def begin(self, about: About, size: int, *, actor: str) -> Upload:
        """Begin an upload of so many bytes.

        Raises ``TooManyOpenUploadsError``, ``TooManyUploadsError`` or ``StorageFullError``.
        """
        self.store.intake.check_size(size)
        await anyio.to_thread.run_sync(self.store.intake.check_room, size)
        now = self.appending.now()
        upload = Upload(id=self.new_id("upload_"), owner=actor, about=about, bytes=size, created_at=now)
        self._uploads.add(upload)
        home = self.store.parts(upload.id)
        await anyio.to_thread.run_sync(partial(home.mkdir, mode=DIRECTORY_MODE))
        return upload

    async def add_part(
        self,
        upload_id: str,
        chunks: AsyncIterator[bytes],
        rest: Callable[[], Awaitable[None]],
        *,
        foreseen: int = 0,
    ) -> Part:
        """Take a part in; ``rest`` reads what comes behind it. Raises ``NotFoundError``, ``Rejected`` if the upload has ended, and as ``upload`` does."""
        upload = self._uploads.find(upload_id)
        upload.require_pending()
        upload.require_room(foreseen)
        receiving = self.store.intake.receive(
            chunks, Digest(), foreseen=foreseen, max_bytes=uploads.PART_BYTES
        )
        async with receiving as received:
            await rest()
            upload.require_pending()
            upload.require_room(received.content.bytes)
            part_id = self.new_id("part_")
            path = self.store.parts(upload_id) / part_id
            try:
                await anyio.to_thread.run_sync(received.file.rename, path)
            except FileNotFoundError:
                upload.require_pending()  # it was given up meanwhile
                raise
            if upload.status != "pending":  # its parts went while this one came
                await self._drop_parts(upload)
                upload.require_pending()
            part = Part(part_id, path, received.content.bytes, self.appending.now())
            upload.parts[part_id] = part
        return part

    async def complete(self, upload_id: str, part_ids: list[str], md5: str | None, *, actor: str) -> Upload:
        """Make a file of the parts in this order; of an upload that is one already nothing more.

        Who asks while it is put together waits for that. Raises ``NotFoundError``, ``Rejected``, or
        ``InvalidRequestError`` if they are not the whole file.
        """
        upload = self._uploads.get(upload_id)
        if upload is None:
            return await self._completed(upload_id)
        async with upload.turn:
            if upload.status == "completed":
                upload.require_made_of(part_ids)
                return upload
            upload.require_pending()
            await self._put_together(upload, part_ids, md5, actor)
        return upload

    async def _put_together(self, upload: Upload, part_ids: list[str], md5: str | None, actor: str) -> None:
        parts = upload.chosen(part_ids)
        with upload.ending():
            async with self.store.intake.receive(
                _read(parts), Digest(md5=True), announced=upload.bytes
            ) as received:
                _check_md5(received.content, md5)
                file_id = uploads.file_id(upload.id)
                upload.file = await self._keep(received, upload.about, actor, None, file_id=file_id)
                upload.status, upload.made_of = "completed", tuple(part_ids)
        await self._drop_parts(upload)

    async def _completed(self, upload_id: str) -> Upload:
        """An upload that is not remembered any more, by its file."""
        file = (await self.appending.board.world()).files.get(uploads.file_id(upload_id))
        if file is None:
            raise uploads.unknown(upload_id)
        return uploads.of_file(upload_id, file)

    async def cancel(self, upload_id: str) -> Upload:
        """Give an upload up; its parts go. Of one that was given up before nothing more.

        Raises ``NotFoundError``, or ``Rejected`` if it has ended otherwise.
        """
        upload = self._uploads.find(upload_id)
        if upload.status == "cancelled":
            return upload
        upload.require_pending()
        upload.status = "cancelled"
        await self._drop_parts(upload)
        return upload

    async def _drop_parts(self, upload: Upload) -> None:
        upload.parts.clear()
        home = self.store.parts(upload.id)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(shutil.rmtree, home, ignore_errors=True))

    # ---- content -------------------------------------------------------------------------------------------

    async def _keep(
        self,
        received: Received[Content],
        about: About,
        actor: str,
        once: Once | None,
        *,
        file_id: str | None = None,
    ) -> File:
        # Not given up between the file's move and its event: nobody would know the file.
        with anyio.CancelScope(shield=True):
            async with self.store.changing:
                file_id = file_id or self.new_id(files.PREFIX)
                place = partial(
                    self.store.place, received, file_id, filename=about.filename, purpose=about.purpose
                )
                path = await anyio.to_thread.run_sync(place)
                try:
                    file = await self._record(file_id, path, received.content, about, actor, once)
                except FATAL:
                    raise  # whether the event is on disk is not known
                # Nor is it when the task is cancelled: what has no event then goes at the next start.
                except Exception:
                    await anyio.to_thread.run_sync(self.store.remove, file_id)
                    raise
                if file.id != file_id:  # the request was carried out before
                    await anyio.to_thread.run_sync(self.store.remove, file_id)
        return file

    async def _record(
        self, file_id: str, path: Path, content: Content, about: About, actor: str, once: Once | None
    ) -> File:
        kept_s = about.expires_after_s
        fact = facts.FileCreated(
            id=file_id,
            filename=about.filename,
            purpose=about.purpose,
            path=str(path),
            bytes=content.bytes,
            sha256=content.sha256,
            expires_after_s=files.KEPT_S.get(about.purpose) if kept_s is None else kept_s,
        )
        if once is not None:
            once.include(repr((content.sha256, about)).encode())
        appended = await self.appending.execute(
            lambda _world: files.create(fact, actor=actor),
            subject=f"file/{file_id}",
            actor=actor,
            once=once,
        )
        if once is not None and once.replayed:
            world = await self.appending.board.world()
            earlier = appended.subject.removeprefix("file/")
            if earlier not in world.files:
                raise files.unknown(earlier)
            return world.files[earlier]
        return _folded(appended.events, file_id)

    async def _remove_unused(self, file_id: str) -> None:
        """Hold ``store.changing``."""
        world = await self.appending.board.world()
        if not any(f"/{file_id}/" in path for path in dataset_decisions.paths_in_use(world)):
            await self._remove(file_id)

    async def _remove(self, file_id: str) -> None:
        if await anyio.to_thread.run_sync(self.store.remove, file_id):
            log.info("Removed the content of %s, which no file and no live job needs any more", file_id)

    async def _remove_made(self, file_id: str, job: Job) -> None:
        """Remove what attempts of a job left under the name of a file that is deleted. Hold ``store.changing``."""
        world = await self.appending.board.world()
        in_use = set(dataset_decisions.paths_in_use(world))
        for each in job.artifacts:
            if files.made_id(job.id, each["name"]) != file_id or each["path"] in in_use:
                continue
            location = artifacts.locate(self.jobs_dir, job.id, each)
            with suppress(FileNotFoundError):
                await anyio.to_thread.run_sync(artifacts.remove, location)
                log.info("Removed the content of %s, which %s made", file_id, job.id)


def _folded(events: tuple[Event, ...], file_id: str) -> File:
    """Not looked up: somebody else may have deleted it by now."""
    shelf = Shelf[File]()
    for each in events:
        fact = facts.decode(each.type, each.data)
        registers.fold_file(shelf, fact, seq=each.seq, at=each.at, actor=each.actor)
    return shelf[file_id]


async def _read(parts: list[Part]) -> AsyncIterator[bytes]:
    found = uploads.blocks(parts)
    while (block := await anyio.to_thread.run_sync(next, found, None)) is not None:
        yield block


def _check_md5(content: Content, md5: str | None) -> None:
    if md5 is not None and content.md5 != md5.lower():
        raise InvalidRequestError(
            f"The file has the MD5 {content.md5} and {md5[:80]} was expected, nothing was kept; send the parts again,"
            " or correct the hash.",
            param="md5",
            code="digest_mismatch",
        )
