"""Receivers with experts of other tasks than segmentation: their results go down the wire and onto the page."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gosvae.codecs.label_map import LabelMapCodec
from gosvae.errors import ConfigError, LinkError
from gosvae.protocol.frames import Answer, Dropped, Frame, Perceived, Reason
from gosvae.receiver.answers import answer
from gosvae.receiver.engine import Engine, EngineLimits
from gosvae.receiver.page.board import Board
from gosvae.receiver.perception import Perception
from gosvae.sender.client import LinkClient, RemoteExpert
from gosvae.tasks.base import Arrays
from gosvae.tasks.detection import Detection
from gosvae.tasks.registry import TASKS
from small_link import codec, run, serving, stream
from tiny import TASK_INFO, TaskNetwork, expert

PATIENT = EngineLimits(deadline_ms=0)


def looks(*tasks: str, segments: bool = True) -> Perception:
    judges = {f"my {task}": TaskNetwork(task) for task in tasks}
    return Perception(codec(), expert() if segments else None, judges=judges)


async def answers_of(perception: Perception, frames: int = 2, **client: Any) -> tuple[LinkClient, list[Any]]:
    async with (
        serving(PATIENT, perception) as service,
        await LinkClient.open(service.endpoint, **client) as connected,
    ):
        for number in range(frames):
            await connected.send(number, stream(number))
        await connected.finish()
        return connected, [each async for each in connected.answers()]


@pytest.mark.parametrize("task", [task for task in TASKS if task != "segmentation"])
def test_the_result_of_an_expert_comes_down(task: str) -> None:
    async def test() -> None:
        perception = looks(task)
        client, answers = await answers_of(perception)
        assert client.welcome.experts == (RemoteExpert(f"my {task}", task, TASK_INFO.class_names),)
        assert client.welcome.expert == f"{expert().info.name}, my {task}"
        for number, given in enumerate(answers):
            assert isinstance(given, Answer)
            assert given.classes().shape == (64, 96)
            (result,) = given.results
            assert result.expert == f"my {task}"
            (seen,) = perception([(stream(number), False)])
            assert isinstance(seen, Perceived)
            own = perception.arrays(seen)[f"my {task}"]
            assert set(result.arrays()) == set(own)
            for name, values in result.arrays().items():
                np.testing.assert_allclose(values, own[name], rtol=1e-3, atol=1e-6)

    run(test)


def test_a_receiver_needs_no_segmentation_network() -> None:
    async def test() -> None:
        client, answers = await answers_of(looks("detection", "depth", segments=False))
        assert client.welcome.class_names == ()
        for given in answers:
            assert isinstance(given, Answer)
            assert (given.height, given.width, given.coding, given.class_map) == (64, 96, "none", b"")
            assert [each.expert for each in given.results] == ["my detection", "my depth"]
            with pytest.raises(LinkError, match="no class map"):
                given.classes()

    run(test)


def test_a_client_that_does_not_ask_gets_no_results() -> None:
    """Clients of earlier versions do not ask, and get the answers that they know."""

    async def test() -> None:
        _, answers = await answers_of(looks("detection"), results=False)
        for given in answers:
            assert isinstance(given, Answer)
            assert given.results == ()
            assert given.classes().shape == (64, 96)

    run(test)


def test_a_result_that_cannot_be_sent_drops_its_frame_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def arrays(_self: Detection, _result: object) -> Arrays:
        failures.append(1)
        if len(failures) == 1:
            raise RuntimeError("a defect of a plug-in")
        return {"it": np.arange(3)} if len(failures) == 2 else {}

    failures: list[int] = []
    monkeypatch.setattr(Detection, "arrays", arrays)

    async def test() -> None:
        _, answers = await answers_of(looks("detection"), frames=3)
        assert [type(each) for each in answers] == [Dropped, Dropped, Answer]
        assert [each.reason for each in answers[:2]] == [Reason.FAILED] * 2
        assert "messages hold uint8" in answers[1].text
        assert "plug-in" not in answers[0].text

    run(test)


def test_class_maps_are_no_pictures_for_other_experts() -> None:
    with pytest.raises(ConfigError, match="sends class maps, no pictures for det to look at"):
        Perception(LabelMapCodec(expert()), None, judges={"det": TaskNetwork("detection")})
    with pytest.raises(ConfigError, match="there is no expert to look at them"):
        Perception(codec(), None)


def test_the_page_draws_what_each_expert_sees() -> None:
    async def test() -> None:
        perception = looks("detection", "depth", segments=False)
        board = Board(Engine(perception))
        (seen,) = perception([(stream(), False)])
        assert isinstance(seen, Perceived)
        for number in range(2):  # pictures are kept from when a page asks
            frame = Frame("grpc:1", number, stream())
            board.observe(frame, answer(frame, seen, {}), seen)
            detail = board.state("grpc:1")["selected"]
        picture = detail["picture"]
        assert picture["shares"] is None
        assert [(each["expert"], each["task"]) for each in picture["results"]] == [
            ("my detection", "detection"), ("my depth", "depth"),
        ]  # fmt: skip
        assert "boxes" in picture["results"][0]["text"]
        assert board.picture("grpc:1", "classes") is None
        assert board.picture("grpc:1", "result", "nobody") is None
        drawn = board.picture("grpc:1", "result", "my depth")
        assert drawn is not None
        data, media_type = drawn
        assert media_type == "image/jpeg"
        with Image.open(BytesIO(data)) as image:
            assert image.size == (96, 64)

    run(test)
