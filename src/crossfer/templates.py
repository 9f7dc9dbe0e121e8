"""HTML pages from Jinja2 templates: what comes from data is escaped, and a missing value is an error."""

from __future__ import annotations

from functools import cache

import jinja2


@cache
def environment(package: str, folder: str = ".", escape: bool = True) -> jinja2.Environment:
    """Return what reads the templates in a folder of a package; Markdown is not escaped."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
