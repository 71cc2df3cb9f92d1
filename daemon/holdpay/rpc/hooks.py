"""Hooks → the interface."""

from __future__ import annotations

from holdpay._pb.v1 import holdpay_pb2 as pb
from holdpay.ports import HookSight


def hook_to_pb(hook: HookSight) -> pb.Hook:
    state = hook.state
    return pb.Hook(
        name=state.name,
        target=hook.target,
        events=[topic.value for topic in hook.topics],
        include_secrets=hook.has_secrets,
        cursor=state.position.cursor,
        delivered_at_ms=state.delivered_at_ms,
        waiting_since_ms=hook.waiting_since_ms,
        failing_since_ms=state.failing_since_ms,
        attempts=state.attempt_count,
        next_try_at_ms=state.next_try_at_ms,
        dead_at_ms=state.dead_at_ms,
        trouble=state.trouble,
        unusable=hook.unusable,
    )
