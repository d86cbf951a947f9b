"""Discord's gateway: WebSocket connections, and the sessions that a bot resumes on a new one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
import zlib
from collections import deque
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from tests.standins.discord.schema import (
    GUILDS,
    KNOWN_INTENTS,
    MIB,
    PRIVILEGED_INTENTS,
    Json,
)

if TYPE_CHECKING:
    from tests.standins.discord.server import DiscordStandIn


class _Connection:
    """One WebSocket of the gateway. The outbox takes texts, and a close code as the last item."""

    def __init__(self, request: web.Request) -> None:
        self.transport = request.transport
        self.outbox: asyncio.Queue[tuple[str, str] | int] = asyncio.Queue()
        zipped = request.query.get("compress") == "zlib-stream"
        self.deflate = zlib.compressobj() if zipped else None  # else text, which is always taken
        self.session: _Session | None = None


class _Session:
    """What a bot resumes: the numbered events sent to it. `connection`: None while it is away."""

    def __init__(self, connection: _Connection, intents: int) -> None:
        self.id = secrets.token_hex(16)
        self.intents = intents
        self.connection: _Connection | None = connection
        self.sequence = 0
        self.events: deque[tuple[int, str, str]] = deque(maxlen=2000)


class Gateway:
    """The gateway's end of all connections, and the sessions. Its callers hold the Condition."""

    def __init__(self, standin: DiscordStandIn) -> None:
        self._standin = standin
        self.identifies = 0
        self.resumes = 0
        self.refusing = False
        self.refused = 0
        self._sessions: list[_Session] = []
        self._connections: list[_Connection] = []

    @property
    def connected(self) -> bool:
        """Whether a bot is identified (or resumed) now."""
        return any(session.connection for session in self._sessions)

    @property
    def sessions(self) -> int:
        """How many bots are identified (or resumed) now."""
        return sum(session.connection is not None for session in self._sessions)

    def drop(self, *, resumable: bool) -> None:
        """Aborts the connections of all sessions, and forgets these unless they're resumable."""
        for session in list(self._sessions):
            if session.connection:
                self._hang_up(session.connection)
            if not resumable:
                self._sessions.remove(session)

    def abort(self) -> None:
        """Aborts every connection, at the end."""
        for connection in self._connections:
            if connection.transport:
                connection.transport.abort()

    async def accept(self, request: web.Request) -> web.StreamResponse:
        if self.refusing:
            with self._standin._changed:
                self.refused += 1
                self._standin._changed.notify_all()
            return web.Response(status=503)
        ws = web.WebSocketResponse(max_msg_size=MIB)
        await ws.prepare(request)
        connection = _Connection(request)
        self._connections.append(connection)
        writer = asyncio.create_task(self._write_gateway(ws, connection))
        self._send(connection, {"op": 10, "d": {"heartbeat_interval": 41_250}})
        try:
            async for message in ws:
                if message.type is WSMsgType.TEXT:
                    with self._standin._changed:
                        self._receive(connection, message.data)
                        self._standin._changed.notify_all()
        finally:
            writer.cancel()
            self._connections.remove(connection)
            with self._standin._changed:
                session = connection.session
                if session and session.connection is connection:
                    session.connection = None
                    if ws.close_code in (1000, 1001):  # a goodbye; after any other it may be back
                        self._sessions.remove(session)
                self._standin._changed.notify_all()
        return ws

    async def _write_gateway(self, ws: web.WebSocketResponse, connection: _Connection) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            while not isinstance(item := await connection.outbox.get(), int):
                text, token = item
                if token:
                    self._standin._replies[token]._delivered = time.monotonic()
                if connection.deflate:
                    data = connection.deflate.compress(text.encode())
                    await ws.send_bytes(data + connection.deflate.flush(zlib.Z_SYNC_FLUSH))
                else:
                    await ws.send_str(text)
            await ws.close(code=item)

    def _receive(self, connection: _Connection, text: str) -> None:
        try:
            payload = json.loads(text)
            op, data = payload["op"], payload.get("d")
        except (ValueError, KeyError, TypeError):
            op, data = None, None
        handlers = {2: self._identify, 6: self._resume}
        if op is None or len(text.encode()) > 4096:
            self._close(connection, 4002, f"not a payload of at most 4096 bytes: {text[:200]}")
        elif op == 1:
            self._send(connection, {"op": 11, "d": None})
        elif op in handlers and (data or {}).get("token") != self._standin.token:
            self._close(connection, 4004)
        elif op in handlers:
            handlers[op](connection, data)
        elif connection.session is None:
            self._close(connection, 4003, f"op {op} before IDENTIFY")
        elif op != 3:  # a presence is of no interest
            self._close(connection, 4001, f"op {op} is not known to the stand-in")

    def _identify(self, connection: _Connection, data: Json) -> None:
        intents = data.get("intents")
        if connection.session:
            return self._close(connection, 4005, "a second IDENTIFY")
        if not isinstance(intents, int) or intents & ~KNOWN_INTENTS or "properties" not in data:
            return self._close(connection, 4013, f"IDENTIFY with intents {intents}")
        if intents & PRIVILEGED_INTENTS:
            return self._close(connection, 4014, "privileged intents")
        self.identifies += 1
        self._sessions = [session for session in self._sessions if session.connection]
        session = connection.session = _Session(connection, intents)
        self._sessions.append(session)
        guilds = [guild for guild in self._standin._guilds.values() if guild.bot_is_member]
        ready: Json = {
            "v": 10,
            "session_id": session.id,
            "resume_gateway_url": self._standin.gateway_url,
        }
        ready |= {
            "user": self._standin._bot,
            "application": {"id": str(self._standin.application_id), "flags": 0},
        }
        ready["guilds"] = [{"id": str(guild.id), "unavailable": True} for guild in guilds]
        self._emit_to(session, "READY", ready)
        for guild in guilds if intents & GUILDS else []:
            self._emit_to(session, "GUILD_CREATE", guild._create_event())
        return None

    def _resume(self, connection: _Connection, data: Json) -> None:
        session = next((s for s in self._sessions if s.id == data.get("session_id")), None)
        last = data.get("seq") or 0
        if session is None or session.events[0][0] > last + 1:
            return self._send(connection, {"op": 9, "d": False})
        if last > session.sequence:
            return self._close(connection, 4007, f"RESUME with seq {last} of {session.sequence}")
        if session.connection:
            self._hang_up(session.connection)
        self.resumes += 1
        session.connection, connection.session = connection, session
        for number, text, token in session.events:
            if number > last:
                self._put(connection, (text, token))
        return self._emit_to(session, "RESUMED", {})

    def emit(self, event: str, data: Json, intent: int = 0, token: str = "") -> None:
        """Sends an event to the sessions that asked for it; those away get it at RESUME."""
        for session in self._sessions:
            if session.intents & intent == intent:
                self._emit_to(session, event, data, token)
        self._standin._changed.notify_all()

    def _emit_to(self, session: _Session, event: str, data: Json, token: str = "") -> None:
        session.sequence += 1
        text = json.dumps({"op": 0, "t": event, "s": session.sequence, "d": data})
        session.events.append((session.sequence, text, token))
        if session.connection:
            self._put(session.connection, (text, token))

    def _send(self, connection: _Connection, payload: Json) -> None:
        self._put(connection, (json.dumps(payload), ""))

    def _close(self, connection: _Connection, code: int, violation: str = "") -> None:
        if violation:
            self._standin.violations.append(f"gateway: {violation}")
        self._put(connection, code)

    def _put(self, connection: _Connection, item: tuple[str, str] | int) -> None:
        with contextlib.suppress(RuntimeError):  # stopped
            assert self._standin._loop
            self._standin._loop.call_soon_threadsafe(connection.outbox.put_nowait, item)

    def _hang_up(self, connection: _Connection) -> None:
        if connection.session:
            connection.session.connection = None
        if connection.transport and self._standin._loop:
            self._standin._loop.call_soon_threadsafe(connection.transport.abort)
