"""Chromium without a window, steered through pipes by its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


class Browser:
    """One page in a browser of its own; use it in a ``with`` block.

    Attributes:
        requests: Addresses that the page asked for, in order, data addresses left out.
        errors: What its console was told as an error, and its uncaught exceptions.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._number = 0
        self._buffer = b''
        self._session: str | None = None

    def __enter__(self) -> Browser:
        to_read, to_write = os.pipe(), os.pipe()
        self._profile = tempfile.mkdtemp()
        # The browser reads commands at descriptor 3 and answers at 4.
        script = f'exec "$0" "$@" 3<&{to_read[0]} 4>&{to_write[1]}'
        command = [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars']
        command += ['--remote-debugging-pipe', f'--user-data-dir={self._profile}', 'about:blank']
        self._process = subprocess.Popen(
            ['bash', '-c', script, *command], pass_fds=(to_read[0], to_write[1]),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read[0])
        os.close(to_write[1])
        self._out, self._in = to_read[1], to_write[0]
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Network', 'Runtime', 'DOM', 'Log'):
            self.call(f'{domain}.enable')
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Result of a command of the protocol."""
        self._number += 1
        message = dict(id=self._number, method=method, params=params)
        if self._session is not None:
            message['sessionId'] = self._session
        os.write(self._out, json.dumps(message).encode() + b'\0')
        while True:
            answer = self._receive()
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer['error']
                return answer['result']
            self._note(answer)

    def _receive(self) -> dict[str, Any]:
        while b'\0' not in self._buffer:
            chunk = os.read(self._in, 1 << 20)
            assert chunk, 'the browser has ended'
            self._buffer += chunk
        text, self._buffer = self._buffer.split(b'\0', 1)
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get('params', {})
        if event['method'] == 'Network.requestWillBeSent':
            address = params['request']['url']
            if not address.startswith('data:'):
                self.requests.append(address)
        elif event['method'] == 'Runtime.exceptionThrown':
            self.errors.append(str(params['exceptionDetails'].get('exception')))
        elif event['method'] == 'Log.entryAdded' and params['entry']['level'] == 'error':
            self.errors.append(params['entry']['text'])

    def run(self, script: str) -> Any:
        """Value of an expression, or of what it promises."""
        result = self.call(
            'Runtime.evaluate', expression=script, returnByValue=True, awaitPromise=True
        )
        assert 'exceptionDetails' not in result, result['exceptionDetails']
        return result['result'].get('value')

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Value of an expression once it holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(f'{script} did not come to hold; the page says {self.errors}')

    def open(self, address: str, width: int = 1200, height: int = 1000, dark: bool = False) -> None:
        """Load a page in a window of a size, with the preferred colours."""
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        scheme = dict(name='prefers-color-scheme', value='dark' if dark else 'light')
        self.call('Emulation.setEmulatedMedia', features=[scheme])
        self.call('Page.navigate', url=address)
        self.wait(f'location.href.startsWith({address!r}) && document.readyState === "complete"')

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in an input of the page, as a visitor would."""
        root = self.call('DOM.getDocument')['root']['nodeId']
        node = self.call('DOM.querySelector', nodeId=root, selector=selector)['nodeId']
        self.call('DOM.setFileInputFiles', files=[str(path)], nodeId=node)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag the mouse."""
        press = dict(button='left', buttons=1, clickCount=1)
        for kind, (x, y) in (('mousePressed', start), ('mouseMoved', end), ('mouseReleased', end)):
            self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, **press)

    def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        shot = self.call('Page.captureScreenshot', captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot['data']))
