"""`gosvae receive` and `gosvae send`: the whole way on this machine, and one line for what a user can mend."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest

from gosvae.cli.main import main
from gosvae.cli.send_report import milliseconds
from gosvae.codecs.checkpoint import save_codec
from gosvae.images import read_image, write_image
from gosvae.protocol.security import Endpoint
from gosvae.receiver.connections import MOST_DESCRIPTORS
from gosvae.receiver.receiver import Receiver
from gosvae.sender.sources import as_jpeg
from small_link import PATIENCE_S, TOKEN, Authority, patient_senders
from tiny import checkpoint, streets, variable_checkpoint

Run = Callable[..., str]
DEPTH = """
from gosvae import ExpertInfo, TaskExpert

class Brightness(TaskExpert):
    task = "depth"

    def __init__(self):
        super().__init__(ExpertInfo("brightness", (), 64, 96))

    def dense(self, x):
        return 0.1 + x.mean(dim=1, keepdim=True)[..., ::8, ::8]
"""


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that is refused and return its one line."""

    def call(*arguments: object) -> str:
        try:
            status = main([str(a) for a in arguments])
        except SystemExit as error:  # from argparse
            status = int(error.code or 0)
        line = capsys.readouterr().err
        assert status == 2
        assert line.startswith("gosvae")
        assert line.count("\n") == 1, line
        return line

    return call


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codec") / "tiny"
    save_codec(folder, checkpoint())
    return folder


@pytest.fixture(scope="module")
def variable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variable") / "tiny"
    save_codec(folder, variable_checkpoint())
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for n in range(3):
        write_image(folder / f"{n}.png", streets()[n].image_uint8_HW3)
    return folder


class Receiving:
    """A receiver in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.process, self._begin = process, "\n".join(lines)
        self.said = ""

    def place(self, what: str) -> str:
        """Where it listens."""
        found = re.search(rf"^{what}\s+(?:https?://)?([\w.:\[\]]+)", self._begin, re.MULTILINE)
        assert found, self._begin
        return found[1]


@contextmanager
def receiving(*arguments: object) -> Iterator[Receiving]:
    command = [sys.executable, "-W", "error", "-m", "gosvae.cli.main", "receive", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    killer = threading.Timer(4 * PATIENCE_S, process.kill)
    killer.start()
    assert process.stdout is not None
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        receiver = Receiving(process, lines)
        assert lines[-1].startswith("Ctrl-C"), "".join(lines)
        yield receiver
        process.send_signal(signal.SIGTERM)
        receiver.said = process.stdout.read()
        assert process.wait(PATIENCE_S) == 0
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        process.stdout.close()


def wait_for_frames(receiver: Receiving, count: int) -> None:
    """Wait until a receiver has answered or dropped that many frames, as its metrics tell."""
    end_s = time.monotonic() + PATIENCE_S
    done = 0.0
    while done < count:
        assert time.monotonic() < end_s, f"{done:.0f} of {count} frames"
        time.sleep(0.05)
        with urlopen(f"http://{receiver.place('page')}/metrics", timeout=PATIENCE_S) as answer:
            done = sum(
                map(float, re.findall(r"^gosvae_frames_total\{.*\} (\S+)$", answer.read().decode(), re.MULTILINE))
            )


@pytest.fixture(autouse=True)
def _patient() -> Iterator[None]:
    with patient_senders():
        yield


def test_the_whole_way_over_grpc(codec: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with receiving(
        *("--codec", codec, "--grpc", "127.0.0.1:0", "--page", "127.0.0.1:0", "--token-file", token),
        *("--deadline-ms", 0),
    ) as receiver:
        place = receiver.place("gRPC")
        out = tmp_path / "maps"
        status = main(
            [
                *("send", str(photos), "--codec", str(codec), "--grpc", place, "--fps", "20", "--loop"),
                *("--frames", "30", "--token-file", str(token), "--out", str(out), "--originals", "--name", "car 7"),
            ]
        )
        text = capsys.readouterr().out
        assert status == 0
        assert re.search(r"^ +\d+ s +\d+\.\d frames/s .*answered", text, re.MULTILINE)  # a line each second
        assert re.search(r"^30 frames in .* 0 skipped", text, re.MULTILINE)
        assert "30 answered, 0 dropped, 0 without an answer" in text
        maps = sorted(out.iterdir())
        assert len(maps) == 30
        classes = read_image(maps[0])
        assert classes.shape == (64, 96, 3)
        assert classes.max() < 11
        np.testing.assert_array_equal(classes, read_image(maps[3]))
        for words in (["--token-file", str(photos / "0.png")], []):
            assert main(["send", str(photos), "--codec", str(codec), "--grpc", place, *words]) == 2
            assert capsys.readouterr().err.count("\n") == 1
        with urlopen(f"http://{receiver.place('page')}/health", timeout=PATIENCE_S) as answer:
            assert answer.read() == b"serving\n"
    assert "30 frames: 30 answered, 0 dropped" in receiver.said
    assert "1 no-token" in receiver.said
    assert "is 'car 7' from" in receiver.said
    assert TOKEN not in receiver.said


def test_results_of_several_experts_are_written(
    codec: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = tmp_path / "depth.py"
    network.write_text(DEPTH, encoding="utf-8")
    experts = ("--expert", "embedded", "--expert", f"far={network}:Brightness")
    with receiving("--codec", codec, "--grpc", "127.0.0.1:0", *experts) as receiver:
        out = tmp_path / "results"
        words = ("send", photos, "--codec", codec, "--grpc", receiver.place("gRPC"), "--out", out)
        assert main([str(word) for word in words]) == 0
        assert "3 answered" in capsys.readouterr().out
        assert sorted(path.name for path in out.iterdir()) == [
            f"00000{n}.{end}" for n in range(3) for end in ("npz", "png")
        ]
        with np.load(out / "000000.npz") as arrays:
            assert arrays["far.depth"].shape == (8, 12)
            assert (arrays["far.depth"] > 0).all()


def test_the_whole_way_over_udp_at_a_rate(
    variable: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--udp", "127.0.0.1:0", "--page", "127.0.0.1:0")
    key = tmp_path / "key"
    key.write_text("0123456789abcdef" * 2)
    with receiving("--codec", variable, *where, "--deadline-ms", 0, "--key-file", key) as receiver:
        status = main(
            [
                *("send", str(photos), "--codec", str(variable), "--udp", receiver.place("UDP"), "--fps", "20"),
                *("--loop", "--frames", "40", "--kbps", "60", "--slices", "2", "--fec", "0.5", "--key-file", str(key)),
            ]
        )
        text = capsys.readouterr().out
        assert status == 0
        assert "UDP packets of a frame leave at 120 kbit/s, 2 times --kbps" in text
        found = re.search(r"^(\d+) frames in .* ([\d.]+) kbit/s, coding", text, re.MULTILINE)
        assert found
        assert int(found[1]) > 10
        assert float(found[2]) < 1.1 * 60
        assert " 0 errors" in text
        wait_for_frames(receiver, int(found[1]))
    frames = re.search(r"^(\d+) frames: (\d+) answered", receiver.said, re.MULTILINE)
    assert frames
    assert frames[1] == frames[2] == found[1]


def test_a_folder_arrives_whole_and_a_live_source_does_not(
    codec: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The deadline of the receiver is over before any frame has its turn."""
    limits = ("--deadline-ms", 1e-6, "--max-pixels", 64 * 96)
    with receiving("--codec", codec, "--grpc", "127.0.0.1:0", *limits) as receiver:
        send = ["send", str(photos), "--codec", str(codec), "--grpc", receiver.place("gRPC"), "--quiet"]
        assert main(send) == 0
        assert "3 answered, 0 dropped, 0 without an answer" in capsys.readouterr().out
        for live in (["--live"], ["--loop", "--frames", "3"]):
            assert main([*send, *live]) == 0
            assert "0 answered, 3 stale dropped" in capsys.readouterr().out
        assert main([*send, "--resize", "96x96"]) == 1
        assert "0 answered, 3 too-large dropped" in capsys.readouterr().out
        assert main([*send, "--loop", "--frames", "3", "--no-live"]) == 0
        assert "3 answered, 0 dropped" in capsys.readouterr().out


def test_pictures_from_a_pipe(codec: Path) -> None:
    data = b"".join(
        len(jpeg).to_bytes(4, "big") + jpeg for jpeg in (as_jpeg(streets()[n].image_uint8_HW3) for n in range(3))
    )
    with receiving("--codec", codec, "--grpc", "127.0.0.1:0", "--policy", "block") as receiver:
        command = [
            *(sys.executable, "-m", "gosvae.cli.main", "send", "-", "--codec", str(codec), "--quiet"),
            *("--grpc", receiver.place("gRPC"), "--resize", "32x48"),
        ]
        done = subprocess.run(command, input=data, capture_output=True, timeout=2 * PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr
        assert b"3 answered, 0 dropped" in done.stdout
        done = subprocess.run(command, input=data[:-5], capture_output=True, timeout=2 * PATIENCE_S, check=False)
        assert done.returncode == 2
        assert done.stderr.decode() == "gosvae: error: standard input ends 5 bytes before the end of a picture\n"


def test_a_round_trip_without_answers_is_a_dash() -> None:
    assert milliseconds([], 50) == "-"
    assert milliseconds([1.0, 3.0], 50) == "2 ms"


def test_an_expired_certificate_is_refused_and_logged(codec: Path, photos: Path, tmp_path: Path, refuse: Run) -> None:
    authority = Authority(tmp_path, "ours")
    certificate, key = authority.sign("server")
    tls = ("--tls-cert", certificate, "--tls-key", key, "--client-ca", authority.file)
    with receiving("--codec", codec, "--grpc", "127.0.0.1:0", *tls) as receiver:
        send = ("send", photos, "--codec", codec, "--grpc", receiver.place("gRPC"), "--ca", authority.file, "--quiet")
        expired, its_key = authority.sign("expired", (-10, -1))
        assert "refuses this sender's certificate" in refuse(*send, "--cert", expired, "--key", its_key)
        assert "asks for a certificate of this sender" in refuse(*send)
        assert "uses TLS and this sender does not" in refuse(*send[:6], "--quiet")
        good, its_key = authority.sign("good")
        assert main([str(a) for a in (*send, "--cert", good, "--key", its_key, "--frames", 2)]) == 0
    assert "certificate has expired" in receiver.said
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in receiver.said


def test_what_a_sender_can_mend(codec: Path, variable: Path, photos: Path, tmp_path: Path, refuse: Run) -> None:
    nobody = "127.0.0.1:1"
    send = ("send", photos, "--codec", codec, "--grpc", nobody)
    assert "no receiver at 127.0.0.1:1" in refuse(*send, "--give-up-after", 0)
    for bad in ("-1", "nan", "inf", "soon"):
        assert "seconds, 0 or more, or never" in refuse(*send, f"--give-up-after={bad}")
    assert "no such file or folder" in refuse("send", tmp_path / "none", "--codec", codec, "--grpc", nobody)
    assert "unknown codec" in refuse("send", photos, "--codec", "gosvae-camvit", "--grpc", nobody)
    assert "expected HOST:PORT" in refuse("send", photos, "--codec", codec, "--grpc", "nowhere")
    assert "rate of 'tiny' is fixed" in refuse(*send, "--kbps", 10)
    assert "expected more than 0" in refuse("send", photos, "--codec", variable, "--grpc", nobody, "--kbps", 0)
    assert "variable-rate" in refuse(*send, "--level", 5)
    assert "give one" in refuse("send", photos, "--codec", variable, "--grpc", nobody, "--level", 5, "--kbps", 9)
    assert "--fps 0" in refuse(*send, "--fps", 0)
    assert "over gRPC nothing is lost" in refuse(*send, "--fec", 0.5)
    assert "--key-file is for --udp" in refuse(*send, "--key-file", tmp_path / "none")
    assert "nothing comes back" in refuse("send", photos, "--codec", codec, "--udp", nobody, "--originals")
    assert "cannot begin again" in refuse("send", "-", "--codec", codec, "--grpc", nobody, "--loop")
    assert "cannot send to" in refuse("send", photos, "--codec", codec, "--udp", "no.such.host.invalid:1")
    assert "cannot read the token" in refuse(*send, "--token-file", tmp_path / "none")
    assert "--grpc" in refuse("send", photos, "--codec", codec)
    assert "certificate needs its key" in refuse(*send, "--cert", codec)
    assert "datagrams of 5 bytes" in refuse("send", photos, "--codec", codec, "--udp", nobody, "--mtu", 5)


def test_a_damaged_picture_is_skipped_and_counted(
    codec: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in (0, 2):
        (tmp_path / f"{n}.png").write_bytes((photos / f"{n}.png").read_bytes())
    (tmp_path / "1.png").write_bytes((photos / "1.png").read_bytes()[:200])
    send = ["send", "--codec", str(codec), "--udp", "127.0.0.1:1", "--quiet", "--fps", "1000"]
    assert main([*send, str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("2 frames in")
    assert "1 damaged pictures skipped" in said.out
    assert said.err.startswith("gosvae: skipped: ")
    assert "1.png" in said.err
    assert main([*send, str(tmp_path), "--loop", "--frames", "5"]) == 1
    assert "5 frames in" in capsys.readouterr().out
    assert main([*send, str(tmp_path / "1.png")]) == 2
    assert "gosvae: error: " in capsys.readouterr().err


def test_a_receiver_that_comes_later_is_waited_for(codec: Path, photos: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = str(Endpoint(*taken.getsockname()))
    send = [sys.executable, "-m", "gosvae.cli.main", "send", str(photos), "--codec", str(codec), "--grpc", place]
    sender = subprocess.Popen(
        [*send, "--quiet", "--give-up-after", "never"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert sender.stderr is not None
        line = sender.stderr.readline()
        assert line.startswith(f"gosvae: no receiver at {place}"), line
        assert "next attempt in" in line
        with receiving("--codec", codec, "--grpc", place, "--deadline-ms", 0):
            out, err = sender.communicate(timeout=2 * PATIENCE_S)
            assert sender.returncode == 0, err
        assert "3 answered, 0 dropped" in out
        assert f"connected to {place} after" in err
    finally:
        sender.kill()
        sender.wait()


def test_another_codec_is_told(codec: Path, variable: Path, photos: Path, refuse: Run) -> None:
    with receiving("--codec", codec, "--grpc", "127.0.0.1:0") as receiver:
        line = refuse("send", photos, "--codec", variable, "--grpc", receiver.place("gRPC"))
        assert "fingerprint" in line
        assert "(tiny)" in line
        taken = receiver.place("gRPC")
        assert "cannot listen" in refuse("receive", "--codec", codec, "--grpc", taken)
    assert "1 foreign" in receiver.said


def test_a_receiver_raises_its_limit_on_descriptors_at_the_start(codec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits: list[int] = []

    async def receive(receiver: Receiver, *, quiet: bool) -> None:
        del receiver, quiet
        limits.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    monkeypatch.setattr("gosvae.cli.receive._receive", receive)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
        assert main(["receive", "--codec", str(codec), "--grpc", "127.0.0.1:0", "--quiet"]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits == [MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)]


def test_what_a_receiver_can_mend(codec: Path, tmp_path: Path, refuse: Run) -> None:
    receive = ("receive", "--codec", codec)
    assert "nothing to receive from" in refuse(*receive)
    assert "--insecure" in refuse(*receive, "--grpc", "0.0.0.0:7777")
    assert "--insecure" in refuse(*receive, "--udp", "0.0.0.0:7777")
    assert "go together" in refuse(*receive, "--grpc", ":0", "--tls-cert", tmp_path / "cert.pem")
    tls = ("--tls-cert", tmp_path / "none", "--tls-key", tmp_path / "none")
    assert "no certificate and key" in refuse(*receive, "--grpc", ":0", *tls)
    assert "unknown codec" in refuse("receive", "--codec", "nothing", "--grpc", ":0")
    assert "unknown expert" in refuse(*receive, "--grpc", ":0", "--expert", "nobody")
    assert "expected at least 1" in refuse(*receive, "--grpc", ":0", "--queue", 0)
    assert "--policy" in refuse(*receive, "--grpc", ":0", "--policy", "never")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = Endpoint(*taken.getsockname())
        assert "cannot listen" in refuse(*receive, "--grpc", ":0", "--page", place)
