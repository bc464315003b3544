"""Lists of what cannot be made on this server, for MLflow's pages: empty, where clients are told 501.

A page that asks for such a list beside what it is about would else show an error.
"""

from typing import Any

from fastapi import APIRouter

from runmirror.routing import Permission, route

router = APIRouter(tags=["ui"])

_EMPTY: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "issues/search", {}),
    ("GET", "label-schemas/list", {}),
    ("GET", "review-queues/list", {}),
    # Made when the page of reviews opens; what is put into it is refused with the reason.
    ("POST", "review-queues/get-or-create-user", {"review_queue": {"queue_id": "", "queue_type": "USER"}}),
    ("GET", "mcp-servers", {"mcp_servers": [], "next_page_token": None}),
    ("GET", "mcp-servers/endpoints", {"mcp_access_endpoints": [], "next_page_token": None}),
)


def _answer(method: str, path: str, answer: dict[str, Any]) -> None:
    async def nothing() -> dict[str, Any]:
        return answer

    route(router, method, f"/ajax-api/3.0/mlflow/{path}", permission=Permission.READ, include_in_schema=False)(nothing)


for _method, _path, _nothing in _EMPTY:
    _answer(_method, _path, _nothing)
