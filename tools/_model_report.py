"""The report of make_model.py."""

from __future__ import annotations

import io
from typing import Any


def report_text(job: Any, sweep: str, model: str) -> str:
    """Text of the report, in Markdown.

    Args:
        job: The job, its stages done.
        sweep: Folder of the scores.
        model: Folder of the model.
    """
    from choose_stitch import to_row, write_table

    from mmsnnet.version import __version__

    record, chooser = job.record, job.chooser()
    chosen, files = record.outputs('choose'), record.outputs('export')
    table, one = io.StringIO(), io.StringIO()
    write_table([to_row(row, chooser.metric) for row in chooser.front()], table)
    write_table([chosen], one)
    budget = ', '.join(f'--{key.replace("_", "-")} {value:g}' for key, value in job.budget.items())
    source = 'given' if job.args.checkpoint else f'trained in {record.seconds("train"):.0f} s'
    agreement = '\n'.join(f'- {name}: {text}' for name, text in record.outputs('verify').items())
    sizes = '\n'.join(f'| {name} | {row["bytes"]:,} |' for name, row in files.items())
    return f"""# {chosen['name']} of {job.config.stem}

mmsnnet {__version__}; config `{job.config}`{''.join(f' `{one}`' for one in job.args.cfg_texts)}.

## Weights
{source}: `{job.checkpoint}` (sha256 {record.outputs('train')['sha256']})

## Chosen for {budget}
```
{one.getvalue()}```

## The front that it was chosen from
{len(chooser.candidates)} stitches were scored by {chooser.metric}; all of them, with the plot, are
in `{sweep}`.
```
{table.getvalue()}```

## Files in `{model}`
| file | bytes |
|---|---|
{sizes}

Compared with the stitched model, loaded from the disk anew:
{agreement}
"""
