"""Nothing executable is taken from the folder one stands in, nor from a file that nobody said is trusted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgesdk
from edgesdk import trust
from edgesdk.boards import open_board
from edgesdk.bundle import open_bundle
from edgesdk.cli import run
from edgesdk.devices.address import find, read_fleet
from edgesdk.devices.base import DeviceError
from edgesdk.devices.flash import FlashError
from edgesdk.devices.flash.build import build_firmware
from edgesdk.devices.flash.flashing import flash_with
from edgesdk.devices.flash.foreign import refuse_foreign
from edgesdk.devices.hosts import check_port, check_word, place_of
from edgesdk.errors import EdgeError
from edgesdk.profile.sensors.meters import open_meter
from edgesdk.sweep import sweep
from edgesdk.wheels import PIP

pytestmark = pytest.mark.usefixtures("own_configuration")

PLANTED = "from pathlib import Path\nPath(__file__).with_name('PWNED').touch()\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def fleet(here: Path, text: str) -> Path:
    (here / "devices.toml").write_text(text, encoding="utf-8")
    return here / "devices.toml"


def test_a_fleet_that_merely_lies_here_is_not_followed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = fleet(here, '[board]\naddress = "ssh:a@b"\npython = "./evil.sh"\n')
    assert read_fleet() == {}
    with pytest.raises(DeviceError, match="no device 'board'") as refused:
        find("board")
    assert refused.value.hint is not None and "edgesdk trust devices.toml" in refused.value.hint
    assert find("board", file).python == "./evil.sh"  # named on the command line
    assert run(["trust", "devices.toml"]) == 0
    assert find("board").address == "ssh:a@b"
    file.write_text(file.read_text() + "# changed\n")
    assert read_fleet() == {}
    assert run(["trust"]) == 0 and "no longer trusted" in capsys.readouterr().out
    assert run(["trust", "devices.toml"]) == 0 and read_fleet()
    assert run(["trust", "--forget", "devices.toml"]) == 0 and read_fleet() == {}
    assert run(["trust", "--forget", "devices.toml"]) == 1
    assert run(["trust", "nothing.toml"]) == 1


def test_a_moved_file_and_a_broken_record_trust_nothing(here: Path, own_configuration: Path) -> None:
    file = fleet(here, '[a]\naddress = "ssh:a@b"\n')
    trust.trust(file)
    shutil.copy(file, here / "copy.toml")
    assert trust.is_trusted(file) and not trust.is_trusted(here / "copy.toml")
    for text in ("{", "[]", '{"x": 1}', "\xff"):
        (own_configuration / "trusted.json").write_bytes(text.encode("latin-1"))
        assert not trust.is_trusted(file) and trust.trusted_files() == []


@pytest.mark.parametrize("name", ["local", "adb", "ssh", "serial", "ios", "ssh:x", "serial:/dev/ttyACM0", "a:b"])
def test_addresses_cannot_be_given_another_meaning(here: Path, name: str) -> None:
    file = fleet(here, f'["{name}"]\naddress = "local"\npython = "./evil.sh"\n')
    with pytest.raises(DeviceError, match="an address of its own"):
        read_fleet(file)


@pytest.mark.parametrize("text", ['[a]\naddress = "ssh:h\\u001b[31m"\n', '["a\\nb"]\naddress = "local"\n'])
def test_a_fleet_is_printable(here: Path, text: str) -> None:
    with pytest.raises(DeviceError, match="not printable"):
        read_fleet(fleet(here, text))


@pytest.mark.parametrize(
    "rest",
    [
        "-oProxyCommand=x", "a b", "$(id)", "u@[::1", "h -oProxyCommand=touch${IFS}x", "u@-h", "-u@h", "u@h:0",
        "u@h:٣", "h:22x", "[h:1 -oProxyCommand=x;]", "[::1%eth0;id]", "u;id@h", "h\n", "`id`", "u@", "", "h/../x",
        "u@h:99999", "u@h:+22",
    ],
)  # fmt: skip
def test_hosts_have_a_pattern(rest: str) -> None:
    assert place_of(rest) is None
    if rest:
        with pytest.raises(DeviceError):
            edgesdk_device(f"ssh:{rest}")


def edgesdk_device(address: str) -> object:
    from edgesdk.devices import open_device

    return open_device(address)


def test_good_hosts() -> None:
    for text, found in {
        "board": (None, "board", None),
        "pi@raspberrypi.local:2222": ("pi", "raspberrypi.local", 2222),
        "a.b@corp@10.0.0.7": ("a.b@corp", "10.0.0.7", None),
        "u@[fe80::1%eth0]:22": ("u", "fe80::1%eth0", 22),
        "my_board": (None, "my_board", None),
    }.items():
        place = place_of(text)
        assert place is not None and (place.user, place.host, place.port) == found


@pytest.mark.parametrize(
    "port",
    [
        "spy:///dev/ttyS0?file=precious.txt", "loop://", "hwgrep://.*", "alt:///dev/null?class=os.system", "cp2110://x",
        "spy://loop://?file=x", "socket://u@h:1", "socket://h", "socket://h:1/x", "socket://h:1?logging=debug",
        "rfc2217://h:1?logging=debug", "rfc2217://h:1#x", "SPY://x", "-x", "--port", "socket://[::1:1", "x\ny",
    ],
)  # fmt: skip
def test_serial_ports_are_ports(port: str, tmp_path: Path) -> None:
    with pytest.raises(DeviceError):
        check_port(port)
    with pytest.raises(EdgeError):
        open_meter(f"ina228:{port}").start()


def test_good_ports() -> None:
    for port in (
        "/dev/ttyACM0",
        "COM3",
        "/dev/serial/by-id/usb-X_Y-if00",
        "socket://[::1]:5",
        "rfc2217://h:2217?timeout=3",
    ):
        check_port(port)


def test_a_spy_url_writes_no_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgesdk.devices.discovery.attached", list)
    precious = here / "precious.txt"
    precious.write_text("precious")
    file = fleet(here, f'[x]\naddress = "serial:spy:///dev/ttyS0?file={precious}"\n')
    for command in (["devices"], ["device", "show", "--device", "x"], ["flash", "x", "--device", "x"]):
        run([*command, "--devices", str(file)])
        assert precious.read_text() == "precious"


@pytest.mark.parametrize("text", ["-s", "--udid", "", "a\nb", ";id"])
def test_words_are_no_options(text: str) -> None:
    with pytest.raises(DeviceError):
        check_word(text, "serial number")
    if text:
        with pytest.raises(EdgeError):
            open_meter(f"ios:{text}")


@pytest.mark.parametrize(
    ("tool", "probe"),
    [("gdb", "| touch PWNED"), ("gdb", "h:1 extended"), ("openocd", "1; exec touch PWNED"), ("openocd", "[exec id]"),
     ("jlink", "-CommandFile"), ("pyocd", "--script=x")],
)  # fmt: skip
def test_probes_are_words(tool: str, probe: str, tmp_path: Path) -> None:
    firmware = tmp_path / "firmware.bin"
    firmware.write_bytes(bytes(64))
    with pytest.raises(FlashError, match="is no"):
        flash_with(firmware, open_board("stm32f411"), tool, probe=probe)


def test_a_path_is_no_script(tmp_path: Path) -> None:
    firmware = tmp_path / "f} ; exec touch PWNED; {.bin"
    firmware.write_bytes(bytes(64))
    with pytest.raises(FlashError, match="cannot be given this path"):
        flash_with(firmware, open_board("stm32f411"), "openocd")


@pytest.fixture
def installed(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line as an installed script: the folder one stands in is not where Python looks first."""
    script = tmp_path / "bin" / "edgesdk"
    script.parent.mkdir()
    script.write_text("from edgesdk.cli import main\nif __name__ == '__main__':\n    main()\n")

    def called(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *map(str, arguments)]
        variables = os.environ | environment
        return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, check=False)

    return called


@pytest.mark.parametrize("command", ["models fetch smollm2-135m", "lint smollm2-135m -t linux-x86_64"])
def test_pip_is_not_taken_from_here(here: Path, installed: Callable, command: str, tmp_path: Path) -> None:
    for name in ("pip", "sitecustomize", "usercustomize"):
        (here / f"{name}.py").write_text(PLANTED)
    no_index = {"PIP_NO_INDEX": "1", "EDGESDK_CACHE": str(tmp_path / "cache")}
    done = installed(*command.split(), **no_index)
    assert done.returncode == 1 and "Error:" in done.stderr
    assert not (here / "PWNED").exists()
    subprocess.run([sys.executable, "-m", "pip", "--version"], check=False, capture_output=True)
    assert (here / "PWNED").exists(), "the plant itself works"
    assert "-I" in PIP  # which leaves out the current folder, as -P does


def test_a_sweeps_workers_import_nothing_from_here(
    here: Path, installed: Callable, checkpoint: Path, tmp_path: Path
) -> None:
    for name in ("multiprocessing", "torch", "numpy", "struct"):
        (here / f"{name}.py").write_text(PLANTED)
    file = tmp_path / "sweep.toml"
    file.write_text(
        f'models = ["{checkpoint}"]\nrecipes = ["w8"]\ntargets = ["linux-x86_64"]\ncontext = 64\n'
        'executor = "process"\n[checks]\nskip = true\n'
    )
    done = installed("sweep", file, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert not (here / "PWNED").exists()


@pytest.mark.parametrize("meter", ["csv:touch PWNED", "ppk2:touch PWNED", " csv:touch PWNED"])
def test_a_sweep_that_names_programs_asks(
    here: Path, meter: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = here / "s.toml"
    file.write_text(
        f'models = ["{checkpoint}"]\nrecipes = ["w8"]\ntargets = ["linux-x86_64"]\n'
        f'[[devices]]\ndevice = "local"\ntargets = ["linux-x86_64"]\nmeters = ["{meter}"]\n'
    )
    assert run(["sweep", str(file), "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "touch PWNED" in said and "edgesdk trust" in said
    asked: list[list[str]] = []

    def no(programs: object) -> bool:
        asked.append(list(programs))  # type: ignore[call-overload]
        return False

    with pytest.raises(EdgeError, match="not trusted"):
        sweep(file, tmp_path / "out", confirm=no)
    assert asked == [["run touch PWNED"]] and not (here / "PWNED").exists()


def test_a_sweep_on_somebodys_ray_cluster_asks(here: Path, checkpoint: Path, tmp_path: Path) -> None:
    file = here / "s.toml"
    file.write_text(
        f'models = ["{checkpoint}"]\nrecipes = ["w8"]\ntargets = ["linux-x86_64"]\n'
        'executor = "ray"\naddress = "ray://evil.example:10001"\n'
    )
    with pytest.raises(EdgeError, match=r"what the Ray cluster at ray://evil\.example:10001 sends"):
        sweep(file, tmp_path / "out")


@pytest.fixture(scope="module")
def firmware(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("firmware") / "bundle"
    edgesdk.export(checkpoint, "cortex-m4f", out, recipe="w8", context=64, checks=edgesdk.Checks(skip=True))
    return out


def appended(text: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(path.read_text() + text)

    return change


FOREIGN = {
    "CMakeLists.txt": appended("execute_process(COMMAND touch PWNED)\n"),
    "arm-none-eabi.cmake": appended("execute_process(COMMAND touch PWNED)\n"),
    "model/form.cmake": appended("execute_process(COMMAND touch PWNED)\n"),
    "boards/mps2-an386.cmake": appended("execute_process(COMMAND touch PWNED)\n"),
    "boards/mps2-an500.cmake": appended("set(CORE_FLAGS -fplugin=/tmp/evil.so)\n"),
    "boards/mps2-an385.cmake": appended("set(PORT_DEFINITIONS X=1;-fplugin=evil.so)\n"),
    "model/lm_config.h": appended('#include "/etc/passwd"\n'),
    "model/model_image.c": appended('__asm__(".incbin \\"/etc/passwd\\"");\n'),
    "firmware/main.c": appended("\n"),
    "runtime/lm.h": appended("\n"),
    "link.ld.in": appended("\n"),
    "model/stddef.h": lambda path: path.write_text("\n"),
    "model/CMakeLists.txt": lambda path: path.write_text("\n"),
    "boards/evil.cmake": lambda path: path.write_text("execute_process(COMMAND touch PWNED)\n"),
    "runtime/extra.c": lambda path: path.write_text("\n"),
    "model/model_table.c": lambda path: path.symlink_to("/etc/passwd"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_firmware_project_is_not_built(name: str, firmware: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(firmware, tmp_path / "bundle")
    refuse_foreign(bundle / "firmware", bundle)
    (bundle / "firmware" / name).parent.mkdir(exist_ok=True)
    FOREIGN[name](bundle / "firmware" / name)
    with pytest.raises(FlashError, match="not what this edgesdk writes"):
        refuse_foreign(bundle / "firmware", bundle)
    trust.trust(trust.subject(bundle))
    refuse_foreign(bundle / "firmware", bundle)


def test_a_tflm_project_is_edgesdks_own(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    out = tmp_path / "bundle"
    edgesdk.export(checkpoint, "cortex-m55", out, recipe="w8", context=64, checks=edgesdk.Checks(skip=True))
    refuse_foreign(out / "firmware", out)


@pytest.mark.parametrize("named", ["../../etc", "/etc", "", ".", "model"])
def test_the_project_lies_in_the_bundle(named: str, firmware: Path, tmp_path: Path) -> None:
    import dataclasses

    with open_bundle(firmware) as bundle:
        program = dataclasses.replace(
            bundle.manifest.program, facts={**bundle.manifest.program.facts, "firmware": named}
        )
        hostile = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, program=program))
        with pytest.raises(FlashError, match="has no firmware"):
            build_firmware(hostile, open_board("mps2-an386"), tmp_path)
