"""*Compare*: the images that only one of two networks is right about, with pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crossfer.app.flips import Changed, FlipKind, FlipSelection, Wanted
from crossfer.app.pages import Page, rendered
from crossfer.datasets.pictures import encoded

AT_ONCE = 60
"""Pictures on a page."""
FLIPS: Mapping[FlipKind, str] = {
    "lost": "lost: right before, wrong now",
    "won": "won: wrong before, right now",
    "both": "both",
}


def compare_page(choices: Sequence[FlipSelection]) -> Page:
    """Return the page.

    Parameters
    ----------
    choices
        What may be looked at, one or more; it is read when it is first asked for.
    """

    @lru_cache(maxsize=8)
    def changed(index: int) -> Changed:
        return choices[index].load()

    def page(request: Request) -> Response:
        asked = request.query_params
        index = _number(asked.get("what", "0"), len(choices))
        found = changed(index)
        wanted = _wanted(asked, found)
        positions = found.chosen(wanted)
        pages = max(1, -(-len(positions) // AT_ONCE))
        number = _number(asked.get("page", "0"), pages)
        part = positions[number * AT_ONCE : (number + 1) * AT_ONCE]
        return rendered(
            request,
            "compare.html.j2",
            choices=choices,
            index=index,
            choice=choices[index],
            found=found,
            wanted=wanted,
            flips=FLIPS,
            counts={flip: int(found.flipped(flip).sum()) for flip in FLIPS},
            values={column: sorted(set(own)) for column, own in found.groups.items()},
            images=[found.described(int(position)) for position in part],
            count=len(positions),
            number=number,
            pages_of_pictures=pages,
            before=_address(asked, number - 1) if number else None,
            after=_address(asked, number + 1) if number + 1 < pages else None,
        )

    def picture(request: Request) -> Response:
        found = changed(_number(request.path_params["what"], len(choices)))
        position = _number(request.path_params["position"], len(found.rows))
        return Response(encoded(found.picture(position)), media_type="image/png")

    routes = [Route("/compare", page), Route("/compare/{what}/{position}.png", picture)]
    return Page("Compare", "/compare", routes)


def _wanted(asked: Mapping[str, str], found: Changed) -> Wanted:
    flip = next((one for one in FLIPS if one == asked.get("flip", "lost")), None)
    if flip is None:
        raise HTTPException(404)
    groups = {
        column: value
        for column, values in found.groups.items()
        if (value := asked.get(f"by.{column}")) and value in values
    }
    label = asked.get("class")
    return Wanted(flip, label if label in found.classes else None, groups)


def _number(text: str, below: int) -> int:
    """Read a number from an address.

    Raises
    ------
    HTTPException
        If it is none, or there is no such thing.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) >= below:
        raise HTTPException(404)
    return int(text)


def _address(asked: Mapping[str, str], page: int) -> str:
    return "?" + urlencode({**asked, "page": str(page)})
