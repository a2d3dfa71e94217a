"""Command line: ``python -m mmsnnet.compat install-ops | remove-ops | status``."""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mmsnnet.compat.installation import obstacles
from mmsnnet.compat.ops_file import OpsFileError, install_ops, remove_ops, status

COMMANDS = {'install-ops': install_ops, 'remove-ops': remove_ops, 'status': status}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0 done, 1 refused with one line on stderr.

    ``status`` also names what stands in the way of mmseg, mmdet and mim, and returns 1 if
    something does.

    Args:
        argv: arguments without the program's name; those of the process by default.
    """
    parser = argparse.ArgumentParser(
        prog='mmsnnet.compat',
        description='NMS and RoIAlign on torchvision kernels for an mmcv without compiled ops, '
        'for programs that import mmcv.ops before they read a config.')
    parser.add_argument(
        'command', choices=list(COMMANDS),
        help='install-ops: write _ext.py into the mmcv folder; remove-ops: delete it; '
        'status: say where the ops come from, and what does not fit in this environment')
    name = parser.parse_args(argv).command
    found = obstacles() if name == 'status' else []
    try:
        sys.stdout.write(f'{COMMANDS[name]()}\n')
    except OpsFileError as error:
        sys.stderr.write(f'mmsnnet.compat: error: {error}\n')
        return 1
    finally:
        sys.stdout.writelines(f'obstacle: {line}\n' for line in found)
    return int(bool(found))


if __name__ == '__main__':
    sys.exit(main())
