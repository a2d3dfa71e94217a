"""Serves a web page that shows two budgets of one model side by side on any picture.

The model is a stitched one (CONFIG CKPT, with --results for its front), an exported file
(model.onnx, all_stitches.onnx) or the folder of an extracted stitch. The page needs nothing but
this server, which listens to this machine alone unless --host says otherwise.
"""

from __future__ import annotations

import argparse
import ipaddress
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _cli
import _predictor

#: Pictures of a folder that are offered as samples.
MAX_SAMPLES = 8
#: Names of this machine for itself.
LOOPBACK_NAMES = ('localhost', '127.0.0.1', '[::1]', '::1')
PICTURES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line as a namespace."""
    parser = _cli.Parser(prog='web_demo', description=__doc__.splitlines()[0])
    _predictor.add_model_arguments(parser)
    parser.add_argument(
        '--samples', nargs='+', default=[], metavar='FILE | DIR', help='pictures to choose from'
    )
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at')
    parser.add_argument('--port', type=int, default=8000, help='0 takes a free one')
    parser.add_argument('--max-megabytes', type=float, default=8, help='of an upload')
    parser.add_argument('--max-megapixels', type=float, default=24, help='of an upload')
    parser.add_argument('--open', action='store_true', help='open the page in a browser')
    return parser.parse_args(argv)


def sample_files(given: Sequence[str]) -> list[Path]:
    """Files of samples: those given, and some spread over each folder.

    Raises:
        FileNotFoundError: If one is missing, or a folder has no pictures.
    """
    files = []
    for path in map(Path, given):
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES)
            if not inside:
                raise FileNotFoundError(f'There are no pictures in {path}.')
            files += inside[:: max(1, len(inside) // MAX_SAMPLES)][:MAX_SAMPLES]
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f'There is no sample {path}.')
    return files


def is_loopback(host: str) -> bool:
    """Whether an address reaches this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


def names_for(host: str) -> list[str]:
    """Names by which browsers may call a server that listens at an address.

    A page elsewhere could make its own name mean this machine. Where other machines may call,
    theirs for this one are not known.
    """
    return [*LOOPBACK_NAMES, host] if is_loopback(host) else ['*']


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address.

    Raises:
        ValueError: If it cannot be had.
    """
    if not 0 <= port < 65536:
        raise ValueError(f'--port {port} is not possible: it must be from 0 to 65535.')
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((host, port))
        found.listen(128)
    except OSError as error:
        raise ValueError(
            f'Cannot listen at {host}:{port} ({error.strerror}); choose another --port.'
        ) from None
    return found


def make_app(args: argparse.Namespace) -> Any:
    """The server's application.

    Raises:
        ImportError: If FastAPI is not installed.
        FileNotFoundError: If a file is missing.
        ValueError: If one is not what it should be.
    """
    try:
        from web.app import Exhibit, create_app
        from web.pictures import Limits, Pictures
    except ModuleNotFoundError as error:
        if error.name not in ('fastapi', 'starlette', 'PIL'):
            raise
        raise ImportError(f'{error}; the page needs: pip install "mmsnnet[web]"') from None
    for name in ('max_megabytes', 'max_megapixels'):
        if not getattr(args, name) > 0:
            raise ValueError(f'--{name.replace("_", "-")} must be above 0.')
    limits = Limits(args.max_megabytes, args.max_megapixels)
    pictures = Pictures(sample_files(args.samples), limits)
    with _cli.libraries_quiet():
        predictor = _predictor.load_predictor(args)
    return create_app(Exhibit(predictor, pictures), names_for(args.host))


@_cli.command('web_demo')
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = parse_args(argv)
    listening = listen(args.host, args.port)
    app = make_app(args)
    import uvicorn

    host, port = listening.getsockname()[:2]
    address = f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'
    with _cli.output() as out:
        out.write(f'{address} (Ctrl+C ends it)\n')
        if not is_loopback(args.host):
            out.write('Whoever reaches this machine can use the page.\n')
    if args.open:
        webbrowser.open(address)
    config = uvicorn.Config(app, log_level='warning', server_header=False)
    uvicorn.Server(config).run(sockets=[listening])
    return 0


if __name__ == '__main__':
    sys.exit(main())
