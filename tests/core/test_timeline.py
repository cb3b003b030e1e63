"""The timeline as a picture."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from orchestrator.core.events import NodeFinished, Phase, PhaseChanged, ReleaseStarted
from orchestrator.core.timeline import render_timeline
from tests.pages.scenes import START, Scene, busy_release, end_release, failed, phase, plan

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

SVG = "{http://www.w3.org/2000/svg}"


def picture(data: dict[str, Any], seconds: float = 300) -> Element:
    html = render_timeline(data, now=START + timedelta(seconds=seconds))
    return ET.fromstring(html)


def ended() -> dict[str, Any]:
    running = Scene().begin()
    busy_release(running)
    return end_release(running)


def bars(figure: Element) -> dict[str, tuple[float, float]]:
    """Return where each bar begins and how wide it is, by what it is called."""
    found = {}
    for group in figure.iter("g"):
        title, rect = group[0], group[1]
        found[str(title.text)] = (float(rect.attrib["x"]), float(rect.attrib["width"]))
    return found


def texts(figure: Element) -> list[str]:
    return ["".join(text.itertext()) for text in figure.iter("text")]


def test_every_phase_is_a_bar_in_its_place_and_as_long_as_it_took() -> None:
    found = bars(picture(ended()))
    left, width = found["linux: building, 1 min 19 s"]
    other, other_width = found["openbsd: building, 1 min 29 s"]

    assert abs(width / other_width - 79 / 89) < 0.01
    assert abs((other - left) / width - (41 - 6) / 79) < 0.01
    assert found["windows: starting the VM, 1 min 36 s"][1] > 0
    assert found["netbsd: building, 34 s"][0] == left


def test_it_says_in_words_what_it_shows() -> None:
    figure = picture(ended())
    [drawing] = [svg for svg in figure.iter("svg") if svg.attrib["class"] == "timeline"]
    title, words = drawing.find("title"), drawing.find("desc")
    assert title is not None
    assert words is not None

    assert drawing.attrib["role"] == "img"
    assert drawing.attrib["aria-labelledby"].split() == [title.attrib["id"], words.attrib["id"]]
    assert title.text == "Timeline of 1.2.3"
    assert "netbsd: connecting 2 s, pushing source 3 s, building 34 s; failed." in str(words.text)
    assert "The critical path: windows." in str(words.text)


def test_what_all_of_it_waited_for_is_marked_and_nothing_else() -> None:
    figure = picture(ended())

    assert [text for text in texts(figure) if text.startswith("◆")] == ["◆ windows"]
    lines = [path for path in figure.iter("path") if path.attrib["class"] == "critical"]
    # One of them is the legend's.
    assert len(lines) == 2


def test_how_each_node_ended_is_a_mark_and_not_only_a_colour() -> None:
    assert {"✔ 1 min 32 s", "✘ 39 s", "✘ 3 min 19 s"} <= set(texts(picture(ended())))


def test_every_kind_of_phase_is_in_the_legend_with_a_look_of_its_own() -> None:
    figure = picture(ended())
    caption = figure.find("figcaption")
    assert caption is not None
    looks = [
        tuple(rect.attrib.get("class") or rect.attrib["fill"] for rect in svg.iter("rect"))
        for svg in caption.iter("svg")
    ]
    used = {rect.attrib["class"] for rect in figure.iter("rect") if "class" in rect.attrib}

    assert len(set(looks)) == 6
    assert used == {"bar wait", "bar prepare", "bar build", "bar check", "bar publish"}
    patterns = {element.attrib["id"] for element in figure.iter("pattern")}
    filled = re.findall(r"url\(#([a-z-]+)\)", ET.tostring(figure, "unicode"))
    assert set(filled) == patterns


def test_while_it_goes_on_it_ends_now_and_no_path_is_told() -> None:
    running = Scene().begin()
    busy_release(running)
    figure = picture(running.board.as_data(), seconds=160)

    assert "… 2 min 39 s" in texts(figure)
    assert "windows: building, 1 min" in bars(figure)
    assert not [text for text in texts(figure) if "◆" in text]
    assert not [path for path in figure.iter("path") if path.attrib["class"] == "critical"]


def test_a_moment_is_wide_enough_to_be_seen() -> None:
    running = Scene().begin()
    running.at(0, ReleaseStarted(plan=plan(names=("linux",))))
    running.at(0, phase("linux", Phase.CONNECTING))
    running.at(0.25, phase("linux", Phase.BUILDING))
    running.at(9000, NodeFinished(node="linux", result=failed("linux")))
    found = bars(picture(running.end(9000)))

    assert found["linux: connecting, 0.2 s"][1] == 2


def test_without_work_there_is_no_picture() -> None:
    running = Scene().begin()
    running.at(0, ReleaseStarted(plan=plan()))

    assert render_timeline(running.board.as_data(), now=START) == ""


def test_a_release_of_no_time_is_a_picture_too() -> None:
    running = Scene().begin()
    running.at(0, ReleaseStarted(plan=plan()), phase("linux", Phase.CONNECTING))

    assert bars(picture(running.end(0, error="stopped")))


def test_a_name_that_is_long_or_markup_stays_a_name() -> None:
    running = Scene().begin()
    running.at(0, ReleaseStarted(plan=plan()))
    running.at(1, PhaseChanged(node="linux", phase=Phase.BUILDING))
    data = running.board.as_data()
    data["rows"][0]["node"] = "<script>" + "x" * 100

    figure = picture(data)
    assert texts(figure)[-3] == "<script>" + "x" * 15 + "…"
