"""A mesh inside a FastAPI app: attached in the lifespan, used by the routes, drained on shutdown.

    irisd                                              # a development daemon
    python examples/request.py serve                   # the cluster the routes ask
    uvicorn --app-dir examples fastapi_app:app
    curl http://127.0.0.1:8000/weather/Oslo

The app also serves a cluster of its own (`web`), so that other apps can find out which processes are up.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request

import iris_client as iris

web = iris.Cluster("web", codec=iris.JSON)


@web.on_survey
async def who(_question: Any) -> dict[str, int]:
    return {"pid": os.getpid()}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # An app may start before its daemon: connect() waits up to its timeout.
    async with iris.connect(name="web", codec=iris.JSON, timeout=10.0) as mesh, mesh.join(web):
        app.state.mesh = mesh
        yield  # leaving drains: what the routes still wait for may finish


app = FastAPI(lifespan=lifespan)


async def the_mesh(request: Request) -> iris.Mesh:
    mesh: iris.Mesh = request.app.state.mesh
    return mesh


@app.get("/weather/{city}")
async def weather(city: str, mesh: Annotated[iris.Mesh, Depends(the_mesh)]) -> dict[str, Any]:
    try:
        # Asking twice does no harm, so the mesh may try another member when one is lost.
        return await mesh.request("weather", {"city": city}, returns=dict, timeout=2.0, idempotent=True)
    except iris.Rejected as error:
        raise HTTPException(404, error.code) from error
    except iris.NoMember as error:
        raise HTTPException(503, "no weather station is up") from error
    except TimeoutError as error:
        raise HTTPException(504, "no answer in time") from error


@app.get("/peers")
async def peers(mesh: Annotated[iris.Mesh, Depends(the_mesh)]) -> dict[str, int]:
    async with mesh.survey("web", timeout=1.0) as survey:
        answered = [answer async for answer in survey]
    return {"asked": len(survey.asked), "answered": len(answered)}
