"""``edgesdk doctor`` names hosts of telemetry in wheels, apps and packages."""

from __future__ import annotations

import io
import os
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import edgesdk
from edgesdk.artifacts import examine_artifact
from edgesdk.artifacts.entries import folder_entries
from edgesdk.artifacts.telemetry import telemetry_findings
from edgesdk.silence import SILENT, keep_silent

HOST = "mobile.events.data." + "microsoft.com"


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def nested(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize("suffix", [".apk", ".aar", ".aab"])
def test_an_app_that_reports_home_is_named(suffix: str, tmp_path: Path) -> None:
    across = b"\0" * ((1 << 20) - 10) + f"https://{HOST}/x".encode()  # over the edge of what is read at a time
    jar = nested({"a/B.class": b"\xca\xfe\xba\xbeapp-measurement.com\0"})
    path = zipped(tmp_path / f"app{suffix}", {"AndroidManifest.xml": b"x", "classes.jar": jar, "lib.bin": across})
    said = {finding.place: finding for finding in examine_artifact(path) if "takes telemetry" in finding.text}
    assert set(said) == {"classes.jar!a/B.class", "lib.bin"}
    assert "ORT_DISABLE_TELEMETRY=1" in str(said["lib.bin"].hint) and said["lib.bin"].level == "warning"


def test_what_only_looks_alike_is_not_named(tmp_path: Path) -> None:
    near = b"notapp-measurement.com app-measurement.community xevents.data.microsoft.com.example events.data"
    path = zipped(tmp_path / "app.apk", {"AndroidManifest.xml": b"x", "a": near})
    assert not [finding for finding in examine_artifact(path) if "takes telemetry" in finding.text]
    assert [finding for finding in examine_artifact(path) if "none of" in finding.text]


def test_a_wheel_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from edgesdk.cli import run

    body = f"URL = 'https://{HOST}'\n".encode()
    import base64
    import hashlib

    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    record = f"x/__init__.py,sha256={digest},{len(body)}\nx-1.dist-info/RECORD,,\n".encode()
    good = {"x/__init__.py": body, "x-1.dist-info/RECORD": record}
    path = zipped(tmp_path / "x-1-py3-none-any.whl", good)
    assert run(["doctor", str(path)]) == 0
    said = capsys.readouterr().out
    assert "1 files as its RECORD lists them" in said and "events.data.microsoft.com" in said
    for changed in ({**good, "x/__init__.py": body + b"#"}, {**good, "y.py": b""}, {"x/__init__.py": body}):
        zipped(path, changed)
        assert run(["doctor", str(path)]) == 1


def test_the_installed_runtime_is_named() -> None:
    """ONNX Runtime's own library holds Microsoft's host: the reason for :mod:`edgesdk.silence`."""
    folder = Path(str(metadata.distribution("onnxruntime").locate_file("onnxruntime/capi")))
    places = [each.place for each in telemetry_findings(folder_entries(folder).values()) if each.level == "warning"]
    assert any("libonnxruntime" in place for place in places)


def test_edgesdk_names_none() -> None:
    folder = Path(edgesdk.__file__).parent
    assert [each.level for each in telemetry_findings(folder_entries(folder).values())] == ["note"]


def test_silence_is_set_and_a_choice_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SILENT:
        assert os.environ.get(name), name
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setenv("DO_NOT_TRACK", "")
    keep_silent()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0" and os.environ["DO_NOT_TRACK"] == "1"
