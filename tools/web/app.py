"""What the page asks of the server: the model, pictures, and predictions of single stitches."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import _cli
import _overlay
import cv2
import numpy as np
from _predictor import Prediction, Predictor
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from mmsnnet.evaluation.report.pareto_html import fill_template, page_data

from .pictures import Pictures, UploadError

PAGE = Path(__file__).with_name('index.html')
#: Most classes that the legend of a prediction names, those of most pixels first.
MAX_NAMED = 12
#: A prediction is repeated to be timed: so often, and within so many milliseconds.
MAX_REPEATS, REPEATED_MS = 4, 100


class Exhibit:
    """A model with its pictures: what the server shows.

    One prediction runs at a time, so that its time is its own.

    Args:
        predictor: The model.
        pictures: Samples and uploads.
    """

    def __init__(self, predictor: Predictor, pictures: Pictures) -> None:
        self.predictor = predictor
        self.pictures = pictures
        self._names = {one.name for one in predictor.chooser.candidates}
        self._lock = threading.Lock()
        self._warm: set[str] = set()
        self._depths: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def page(self) -> str:
        """The page, with all that it needs to know of the model."""
        chooser = self.predictor.chooser
        limits = self.pictures.limits
        title = self.predictor.title
        data = page_data({title: chooser}, title, depths=self.predictor.anchors)
        data |= dict(
            task=self.predictor.task,
            samples=self.pictures.samples,
            megabytes=limits.megabytes,
        )
        return fill_template(PAGE.read_text('utf-8'), data)

    def predict(self, picture_id: str, stitch: str) -> dict[str, Any]:
        """A stitch's prediction on a picture, as the page takes it.

        Raises:
            UploadError: If the picture is not held any more, or there is no such stitch.
        """
        picture = self.pictures[picture_id]
        if stitch not in self._names:
            raise UploadError(404, 'This model has no such stitch.')
        with self._lock:
            found = self._timed(picture, stitch)
            limits = self._range_of(picture_id, found.map)
        painted = _overlay.paint(picture, found.map, self.predictor.palette, limits)
        return dict(
            stitch=stitch,
            ms=found.ms,
            image='data:image/jpeg;base64,' + base64.b64encode(to_jpeg(painted)).decode(),
            classes=self._classes(found.map),
            depths=limits,
        )

    def _timed(self, picture: np.ndarray, stitch: str) -> Prediction:
        """A prediction with the least of the times of some runs, as far as they are quick."""
        if stitch not in self._warm:  # the first call pays for what later ones find ready
            self.predictor.predict(picture, stitch)
            self._warm.add(stitch)
        found = self.predictor.predict(picture, stitch)
        for _ in range(min(MAX_REPEATS, int(REPEATED_MS / max(found.ms, 1.0)))):
            found = min(found, self.predictor.predict(picture, stitch), key=lambda one: one.ms)
        return found

    def _range_of(self, picture_id: str, found: np.ndarray) -> tuple[float, float] | None:
        """Depths that bound the colours: those of a picture's first prediction, for all of it."""
        if found.dtype.kind != 'f':
            return None
        if picture_id not in self._depths:
            self._depths[picture_id] = _overlay.depth_range(found)
            if len(self._depths) > 256:
                self._depths.popitem(last=False)
        return self._depths[picture_id]

    def _classes(self, found: np.ndarray) -> list[dict[str, Any]]:
        """Names, colours and shares of pixels of the classes found, the largest first."""
        if found.dtype.kind == 'f':
            return []
        counts = np.bincount(found.ravel())
        colours = _overlay.palette_for(self.predictor.palette, len(counts))
        names = self.predictor.classes
        return [
            dict(
                name=names[number] if number < len(names) else str(number),
                colour='#{:02x}{:02x}{:02x}'.format(*colours[number]),
                share=float(counts[number] / found.size),
            )
            for number in np.argsort(-counts, kind='stable')[:MAX_NAMED]
            if counts[number]
        ]


def to_jpeg(picture: np.ndarray) -> bytes:
    """Bytes of a picture (H, W, 3) in the order red, green, blue."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, 92]
    return cv2.imencode('.jpg', picture[..., ::-1], settings)[1].tobytes()


def content_policy(page: str) -> str:
    """Policy under which a browser runs this page's own scripts, and asks this server alone."""

    def hashes(tag: str) -> str:
        blocks = re.findall(rf'<{tag}>(.*?)</{tag}>', page, re.DOTALL)
        digests = (hashlib.sha256(block.encode()).digest() for block in blocks)
        return ' '.join(f"'sha256-{base64.b64encode(one).decode()}'" for one in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    )


async def read_body(request: Request, most: int) -> bytes:
    """Body of a request; reading ends where it exceeds the limit.

    Raises:
        UploadError: If it does.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most:
            raise UploadError(413, f'The file is too large; at most {most / 1e6:g} MB are taken.')
    return bytes(content)


def create_app(exhibit: Exhibit, hosts: Sequence[str]) -> FastAPI:
    """The server.

    Args:
        exhibit: What it shows.
        hosts: Names by which it may be called, ``'*'`` for any; other requests are refused.
    """
    # Their pages of documentation load scripts from elsewhere.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    page = exhibit.page()
    policy = content_policy(page)

    @app.exception_handler(UploadError)
    async def refuse(request: Request, error: UploadError) -> JSONResponse:
        return JSONResponse({'detail': str(error)}, error.status)

    @app.middleware('http')
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if request.headers.get('sec-fetch-site', 'none') not in ('none', 'same-origin'):
            return JSONResponse({'detail': 'Requests of other pages are refused.'}, 403)
        response = await call_next(request)
        response.headers['Content-Security-Policy'] = policy
        response.headers['X-Content-Type-Options'] = 'nosniff'
        response.headers['Referrer-Policy'] = 'no-referrer'
        response.headers['Cache-Control'] = 'no-store'
        return response

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    add_routes(app, exhibit, page)
    return app


def add_routes(app: FastAPI, exhibit: Exhibit, page: str) -> None:
    """Give the server its addresses."""

    @app.get('/', response_class=HTMLResponse)
    def show() -> str:
        return page

    @app.post('/api/pictures')
    async def upload(request: Request) -> dict[str, str]:
        content = await read_body(request, round(exhibit.pictures.limits.megabytes * 1e6))
        return {'id': await run_in_threadpool(exhibit.pictures.add, content)}

    @app.get('/api/pictures/{name}')
    def picture(name: str) -> Response:
        return Response(to_jpeg(exhibit.pictures[name]), media_type='image/jpeg')

    @app.get('/api/prediction')
    def predict(picture: str, stitch: str) -> dict[str, Any]:
        try:
            return exhibit.predict(picture, stitch)
        except UploadError:
            raise
        except Exception as error:  # whatever a model can do wrong on a picture
            raise HTTPException(500, f'The model failed: {_cli.line_of(error)}') from error
