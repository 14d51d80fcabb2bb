#!/usr/bin/env python3
"""A TCP proxy on loopback that makes a fast line slow, and counts what passes.

In: connections to --listen. Out: the same bytes at --to, each direction one
link with a fixed rate and half a round trip of delay, shared by all
connections. Nothing is parsed. With neither --rtt nor --mbit it only counts.

The model of one direction is a queue in front of a wire: a chunk starts when
the wire is free, takes length / rate, and arrives half a round trip later.
Times are absolute, so a late timer does not slow the line down. Connecting to
the proxy itself is instant; the round trip that a handshake takes is added to
whatever the client sends first. Slow start and loss are not modelled.

On SIGTERM or SIGINT the counts are written to stdout as JSON:
{"connections", "to_server", "to_client"}, in bytes.
"""

import argparse
import asyncio
import json
import os
import signal

CHUNK = 64 << 10
# Bytes one connection may have on the line before its sender has to wait:
# a receive window, as large as Linux lets it grow.
WINDOW = 4 << 20


class Link:
    """One direction of the line."""

    def __init__(self, rate: float, delay: float) -> None:
        self.rate = rate  # bytes a second; 0 is no limit
        self.delay = delay  # seconds
        self.free_at = 0.0
        self.passed = 0  # bytes

    def arrival(self, size: int, not_before: float) -> float:
        """When a chunk that is handed over now reaches the other end."""
        start = max(asyncio.get_running_loop().time(), not_before, self.free_at)
        self.free_at = start + (size / self.rate if self.rate else 0.0)
        self.passed += size
        return self.free_at + self.delay


async def carry(reader, writer, link: Link, not_before: float) -> None:
    """Moves one direction of one connection until its end of file, passing that on."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue = asyncio.Queue()
    window = asyncio.Semaphore(WINDOW // CHUNK)

    async def receive() -> None:
        try:
            while True:
                await window.acquire()
                chunk = await reader.read(CHUNK)
                await line.put((link.arrival(len(chunk), not_before), chunk))
                if not chunk:
                    return
        except ConnectionError:
            await line.put((loop.time(), b""))

    receiving = asyncio.create_task(receive())
    try:
        while True:
            due, chunk = await line.get()
            wait = due - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            window.release()
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()
    except (ConnectionError, OSError):
        writer.close()
    finally:
        receiving.cancel()


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listen", type=int, required=True, metavar="PORT")
    parser.add_argument("--to", type=int, required=True, metavar="PORT")
    parser.add_argument("--rtt", type=float, default=0, metavar="MS", help="round trip")
    parser.add_argument("--mbit", type=float, default=0, help="Mbit/s each way; 0: no limit")
    args = parser.parse_args()

    rate, delay = args.mbit * 1e6 / 8, args.rtt / 2000
    up, down = Link(rate, delay), Link(rate, delay)
    connections = 0
    # The event loop itself holds tasks weakly; a connection whose two ends
    # are both waiting would be collected as garbage.
    alive = set()

    async def connected(reader, writer) -> None:
        nonlocal connections
        connections += 1
        alive.add(asyncio.current_task())
        handshake_done = asyncio.get_running_loop().time() + 2 * delay
        try:
            server_reader, server_writer = await asyncio.open_connection(
                "127.0.0.1", args.to, limit=CHUNK
            )
        except OSError:
            writer.close()
            alive.discard(asyncio.current_task())
            return
        try:
            await asyncio.gather(
                carry(reader, server_writer, up, handshake_done),
                carry(server_reader, writer, down, 0.0),
            )
        finally:
            server_writer.close()
            writer.close()
            alive.discard(asyncio.current_task())

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listening = await asyncio.start_server(
        connected, "127.0.0.1", args.listen, limit=CHUNK, backlog=512
    )
    await stop.wait()
    listening.close()
    counts = {"connections": connections, "to_server": up.passed, "to_client": down.passed}
    print(json.dumps(counts), flush=True)
    # Kept-alive connections are still open; they end with the process, at once.
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
