"""Statistics → protobuf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.core.stats import Line, StatsBy
from holdpay.errors import InvalidRequest

_BY: Final = {
    pb.STATS_BY_UNSPECIFIED: StatsBy.COUNTRY,
    pb.STATS_BY_COUNTRY: StatsBy.COUNTRY,
    pb.STATS_BY_SERVICE: StatsBy.SERVICE,
    pb.STATS_BY_KIND: StatsBy.KIND,
    pb.STATS_BY_DAY: StatsBy.DAY,
}


def stats_by_from_pb(by: pb.StatsBy.ValueType) -> StatsBy:
    """Raises InvalidRequest for one that this version does not know."""
    if by not in _BY:
        raise InvalidRequest(f"Statistics by {by} are not known to this version. Ask for others.", field="by")
    return _BY[by]


def stats_to_pb(lines: Sequence[Line], *, is_more: bool) -> pb.GetStatsResponse:
    """``is_more``: older orders were left out."""
    return pb.GetStatsResponse(lines=[_line(line) for line in lines], more=is_more)


def _line(line: Line) -> pb.StatsLine:
    return pb.StatsLine(
        name=line.name,
        orders=line.orders,
        came=line.came,
        median_number_s=line.median_number_s,
        median_code_s=line.median_code_s,
        spent_msat=line.spent_msat,
        fee_msat=line.fee_msat,
        locked_sat_hours=line.locked_sat_hours,
    )
