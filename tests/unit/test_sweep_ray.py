"""The same sweep on a local Ray cluster: bundles travel as bytes, and are those that this process makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgesdk.errors import EdgeError
from edgesdk.progress import SILENT
from edgesdk.sweep import sweep
from edgesdk.sweep.jobs import perform, whole_bundle
from edgesdk.sweep.matrix import resolve
from edgesdk.sweep.plan import read_sweep
from edgesdk.trust import trust

from ..conftest import make_checkpoint

ray = pytest.importorskip("ray", reason="no Ray (pip install 'edgesdk[ray]')")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture
def cluster(monkeypatch):
    """Ray on this machine, as a program has it that uses Ray already."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    yield
    ray.shutdown()


def test_a_sweep_on_ray(tmp_path, cluster) -> None:
    make_checkpoint(tmp_path / "tiny")
    (tmp_path / "eval.txt").write_text("The quick brown fox jumps over the lazy dog. " * 20)
    (tmp_path / "calibration.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    path = tmp_path / "sweep.toml"
    path.write_text(
        'models = ["tiny"]\nrecipes = ["w8", "w4g32-gptq"]\ntargets = ["linux-x86_64"]\ncontext = 64\n'
        'executor = "ray"\nworkers = 2\n[checks]\neval_text = "eval.txt"\neval_windows = 1\n'
        '[calibration]\nfile = "calibration.txt"\nsequences = 2\nlength = 32\n'
    )
    out = tmp_path / "out"
    table = sweep(path, out)
    assert [(row.status, row.reason) for row in table.rows] == [("exported", None)] * 2
    assert ray.is_initialized()  # it was there before, and stays
    assert sorted(each.name[0] == "." for each in (out / "bundles").iterdir()) == [False, False]
    for cell in resolve(read_sweep(path), tmp_path, None, SILENT):
        assert cell.job is not None
        assert perform(cell.job, tmp_path / cell.recipe).error is None
        assert _weights(out / "bundles" / cell.job.key) == _weights(tmp_path / cell.recipe)


def test_a_cluster_that_is_not_there_is_said_at_once(tmp_path, own_configuration) -> None:
    make_checkpoint(tmp_path / "tiny")
    path = tmp_path / "sweep.toml"
    path.write_text(
        'models = ["tiny"]\nrecipes = ["w8"]\ntargets = ["linux-x86_64"]\nexecutor = "ray"\naddress = "127.0.0.1:1"\n'
    )
    trust(path)
    with pytest.raises(EdgeError, match=r"no Ray cluster answers at 127\.0\.0\.1:1"):
        sweep(path, tmp_path / "out")


def _weights(folder: Path) -> dict[str, str]:
    found = whole_bundle(folder)
    assert found is not None
    return {entry.path: entry.sha256 for entry in found.files}
