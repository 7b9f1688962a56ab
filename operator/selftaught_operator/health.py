"""Probes and metrics over HTTP."""

from collections.abc import Callable

from aiohttp import web

Check = Callable[[], str]
"""Empty if all is well, else what is wrong."""


class HealthServer:
    """`/healthz` (restart me), `/readyz` (count on me) and `/metrics`."""

    def __init__(self, alive: Check, ready: Check, metrics: Callable[[], bytes]) -> None:
        self._alive = alive
        self._ready = ready
        self._metrics = metrics
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> int:
        """Listen on all addresses; the port."""
        application = web.Application()
        application.router.add_get("/healthz", lambda _: answer(self._alive()))
        application.router.add_get("/readyz", lambda _: answer(self._ready()))
        application.router.add_get("/metrics", self._render)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, None, port, shutdown_timeout=1.0).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _render(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def answer(problem: str) -> web.Response:
    """200, or 503 with what is wrong."""
    return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")
