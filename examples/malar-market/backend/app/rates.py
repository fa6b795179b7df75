"""Today's market rates, told to every browser that listens."""

from __future__ import annotations

import asyncio
from typing import Dict, Set

from fastapi import APIRouter, Depends, WebSocket, WebSocketDisconnect
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field

from . import cache
from .tokens import writer

router = APIRouter()


class Rate(BaseModel):
    flower: str = Field(min_length=1, max_length=50)
    rate_per_kg: float = Field(gt=0)


class Board:
    """The rates of this process and who listens to it."""

    def __init__(self) -> None:
        self.rates: Dict[str, float] = {}
        self.listeners: Set[WebSocket] = set()

    def message(self) -> Dict[str, object]:
        return {"type": "rates", "rates": self.rates}

    async def recall(self) -> None:
        """Other processes set rates as well, and this one may be new."""
        self.rates.update(await run_in_threadpool(cache.load_rates))

    async def publish(self, rate: Rate) -> None:
        self.rates[rate.flower] = rate.rate_per_kg
        await run_in_threadpool(cache.save_rate, rate.flower, rate.rate_per_kg)
        listeners = list(self.listeners)
        results = await asyncio.gather(*(one.send_json(self.message()) for one in listeners), return_exceptions=True)
        gone = [one for one, result in zip(listeners, results) if isinstance(result, Exception)]
        self.listeners.difference_update(gone)


board = Board()


@router.get("/api/v1/market-rates")
async def market_rates() -> Dict[str, float]:
    await board.recall()
    return board.rates


@router.post("/api/v1/market-rates", status_code=201, dependencies=[Depends(writer)])
async def set_market_rate(rate: Rate) -> Rate:
    await board.publish(rate)
    return rate


@router.websocket("/ws")
async def listen(socket: WebSocket) -> None:
    """Sends the rates at once and whenever they change; answers what it is told, so that a client can see it lives."""
    await socket.accept()
    await board.recall()
    board.listeners.add(socket)
    try:
        await socket.send_json(board.message())
        while True:
            await socket.send_json({"type": "echo", "text": await socket.receive_text()})
    except WebSocketDisconnect:
        pass
    finally:
        board.listeners.discard(socket)
