"""ComfyUI over HTTP: the only file that talks to the server.

Owns the session, the routes, the meaning of the answers, and the progress feed. Knows
neither Discord nor the database nor any node id. `ComfyClient` blocks: it is called
from the worker thread or from the event loop's thread pool, never on the loop itself.
`ProgressFeed` alone lives on the loop.
How a server really behaves is written down in docs/comfyui.md.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import re
import ssl
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote, urljoin, urlsplit

import aiohttp

with warnings.catch_warnings():
    # To guess the encoding of texts, which nothing here asks for, requests would load
    # charset_normalizer, and with it every codec of Python: 3 MB.
    warnings.simplefilter("ignore")
    sys.modules.setdefault("charset_normalizer", None)  # type: ignore[arg-type]
    import requests
    import urllib3  # what requests is made of; its errors come out of `response.raw`
    from requests.utils import select_proxy

from comfyui.errors import (
    BadAnswer,
    ComfyError,
    NoPreview,
    PictureGone,
    PictureMissing,
    PictureRefused,
    PictureTooLarge,
    PictureUnusable,
    Unreachable,
    dicts,
    failure,
    rejection,
)
from comfyui.history import (
    ASKED_ID,
    HistoryEntry,
    ImageRef,
    Queue,
    ids_asked_for,
    images_in,
    prompt_ids,
    used_cache,
)
from comfyui.object_info import ObjectInfo, parse_classes
from comfyui.progress import Preview
from settings import Server

log = logging.getLogger(__name__)

Parser: TypeAlias = Callable[[bytes], Any]
Files: TypeAlias = dict[str, tuple[str | None, str | bytes]]  # by field, with the file's name

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0  # between two reads of a small answer
SLOW_READ_SECONDS = 60.0  # a big install takes a while to list its nodes, a slow disk a picture
BODY_READS = 5  # a body as a whole may take so many times as long as one read
JSON_LIMIT = 64 * 2**20
LISTS_READ_SECONDS = 300.0  # ComfyUI looks through all folders before its first byte
LISTS_LIMIT = 256 * 2**20
PICTURE_LIMIT = 100 * 2**20
UPLOADS = "comfygen"  # the folder for people's pictures in ComfyUI's input folder
CHUNK = 2**18
REDIRECTS_LIMIT = 5
UNTRUSTED = re.compile("self.signed certificate|unable to get local issuer")
# Names of hosts in the owner's own network; one without a dot is such, too.
PRIVATE_NAMES = re.compile(r"[^.:]+|.*\.(?:lan|local|localhost|home|internal|home\.arpa)", re.I)
FEED_PAUSES = (0.5, 30.0)  # the shortest and the longest, in seconds
FEED_HEARTBEAT = 20.0  # seconds; a ComfyUI takes longer to come back after a power cut
API_KEY = "api_key_comfy_org"  # in extra_data: for partner nodes; ComfyUI does not store it
HISTORY_SEARCHED = 200  # of the newest entries, for a prompt whose id is not known

# The one method that shows something at next to no cost, and needs no file beside the model.
PREVIEW_METHOD = "latent2rgb"
FEATURE_FLAGS = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}

# The first bytes of what may be posted: pictures, videos and sound, `.` for any byte.
MAGIC = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|BM|II\*\0|MM\0\*"
    rb"|fLaC|ID3|\xff[\xe2-\xff]|OggS|RIFF....WAVE"
    rb"|....ftyp|\x1aE\xdf\xa3|\xff\x0a|\0\0\0\x0cJXL |\x76\x2f\x31\x01",
    re.DOTALL,
)


class AnswerTooLarge(BadAnswer):
    """The answer is larger than the bot reads."""


class ComfyClient:
    """One server. All methods but `ping()` raise a `ComfyError`; of these, Unreachable and
    BadAnswer are worth another try, since ComfyUI is away."""

    def __init__(self, server: Server, *, previews: bool = False) -> None:
        """`previews`: ask for pictures of what is at work."""
        self.server = server
        self.previews = previews
        self.client_id = uuid.uuid4().hex
        # Since when calls fail (`time.monotonic()`); None while they succeed.
        self.away_since: float | None = None
        self._base = server.base_url.rstrip("/")
        self._session = requests.Session()
        self._session.headers.update(server.headers)
        system = self._session.merge_environment_settings(self._base, {}, None, None, None)
        # A proxy set for the web does not find the way back into this network.
        web_proxy = None if _is_private(self._base) else select_proxy(self._base, system["proxies"])
        self.proxy: str | None = server.proxy or web_proxy
        self._session.trust_env = False  # a .netrc would overrule the headers
        self._session.verify = str(server.ca_file) if server.ca_file else system["verify"]
        if self.proxy:
            self._session.proxies = dict.fromkeys(("http", "https"), self.proxy)

    @property
    def feed_url(self) -> str:
        """Return the address of the WebSocket: ws(s)://…/ws?clientId=…"""
        return f"ws{self._base.removeprefix('http')}/ws?clientId={self.client_id}"

    @property
    def certificates(self) -> ssl.SSLContext | bool:
        """Return what the WebSocket has to trust: the owner's file, or True for the system's."""
        ca_file = self.server.ca_file
        return ssl.create_default_context(cafile=ca_file) if ca_file else True

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def ping(self) -> bool:
        """Return whether a ComfyUI answers (GET /system_stats). Never raises."""
        try:
            self.version()
        except ComfyError as error:
            log.debug("ping: %s", error)
            return False
        return True

    def version(self) -> str:
        """Return the server's version and its devices in a few words (GET /system_stats)."""
        stats = self._json("GET", "/system_stats")
        system = stats.get("system")
        if not isinstance(system, dict):
            raise BadAnswer("GET /system_stats: the answer is not a ComfyUI's")
        version = system.get("comfyui_version")
        devices = ", ".join(str(device.get("name")) for device in dicts(stats.get("devices")))
        return f"{version or 'of unknown version'} on {devices or 'unknown devices'}"

    def upload(self, data: bytes, name: str) -> str:
        """Put a person's picture into the server's input folder, in place of one of that name, and
        return the name by which nodes load it (POST /upload/image)."""
        fields = {"subfolder": UPLOADS, "type": "input", "overwrite": "true"}
        files: Files = {field: (None, value) for field, value in fields.items()}
        files["image"] = (name, data)
        status, content = self._call("POST", "/upload/image", files=files, read=SLOW_READ_SECONDS)
        if status in (400, 413):
            raise PictureRefused(
                f"POST /upload/image: status {status}; if there is a proxy before ComfyUI, let it"
                " accept bodies of 20 MB"
            )
        answer = self._checked(status, content, "POST /upload/image")
        stored, folder = answer.get("name"), answer.get("subfolder")
        if not isinstance(stored, str) or not stored:
            raise BadAnswer("POST /upload/image: the answer has no name")
        return f"{folder}/{stored}" if folder else stored

    def submit(self, workflow: Mapping[str, Any], prompt_id: str) -> str:
        """Submit a prompt under an id of our own (canonical UUID) and return the id that the
        server uses, which on older servers is another (POST /prompt). Raises Rejected also if
        the server took the workflow but dropped some of its outputs: what was queued of it is
        stopped first."""
        wish = {"preview_method": PREVIEW_METHOD} if self.previews else {}
        key = {API_KEY: self.server.api_key} if self.server.api_key else {}
        body = {
            "prompt": workflow,
            "client_id": self.client_id,
            "prompt_id": prompt_id,
            "extra_data": {ASKED_ID: prompt_id, **wish, **key},
        }
        # Validating may take long: with many custom nodes, or while a model is loaded.
        status, content = self._call("POST", "/prompt", body=body, read=SLOW_READ_SECONDS)
        if status == 400:
            self.away_since = None
            raise rejection(_parsed(content, "POST /prompt"))
        answer = self._checked(status, content, "POST /prompt")
        accepted = answer.get("prompt_id")
        if not isinstance(accepted, str):
            raise BadAnswer("POST /prompt: the answer has no prompt_id")
        if answer.get("node_errors"):
            try:
                self.cancel(accepted)
            except ComfyError as error:
                log.warning("prompt %s could not be stopped: %s", accepted, error)
            partly = rejection(answer)
            partly.was_queued = True
            raise partly
        return accepted

    def history(self, prompt_id: str) -> HistoryEntry | None:
        """Return a finished prompt; None if it has not finished or is unknown (GET
        /history/{id})."""
        path = f"/history/{quote(prompt_id, safe='')}"
        entry = self._json("GET", path).get(prompt_id)
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise BadAnswer(f"GET {path}: the entry is not an object")
        status = entry.get("status")
        return HistoryEntry(images_in(entry.get("outputs")), failure(status), used_cache(status))

    def find_ended(self, asked_id: str) -> str | None:
        """Return the id of an ended prompt that was submitted with this id to an older server,
        which gave it another; None if there is none (GET /history)."""
        try:
            entries = self._json("GET", "/history", params={"max_items": str(HISTORY_SEARCHED)})
        except BadAnswer as error:  # more than is read of one answer, say
            log.debug("the history could not be searched: %s", error)
            return None
        rows = [entry.get("prompt") for entry in dicts(list(entries.values()))]
        return ids_asked_for(rows).get(asked_id)

    def queue(self) -> Queue:
        """Return the prompts that run and wait (GET /queue)."""
        answer = self._json("GET", "/queue")
        running, pending = answer.get("queue_running"), answer.get("queue_pending")
        if not isinstance(running, list) or not isinstance(pending, list):
            # An empty queue would mean that our prompt is lost, and has to be submitted again.
            raise BadAnswer("GET /queue: the answer has no queue")
        own_ids = ids_asked_for([*running, *pending])
        return Queue(prompt_ids(running), prompt_ids(pending), own_ids)

    def image(self, ref: ImageRef, preview: str = "") -> bytes:
        """Return the bytes of one picture or video, or re-encoded by the server with `preview` as
        "webp;90" or "jpeg;80" (GET /view). Raises PictureMissing where asking again is of no use,
        NoPreview if the server cannot re-encode it."""
        params = {**ref._asdict(), **({"preview": preview} if preview else {})}
        try:
            status, content = self._call(
                "GET",
                "/view",
                params=params,
                limit=PICTURE_LIMIT,
                read=SLOW_READ_SECONDS,
                final=(500,) if preview else (),  # ComfyUI's own; a proxy's are 502 and more
            )
        except AnswerTooLarge as error:
            raise PictureTooLarge(f"{ref}: {error}") from error
        if status == 200 and _is_page(content):  # a login, say, in ComfyUI's place
            self._note_away()
            raise BadAnswer("GET /view: the answer is a web page, perhaps a login")
        self.away_since = None
        if status == 404:
            raise PictureGone(f"{ref} is not on the server any more")
        if status == 500:
            raise NoPreview(f"GET /view: {ref} cannot be re-encoded as {preview}")
        if status != 200:
            raise PictureMissing(f"GET /view: {ref}: status {status}")
        if not MAGIC.match(content):
            raise PictureUnusable(f"GET /view: {ref} is of no known format")
        return content

    def cancel(self, prompt_id: str) -> None:
        """Stop this prompt, whether it waits or runs; another one that happens to run goes on."""
        status, content = self._call("POST", f"/api/jobs/{quote(prompt_id, safe='')}/cancel")
        if status == 200:
            _parsed(content, "cancel")
            return
        # An older server. The queue first: a prompt that starts in between is then seen running.
        self._order("/queue", {"delete": [prompt_id]})
        if prompt_id in self.queue().running:
            self._order("/interrupt", {"prompt_id": prompt_id})

    def object_info(self) -> ObjectInfo:
        """Return what the server's node classes accept (GET /object_info)."""
        status, content = self._call(
            "GET", "/object_info", limit=LISTS_LIMIT, read=LISTS_READ_SECONDS
        )
        return ObjectInfo(self._checked(status, content, "GET /object_info", parse_classes))

    # Inside

    def _json(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        status, content = self._call(method, path, params=params)
        return self._checked(status, content, f"{method} {path}")

    def _order(self, path: str, body: object) -> None:
        """Send a POST that is answered by its status alone."""
        status, content = self._call("POST", path, body=body)
        if status != 200 or _is_page(content):
            raise BadAnswer(f"POST {path}: status {status}")

    def _checked(
        self, status: int, content: bytes, what: str, parse: Parser = json.loads
    ) -> dict[str, Any]:
        """Return the answer of a ComfyUI. Raises BadAnswer for that of anything in its place."""
        try:
            if status in (401, 403):
                raise BadAnswer(
                    f"{what}: status {status}, it wants a key or a login: see COMFY_HEADERS"
                )
            if status != 200:
                raise BadAnswer(
                    f"{what}: status {status}; is COMFY_BASE_URL the address of a ComfyUI?"
                )
            answer = _parsed(content, what, parse)
        except BadAnswer:
            self._note_away()
            raise
        self.away_since = None
        return answer

    def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: object = None,
        files: Files | None = None,
        limit: int = JSON_LIMIT,
        read: float | None = None,
        final: Collection[int] = (),
    ) -> tuple[int, bytes]:
        """Send one request and return the status and the whole body. The transport's errors end
        here, and so do the statuses that say "later", but those that are `final`."""
        what = f"{method} {path}"
        if self.proxy:
            what += f" by way of the proxy {self.proxy.rpartition('@')[2].rpartition('/')[2]}"
        seconds = READ_SECONDS if read is None else read
        try:
            with self._response(method, path, params, body, files, seconds) as response:
                later = response.status_code == 429 or response.status_code >= 500
                if later and response.status_code not in final:
                    raise Unreachable(f"{what}: status {response.status_code}")
                if response.is_redirect:
                    raise BadAnswer(f"{what}: redirected elsewhere, perhaps to a login")
                return response.status_code, _body(response, limit, BODY_READS * seconds, what)
        except (OSError, urllib3.exceptions.HTTPError, ValueError) as error:
            # ValueError: a host name that cannot be one. OSError: requests' own, or COMFY_CA_FILE.
            self._note_away()
            reason = _cause(error)
            if UNTRUSTED.search(reason):
                reason += "; give the file of its certificate as COMFY_CA_FILE"
            raise Unreachable(f"{what}: {reason}") from error
        except AnswerTooLarge:
            raise
        except (Unreachable, BadAnswer):
            self._note_away()
            raise

    def _response(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: object,
        files: Files | None,
        seconds: float,
    ) -> requests.Response:
        """Send a request. A redirect of a GET is followed, to another host without our headers; of
        a POST it is not, since that would become a GET."""
        url = self._base + path
        headers: dict[str, str | None] = {}
        for _ in range(REDIRECTS_LIMIT + 1):
            response = self._session.request(
                method,
                url,
                params=params,
                json=body,
                files=files,
                headers=headers,
                timeout=(CONNECT_SECONDS, seconds),
                stream=True,
                allow_redirects=False,
            )
            if method != "GET" or not response.is_redirect:
                break
            url, params = urljoin(url, response.headers["Location"]), None
            if urlsplit(url)[:2] != urlsplit(self._base)[:2]:
                headers = dict.fromkeys(self.server.headers)  # None: without that of the session
            response.close()
        return response

    def _note_away(self) -> None:
        if self.away_since is None:
            self.away_since = time.monotonic()


class FeedListener(Protocol):
    """The receiver of what the feed says of our own prompts; called on the event loop."""

    def on_event(self, event: str, data: Mapping[str, Any]) -> None:
        """Handle a text event."""

    def on_preview(self, preview: Preview) -> None:
        """Handle a picture of the prompt at work, if the client asks for them."""

    def on_reconnect(self, since: float) -> None:
        """Note that a lost connection holds again; it was lost at this moment
        (`time.monotonic()`)."""


class ProgressFeed:
    """The server's WebSocket; the one part of this file for the event loop.

    It is a hint and nothing more: jobs complete without it.
    """

    def __init__(self, client: ComfyClient) -> None:
        self._client = client
        self._connections = 0
        self._is_connected = False
        self._lost_at: float | None = None

    @property
    def connection(self) -> int:
        """Return the number of the connection that holds now, 0 for none. While it stays the same,
        the server has not restarted."""
        return self._connections if self._is_connected else 0

    async def run(self, listener: FeedListener) -> None:
        """Listen until cancelled; reconnects with a growing pause."""
        pause = FEED_PAUSES[0]
        client = self._client
        async with aiohttp.ClientSession(headers=client.server.headers) as session:
            while True:
                try:
                    async with session.ws_connect(
                        client.feed_url,
                        proxy=client.proxy,
                        ssl=client.certificates,
                        heartbeat=FEED_HEARTBEAT,
                        max_msg_size=JSON_LIMIT,
                    ) as socket:
                        log.debug("progress feed: connected")
                        self._connections += 1
                        self._is_connected = True
                        if self._lost_at is not None:
                            listener.on_reconnect(self._lost_at)
                        if client.previews:
                            await socket.send_json(FEATURE_FLAGS)
                        async for message in socket:
                            pause = FEED_PAUSES[0]
                            self._dispatch(listener, message.type, message.data)
                except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:
                    log.debug("progress feed: %s", error)
                finally:
                    if self._is_connected:
                        self._lost_at = time.monotonic()
                    self._is_connected = False
                await asyncio.sleep(pause)
                pause = min(2 * pause, FEED_PAUSES[1])

    def _dispatch(self, listener: FeedListener, kind: object, data: Any) -> None:
        if kind is aiohttp.WSMsgType.TEXT:
            try:
                message = json.loads(data)
                event, content = message["type"], message["data"]
            except (ValueError, LookupError, TypeError, RecursionError):
                return
            if isinstance(event, str) and isinstance(content, dict):
                listener.on_event(event, content)
        elif kind is aiohttp.WSMsgType.BINARY and self._client.previews:
            preview = Preview.parse(data)
            if preview is not None:
                listener.on_preview(preview)


def _is_private(url: str) -> bool:
    """Return whether an address is one of this machine, of a private network or a VPN."""
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return PRIVATE_NAMES.fullmatch(host) is not None


def _chunks(response: requests.Response) -> Iterator[bytes]:
    # read1 gives what is there; read would wait for a whole chunk of a body that only drips.
    read1 = getattr(response.raw, "read1", None)
    if read1 is None:  # urllib3 before 2.2
        yield from response.iter_content(CHUNK)
    else:
        yield from iter(lambda: read1(CHUNK, decode_content=True), b"")


def _body(response: requests.Response, limit: int, seconds: float, what: str) -> bytes:
    """Read the body, at most `limit` bytes, and all of it: one that is broken off is
    Unreachable."""
    deadline = time.monotonic() + seconds
    parts = bytearray()
    for chunk in _chunks(response):
        parts += chunk
        if len(parts) > limit:
            raise AnswerTooLarge(f"{what}: the answer is larger than {limit // 2**20} MiB")
        if time.monotonic() > deadline:
            raise Unreachable(f"{what}: the answer took longer than {seconds:.0f} s")
    announced = response.headers.get("Content-Length", "")
    encoded = "Content-Encoding" in response.headers
    if announced.isdigit() and not encoded and len(parts) < int(announced):
        raise Unreachable(f"{what}: broken off after {len(parts)} of {announced} bytes")
    return bytes(parts)


def _is_page(content: bytes) -> bool:
    return content[:200].lstrip().lower().startswith((b"<!doctype", b"<html"))


def _parsed(content: bytes, what: str, parse: Parser = json.loads) -> dict[str, Any]:
    try:
        answer = parse(content)
    except (ValueError, RecursionError) as error:
        kind = "a web page, perhaps a login" if _is_page(content) else "not JSON"
        raise BadAnswer(f"{what}: the answer is {kind}") from error
    if not isinstance(answer, dict):
        raise BadAnswer(f"{what}: the answer is not a JSON object")
    return answer


def _cause(error: BaseException) -> str:
    """Return the innermost reason in a few words; requests wraps it four layers deep."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"
