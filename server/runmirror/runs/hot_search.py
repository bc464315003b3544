"""runs/search on the hot way: the page is found and answered as by the ordinary route, without what leads there.

What is accepted here is a part of what `wire` accepts, with the same meaning; everything else is None, and the ordinary
route answers it. See `runmirror.hot.middleware`.
"""

from contextlib import suppress
from typing import Any

import msgspec

from runmirror.db import reading
from runmirror.entities import ViewType
from runmirror.errors import DoesNotExist, InvalidParameter
from runmirror.hot.middleware import HotHandler
from runmirror.runs import answers, kept, search
from runmirror.runs.hot_columns import Int64

MAX_BYTES = 64 * 1024  # what the server reads ahead of a request anyway: a longer one waits until it is admitted


class _Search(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    experiment_ids: list[str] = []
    filter: str = ""
    run_view_type: ViewType = ViewType.ACTIVE_ONLY
    max_results: Int64 = 1000
    order_by: list[str] = []
    page_token: str = ""


class HotSearch:
    """The hot handler of runs/search, over the connections and the memory of `app.state`."""

    def __init__(self, state: Any) -> None:
        self._state = state
        self._decode = msgspec.json.Decoder(_Search).decode

    def handlers(self) -> dict[str, HotHandler]:
        """By path, the twin of MLflow's UI among them."""
        return {root + "/2.0/mlflow/runs/search": self.answer for root in ("/api", "/ajax-api")}

    async def answer(self, body: bytes) -> bytes | None:
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidParameter, DoesNotExist):
            asked = self._decode(body)
            wanted = search.understand(
                experiment_ids=asked.experiment_ids, filter_string=asked.filter, run_view_type=asked.run_view_type,
                max_results=asked.max_results, order_by=asked.order_by, page_token=asked.page_token or None,
            )  # fmt: skip
            async with reading(self._state) as connection:
                found = await search.find(connection, wanted)
                runs = await kept.load(connection, self._state.kept_runs, found.versions)
            return answers.runs_page(runs, found.next_page_token)
        return None
