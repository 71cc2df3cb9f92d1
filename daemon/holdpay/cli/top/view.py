"""The loop of `holdpay top`: news and keys change the state, the state is drawn. Imports grpc: load it late."""

from __future__ import annotations

from queue import Empty, SimpleQueue

from holdpay.cli.app import App
from holdpay.cli.top import layout, text
from holdpay.cli.top.source import Broke, Source, snapshot
from holdpay.cli.top.state import Explain, News, Quit, State, Updated, pressed, told
from holdpay.cli.top.terminal import Terminal

TICK_S = 1.0
"""Countdowns go on."""
GATHER_S = 0.05
"""News that come together are drawn together."""


def watch(app: App, terminal: Terminal) -> None:
    """Until the user leaves. Raises Failure if the daemon cannot be asked at first; later it is waited for."""
    first = app.call(snapshot)
    state = told(State(status=first.status), first, app.clock.now_ms())
    inbox: SimpleQueue[News | Broke] = SimpleQueue()

    def tell(news: News | Broke) -> None:
        inbox.put(news)
        terminal.wake()

    source = Source(app, tell)
    try:
        terminal.enter()
        source.start()
        _show(app, terminal, source, inbox, state)
    except EOFError:
        return
    finally:
        source.stop()
        terminal.leave()


def _show(app: App, terminal: Terminal, source: Source, inbox: SimpleQueue[News | Broke], state: State) -> None:
    glyphs = text.UNICODE if terminal.is_unicode else text.ASCII
    while True:
        state = layout.fitted(state, *terminal.size)
        terminal.draw(layout.lines(state, *terminal.size, app.clock.now_ms(), glyphs))
        keys = terminal.wait(TICK_S)
        if state.canceling and len(keys) > 1:
            keys = ["escape"]  # text pasted at a terminal that does not mark it is no answer
        for key in keys:
            was_asking = bool(state.canceling)
            state, wish = pressed(state, key, app.clock.now_ms(), layout.page_lines(terminal.size[1]))
            if isinstance(wish, Quit):
                return
            if wish is not None:
                source.do(wish)
            if state.canceling and not was_asking:
                break  # a question is answered by who has seen it: "policy", pasted by mistake, cancels nothing
        if not inbox.empty():
            app.clock.sleep(GATHER_S)
        news = _heard(inbox)
        for one in news:
            state = told(state, one, app.clock.now_ms())
        if state.page is not None and any(_is_of(one, state.explaining) for one in news):
            source.do(Explain(state.explaining))


def _heard(inbox: SimpleQueue[News | Broke]) -> list[News]:
    """All that came by now."""
    found: list[News] = []
    while True:
        try:
            news = inbox.get_nowait()
        except Empty:
            return found
        if isinstance(news, Broke):
            raise news.error
        found.append(news)


def _is_of(news: News, request_id: str) -> bool:
    return isinstance(news, Updated) and news.update.request.id == request_id
